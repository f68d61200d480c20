"""Norms, cosines and distances of residual streams against plain torch hooks."""

import copy
import inspect

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.analyses.representation import Representation
from vitlens.functional.representation import cosine, relative_distance, ridge_regression
from vitlens.running.analysis import Pass
from vitlens.testing import randomize

from .made import stream


def drawn_items(n, size=32, n_classes=10):
    generator = torch.Generator().manual_seed(0)
    return [
        {"pixels": torch.rand(3, size, size, generator=generator), "label": i % n_classes, "image_id": f"{i}"}
        for i in range(n)
    ]


def moved(model, by):
    """A copy whose weights lie some way from the model's."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * parameter.std().nan_to_num() * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.fixture(params=["small", "real"], scope="module")
def case(request):
    """Two checkpoints and items."""
    if request.param == "small":
        model = randomize(
            timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4)
        )
        return model, moved(model, 0.1), drawn_items(7)
    model = request.getfixturevalue("deit_tiny")
    folder = request.getfixturevalue("data_folder") / "imagenet_samples"
    dataset = vl.images.folder(folder, vl.HookedViT(model))
    return model, moved(model, 0.03), [dataset[index] for index in range(5, 1000, 400)]


@pytest.mark.parametrize("tokens", ["all", "cls", "patch"])
def test_values_are_those_of_plain_hooks(case, tokens):
    reference, tuned, items = case
    models = {"base": vl.HookedViT(reference), "tuned": vl.HookedViT(tuned)}
    data = vl.run(models, items, [Representation(tokens)], batch_size=4, progress=False).sel(
        condition="clean"
    )
    images = models["base"].normalize(torch.stack([item["pixels"] for item in items]))
    positions = {"all": slice(None), "cls": slice(0, 1), "patch": slice(1, None)}[tokens]
    theirs, ours = (
        torch.stack(stream(model, images))[:, :, positions].double() for model in (reference, tuned)
    )
    norm = ours.norm(dim=-1)
    wanted = {
        "resid_norm": norm,
        "resid_cosine": (theirs * ours).sum(-1) / norm / theirs.norm(dim=-1),
        "resid_relative_distance": (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1),
    }
    for name, values in wanted.items():
        got = data[name].sel(checkpoint="tuned")
        assert got.dims == ("image", "resid_layer")
        np.testing.assert_allclose(got, values.mean(-1).T, rtol=1e-4, atol=1e-4)
    assert data["resid_layer"].values.tolist() == list(range(len(reference.blocks) + 1))


def test_the_reference_against_itself_has_cosine_one_and_distance_zero_exactly(case):
    reference, tuned, items = case
    models = {"base": vl.HookedViT(reference), "tuned": vl.HookedViT(tuned)}
    data = vl.run(models, items[:3], [Representation()], progress=False).sel(checkpoint="base")
    assert (data["resid_cosine"] == 1).all()
    assert (data["resid_relative_distance"] == 0).all()
    assert (data["resid_norm"] > 0).all()


def test_models_with_registers_and_without_a_class_token_are_compared_by_the_tokens_that_they_have():
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 10}
    for kwargs, kinds in (
        ({"reg_tokens": 3}, ("cls", "register", "patch", "all")),
        ({"class_token": False, "global_pool": "avg"}, ("patch", "all")),
    ):
        model = randomize(timm.models.VisionTransformer(**small, **kwargs))
        models = {"base": vl.HookedViT(model), "tuned": vl.HookedViT(moved(model, 0.1))}
        for tokens in kinds:
            data = vl.run(models, drawn_items(3), [Representation(tokens)], progress=False)
            assert data["resid_cosine"].sel(checkpoint="tuned").max() < 1
    with pytest.raises(
        vl.errors.AnalysisError,
        match=r"asked for tokens 'cls', which this model has not. Expected: one of all, patch. Choose",
    ):
        Representation("cls").hooks(models["base"])


def test_models_of_different_shapes_are_refused():
    def seen(**kwargs):
        shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
        model = vl.HookedViT(randomize(timm.models.VisionTransformer(**shape | kwargs)))
        logits, cache = model.run_with_cache(torch.rand(1, 3, 32, 32))
        return Pass(model, cache, logits)

    base, batch = seen(), vl.images.Batch(torch.rand(1, 3, 32, 32), torch.tensor([0]), ("a",))
    with pytest.raises(vl.errors.AnalysisError, match=r"has \[1, 17, 32\] and the checkpoint \[1, 17, 64\]"):
        Representation().compare(base, seen(embed_dim=64), batch)
    with pytest.raises(vl.errors.AnalysisError, match=r"the reference has 2 blocks and the checkpoint 3"):
        Representation().compare(base, seen(depth=3), batch)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_the_cosine_does_not_change_with_length_and_the_distance_does(seed, scale):
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(cosine(x, scale * x), torch.ones(5))
    torch.testing.assert_close(cosine(x, -scale * x), -torch.ones(5))
    torch.testing.assert_close(relative_distance(x, scale * x), torch.full((5,), abs(scale - 1)))
    assert (cosine(x, x) == 1).all()


def test_a_zero_vector_has_no_direction():
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert cosine(zero, one).isnan()
    assert relative_distance(zero, zero).isnan()
    assert relative_distance(zero, one).isinf()


def test_vectors_of_different_shapes_are_refused():
    for function in (cosine, relative_distance):
        with pytest.raises(vl.errors.ShapeError, match=r"have shapes \(2, 3\) and \(2, 4\)"):
            # Without the run-time checker of the tests this is what a user sees.
            inspect.unwrap(function)(torch.rand(2, 3), torch.rand(2, 4))


def test_ridge_regression_takes_the_penalty_of_least_generalized_cross_validation_error():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = y + 5 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    ridges = (1e-4, 1e-2, 1.0, 100.0)
    weights, taken = ridge_regression(x.T @ x, x.T @ y, float(y.square().sum()), 40, ridges)
    errors, fits = [], []
    for ridge in ridges:
        penalty = ridge * (x.T @ x).trace() / 12 * torch.eye(12, dtype=torch.float64)
        fits.append(torch.linalg.solve(x.T @ x + penalty, x.T @ y))
        hat = x @ torch.linalg.solve(x.T @ x + penalty, x.T) + torch.full((40, 40), 1 / 40)
        errors.append(float((y - x @ fits[-1]).square().sum() / (40 - hat.trace()) ** 2))
    best = int(np.argmin(errors))
    assert taken == ridges[best]
    assert 0 < best < 3
    torch.testing.assert_close(weights, fits[best])
