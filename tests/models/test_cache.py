"""The cache's sums are a ViT's: parts add up to the stream, attributions and a constant to the logit."""

import pytest
import timm
import torch

import vitlens as vl
from vitlens.testing import randomize

SMALL = {"depth": 2, "img_size": 32, "embed_dim": 48, "num_heads": 3, "patch_size": 8, "num_classes": 5}
ARCHITECTURES = {
    "plain": ("vit_tiny_patch16_224", {}),
    "layer scale": ("deit3_small_patch16_224", {}),
    "two heads": ("deit_tiny_distilled_patch16_224", {}),
    "pre-norm": ("vit_base_patch16_clip_224", {}),
    "mean pooling, norm after it": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "mean pooling, norm before it": ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    "rotary, mean pooling, gated MLP": ("eva02_tiny_patch14_224", {}),
    "rotary, registers": ("vit_small_patch16_dinov3", {}),
    "relative bias": ("beit_base_patch16_224", {}),
    "parallel": ("vit_base_patch16_xp_224", {}),
    "side by side": ("vit_small_patch16_18x2_224", {}),
}


@pytest.fixture(params=ARCHITECTURES, scope="module")
def case(request):
    name, kwargs = ARCHITECTURES[request.param]
    model = vl.HookedViT(randomize(timm.create_model(name, **SMALL | kwargs)))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        names = [name for name in model.hook_names if not name.endswith(("attn_scores", "pattern"))]
        logits, cache = model.run_with_cache(images, names_filter=names)
    return model, logits, cache


def close(got, wanted, scale=1.0):
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * scale)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_components_sum_to_the_residual_stream_at_every_layer(case, layer):
    _, _, cache = case
    stack, labels = cache.decompose_resid(layer, return_labels=True)
    place = cache["resid_pre", layer] if layer < 2 else cache["resid_post", 1]
    assert len(stack) == len(labels)
    close(stack.sum(0), place)


@torch.no_grad()
def test_attributions_and_the_constant_sum_to_the_logit(case):
    _, logits, cache = case
    stack = cache.decompose_resid()
    labels = torch.tensor([0, 3, 4])
    total = cache.logit_attrs(stack, labels).sum(0) + cache.logit_constant(labels)
    close(total, logits.gather(1, labels[:, None])[:, 0], logits.abs().max().item())
    against = cache.logit_attrs(stack, labels, incorrect_tokens=1).sum(0)
    wanted = logits.gather(1, labels[:, None])[:, 0] - logits[:, 1]
    constant = cache.logit_constant(labels) - cache.logit_constant(1)
    close(against + constant, wanted, logits.abs().max().item())


@torch.no_grad()
def test_heads_and_the_remainder_sum_to_the_stream(case):
    model, _, cache = case
    stack, labels = cache.stack_head_results(return_labels=True, incl_remainder=True)
    assert labels[:2] == ["L0H0", "L0H1"]
    assert labels[-1] == "remainder"
    assert len(stack) == 2 * model.cfg.n_heads + 1
    close(stack.sum(0), cache["resid_post", 1])


@torch.no_grad()
def test_head_results_computed_from_z_are_those_of_the_hook(case):
    model, _, cache = case
    if not hasattr(model.blocks[0].attn, "gain"):
        pytest.skip("parallel attentions share no output projection: hook_result has to be cached")
    kept = {name: value for name, value in cache.items() if not name.endswith("hook_result")}
    close(vl.ActivationCache(kept, model).stack_head_results(), cache.stack_head_results())


@torch.no_grad()
def test_neurons_sum_to_the_mlps_output(case):
    model, _, cache = case
    block = model.blocks[1]
    if not hasattr(block, "neuron_weights") or block.neuron_weights() is None:
        with pytest.raises(vl.errors.HookError, match="no sum over neurons"):
            cache.get_neuron_results(1)
        return
    results = cache.get_neuron_results(1)
    remainder = cache["mlp_out", 1] - results.sum(-2)
    close(remainder, remainder[:1, :1].expand_as(remainder))  # the bias, the same for every token
    close(cache.get_neuron_results(1, neuron_slice=(0, 7), pos_slice=2), results[:, 2, :7])


@torch.no_grad()
def test_a_carried_norm_sums_to_the_normed_stream_less_its_bias(case):
    model, _, cache = case
    normed = cache.apply_ln_to_stack(cache.decompose_resid(1), 1).sum(0)
    norm = model.blocks[1].ln1.native
    post_norm = getattr(model.blocks[1], "_norm_after", False)
    assert not post_norm
    shift = getattr(norm, "bias", None)
    close(normed, norm(cache["resid_pre", 1]) - (0 if shift is None else shift))


@torch.no_grad()
def test_accumulated_streams_are_the_residuals(case):
    _, _, cache = case
    stack, labels = cache.accumulated_resid(return_labels=True)
    assert labels == ["0_pre", "1_pre", "final_post"]
    assert torch.equal(stack[1], cache["resid_pre", 1])
    assert torch.equal(cache.stack_activation("resid_post")[0], cache["resid_post", 0])


def test_tokens_by_kind(case):
    model, _, cache = case
    name = "blocks.1.hook_resid_post"
    kinds = model.cfg.prefix_kinds
    grid = cache.patches(name)
    assert grid.shape == (3, 4, 4, 48)
    assert torch.equal(grid.flatten(1, 2), cache[name][:, len(kinds) :])
    if "cls" in kinds:
        assert torch.equal(cache.cls(name), cache[name][:, 0])
    if "register" in kinds:
        assert cache.registers(name).shape == (3, kinds.count("register"), 48)
    else:
        with pytest.raises(vl.errors.ArchitectureError, match="no 'register' token"):
            cache.registers(name)


def test_a_cache_survives_saving_and_loading(case, tmp_path):
    model, _, cache = case
    loaded = vl.ActivationCache.load(cache.save(tmp_path / "cache.safetensors"), model)
    assert set(loaded) == set(cache)
    assert all(torch.equal(loaded[name], cache[name]) for name in cache)
    assert loaded.has_batch_dim


@torch.no_grad()
def test_weights_compute_what_the_module_computes(case):
    model, _, cache = case
    attention, normed = model.blocks[0].attn, cache["blocks.0.ln1.hook_normalized"]
    if not hasattr(attention, "gain"):
        pytest.skip("parallel attentions have norms of their own")
    norm = model.blocks[0].ln1.native
    x = normed * norm.weight + (0 if getattr(norm, "bias", None) is None else norm.bias)
    v = torch.einsum("bpm,hmd->bphd", x, attention.W_V)
    v = v if attention.b_V is None else v + attention.b_V
    close(v, cache["blocks.0.attn.hook_v"])
    out = torch.einsum("bphd,hdm->bpm", cache["blocks.0.attn.hook_z"], attention.W_O)
    assert out.shape == normed.shape


def test_weights_are_views_of_the_live_parameters_and_stacks_are_copies():
    timm_model = timm.create_model("vit_tiny_patch16_224", **SMALL)
    model = vl.HookedViT(timm_model)
    with torch.no_grad():
        model.blocks[1].attn.W_Q[2, 5, 7] = 42.0
        model.blocks[1].mlp.W_out[3, 4] = 43.0
    assert timm_model.blocks[1].attn.qkv.weight[2 * 16 + 7, 5] == 42.0
    assert timm_model.blocks[1].mlp.fc2.weight[4, 3] == 43.0
    assert model.W_Q.shape == (2, 3, 48, 16)
    assert model.W_U.shape == (48, 5)
    with torch.no_grad():
        model.W_Q[0, 0, 0, 0] = 99.0
    assert timm_model.blocks[0].attn.qkv.weight[0, 0] != 99.0
    with pytest.raises(vl.errors.HookError, match="no weight 'W_gate'"):
        _ = model.W_gate


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vit_base_patch16_siglip_224", {}, "pools by 'map', which is no sum"),
        ("vit_tiny_patch16_224", {"global_pool": "max"}, "pools by 'max', which is no sum"),
        ("vit_tiny_patch16_224", {"num_classes": 0}, "has no classifier"),
    ],
)
def test_where_no_sum_exists_the_call_says_why(name, kwargs, message):
    model = vl.HookedViT(randomize(timm.create_model(name, **SMALL | kwargs)))
    _, cache = model.run_with_cache(torch.randn(1, 3, 32, 32))
    with pytest.raises(vl.errors.HookError, match=message):
        cache.logit_attrs(cache.decompose_resid(), 0)


@torch.no_grad()
def test_a_norm_after_the_heads_leaves_no_head_results():
    model = vl.HookedViT(randomize(timm.create_model("vit_tiny_patch16_224", scale_attn_norm=True, **SMALL)))
    _, cache = model.run_with_cache(torch.randn(1, 3, 32, 32))
    with pytest.raises(vl.errors.HookError, match="no sum over heads: a norm stands after them"):
        cache.stack_head_results()
    with pytest.raises(vl.errors.HookError, match="for language models"):
        cache.get_full_resid_decomposition()


@torch.no_grad()
def test_a_single_image_without_its_batch_axis():
    model = vl.HookedViT(randomize(timm.create_model("vit_tiny_patch16_224", **SMALL)))
    images = torch.randn(1, 3, 32, 32)
    _, cache = model.run_with_cache(images, remove_batch_dim=True)
    assert cache.cls("hook_embed").shape == (48,)
    assert cache.patches("hook_embed").shape == (4, 4, 48)
    close(cache.decompose_resid().sum(0), cache["resid_post", 1])


def test_a_damaged_cache_file_is_refused(tmp_path):
    (tmp_path / "cache.safetensors").write_bytes(b"nothing")
    with pytest.raises(vl.errors.CheckpointError, match="cannot be read as a cache"):
        vl.ActivationCache.load(tmp_path / "cache.safetensors")
