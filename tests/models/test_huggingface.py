"""Hugging Face's vision transformers and timm's modules that took their weights compute the same."""

import json
import shutil
import sys

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from vitlens.errors import ArchitectureError, CheckpointError, FamilyError
from vitlens.models import HookedViT
from vitlens.models.huggingface import supported_classes, timm_module, to_huggingface_state_dict, to_timm
from vitlens.models.huggingface.model_type import mlp_ratio
from vitlens.models.huggingface.processor import data_config
from vitlens.testing import randomize

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
# Not a multiple of the width from which timm's ratio would be exact.
SMALL = {**SIZES, "intermediate_size": 43}
CLASSES = {"num_labels": 7}
RELATIVE = {"use_relative_position_bias": True}
SHARED = {"use_shared_relative_position_bias": True}

# name of the case -> class, configuration's class, its values
CASES = {
    "vit": ("ViTModel", "ViTConfig", SMALL),
    "vit, classes": ("ViTForImageClassification", "ViTConfig", {**SMALL, **CLASSES}),
    "vit, wide, no qkv bias": (
        "ViTForImageClassification",
        "ViTConfig",
        {**SMALL, **CLASSES, "image_size": [32, 48], "patch_size": [8, 16], "qkv_bias": False},
    ),
    "vit, gelu_new, eps": (
        "ViTModel",
        "ViTConfig",
        {**SMALL, "hidden_act": "gelu_new", "layer_norm_eps": 0.1},
    ),
    "vit, one channel": ("ViTModel", "ViTConfig", {**SMALL, "num_channels": 1}),
    "deit": ("DeiTModel", "DeiTConfig", SMALL),
    "deit, classes": ("DeiTForImageClassification", "DeiTConfig", {**SMALL, **CLASSES}),
    "deit, teacher": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {**SMALL, **CLASSES}),
    "beit": ("BeitModel", "BeitConfig", {**SMALL, **RELATIVE}),
    "beit, class token": ("BeitModel", "BeitConfig", {**SMALL, **SHARED, "use_mean_pooling": False}),
    "beit, classes": ("BeitForImageClassification", "BeitConfig", {**SMALL, **CLASSES, **RELATIVE, **SHARED}),
    "beit, absolute positions, no layer scale": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SMALL, **CLASSES, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0},
    ),
    "beit, mask token": ("BeitModel", "BeitConfig", {**SMALL, **RELATIVE, "use_mask_token": True}),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**SIZES, "mlp_ratio": 3}),
    "dinov2, classes": ("Dinov2ForImageClassification", "Dinov2Config", {**SIZES, **CLASSES}),
    "dinov2, swiglu": ("Dinov2Model", "Dinov2Config", {**SIZES, "use_swiglu_ffn": True}),
    "dinov2, registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", SIZES),
    "dinov2, registers, classes": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**SIZES, **CLASSES, "num_register_tokens": 3, "use_swiglu_ffn": True},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**SMALL, "num_register_tokens": 4}),
    "dinov3, gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**SMALL, "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False},
    ),
    "dinov3, every bias": ("DINOv3ViTModel", "DINOv3ViTConfig", {**SMALL, "key_bias": True}),
    "dinov3, odd biases": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**SMALL, "value_bias": False, "proj_bias": False, "mlp_bias": False, "rope_theta": 30.0},
    ),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", SMALL),
    "clip, projection": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", {**SMALL, "projection_dim": 9}),
    "clip, classes": ("CLIPForImageClassification", "CLIPConfig", {"vision_config": SMALL, **CLASSES}),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", SMALL),
    "siglip, no head, odd size": (
        "SiglipVisionModel",
        "SiglipVisionConfig",
        {**SMALL, "vision_use_head": False, "image_size": 37},
    ),
    "siglip, classes": ("SiglipForImageClassification", "SiglipConfig", {"vision_config": SMALL, **CLASSES}),
}


def build(case: str) -> nn.Module:
    """A Hugging Face model with weights of which none is silent."""
    name, config, values = CASES[case]
    return fill(getattr(transformers, name)(getattr(transformers, config)(**values)))


def fill(model: nn.Module) -> nn.Module:
    """Give a model weights of order 1 in every tensor, gains and layer scales included."""
    randomize(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lambda" in name or ("norm" in name and name.endswith("weight")):
                parameter.mul_(0.2).add_(1)
    return model


def images_for(model: nn.Module, n: int = 3) -> torch.Tensor:
    config = getattr(model.config, "vision_config", model.config)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(n, config.num_channels, height, width, generator=torch.Generator().manual_seed(1))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.std() > 0.05, "a comparison of nothing with nothing"
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_every_supported_class_has_a_case():
    assert {name for name, _, _ in CASES.values()} == set(supported_classes())


@pytest.mark.parametrize("case", CASES)
def test_timm_computes_what_hugging_face_computes(case):
    model = build(case)
    carried = to_timm(model)
    images = images_for(model)
    theirs = model(images)
    ours = carried.module(images)
    if hasattr(theirs, "logits"):
        return close(ours, theirs.logits)
    tokens = carried.module.forward_features(images)
    hidden = theirs.last_hidden_state
    if CASES[case][0].startswith("CLIP"):  # whose final norm is applied to the pooled token alone
        hidden = (model if case == "clip" else model.vision_model).post_layernorm(hidden)
    close(tokens, hidden)
    if case == "clip, projection":
        close(ours, theirs.image_embeds)
    elif case.startswith(("vit", "deit")):
        close(ours, hidden[:, 0])
    elif case == "siglip, no head, odd size":
        close(ours, hidden)
    else:
        close(ours, theirs.pooler_output)
    return None


@pytest.mark.parametrize("case", CASES)
def test_the_way_back_gives_an_equal_state_dict(case):
    model = build(case)
    back = to_huggingface_state_dict(to_timm(model).module, model)
    there = model.state_dict()
    assert list(back) == list(there)
    for name, tensor in there.items():
        assert torch.equal(back[name], tensor), name
        assert back[name].data_ptr() != tensor.data_ptr() or not tensor.numel()


@pytest.mark.parametrize("case", ["vit, classes", "dinov2", "dinov3", "beit, mask token", "clip, projection"])
def test_a_configuration_is_enough_for_the_way_back(case):
    model = build(case)
    fresh = type(model)(model.config)
    fresh.load_state_dict(
        to_huggingface_state_dict(to_timm(model).module, model.config, hf_class=CASES[case][0])
    )
    images = images_for(model)
    assert torch.equal(fresh.eval()(images)[0], model(images)[0])
    for name, tensor in fresh.state_dict().items():
        assert "mask_token" not in name or not tensor.any()


@pytest.mark.parametrize("case", CASES)
def test_a_folder_loads_like_the_live_module(case, tmp_path):
    model = build(case)
    model.save_pretrained(tmp_path / "mine")
    live, loaded = to_timm(model), to_timm(tmp_path / "mine")
    assert not loaded.module.training
    for (name, theirs), (_, ours) in zip(
        live.module.state_dict().items(), loaded.module.state_dict().items(), strict=True
    ):
        assert torch.equal(theirs, ours), name
    assert loaded.provenance == {**live.provenance, "huggingface": "mine"}
    assert json.loads(json.dumps(loaded.provenance)) == loaded.provenance


@pytest.mark.parametrize("case", ["vit", "deit, teacher", "beit, classes", "dinov2, swiglu", "dinov3"])
def test_older_spellings_of_the_names_are_read_and_written(case, tmp_path):
    model = build(case)
    model.save_pretrained(tmp_path)
    older = load_file(tmp_path / "model.safetensors")
    assert older.keys() != model.state_dict().keys(), "files keep the older spelling"

    live = type(model)(model.config)
    live.state_dict = lambda: older  # as in a release of transformers that had these names
    carried = to_timm(live)
    for name, tensor in to_timm(model).module.state_dict().items():
        assert torch.equal(carried.module.state_dict()[name], tensor), name
    back = to_huggingface_state_dict(carried.module, live)
    assert back.keys() == older.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in older.items())


@pytest.mark.parametrize("case", CASES)
def test_the_description_builds_the_module_again(case):
    carried = to_timm(build(case))
    again = timm_module(**json.loads(json.dumps(carried.description)))
    assert repr(again) == repr(carried.module)
    again.load_state_dict(carried.module.state_dict())


def test_the_mlp_has_exactly_the_width_that_the_configuration_says():
    rounded_down = [(w, m) for w in range(12, 200, 4) for m in range(1, 800) if int(w * (m / w)) != m]
    assert rounded_down, "there are widths for which the plain quotient would not do"
    for width, d_mlp in rounded_down:
        ratio = mlp_ratio({"hidden_size": width, "intermediate_size": d_mlp})
        assert int(width * ratio) == d_mlp


def test_dinov3_agrees_at_other_image_sizes():
    model = build("dinov3")
    carried = to_timm(model)
    images = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    close(carried.module.forward_features(images), model(images).last_hidden_state)


def test_a_large_activation_shows_which_gelu_is_meant():
    # quick_gelu and gelu differ by at most 0.02, which small models could hide.
    for act, expected in [("gelu", nn.GELU), ("gelu_pytorch_tanh", timm.layers.GELUTanh), ("relu", nn.ReLU)]:
        model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL, hidden_act=act))
        assert type(to_timm(model).module.blocks[0].mlp.act) is expected
    assert type(to_timm(build("clip")).module.blocks[0].mlp.act) is timm.layers.QuickGELU


def test_a_wrapped_module_gives_the_same_and_goes_back():
    model = build("vit, classes")
    carried = to_timm(model)
    hooked = HookedViT(carried.module, data_config=carried.data_config, provenance=carried.provenance)
    images = images_for(model)
    logits, cache = hooked.run_with_cache(images)
    close(logits, model(images).logits)
    close(cache["blocks.1.hook_resid_pre"], model(images, output_hidden_states=True).hidden_states[1])
    assert to_huggingface_state_dict(hooked, model).keys() == model.state_dict().keys()


def test_what_was_fine_tuned_in_timm_is_what_goes_back():
    model = build("dinov2, registers, classes")
    carried = to_timm(model)
    fill(carried.module)  # positions of the registers too, which Hugging Face has no place for
    model.load_state_dict(to_huggingface_state_dict(carried.module, model))
    images = images_for(model)
    close(model(images).logits, carried.module(images))


def test_a_bias_that_hugging_face_lacks_must_be_zero_to_go_back():
    model = build("clip, projection")
    carried = to_timm(model)
    assert not carried.module.head.bias.any()
    carried.module.head.bias[0] = 1.0
    with pytest.raises(CheckpointError, match=r"1 without a place there \(head\.bias\)"):
        to_huggingface_state_dict(carried.module, model)


def test_a_part_of_a_joined_bias_must_be_zero_to_go_back_where_hugging_face_has_none():
    config = transformers.DINOv3ViTConfig(**SMALL, query_bias=False, key_bias=True)
    model = fill(transformers.DINOv3ViTModel(config))
    carried = to_timm(model)
    to_huggingface_state_dict(carried.module, model)
    carried.module.blocks[1].attn.qkv.bias[0] = 1.0
    with pytest.raises(CheckpointError, match=r"1 without a place there \(blocks\.1\.attn\.qkv\.bias\)"):
        to_huggingface_state_dict(carried.module, model)


def test_the_module_keeps_precision_and_mode_and_shares_nothing():
    model = build("vit, classes").to(torch.bfloat16).train()
    before = model.classifier.weight.clone()
    carried = to_timm(model)
    assert carried.module.training
    assert {parameter.dtype for parameter in carried.module.parameters()} == {torch.bfloat16}
    carried.module.head.weight.zero_()
    assert torch.equal(model.classifier.weight, before)


def test_the_global_generator_is_left_alone():
    model = build("siglip")
    state = torch.get_rng_state()
    to_huggingface_state_dict(to_timm(model).module, model.config, hf_class="SiglipVisionModel")
    assert torch.equal(torch.get_rng_state(), state)


def test_timm_has_no_bias_on_the_heads_where_it_can_do_without():
    assert to_timm(build("vit, wide, no qkv bias")).module.blocks[0].attn.qkv.bias is None
    assert to_timm(build("dinov3, gated")).module.blocks[0].attn.q_bias is None


def test_keywords_reach_timm():
    model = build("vit, classes")
    carried = to_timm(model, dynamic_img_size=True, drop_path_rate=0.3)
    assert carried.module.dynamic_img_size
    assert carried.module.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    assert carried.module(torch.zeros(1, 3, 48, 40)).shape == (1, 7)


def test_what_timm_has_no_use_for_is_named():
    unused = to_timm(build("vit")).provenance["unused"]
    assert unused == ["pooler.dense.bias", "pooler.dense.weight"]
    assert to_timm(build("dinov2")).provenance["unused"] == ["embeddings.mask_token"]
    with pytest.raises(CheckpointError, match=r"2 missing \(pooler"):
        to_huggingface_state_dict(to_timm(build("vit")).module, build("vit").config, hf_class="ViTModel")


# ---------------------------------------------------------------------- preprocessing


def test_preprocessing_is_read_beside_the_weights(tmp_path):
    model = build("vit, classes")
    model.save_pretrained(tmp_path)
    assert to_timm(tmp_path).data_config == {"input_size": (3, 32, 32)}
    processor = {
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.1],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    expected = {
        "input_size": (3, 32, 32),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.1),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }
    assert to_timm(tmp_path).data_config == expected
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    assert to_timm(tmp_path).data_config == expected


@pytest.mark.parametrize("processor", ["ViTImageProcessor", "CLIPImageProcessor", "DeiTImageProcessor"])
def test_timms_preprocessing_is_what_the_processor_does(processor, tmp_path):
    from PIL import Image
    from timm.data import create_transform

    size = {"CLIPImageProcessor": {"shortest_edge": 40}}.get(processor, {"height": 40, "width": 40})
    theirs = getattr(transformers, processor)(size=size, crop_size={"height": 32, "width": 32})
    if processor == "ViTImageProcessor":
        theirs.size = {"height": 32, "width": 32}
    theirs.save_pretrained(tmp_path)
    config = data_config(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    ours = create_transform(input_size=(3, 32, 32), is_training=False, **config)
    noise = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((noise * 255).byte().permute(1, 2, 0).numpy()).resize((90, 60), Image.BICUBIC)
    expected = theirs(picture, return_tensors="pt")["pixel_values"][0]
    # Pillow and torchvision round a resized pixel to one of two neighbouring levels.
    level = 1 / 255 / min(config["std"])
    torch.testing.assert_close(ours(picture), expected, rtol=0, atol=1.01 * level)
    assert (ours(picture) - expected).abs().mean() < 0.02 * level


def test_preprocessing_that_does_not_rescale_is_said_for_pixels_in_0_to_1():
    mean = {"image_mean": [127.5] * 3, "image_std": [51.0] * 3}
    config = data_config({**mean, "do_rescale": False, "do_resize": False})
    assert config["mean"] == pytest.approx((0.5,) * 3)
    assert config["std"] == pytest.approx((0.2,) * 3)
    assert data_config({**mean, "do_normalize": False, "do_resize": False}) == {}


# ---------------------------------------------------------------------- bad input


def test_a_class_that_cannot_be_carried_is_refused_with_those_that_can(tmp_path):
    other = transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**SMALL, encoder_stride=8))
    with pytest.raises(
        FamilyError, match=r"ViTForMaskedImageModeling is no class .*ViTForImageClassification"
    ):
        to_timm(other)
    with pytest.raises(FamilyError, match="is no class"):
        to_timm(nn.Linear(2, 2))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin", "architectures": ["SwinModel"]}))
    with pytest.raises(
        FamilyError, match=r"a SwinModel of type 'swin'\. Expected: a model of type vit, deit"
    ):
        to_timm(tmp_path)
    with pytest.raises(FamilyError, match="'SwinModel' is no class"):
        timm_module("SwinModel", {})


def test_a_subclass_of_ones_own_is_refused():
    class Mine(transformers.ViTModel):
        """It may compute something else."""

    with pytest.raises(FamilyError, match=r"Mine is no class"):
        to_timm(Mine(transformers.ViTConfig(**SMALL)))


def test_the_vision_tower_of_a_clip_model_is_carried(tmp_path):
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**text, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(vision_config=SMALL, text_config=text)
    model = fill(transformers.CLIPModel(config))
    with pytest.raises(FamilyError, match=r"clip_model\.vision_model"):
        to_timm(model)
    images = images_for(model)
    expected = model.vision_model(images).pooler_output
    close(to_timm(model.vision_model).module(images), expected)
    model.save_pretrained(tmp_path)
    close(to_timm(tmp_path).module(images), expected)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no folder .*nowhere"):
        to_timm(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"There is no folder \./nowhere"):
        to_timm("./nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty cannot be loaded \(OSError: it has no config\.json\)"):
        to_timm(tmp_path / "empty")


def test_a_damaged_folder_is_said_to_be_so(tmp_path):
    model = build("vit")
    model.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"cannot be loaded \(SafetensorError"):
        to_timm(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    (tmp_path / "config.json").write_text(
        json.dumps({**model.config.to_dict(), "hidden_size": 64}, default=str)
    )
    with pytest.raises(CheckpointError, match=r"cannot be loaded \("):
        to_timm(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot be loaded \(OSError"):
        to_timm(tmp_path)


def test_an_id_that_cannot_be_fetched_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"vitlens-tests/nothing cannot be loaded \("):
        to_timm("vitlens-tests/nothing")


def test_a_folder_without_all_the_weights_is_refused_rather_than_filled_at_random(tmp_path):
    build("vit").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["ViTForImageClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"lacks 2 of ViTForImageClassification's weights.* classifier\.bias"
    ):
        to_timm(tmp_path)
    # A pooler is not read, so nobody misses it.
    shutil.rmtree(tmp_path)
    build("vit, classes").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["ViTModel"]}))
    assert to_timm(tmp_path).module.num_classes == 0


def test_weights_that_do_not_fit_are_counted_and_named():
    model = build("vit, classes")
    model.classifier = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 7))
    with pytest.raises(
        CheckpointError, match=r"1 missing \(head\.weight\); 4 without a place there \(classifier\.0"
    ):
        to_timm(model)
    model = build("vit, classes")
    model.classifier = nn.Linear(32, 9)
    with pytest.raises(
        CheckpointError, match=r"2 of another shape \(classifier\.weight \(9, 32\) for head\.weight"
    ):
        to_timm(model)
    model = build("vit, classes")
    model.vit.layers[0].attention.k_proj = nn.Linear(32, 24)
    with pytest.raises(
        CheckpointError, match=r"2 of another shape \(.*k_proj\.weight \(24, 32\).*qkv\.weight"
    ):
        to_timm(model)
    model = build("vit, classes")
    carried = to_timm(model)
    carried.module.reset_classifier(5)
    with pytest.raises(CheckpointError, match=r"2 of another shape \(head\.weight \(5, 32\)"):
        to_huggingface_state_dict(carried.module, model)


def test_what_timm_cannot_represent_is_refused():
    def refuse(case, match, **values):
        name, config, given = CASES[case]
        model = getattr(transformers, name)(getattr(transformers, config)(**{**given, **values}))
        with pytest.raises(ArchitectureError, match=match):
            to_timm(model)

    refuse("vit", "hidden_act is 'mish'.*gelu_new", hidden_act="mish")
    refuse("beit", "hidden_act is 'quick_gelu'. Expected: one of gelu,", hidden_act="quick_gelu")
    refuse("dinov3", "hidden_act is 'silu'", hidden_act="silu")
    refuse("beit", r"relative position biases on images of 32×48", image_size=[32, 48])
    refuse("vit", "4 heads, head_dim 16 and hidden_size 32", head_dim=16)


def test_a_configuration_must_say_its_class():
    model = build("vit, classes")
    model.config.architectures = None
    with pytest.raises(ArchitectureError, match="This ViTConfig does not say its class"):
        to_huggingface_state_dict(to_timm(model).module, model.config)


def test_transformers_is_imported_for_ids_and_folders_only(tmp_path, monkeypatch):
    model = build("vit, classes")
    monkeypatch.setitem(sys.modules, "transformers", None)
    to_timm(model)
    with pytest.raises(CheckpointError, match=r"transformers is not installed.*pip install transformers"):
        to_timm(tmp_path)
