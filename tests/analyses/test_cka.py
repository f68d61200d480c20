"""Linear CKA against the n × n estimator, and what it must not depend on."""

import copy
import inspect
import itertools

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.analyses.cka import CKA
from vitlens.functional.cka import (
    cka_from_moments,
    cka_moments,
    grouped_jackknife_se,
    linear_cka,
    merge_cka_moments,
)
from vitlens.running.analysis import Pass
from vitlens.testing import randomize

from .made import stream


def direct(x, y):
    """CKA from the kernels, as Song et al. write the unbiased HSIC."""
    n, ones = len(x), torch.ones(len(x), dtype=torch.float64)

    def hsic(k, other):
        product = ones @ k @ other @ ones * 2 / (n - 2)
        sums = (ones @ k @ ones) * (ones @ other @ ones) / (n - 1) / (n - 2)
        return (k @ other).trace() + sums - product

    kernels = (each.double() @ each.double().T for each in (x, y))
    k_x, k_y = (kernel - kernel.diag().diag() for kernel in kernels)
    return float(hsic(k_x, k_y) / (hsic(k_x, k_x) * hsic(k_y, k_y)).sqrt())


def related(seed=0, n=40):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    y = torch.cat([x[:, :3], torch.randn(n, 5, generator=generator, dtype=torch.float64)], dim=1)
    return x, y


def in_batches(x, y, *sizes):
    parts = [
        cka_moments(a, b)
        for a, b in zip(x.split(list(sizes), dim=-2), y.split(list(sizes), dim=-2), strict=True)
    ]
    moments = parts[0]
    for part in parts[1:]:
        moments = merge_cka_moments(moments, part)
    return moments


def drawn_items(n):
    generator = torch.Generator().manual_seed(0)
    return [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": 0, "image_id": f"image {i}"}
        for i in range(n)
    ]


def small(seed=0, **kwargs):
    given = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 10}
    return randomize(timm.models.VisionTransformer(**given | kwargs), seed)


# ---------------------------------------------------------------------- the statistic


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_moments_give_what_the_kernels_give(seed, n):
    x, y = related(seed, n)
    wanted = direct(x, y)
    if not np.isnan(wanted):
        assert float(cka_from_moments(cka_moments(x, y))) == pytest.approx(wanted, abs=1e-10)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-10, 10))
def test_a_rotation_a_scale_and_a_shift_change_nothing(seed, scale, shift):
    x, y = related(seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    changed = scale * x @ rotation + shift
    assert float(cka_from_moments(cka_moments(x, changed))) == pytest.approx(1, abs=1e-9)
    before, after = (float(cka_from_moments(cka_moments(each, y))) for each in (x, changed))
    assert after == pytest.approx(before, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 39), unique=True, max_size=6), st.floats(0, 1e5))
def test_no_split_into_batches_and_no_mean_changes_it(seed, cuts, mean):
    x, y = related(seed)
    edges = [0, *sorted(cuts), 40]
    sizes = [after - before for before, after in itertools.pairwise(edges)]
    whole = float(cka_from_moments(cka_moments(x, y)))
    split = float(cka_from_moments(in_batches(x + mean, y - 3 * mean, *sizes)))
    assert split == pytest.approx(whole, abs=1e-8)
    assert whole == pytest.approx(direct(x, y), abs=1e-10)


def test_the_order_of_merging_changes_nothing():
    x, y = related()
    parts = [
        cka_moments(a + 100, b) for a, b in zip(x.split([7, 20, 1, 12]), y.split([7, 20, 1, 12]), strict=True)
    ]
    first = merge_cka_moments(merge_cka_moments(parts[0], parts[1]), merge_cka_moments(parts[2], parts[3]))
    other = merge_cka_moments(parts[3], merge_cka_moments(merge_cka_moments(parts[2], parts[0]), parts[1]))
    for name in first:
        torch.testing.assert_close(first[name], other[name], rtol=1e-9, atol=1e-9)
    assert parts[0]["n"].tolist() == [7]


def test_independent_representations_have_a_cka_of_zero_on_average():
    values = []
    for seed in range(60):
        x, y = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(seed))
        values.append(float(linear_cka(x, y)))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert min(values) < 0 < max(values)


def test_a_representation_that_does_not_vary_has_no_cka():
    x, y = related()
    constant = torch.full((40, 5), 0.3) + 100
    assert torch.isnan(cka_from_moments(in_batches(x.float(), constant, 13, 27)))
    assert torch.isnan(linear_cka(constant, y.float()))


def test_too_few_rows_and_rows_that_do_not_match_are_refused():
    with pytest.raises(vl.errors.ShapeError, match=r"There are 3 rows. Expected: at least 4"):
        linear_cka(torch.rand(3, 2), torch.rand(3, 2))
    with pytest.raises(vl.errors.ShapeError, match=r"have shapes \(4, 2\) and \(5, 2\)"):
        inspect.unwrap(cka_moments)(torch.rand(4, 2), torch.rand(5, 2))


def test_the_jackknife_finds_the_spread_over_samples():
    sizes = torch.tensor([20, 28] * 5)
    group = torch.arange(10).repeat_interleave(sizes)

    def sample(seed):
        x, y = related(seed, 240)
        left_out = [cka_from_moments(cka_moments(x[group != each], y[group != each])) for each in range(10)]
        cka = cka_from_moments(cka_moments(x, y))
        return float(cka), float(grouped_jackknife_se(cka, torch.stack(left_out), sizes.float()))

    estimates, errors = np.array([sample(seed) for seed in range(40)]).T
    assert np.mean(errors) == pytest.approx(estimates.std(ddof=1), rel=0.3)


# ---------------------------------------------------------------------- over models


@pytest.fixture(params=["small", "real"], scope="module")
def case(request):
    """Two checkpoints and items."""
    if request.param == "small":
        return small(0), small(1), drawn_items(30)
    model = request.getfixturevalue("deit_tiny")
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += (
                0.3 * parameter.std().nan_to_num() * torch.randn(parameter.shape, generator=generator)
            )
    folder = request.getfixturevalue("data_folder") / "imagenet_samples"
    dataset = vl.images.folder(folder, vl.HookedViT(model))
    return model, other, [dataset[index] for index in range(5, 1000, 125)]


def test_values_are_those_of_plain_hooks_and_kernels(case):
    reference, tuned, items = case
    models = {"base": vl.HookedViT(reference), "tuned": vl.HookedViT(tuned)}
    data = vl.run(models, items, [CKA("patch")], batch_size=7, progress=False).sel(condition="clean")
    images = models["base"].normalize(torch.stack([item["pixels"] for item in items]))
    theirs, ours = ([resid[:, 1:].mean(1) for resid in stream(model, images)] for model in (reference, tuned))
    wanted = [direct(a, b) for a, b in zip(theirs, ours, strict=True)]
    np.testing.assert_allclose(data["cka"].sel(checkpoint="tuned"), wanted, atol=1e-4)
    assert (data["cka"].sel(checkpoint="base") == 1).all()
    assert data["cka"].dtype == np.float32
    assert data["cka"].attrs["n_images"] == len(items)
    assert "cka_se" not in data


def test_the_default_is_what_the_head_reads_which_before_block_0_is_one_token_for_all():
    models = {"base": vl.HookedViT(small(0)), "tuned": vl.HookedViT(small(1))}
    items = drawn_items(20)
    data, cls = (
        vl.run(models, items, [CKA(*tokens)], progress=False)["cka"].sel(
            checkpoint="tuned", condition="clean"
        )
        for tokens in ((), ("cls",))
    )
    np.testing.assert_array_equal(data, cls)
    assert np.isnan(data[0])
    assert data[1:].notnull().all()


def test_registers_pooling_by_the_mean_and_two_heads_are_read_as_the_head_reads_them():
    items = drawn_items(12)
    images = torch.stack([item["pixels"] for item in items])
    two_heads = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 4}
    cases = (
        (lambda seed: small(seed, reg_tokens=2), lambda resid: resid[:, 0]),
        (
            lambda seed: small(seed, class_token=False, global_pool="avg"),
            lambda resid: resid.mean(1),
        ),
        (
            lambda seed: randomize(timm.models.deit.VisionTransformerDistilled(**two_heads), seed),
            lambda resid: resid[:, :2].flatten(1),
        ),
    )
    for make, pool in cases:
        models = {"base": vl.HookedViT(make(0)), "tuned": vl.HookedViT(make(1))}
        data = vl.run(models, items, [CKA()], progress=False)["cka"].sel(
            checkpoint="tuned", condition="clean"
        )
        normalized = models["base"].normalize(images)
        theirs, ours = (stream(model.model, normalized)[-1] for model in models.values())
        assert float(data[-1]) == pytest.approx(direct(pool(theirs), pool(ours)), abs=1e-4)


def test_one_model_is_its_own_reference():
    data = vl.run(vl.HookedViT(small()), drawn_items(6), [CKA("all")], progress=False)
    assert (data["cka"] == 1).all()


def passes(items, *models):
    """Each model's pass over the items, as an analysis sees it."""
    analysis = CKA("patch")
    seen = []
    for model in models:
        hooked = vl.HookedViT(model)
        images = hooked.normalize(torch.stack([item["pixels"] for item in items]))
        logits, cache = hooked.run_with_cache(images, names_filter=list(analysis.hooks(hooked)))
        for name, reduction in analysis.hooks(hooked).items():
            cache.cache_dict[name] = reduction(cache[name])
        seen.append(Pass(hooked, cache, logits))
    ids = tuple(item["image_id"] for item in items)
    batch = vl.images.Batch(images, torch.tensor([item["label"] for item in items]), ids)
    return *seen, batch


def test_batches_and_merged_sums_give_one_result_and_leave_what_was_merged():
    analysis, items = CKA("patch", n_groups=4), drawn_items(30)
    models = small(0), small(1)
    with torch.no_grad():
        whole = analysis.update(None, *passes(items, *models))
        first = analysis.update(None, *passes(items[:4], *models))
        first = analysis.update(first, *passes(items[4:17], *models))
        second = analysis.update(None, *passes(items[17:], *models))
    before = {name: tensor.clone() for name, tensor in first.items()}
    merged = analysis.merge(first, second)
    assert all(torch.equal(first[name], tensor) for name, tensor in before.items())
    wanted = analysis.finish(whole)
    for got in (merged, analysis.merge(second, first)):
        np.testing.assert_allclose(analysis.finish(got)["cka"], wanted["cka"], rtol=1e-6)
        np.testing.assert_allclose(analysis.finish(got)["cka_se"], wanted["cka_se"], rtol=1e-5)
    with torch.no_grad():
        analysis.update(merged, *passes(items[:4], *models))
    assert all(torch.equal(first[name], tensor) for name, tensor in before.items())


def test_the_standard_error_is_that_of_leaving_out_each_group():
    models = {"base": vl.HookedViT(small(0)), "tuned": vl.HookedViT(small(1))}
    items, analysis = drawn_items(24), CKA("patch", n_groups=3)
    data = vl.run(models, items, [analysis], batch_size=9, progress=False).sel(condition="clean")
    plain = vl.run(models, items, [CKA("patch")], progress=False).sel(condition="clean")
    np.testing.assert_allclose(data["cka"], plain["cka"], rtol=1e-6)
    # The group of an image hangs on its id alone, so that each group can be left out by hand.
    alone = [analysis.update(None, *passes([item], small(0), small(1))) for item in items]
    group_of = np.array([int(next(iter(state)).partition("/")[0]) for state in alone])
    left_out = []
    for group in range(3):
        rest = [items[index] for index in np.flatnonzero(group_of != group)]
        cka = vl.run(models, rest, [CKA("patch")], progress=False)["cka"]
        left_out.append(torch.tensor(cka.sel(checkpoint="tuned", condition="clean").values))
    wanted = grouped_jackknife_se(
        torch.tensor(plain["cka"].sel(checkpoint="tuned").values),
        torch.stack(left_out),
        torch.tensor(np.bincount(group_of)).float(),
    )
    np.testing.assert_allclose(data["cka_se"].sel(checkpoint="tuned"), wanted, rtol=1e-3)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(vl.errors.AnalysisError, match=r"n_groups is 0. Expected: 1 for no standard error"):
        CKA(n_groups=0)
    model = vl.HookedViT(small())
    with pytest.raises(vl.errors.AnalysisError, match=r"CKA is given 3 images. Expected: at least 4"):
        vl.run(model, drawn_items(3), [CKA()], progress=False)
    with pytest.raises(vl.errors.AnalysisError, match=r"at least 4 images when a group is left out"):
        vl.run(model, drawn_items(5), [CKA(n_groups=2)], progress=False)
    with pytest.raises(vl.errors.AnalysisError, match=r"tokens 'register', which this model has not"):
        CKA("register").hooks(model)
    pooling = vl.HookedViT(small(global_pool="map", class_token=False))
    with pytest.raises(
        vl.errors.AnalysisError, match=r"This model pools by 'map', which is no sum over tokens"
    ):
        CKA().hooks(pooling)
    assert CKA("patch").hooks(pooling)
    base, deeper, batch = passes(drawn_items(5), small(), small(depth=3))
    with pytest.raises(vl.errors.AnalysisError, match=r"has 2 blocks and the checkpoint 3"):
        CKA("patch").update(None, base, deeper, batch)


def test_models_of_different_widths_can_be_compared():
    analysis = CKA("patch")
    data = analysis.finish(analysis.update(None, *passes(drawn_items(20), small(), small(embed_dim=64))))
    assert data["cka"].notnull().all()
