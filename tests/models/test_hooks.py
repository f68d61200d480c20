"""The hooked model is the timm model to the last bit; every hook fires, and what it returns counts."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.testing import randomize

ARCHITECTURES = {
    "plain": ("vit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "pre-norm": ("vit_base_patch16_clip_224", {}),
    "layer scale, no position on the class token": ("deit3_small_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"patch_size": 8, "num_classes": 5}),
    "mean pooling, norm after it": ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}),
    "attention pooling": ("vit_base_patch16_siglip_224", {"num_classes": 3}),
    "q and k norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "norm over all heads": ("vit_tiny_patch16_224", {"scale_attn_norm": True, "scale_mlp_norm": True}),
    "no position embedding": ("vit_tiny_patch16_224", {"pos_embed": "none"}),
    "any image size": ("vit_tiny_patch16_224", {"dynamic_img_size": True, "reg_tokens": 2}),
    "no classifier": ("vit_tiny_patch16_224", {"num_classes": 0}),
}


@pytest.fixture(params=ARCHITECTURES, scope="module")
def pair(request):
    """A timm model and its wrapper, with images."""
    name, kwargs = ARCHITECTURES[request.param]
    settings = {"depth": 2, "img_size": 32, "embed_dim": 48, "num_heads": 3, "patch_size": 8} | kwargs
    model = randomize(timm.create_model(name, **settings))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return model, vl.HookedViT(model), images


def disturb(activation, hook):
    """Writes in place and returns nothing."""
    activation.mul_(1.5).add_(torch.randn_like(activation))


def writes_pattern(name):
    return name.endswith(("hook_attn_scores", "hook_pattern"))


@torch.no_grad()
def test_logits_are_timms_to_the_last_bit(pair):
    model, hooked, images = pair
    assert torch.equal(hooked(images), model(images))


@torch.no_grad()
def test_reading_any_hook_leaves_the_logits_equal_to_the_last_bit(pair):
    model, hooked, images = pair
    logits = model(images)
    for name in hooked.hook_names:
        output, cache = hooked.run_with_cache(images, names_filter=name)
        assert list(cache) == [name]
        if writes_pattern(name):
            torch.testing.assert_close(output, logits, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(output, logits), name


def test_reading_leaves_logits_and_gradients_right_when_gradients_are_wanted(pair):
    model, hooked, images = pair
    logits = model(images)
    wanted = torch.autograd.grad(logits.square().sum(), model.patch_embed.proj.weight)[0]
    names = [name for name in hooked.hook_names if not writes_pattern(name)]
    output, _ = hooked.run_with_cache(images, names_filter=names)
    assert torch.equal(output, logits)
    got = torch.autograd.grad(output.square().sum(), model.patch_embed.proj.weight)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


@torch.no_grad()
def test_writing_to_any_hook_changes_the_logits(pair):
    model, hooked, images = pair
    logits = model(images)
    for name in hooked.hook_names:
        changed = hooked.run_with_hooks(images, fwd_hooks=[(name, lambda x, hook: x + torch.randn_like(x))])
        assert not torch.equal(changed, logits), name
    assert torch.equal(hooked(images), logits)  # and no hook remains


@torch.no_grad()
def test_changing_any_activation_in_place_changes_the_logits(pair):
    model, hooked, images = pair
    logits = model(images)
    for name in hooked.hook_names:
        changed = hooked.run_with_hooks(images, fwd_hooks=[(name, disturb)])
        assert not torch.equal(changed, logits), name


def test_every_hook_gives_a_gradient(pair):
    _, hooked, images = pair
    for name in hooked.hook_names:
        seen = []
        hook = hooked.hook_dict[name]
        hook.add_hook(lambda grad, hook, seen=seen: seen.append(grad.abs().sum().item()), dir="bwd")
        hooked(images).square().sum().backward()
        hook.remove_hooks("both")
        assert seen, name
        assert seen[0] > 0, name


@torch.no_grad()
def test_parts_add_up_exactly(pair):
    _, hooked, images = pair
    _, cache = hooked.run_with_cache(images)
    for layer in range(2):
        assert torch.equal(cache["resid_pre", layer] + cache["attn_out", layer], cache["resid_mid", layer])
        assert torch.equal(cache["resid_mid", layer] + cache["mlp_out", layer], cache["resid_post", layer])
    if "hook_embed_norm" in cache:
        assert torch.equal(cache["hook_embed_norm"], cache["resid_pre", 0])
    elif "hook_pos_embed" in cache:
        assert torch.equal(cache["hook_embed"] + cache["hook_pos_embed"], cache["resid_pre", 0])
    else:
        assert torch.equal(cache["hook_embed"], cache["resid_pre", 0])


@torch.no_grad()
def test_head_results_and_scaled_bias_sum_to_attn_out(pair):
    model, hooked, images = pair
    names = [name for name in hooked.hook_names if name.endswith(("hook_result", "hook_attn_out"))]
    _, cache = hooked.run_with_cache(images, names_filter=names)
    for layer, block in enumerate(model.blocks):
        if f"blocks.{layer}.attn.hook_result" in cache:
            bias = block.attn.proj.bias * getattr(block.ls1, "gamma", 1.0)
            total = cache[f"blocks.{layer}.attn.hook_result"].sum(2) + bias
            torch.testing.assert_close(total, cache["attn_out", layer], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_hook_result_is_not_listed_where_a_norm_mixes_the_heads():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, scale_attn_norm=True)
    assert not any(name.endswith("hook_result") for name in vl.HookedViT(model).hook_names)


@torch.no_grad()
def test_readout_of_the_last_residual_equals_the_logits(pair):
    _, hooked, images = pair
    logits, cache = hooked.run_with_cache(images, names_filter="blocks.1.hook_resid_post")
    assert torch.equal(hooked.readout(cache["blocks.1.hook_resid_post"]), logits)


@torch.no_grad()
def test_shapes_are_transformer_lenss(pair):
    _, hooked, images = pair
    cfg = hooked.cfg
    _, cache = hooked.run_with_cache(images, names_filter=lambda name: True)
    n_pos = cfg.n_prefix_tokens + 16
    wanted = {
        "hook_resid_pre": (2, n_pos, cfg.d_model),
        "ln1.hook_scale": (2, n_pos, 1),
        "attn.hook_q": (2, n_pos, cfg.n_heads, cfg.d_head),
        "attn.hook_z": (2, n_pos, cfg.n_heads, cfg.d_head),
        "attn.hook_pattern": (2, cfg.n_heads, n_pos, n_pos),
        "mlp.hook_post": (2, n_pos, cfg.d_mlp),
    }
    for name, shape in wanted.items():
        assert tuple(cache[f"blocks.1.{name}"].shape) == shape, name
    torch.testing.assert_close(cache["pattern", 0].sum(-1), torch.ones(2, cfg.n_heads, n_pos))


@torch.no_grad()
def test_normalized_is_before_gain_and_bias(pair):
    _, hooked, images = pair
    _, cache = hooked.run_with_cache(images, names_filter=["blocks.0.ln1.hook_normalized"])
    normalized = cache["blocks.0.ln1.hook_normalized"]
    torch.testing.assert_close(normalized.mean(-1), torch.zeros(normalized.shape[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        normalized.var(-1, unbiased=False), torch.ones(normalized.shape[:2]), atol=1e-3, rtol=0
    )


def test_training_mode_with_a_seed_equals_timms_with_the_seed():
    dropouts = {"drop_path_rate": 0.5, "proj_drop_rate": 0.3, "drop_rate": 0.2, "pos_drop_rate": 0.1}
    model = randomize(
        timm.create_model("vit_tiny_patch16_224", depth=3, img_size=32, patch_drop_rate=0.5, **dropouts)
    )
    hooked = vl.HookedViT(model.train())
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(5)
    wanted = model(images)
    names = [name for name in hooked.hook_names if not writes_pattern(name)]
    torch.manual_seed(5)
    got, _ = hooked.run_with_cache(images, names_filter=names)
    assert torch.equal(got, wanted)


@torch.no_grad()
def test_stop_at_layer_returns_the_stream_there(small_timm):
    hooked = vl.HookedViT(small_timm)
    images = torch.randn(2, 3, 32, 32)
    _, cache = hooked.run_with_cache(images, names_filter=lambda name: "resid" in name)
    assert torch.equal(hooked(images, stop_at_layer=0), cache["resid_pre", 0])
    assert torch.equal(hooked(images, stop_at_layer=2), cache["resid_pre", 2])
    assert torch.equal(hooked(images, stop_at_layer=-1), cache["resid_pre", 2])
    assert torch.equal(hooked(images, stop_at_layer=3), cache["resid_post", 2])
    with pytest.raises(vl.errors.HookError, match="stop_at_layer is 4"):
        hooked(images, stop_at_layer=4)


@torch.no_grad()
def test_stop_at_layer_runs_no_later_block(small_timm):
    ran = []
    for layer, block in enumerate(small_timm.blocks):
        block.mlp.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    vl.HookedViT(small_timm)(torch.randn(1, 3, 32, 32), stop_at_layer=2)
    assert ran == [0, 1]


@torch.no_grad()
def test_an_in_place_hook_cannot_change_what_was_cached_before_it(small_timm):
    hooked = vl.HookedViT(small_timm)
    images = torch.randn(2, 3, 32, 32)
    _, clean = hooked.run_with_cache(images)
    with hooked.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: [x.zero_(), None][1])]):
        logits, cache = hooked.run_with_cache(images)
    assert torch.equal(cache["resid_post", 0], clean["resid_post", 0])
    assert cache["resid_pre", 1].abs().sum() == 0
    assert not torch.allclose(logits, hooked(images))


@torch.no_grad()
def test_writing_to_the_position_embedding_leaves_the_parameter_alone(small_timm):
    hooked = vl.HookedViT(small_timm)
    before = small_timm.pos_embed.clone()
    for n_images in (1, 2):
        hooked.run_with_hooks(torch.randn(n_images, 3, 32, 32), fwd_hooks=[("hook_pos_embed", disturb)])
    assert torch.equal(small_timm.pos_embed, before)


@torch.no_grad()
def test_a_small_view_does_not_pin_the_storage_it_is_part_of(small_timm):
    hooked = vl.HookedViT(small_timm)
    _, cache = hooked.run_with_cache(torch.randn(2, 3, 32, 32))
    for name, activation in cache.items():
        held = activation.untyped_storage().nbytes()
        assert held == activation.numel() * activation.element_size(), name


@torch.no_grad()
def test_nothing_but_what_is_named_is_cached_and_attention_stays_fused(small_timm, monkeypatch):
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    hooked = vl.HookedViT(small_timm)
    _, cache = hooked.run_with_cache(torch.randn(1, 3, 32, 32), names_filter=["blocks.1.attn.hook_pattern"])
    assert list(cache) == ["blocks.1.attn.hook_pattern"]
    assert len(calls) == 2  # of three layers


@torch.no_grad()
def test_everything_but_head_results_is_cached_without_a_filter(small_timm):
    hooked = vl.HookedViT(small_timm)
    _, cache = hooked.run_with_cache(torch.randn(1, 3, 32, 32))
    left_out = set(hooked.hook_names) - set(cache)
    assert left_out == {f"blocks.{layer}.attn.hook_result" for layer in range(3)}


def test_the_users_module_gains_no_attribute_and_shares_its_parameters(small_timm):
    before = {name: set(vars(module)) for name, module in small_timm.named_modules()}
    hooked = vl.HookedViT(small_timm)
    hooked.run_with_cache(torch.randn(1, 3, 32, 32))
    assert {name: set(vars(module)) for name, module in small_timm.named_modules()} == before
    assert {id(parameter) for parameter in hooked.parameters()} == {id(p) for p in small_timm.parameters()}


@torch.no_grad()
def test_a_hook_that_raises_leaves_the_model_clean(small_timm):
    hooked = vl.HookedViT(small_timm)
    images = torch.randn(1, 3, 32, 32)
    logits = hooked(images)

    def explode(activation, hook):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        hooked.run_with_hooks(images, fwd_hooks=[("blocks.0.hook_resid_mid", explode)])
    with (
        pytest.raises(RuntimeError, match="boom"),
        hooked.observing({"hook_embed": lambda x: explode(x, None)}),
    ):
        hooked(images)
    assert not any(point.listens() for point in hooked.hook_dict.values())
    assert torch.equal(hooked(images), logits)


def test_an_unknown_hook_name_lists_the_nearest(small_timm):
    hooked = vl.HookedViT(small_timm)
    images = torch.randn(1, 3, 32, 32)
    message = r"'blocks.1.hook_resid_pst' is not a hook of this model.*nearest: 'blocks.1.hook_resid_post'"
    with pytest.raises(vl.errors.HookError, match=message):
        hooked.run_with_cache(images, names_filter="blocks.1.hook_resid_pst")
    with pytest.raises(vl.errors.HookError, match=message):
        hooked.run_with_hooks(images, fwd_hooks=[("blocks.1.hook_resid_pst", lambda x, hook: x)])
    with (
        pytest.raises(vl.errors.HookError, match=message),
        hooked.observing({"blocks.1.hook_resid_pst": print}),
    ):
        pass


def test_a_hook_that_returns_another_shape_is_refused(small_timm):
    hooked = vl.HookedViT(small_timm)
    with pytest.raises(
        vl.errors.HookError, match=r"'blocks.0.hook_attn_out' returned \(1, 32\).*\(1, 17, 32\)"
    ):
        hooked.run_with_hooks(
            torch.randn(1, 3, 32, 32), fwd_hooks=[("blocks.0.hook_attn_out", lambda x, hook: x[:, 0])]
        )


def test_what_the_cache_lacks_is_an_error_that_says_what_to_do(small_timm):
    _, cache = vl.HookedViT(small_timm).run_with_cache(torch.randn(1, 3, 32, 32), names_filter="hook_embed")
    with pytest.raises(vl.errors.HookError, match="names_filter"):
        cache["blocks.0.hook_resid_pre"]
    with pytest.raises(vl.errors.HookError, match="not in this cache of 1 activations"):
        cache["resid_post", 1]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 64, 32)])
def test_images_of_another_shape_are_refused(small_timm, shape):
    with pytest.raises(vl.errors.PixelError, match=r"\[batch, 3, 32, 32\]"):
        vl.HookedViT(small_timm)(torch.zeros(shape))


@torch.no_grad()
@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 60), max_size=12))
def test_any_set_of_readers_leaves_the_logits_equal(chosen):
    model = randomize(
        timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2)
    )
    hooked = vl.HookedViT(model)
    names = [name for name in hooked.hook_names if not writes_pattern(name)]
    images = torch.randn(1, 3, 16, 16)
    output, _ = hooked.run_with_cache(images, names_filter=[names[i % len(names)] for i in chosen])
    assert torch.equal(output, model(images))


def test_float64_and_bfloat16_run(small_timm):
    for dtype in (torch.float64, torch.bfloat16):
        hooked = vl.HookedViT(small_timm.to(dtype))
        images = hooked.normalize(torch.rand(1, 3, 32, 32))
        assert images.dtype == dtype
        names = [name for name in hooked.hook_names if not writes_pattern(name)]
        logits, cache = hooked.run_with_cache(images, names_filter=names)
        assert torch.equal(logits, hooked(images))
        assert cache["resid_post", 1].dtype == dtype
