"""`set_trainable`: parts told by what they are, and nothing else moves."""

import hashlib
import re

import pytest
import timm
import torch
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
)
from timm.optim import create_optimizer_v2
from torch.nn import functional as F

from vitlens.errors import TrainingError
from vitlens.models import HookedViT
from vitlens.testing import randomize
from vitlens.training.trainable import set_trainable

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}


def vision_transformer(**settings):
    return timm.models.VisionTransformer(**SMALL | settings)


MODELS = {
    "plain": vision_transformer,
    "everything": lambda: vision_transformer(
        qk_norm=True, reg_tokens=2, init_values=0.5, pre_norm=True, final_norm=True
    ),
    "rms norm": lambda: vision_transformer(norm_layer="rmsnorm", qk_norm=True, scale_mlp_norm=True),
    "mean": lambda: vision_transformer(global_pool="avg", class_token=False, fc_norm=True),
    "map": lambda: vision_transformer(global_pool="map", class_token=False),
    "side by side": lambda: vision_transformer(block_fn=ParallelThingsBlock),
    "distilled": lambda: timm.models.deit.VisionTransformerDistilled(**SMALL),
    "eva": lambda: timm.models.Eva(**SMALL, use_rot_pos_emb=True, qk_norm=True, num_reg_tokens=1),
    "mixed rope": lambda: timm.models.Eva(
        **SMALL, use_rot_pos_emb=True, rope_type="mixed", use_abs_pos_emb=False
    ),
    "beit": lambda: timm.models.Beit(**SMALL, use_rel_pos_bias=True, init_values=0.1),
    "shared beit": lambda: timm.models.Beit(**SMALL, use_shared_rel_pos_bias=True, use_abs_pos_emb=True),
}
# As the names say it, which the function under test never asks.
PATTERNS = {
    "all": r"",
    "head": r"head(_dist)?\.",
    "attention": r"blocks\.\d+\.(attns\.\d+\.)?attn\.",
    "norm": r".*(^|\.)(norm\d?|q_norm|k_norm|norm_pre|fc_norm|sub_norm)\.",
    "embed": r"(cls_token|reg_token|dist_token|pos_embed|patch_embed|rope|rel_pos_bias)",
    "blocks.1": r"blocks\.1\.",
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("word", PATTERNS)
def test_a_word_names_what_it_says_in_every_family(kind, word):
    model = HookedViT(MODELS[kind]())
    wanted = [name for name, _ in model.model.named_parameters() if re.match(PATTERNS[word], name)]
    assert wanted
    assert set_trainable(model, word) == wanted
    assert [name for name, each in model.model.named_parameters() if each.requires_grad] == wanted


def test_words_add_up_in_the_models_order_and_undo_what_was_before():
    model = HookedViT(MODELS["everything"]())
    everything = set_trainable(model, "all")
    assert everything == [name for name, _ in model.model.named_parameters()]
    both = set_trainable(model, ("head", "embed"))
    assert both == [name for name in everything if re.match(f"{PATTERNS['head']}|{PATTERNS['embed']}", name)]
    assert both[-2:] == ["head.weight", "head.bias"]
    assert set_trainable(model, ("norm", "norm")) == set_trainable(model, "norm")
    assert set_trainable(model, ("all", "head")) == everything


def test_attention_pooling_is_a_part_of_its_own():
    model = HookedViT(MODELS["map"]())
    names = set_trainable(model, "pool")
    assert names == [name for name, _ in model.model.named_parameters() if name.startswith("attn_pool.")]
    assert not any(name.startswith("attn_pool.") for name in set_trainable(model, ("head", "attention")))


def digests(model):
    return {
        name: hashlib.sha256(each.detach().numpy().tobytes()).hexdigest()
        for name, each in model.model.named_parameters()
    }


@pytest.mark.parametrize("what", ["head", "attention", "norm", ("embed", "blocks.1")])
@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_is_frozen_is_neither_updated_nor_decayed(what, layer_decay, optimizer):
    model = HookedViT(randomize(MODELS["everything"]()))
    names = set_trainable(model, what)
    before = digests(model)
    steps = create_optimizer_v2(model.model, opt=optimizer, lr=0.1, weight_decay=0.5, layer_decay=layer_decay)
    assert sum(len(group["params"]) for group in steps.param_groups) == len(names)
    images, labels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    for _ in range(2):
        steps.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        steps.step()
    after = digests(model)
    changed = [name for name in before if before[name] != after[name]]
    assert set(changed) <= set(names)
    # A shift that all keys share drops out of the softmax: its gradient is 0 to rounding.
    assert {name for name in names if name not in changed and not name.endswith("k_norm.bias")} == set()


def test_modes_gradients_and_values_are_left_alone():
    model = HookedViT(MODELS["plain"]())
    model.model.blocks[0].train()
    model.model.blocks[1].eval()
    modes, before = [each.training for each in model.modules()], digests(model)
    model.model.head.weight.grad = torch.ones_like(model.model.head.weight)
    set_trainable(model, "norm")
    assert [each.training for each in model.modules()] == modes
    assert digests(model) == before
    assert model.model.head.weight.grad.eq(1).all()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("atention", r"trainable names 'atention'\. Expected: .*nearest: 'attention'.* Correct the word\."),
        ("blocks.2", r"trainable names 'blocks\.2'\. Expected: .*'blocks\.0' to 'blocks\.1' \(nearest: 'bl"),
        (("head", "decoder"), r"trainable names 'decoder'"),
        ((), r"Nothing shall train: trainable is empty\. Expected: 'all', or some"),
        ("pool", r"names 'pool', and this VisionTransformer has none of their own\. Expected: a part that"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_frozen(what, message):
    model = HookedViT(MODELS["plain"]())
    with pytest.raises(TrainingError, match=message):
        set_trainable(model, what)
    assert all(each.requires_grad for each in model.parameters())


def test_a_model_without_a_classifier_has_no_head_to_train():
    with pytest.raises(TrainingError, match="trainable names 'head', and this VisionTransformer has none"):
        set_trainable(HookedViT(vision_transformer(num_classes=0)), "head")


@pytest.mark.parametrize("block", [ParallelScalingBlock, DiffParallelScalingBlock])
def test_attention_that_shares_its_weights_with_the_mlp_cannot_train_alone(block):
    model = HookedViT(vision_transformer(block_fn=block))
    with pytest.raises(TrainingError, match=r"names 'attention'.* name whole blocks: 'blocks\.0'\."):
        set_trainable(model, "attention")
    assert len(set_trainable(model, "blocks.0")) > 0
