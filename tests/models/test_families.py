"""A family is chosen by class; what cannot be opened rightly is refused with a reason."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

import vitlens as vl


def test_a_module_of_no_family_is_refused_and_the_families_are_listed():
    with pytest.raises(
        vl.errors.FamilyError, match=r"Linear is of no family.*VisionTransformer.*register_family"
    ):
        vl.HookedViT(nn.Linear(2, 2))


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(vl.errors.FamilyError, match="ResNet"):
        vl.HookedViT.from_timm("resnet18")


def test_blocks_of_another_kind_are_refused():
    class Odd(timm.models.vision_transformer.Block):
        pass

    model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, block_fn=Odd
    )
    with pytest.raises(vl.errors.FamilyError, match=r"blocks.0 is a Odd.*Expected: timm's Block"):
        vl.HookedViT(model)


def test_a_subclass_that_changes_the_forward_pass_is_refused():
    class Reversed(timm.models.VisionTransformer):
        def forward_features(self, x, **kwargs):
            return super().forward_features(x.flip(-1), **kwargs)

    model = Reversed(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(vl.errors.FamilyError, match=r"Reversed overrides forward_features\(\)"):
        vl.HookedViT(model)


def test_a_subclass_that_changes_nothing_of_it_is_opened():
    class Renamed(timm.models.VisionTransformer):
        pass

    assert (
        vl.HookedViT(Renamed(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)).cfg.n_layers == 1
    )


def test_an_unknown_timm_name_lists_the_nearest():
    with pytest.raises(vl.errors.ArchitectureError, match="nearest: 'deit_tiny_patch16_224'"):
        vl.HookedViT.from_timm("deit_tiny_patch16_244")


def test_a_registered_family_is_asked_first():
    from vitlens.models.families import VisionTransformerFamily, registry

    class Mine(VisionTransformerFamily):
        name = "mine"

    try:
        vl.register_family(Mine())
        model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
        assert vl.HookedViT(model).cfg.family == "mine"
    finally:
        registry._families.pop(0)


def test_normalize_is_minus_mean_over_std():
    hooked = vl.HookedViT.from_timm("vit_tiny_patch16_224", img_size=32, depth=1)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = hooked.data_config["mean"], hooked.data_config["std"]
    for channel in range(3):
        wanted = (pixels[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(hooked.normalize(pixels)[:, channel], wanted)


def test_bytes_are_not_normalized():
    model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1))
    normalize = vl.HookedViT.normalize
    with pytest.raises(vl.errors.PixelError, match=r"are a torch\.uint8.*Divide bytes by 255"):
        getattr(normalize, "__wrapped__", normalize)(model, torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_a_bare_module_has_timms_default_normalization_and_a_given_one_replaces_it():
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    assert vl.HookedViT(model).data_config["mean"] == (0.485, 0.456, 0.406)
    hooked = vl.HookedViT(model, data_config={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    torch.testing.assert_close(hooked.normalize(torch.full((1, 3, 32, 32), 0.75)), torch.ones(1, 3, 32, 32))


def test_a_compiled_module_is_refused_with_what_to_do():
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(vl.errors.FamilyError, match=r"compiled VisionTransformer.*before torch\.compile"):
        vl.HookedViT(torch.compile(model))


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("blocks.0.attn.hook_rot_q", "Only a model with rotary position embedding has such a place"),
        ("blocks.0.mlp.hook_pre_linear", "Only a gated MLP has such a place"),
        ("hook_embed_norm", "Only a model with a norm before block 0 has such a place"),
    ],
)
def test_a_hook_that_other_architectures_have_says_which(hook, reason):
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(vl.errors.HookError, match=reason):
        vl.HookedViT(model).run_with_cache(torch.zeros(1, 3, 32, 32), names_filter=hook)


@torch.no_grad()
def test_caching_one_residual_stream_holds_that_tensor_and_no_other():
    import gc

    model = timm.models.VisionTransformer(img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=2)
    hooked, images = vl.HookedViT(model.eval()), torch.randn(8, 3, 32, 32)
    name = "blocks.1.hook_resid_post"
    hooked(images)

    def alive():
        gc.collect()
        return {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if issubclass(type(tensor), torch.Tensor)
        }

    before = alive()
    logits, cache = hooked.run_with_cache(images, names_filter=name)
    held = {pointer: size for pointer, size in alive().items() if pointer not in before}
    wanted = {logits.untyped_storage().data_ptr(), cache[name].untyped_storage().data_ptr()}
    assert set(held) == wanted
    assert sum(held.values()) == 4 * (logits.numel() + 8 * 65 * 64)


COMPILED = """
import timm, torch, vitlens as vl
model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2).eval()
hooked, images = vl.HookedViT(model), torch.randn(1, 3, 32, 32)
compiled = torch.compile(hooked, backend="eager")
with torch.no_grad():
    wanted = hooked(images)
    assert torch.equal(compiled(images), wanted)
    with hooked.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: 0 * x)]):
        assert not torch.equal(compiled(images), wanted)
    assert torch.equal(compiled(images), wanted)
    assert len(compiled.run_with_cache(images)[1]) == len(hooked.hook_names) - 2
"""


def test_a_compiled_hooked_model_keeps_its_hooks():
    # In a process of its own: the compiler cannot see through the run-time checker of these tests.
    result = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@torch.no_grad()
def test_float16_runs():
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    hooked, images = vl.HookedViT(model.eval().half()), torch.randn(1, 3, 32, 32).half()
    logits, cache = hooked.run_with_cache(images, names_filter=lambda name: "resid" in name or "ln" in name)
    assert torch.equal(logits, hooked(images))
    assert cache["blocks.0.ln1.hook_normalized"].dtype == torch.float16
