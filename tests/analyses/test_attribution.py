"""Attribution against values computed here from plain torch hooks, autograd and finite sums."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import vitlens as vl
from vitlens.analyses.gradient_maps import GradientTimesActivation, IntegratedGradients
from vitlens.analyses.logit_attribution import LogitAttribution
from vitlens.functional.attribution import (
    correct_log_probability,
    head_attribution,
    integrated_gradients,
    sum_by_patch,
)
from vitlens.testing import randomize

from .made import small

SMALL = {
    "cls": {},
    "registers": {"reg_tokens": 2},
    "avg, norm after": {"class_token": False, "global_pool": "avg"},
    "avg with cls, norm before": {"global_pool": "avg", "fc_norm": False},
    "pre-norm": {"pre_norm": True},
    "no norm": {"final_norm": False},
}


def drawn(n=5, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"pixels": torch.rand(3, size, size, generator=generator), "label": i % 10, "image_id": f"{i}"}
        for i in range(n)
    ]


@pytest.fixture(params=["small", "real"], scope="module")
def case(request):
    """A model, its wrapper and items: drawn ones, or DeiT-tiny and photographs."""
    if request.param == "small":
        model = small()
        return model, vl.HookedViT(model), drawn()
    model = request.getfixturevalue("deit_tiny")
    hooked = vl.HookedViT(model)
    dataset = vl.images.folder(request.getfixturevalue("data_folder") / "imagenet_samples", hooked)
    return model, hooked, [dataset[index] for index in range(5, 1000, 250)]


def stacked(items):
    return torch.stack([item["pixels"] for item in items]), torch.tensor([item["label"] for item in items])


def correct_logits(hooked, items):
    pixels, labels = stacked(items)
    with torch.no_grad():
        return hooked(hooked.normalize(pixels)).gather(1, labels[:, None])[:, 0].numpy()


def measured(hooked, items, analysis, **kwargs):
    return vl.run(hooked, items, [analysis], progress=False, **kwargs).sel(condition="clean")


# ------------------------------------------------------------------ direct logit attribution


def plain_attribution(model, images, labels):
    """Every component's share of the logit, from the module's own parts; a class token is read."""
    kept = {}
    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: kept.update({name: (inputs, output)})
        )
        for name, module in model.named_modules()
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    final = kept["norm"][0][0][:, 0]
    scale = (final.var(-1, unbiased=False, keepdim=True) + model.norm.eps).sqrt()
    reader = model.head.weight[labels]

    def share(component):
        centered = component - component.mean(-1, keepdim=True)
        return ((centered / scale * model.norm.weight) * reader).sum(-1)

    shares = {
        "embed": share(model.cls_token[:, 0].expand(len(images), -1)),
        "pos_embed": share(model.pos_embed[:, 0].expand(len(images), -1)),
    }
    for layer, block in enumerate(model.blocks):
        gain = getattr(block.ls1, "gamma", 1.0)
        mixed = kept[f"blocks.{layer}.attn.proj"][0][0][:, 0]
        d_head = mixed.shape[-1] // block.attn.num_heads
        for head in range(block.attn.num_heads):
            here = slice(head * d_head, (head + 1) * d_head)
            shares[f"L{layer}H{head}"] = share(mixed[:, here] @ block.attn.proj.weight[:, here].T * gain)
        shares[f"{layer}_attn_bias"] = share((block.attn.proj.bias * gain).expand(len(images), -1))
        shares[f"{layer}_mlp_out"] = share(kept[f"blocks.{layer}.ls2"][1][:, 0])
    shares["constant"] = (model.norm.bias * reader).sum(-1) + model.head.bias[labels]
    return shares


def test_each_component_has_the_share_that_plain_hooks_give(case):
    model, hooked, items = case
    pixels, labels = stacked(items)
    with torch.no_grad():
        expected = plain_attribution(model, hooked.normalize(pixels), labels)
    data = measured(hooked, items, LogitAttribution(), batch_size=2)
    assert data["component"].values.tolist() == list(expected)
    np.testing.assert_allclose(data["attribution"], torch.stack([*expected.values()], 1), atol=1e-4)


def test_the_components_sum_to_the_correct_logit(case):
    _, hooked, items = case
    total = measured(hooked, items, LogitAttribution())["attribution"].sum("component")
    wanted = correct_logits(hooked, items)
    np.testing.assert_allclose(total, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", SMALL)
def test_the_components_sum_to_the_logit_whatever_the_tokens_and_norms(name):
    hooked = vl.HookedViT(small(**SMALL[name]))
    if name == "no norm":
        hooked.model.norm = nn.Identity()
        hooked = vl.HookedViT(hooked.model)
    data = measured(hooked, drawn(), LogitAttribution())
    wanted = correct_logits(hooked, drawn())
    np.testing.assert_allclose(data["attribution"].sum("component"), wanted, atol=1e-4 * np.abs(wanted).max())
    first = data["component"].values.tolist()[:2]
    assert first == (["embed_norm", "L0H0"] if name == "pre-norm" else ["embed", "pos_embed"])


ARCHITECTURES = {
    "two heads": ("deit_tiny_distilled_patch16_224", {}),
    "norm after each branch": ("vit_relpos_small_patch16_224", None),
    "rotary and gated mlp": ("eva02_tiny_patch14_224", {"img_size": 28}),
    "mean of patches": ("beit_base_patch16_224", {"embed_dim": 48, "num_heads": 3}),
    "side by side": ("vit_small_patch16_18x2_224", {"embed_dim": 48, "num_heads": 3}),
    "joint projection": ("vit_base_patch16_xp_224", {"embed_dim": 48, "num_heads": 3}),
    "norm over the heads": ("eva02_base_patch14_224", {"embed_dim": 48, "num_heads": 3, "img_size": 28}),
}


@pytest.mark.parametrize("name", [name for name, (_, kwargs) in ARCHITECTURES.items() if kwargs is not None])
def test_other_architectures_sum_to_the_logit_too(name):
    timm_name, kwargs = ARCHITECTURES[name]
    settings_of_timm = {"img_size": 32, "depth": 2, "num_classes": 10, **kwargs}
    hooked = vl.HookedViT(randomize(timm.create_model(timm_name, **settings_of_timm)))
    items = drawn(3, settings_of_timm["img_size"])
    data = measured(hooked, items, LogitAttribution())
    wanted = correct_logits(hooked, items)
    np.testing.assert_allclose(data["attribution"].sum("component"), wanted, atol=2e-4 * np.abs(wanted).max())


def test_a_block_whose_heads_are_not_summed_is_one_component():
    model = small(scale_attn_norm=True)
    hooked = vl.HookedViT(model)
    assert "blocks.0.attn.hook_result" not in hooked.hook_names
    data = measured(hooked, drawn(), LogitAttribution())
    assert data["component"].values.tolist()[2:4] == ["0_attn_out", "0_mlp_out"]
    wanted = correct_logits(hooked, drawn())
    np.testing.assert_allclose(data["attribution"].sum("component"), wanted, atol=1e-4 * np.abs(wanted).max())


def test_attribution_through_attention_pooling_is_refused_before_the_run():
    hooked = vl.HookedViT(small(class_token=False, global_pool="map"))
    with pytest.raises(
        vl.errors.AnalysisError,
        match=r"LogitAttribution cannot run on this model\. This model pools by 'map', which is no sum over "
        r"tokens\. Expected: pooling by the class token or the mean\. Leave it out for this architecture\.",
    ):
        LogitAttribution().hooks(hooked)


def test_without_classes_attribution_is_refused():
    hooked = vl.HookedViT(small(num_classes=0))
    for analysis in (LogitAttribution(), IntegratedGradients()):
        with pytest.raises(vl.errors.AnalysisError, match=f"{type(analysis).__name__} needs classes"):
            analysis.hooks(hooked)


def test_only_the_tokens_that_are_read_are_kept():
    hooked = vl.HookedViT(small(reg_tokens=2))
    reductions = LogitAttribution().hooks(hooked)
    stream = torch.rand(2, 19, 32)
    kept = reductions["blocks.0.hook_mlp_out"](stream)
    assert kept.shape == (2, 3, 32)
    assert kept.untyped_storage().nbytes() == kept.nbytes
    averaged = LogitAttribution().hooks(vl.HookedViT(small(**SMALL["avg, norm after"])))
    assert averaged["blocks.0.hook_mlp_out"](stream).untyped_storage().nbytes() == 2 * 32 * 4


def test_a_heads_attribution_is_its_result_along_the_direction():
    generator = torch.Generator().manual_seed(0)
    z, W_O, direction = (
        torch.randn(shape, generator=generator) for shape in ((2, 5, 3, 4), (3, 4, 8), (2, 5, 8))
    )
    result = torch.einsum("bphd,hdm->bphm", z, W_O)
    expected = torch.einsum("bphm,bpm->bh", result, direction)
    torch.testing.assert_close(head_attribution(z, W_O, direction), expected)


# ------------------------------------------------------------------ gradient times activation


@pytest.mark.parametrize("settings_of_timm", [{}, {"reg_tokens": 2}, SMALL["avg, norm after"]])
def test_gradient_times_activation_is_what_autograd_gives_at_the_block_input(settings_of_timm):
    model = small(**settings_of_timm)
    check_gradient_times_activation(model, vl.HookedViT(model), drawn(3))


def test_gradient_times_activation_on_photographs(case):
    check_gradient_times_activation(*case)


def check_gradient_times_activation(model, hooked, items):
    layer = 1
    pixels, labels = stacked(items)
    seen = []
    handle = model.blocks[layer].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = model(hooked.normalize(pixels))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), seen[0])
    product = (gradient * seen[0]).sum(-1).detach()
    n_prefix = model.num_prefix_tokens
    data = measured(hooked, items, GradientTimesActivation(f"blocks.{layer}.hook_resid_pre"), batch_size=2)
    side = int((product.shape[1] - n_prefix) ** 0.5)
    scale = product.abs().max()
    np.testing.assert_allclose(
        data["gradient_times_activation"],
        product[:, n_prefix:].unflatten(1, (side, side)),
        atol=1e-4 * scale,
    )
    np.testing.assert_allclose(
        data["gradient_times_activation_prefix"], product[:, :n_prefix].sum(1), atol=1e-4 * scale
    )
    assert data["gradient_times_activation"].attrs["units"] == "logit"


def test_gradient_times_activation_of_heads_is_summed_over_them():
    hooked = vl.HookedViT(small())
    data = measured(hooked, drawn(2), GradientTimesActivation("blocks.1.attn.hook_z"))
    assert data["gradient_times_activation"].shape == (2, 4, 4)


def test_images_that_are_not_square_keep_their_rows_and_columns():
    model = randomize(
        timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=4, dynamic_img_size=True)
    )
    hooked = vl.HookedViT(model)
    item = {"pixels": torch.rand(3, 32, 64), "label": 1, "image_id": "a"}
    data = vl.run(hooked, [item], [GradientTimesActivation(), IntegratedGradients(n_steps=2)], progress=False)
    assert data["gradient_times_activation"].shape == (1, 1, 2, 4)
    assert data["integrated_gradients"].shape == (1, 1, 2, 4)


@pytest.mark.parametrize("hook", ["blocks.0.attn.hook_pattern", "hook_pooled"])
def test_a_hook_without_tokens_is_refused(hook):
    with pytest.raises(
        vl.errors.AnalysisError, match=rf"'{hook}' has no axis of tokens\. Expected: an activation with all"
    ):
        GradientTimesActivation(hook).gradient_hooks(vl.HookedViT(small()))


# ------------------------------------------------------------------ integrated gradients


def plain_integrated_gradients(model, hooked, items, baseline, n_steps):
    """By the midpoint rule, one image and one step at a time."""
    maps = []
    for item in items:
        pixels = item["pixels"][None]
        total = torch.zeros_like(pixels)
        for step in range(n_steps):
            point = baseline + (step + 0.5) / n_steps * (pixels - baseline)
            point.requires_grad_()
            (gradient,) = torch.autograd.grad(model(hooked.normalize(point))[0, item["label"]], point)
            total += gradient / n_steps
        attribution = ((pixels - baseline) * total)[0].sum(0).numpy()
        size = model.patch_embed.patch_size[0]
        side = attribution.shape[0] // size
        maps.append(attribution.reshape(side, size, side, size).sum((1, 3)))
    return np.stack(maps)


def test_integrated_gradients_are_the_limit_of_the_midpoint_rule():
    model = small()
    hooked = vl.HookedViT(model)
    items = drawn(1)
    data = measured(hooked, items, IntegratedGradients(n_steps=100, images_per_pass=70, baseline=0.25))
    expected = plain_integrated_gradients(model, hooked, items, 0.25, 200)
    got = data["integrated_gradients"].values
    np.testing.assert_allclose(got, expected, atol=5e-3 * np.abs(expected).max())


def test_integrated_gradients_are_complete(case):
    model, hooked, items = case
    items = items[:1]
    data = measured(hooked, items, IntegratedGradients(n_steps=20))
    pixels, labels = stacked(items)
    with torch.no_grad():
        grey = model(hooked.normalize(torch.full_like(pixels, 0.5))).gather(1, labels[:, None])[:, 0].numpy()
    difference = correct_logits(hooked, items) - grey
    got = data["integrated_gradients"].sum(("patch_row", "patch_column"))
    np.testing.assert_allclose(got, difference, atol=0.05 * np.abs(difference).max())
    np.testing.assert_allclose(data["integrated_gradients_error"], got - difference, atol=1e-4)


def test_more_steps_leave_less_error():
    hooked = vl.HookedViT(small())
    errors = [
        np.abs(measured(hooked, drawn(3), IntegratedGradients(n_steps=n))["integrated_gradients_error"]).max()
        for n in (2, 8, 32)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_integrated_gradients_leave_no_gradient_behind_and_do_not_depend_on_the_batch():
    model = small()
    hooked = vl.HookedViT(model)
    together, apart = (
        measured(hooked, drawn(5), IntegratedGradients(n_steps=4, images_per_pass=rows), batch_size=size)
        for rows, size in ((16, 5), (3, 2))
    )
    np.testing.assert_allclose(together["integrated_gradients"], apart["integrated_gradients"], atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_named_images_alone_are_attributed():
    hooked = vl.HookedViT(small())
    analyses = [vl.Prediction(), IntegratedGradients(n_steps=2, image_ids=("1", "3"))]
    data = vl.run(hooked, drawn(5), analyses, batch_size=2, progress=False)
    assert data["integrated_gradients"].dims == ("condition", "named_image", "patch_row", "patch_column")
    assert data["named_image"].values.tolist() == ["1", "3"]


def test_a_model_with_frozen_parameters_has_gradient_maps():
    model = small().requires_grad_(False)
    data = vl.run(
        vl.HookedViT(model),
        drawn(2),
        [IntegratedGradients(n_steps=2), GradientTimesActivation()],
        progress=False,
    )
    assert (np.abs(data["integrated_gradients"]) > 0).any()


def test_settings_of_integrated_gradients_that_make_no_sense_are_refused():
    with pytest.raises(vl.errors.AnalysisError, match=r"n_steps is 0, images_per_pass 16, baseline 0\.5\."):
        IntegratedGradients(n_steps=0)
    with pytest.raises(vl.errors.AnalysisError, match=r"baseline 128\. Expected: 1 or more steps"):
        IntegratedGradients(baseline=128)
    with pytest.raises(vl.errors.ShapeError, match=r"n_steps is 0 and rows_per_pass is 16\."):
        integrated_gradients(
            lambda rows, images: rows.sum(-1), torch.ones(1, 2), torch.zeros(1, 2), n_steps=0
        )


@settings(deadline=None, max_examples=20)
@given(power=st.sampled_from([1, 2, 3]), seed=st.integers(0, 100))
def test_integrated_gradients_of_a_sum_are_each_features_own_difference(power, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs, baselines = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)

    def score(rows, images):
        return rows.pow(power).sum(-1) * (images + 1)

    got = integrated_gradients(score, inputs, baselines, n_steps=64, rows_per_pass=5)
    expected = (inputs**power - baselines**power) * torch.tensor([1, 2, 3])[:, None]
    torch.testing.assert_close(got, expected, atol=1e-12 if power == 1 else 2e-3, rtol=1e-7)


def test_a_score_that_does_not_change_has_no_attribution():
    inputs, baselines = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    got = integrated_gradients(lambda rows, images: 0 * rows.sum(-1) + 1, inputs, baselines)
    torch.testing.assert_close(got, torch.zeros(3, 4))


def test_steps_are_short_where_the_score_changes_fast():
    def score(rows, images):
        return torch.sigmoid(400 * (rows.sum(-1) - 0.02))

    got = integrated_gradients(score, torch.ones(1, 1), torch.zeros(1, 1), n_steps=16)
    expected = score(torch.ones(1, 1), None) - score(torch.zeros(1, 1), None)
    torch.testing.assert_close(got[0], expected, atol=0.06, rtol=0)


@settings(deadline=None, max_examples=20)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), patch=st.tuples(st.integers(1, 5), st.integers(1, 5))
)
def test_sums_by_patch_keep_the_total(height, width, patch):
    values = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 10 + width))
    by_patch = sum_by_patch(values, patch)
    assert by_patch.shape[1:] == (-(-height // patch[0]), -(-width // patch[1]))
    torch.testing.assert_close(by_patch.sum((1, 2)), values.sum((1, 2, 3)))
    torch.testing.assert_close(by_patch[:, 0, 0], values[:, :, : patch[0], : patch[1]].sum((1, 2, 3)))


def test_a_patch_without_pixels_is_refused():
    with pytest.raises(vl.errors.ShapeError, match=r"patch_size is \(0, 4\)\."):
        sum_by_patch(torch.ones(1, 3, 4, 4), (0, 4))


def test_log_probability_is_that_of_the_label():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).half()
    labels = torch.tensor([0, 5, 2, 2])
    expected = -nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(correct_log_probability(logits, labels), expected)
