"""Splices, against plain torch on timm's own modules."""

from __future__ import annotations

import pytest
import timm
import torch

import vitlens as vl
from vitlens.errors import SAEError
from vitlens.saes.evaluate import evaluate
from vitlens.saes.splicing import Splice

from .conftest import believed, identity_sae, items, make_sae

POINTS = ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]


def by_hand(vit, images, point, change, at=1):
    """Logits of a timm module with one activation of block `at` changed, its blocks written out."""
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))

    def told(layer, name, value):
        return change(value) if (layer, name) == (at, point) else value

    for layer, block in enumerate(vit.blocks):
        x = told(layer, "hook_resid_pre", x)
        x = x + told(layer, "hook_attn_out", block.ls1(block.attn(block.norm1(x))))
        x = told(layer, "hook_resid_mid", x)
        x = x + told(layer, "hook_mlp_out", block.ls2(block.mlp(block.norm2(x))))
        x = told(layer, "hook_resid_post", x)
    return vit.forward_head(vit.norm(x))


def a_sae(d_in=32, d_sae=50, seed=0, **metadata):
    generator = torch.Generator().manual_seed(seed)
    return make_sae(torch.randn(d_sae, d_in, generator=generator) / 4, **metadata)


@torch.no_grad()
@pytest.mark.parametrize("point", POINTS)
def test_what_is_spliced_in_is_what_torch_gives_by_hand(small_timm, point):
    images = items(5)
    sae = a_sae(hook_name=f"blocks.1.{point}", tokens="all")
    model = vl.HookedViT(small_timm)
    data = vl.run(model, images, [Splice(sae)], batch_size=3, progress=False).isel(condition=0)
    x = model.normalize(torch.stack([item["pixels"] for item in images]))
    labels = torch.tensor([item["label"] for item in images])
    positions = {"cls": slice(0, 1), "patch": slice(1, None), "all": slice(None)}
    assert data["token_kind"].values.tolist() == list(positions)
    for kind, chosen in positions.items():

        def spliced(value, chosen=chosen):
            value = value.clone()
            value[:, chosen] = sae.decode(sae.encode(value[:, chosen]))
            return value

        def zeroed(value, chosen=chosen):
            value = value.clone()
            value[:, chosen] = 0
            return value

        for name, change in {"original": lambda v: v, "spliced": spliced, "zeroed": zeroed}.items():
            logits = by_hand(small_timm, x, point, change)
            cell = data.sel(token_kind=kind, intervention=name)
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            torch.testing.assert_close(
                torch.tensor(cell["sae_splice_loss_nats"].values), loss, rtol=1e-4, atol=1e-5
            )
            probability = logits.softmax(-1)[range(5), labels]
            torch.testing.assert_close(
                torch.tensor(cell["sae_splice_correct_probability"].values), probability, rtol=1e-4, atol=1e-6
            )
            assert cell["sae_splice_correct"].values.tolist() == (logits.argmax(-1) == labels).tolist()


@torch.no_grad()
@pytest.mark.parametrize("hook_name", ["hook_embed", "hook_pos_embed", "blocks.1.attn.hook_nothing"])
def test_hooks_outside_the_blocks_are_spliced_too(small_timm, hook_name):
    model = vl.HookedViT(small_timm)
    sae = a_sae(hook_name=hook_name, tokens="patch")
    if "nothing" in hook_name:
        with pytest.raises(vl.errors.HookError, match="not a hook of this model"):
            vl.run(model, items(2), [Splice(sae)], progress=False)
        return
    data = vl.run(model, items(3), [Splice(sae)], progress=False).isel(condition=0, token_kind=0)

    def splice(value, hook):
        value = value.clone()
        value[:, 1:] = sae(value[:, 1:])
        return value

    x = model.normalize(torch.stack([item["pixels"] for item in items(3)]))
    logits = model.run_with_hooks(x, fwd_hooks=[(hook_name, splice)])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]), reduction="none")
    measured = torch.tensor(data["sae_splice_loss_nats"].sel(intervention="spliced").values)
    torch.testing.assert_close(measured, loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("tokens", ["all", "patch", "cls"])
def test_an_sae_that_changes_nothing_recovers_everything(small_timm, point, tokens):
    sae = identity_sae(32, hook_name=f"blocks.1.{point}", tokens=tokens)
    data = vl.run(vl.HookedViT(small_timm), items(4), [Splice(sae)], progress=False)
    loss = data["sae_splice_loss_nats"]
    assert (loss.sel(intervention="spliced") == loss.sel(intervention="original")).all()
    assert (loss.sel(intervention="zeroed") != loss.sel(intervention="original")).all()


def test_an_sae_that_says_nothing_recovers_nothing(small_timm):
    nothing = make_sae(torch.zeros(4, 32), hook_name="blocks.1.hook_resid_post", tokens="patch")
    model = vl.HookedViT(small_timm)
    evaluation = evaluate(nothing, model, believed(model, items(12)), progress=False)
    for name in ("accuracy", "correct_probability", "loss_nats"):
        assert (
            evaluation.figures[f"{name}_change_spliced"] == evaluation.figures[f"{name}_change_zeroed"]
        ).all()
    assert evaluation.figures["loss_nats_recovered"].sel(estimate="value") == 0


def test_an_sae_of_patches_leaves_the_class_token_alone(small_timm):
    sae = make_sae(torch.zeros(4, 32), hook_name="blocks.2.hook_resid_post", tokens="patch")
    data = vl.run(vl.HookedViT(small_timm), items(3), [Splice(sae)], progress=False)
    assert data["token_kind"].values.tolist() == ["patch"]
    # Pooling reads the class token, which no block follows.
    loss = data["sae_splice_loss_nats"]
    assert (loss.sel(intervention="zeroed") == loss.sel(intervention="original")).all()


def test_several_registers_and_no_class_token_are_counted_right():
    made = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10, reg_tokens=3,
        class_token=False, global_pool="avg",
    )  # fmt: skip
    model = vl.HookedViT(vl.testing.randomize(made))
    sae = identity_sae(16, hook_name="blocks.0.hook_resid_post", tokens="all")
    figures = evaluate(sae, model, items(9), progress=False).figures
    assert figures["token_kind"].values.tolist() == ["register", "patch", "all"]
    assert (figures["loss_nats_change_spliced"] == 0).all()
    assert figures["fvu"].sel(estimate="value").max() < 1e-12
    assert evaluate(sae, model, items(2), progress=False).rows["n_tokens"].isel(image=0).values.tolist() == [
        [3, 16, 19]
    ]


def test_a_model_without_a_classifier_is_evaluated_without_splicing():
    model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=2))
    sae = identity_sae(192, hook_name="blocks.0.hook_resid_post", tokens="patch")
    with pytest.raises(SAEError, match=r"no classifier \(n_classes 0.*splice=False"):
        evaluate(sae, model, items(2), progress=False)
    evaluation = evaluate(sae, model, items(2), splice=False, progress=False)
    assert "accuracy_original" not in evaluation.figures
    assert set(evaluation.summary().metric) >= {"l0", "fvu", "n_dead"}
