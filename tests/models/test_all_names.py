"""Every name that timm's ViT modules register, built small: the hooked model is the native one."""

import pytest
import timm
import torch

import vitlens as vl

MODULES = ("vision_transformer", "deit", "eva", "beit")
NAMES = sorted(name for module in MODULES for name in timm.list_models(module=module))

SMALL = {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 64, "num_heads": 4, "num_classes": 5}

# In evaluation they do nothing; in training mode every one draws, and has to draw what timm's draws.
DROPOUTS = {
    "drop_rate": 0.1,
    "pos_drop_rate": 0.1,
    "proj_drop_rate": 0.1,
    "attn_drop_rate": 0.1,
    "drop_path_rate": 0.2,
}

# What a name needs besides, because its own setting does not go with the small size.
BESIDES = {
    # One number of key and value heads for each of its many layers.
    **{name: {"num_kv_heads": (2, 4)} for name in NAMES if "sapiens2" in name},
    # A packed gated MLP of 8/3 the width has an odd number of hidden units at width 64.
    **{name: {"embed_dim": 96} for name in NAMES if name.startswith("vit_giant_patch14")},
}


def small(name):
    patches = {} if name in timm.list_models(module="beit") else {"patch_drop_rate": 0.25}
    return timm.create_model(name, **SMALL | DROPOUTS | patches | BESIDES.get(name, {}))


def test_all_names_are_tried():
    assert len(NAMES) >= 251


@pytest.mark.parametrize("name", NAMES)
def test_the_hooked_model_is_the_native_one(name):
    model = vl.testing.randomize(small(name))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 32, 32, generator=generator)
    vl.testing.check_family(model, images)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "eva02_tiny_patch14_224"]
)
def test_a_model_of_any_image_size_is_opened_at_other_sizes(name):
    kwargs = SMALL | {"dynamic_img_size": True, "num_heads": 4}
    model = vl.HookedViT(vl.testing.randomize(timm.create_model(name, **kwargs)))
    images = torch.randn(2, 3, 48, 24, generator=torch.Generator().manual_seed(0))
    assert model.cfg.required_image_size is None
    vl.testing.check_family(model, images)
