"""The four kinds of analysis, each against what it should have seen."""

import numpy as np
import pytest
import torch
import xarray as xr
from small import items, model

import vitlens as vl

from .made import PLACE, Distance, Mean, Middle, Saliency

CONDITIONS = ["clean", "gaussian_noise@3"]


def streams(model, dataset):
    images = model.normalize(torch.stack([item["pixels"] for item in dataset]))
    with torch.no_grad():
        return model.run_with_cache(images, names_filter=PLACE)[1][PLACE]


def test_a_paired_analysis_sees_both_checkpoints_and_the_first_against_itself():
    a, b, dataset = model(0), model(1), items(5)
    data = vl.run(
        {"a": a, "b": b}, dataset, [Distance()], conditions=CONDITIONS, batch_size=2, progress=False
    )
    assert data["distance"].dims == ("checkpoint", "condition", "image")
    assert (data["distance"].sel(checkpoint="a") == 0).all()
    wanted = (streams(b, dataset) - streams(a, dataset)).flatten(1).norm(dim=1)
    got = data["distance"].sel(checkpoint="b", condition="clean")
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_a_gradient_analysis_gets_each_images_own_gradient():
    a, dataset = model(0), items(4)
    got = vl.run(a, dataset, [Saliency()], batch_size=3, progress=False)["saliency"].sel(condition="clean")
    for item, value in zip(dataset, got.values, strict=True):
        seen = []
        handle = a.model.blocks[1].register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        logit = a.model(a.normalize(item["pixels"].unsqueeze(0)))[0, item["label"]]
        handle.remove()
        (gradient,) = torch.autograd.grad(logit, seen[0])
        np.testing.assert_allclose(value, (gradient * seen[0]).sum().item(), rtol=1e-4)
    assert all(parameter.grad is None for parameter in a.parameters())


def test_gradients_are_there_when_the_parameters_are_frozen():
    a = model(0)
    wanted = vl.run(a, items(2), [Saliency()], progress=False)
    for parameter in a.parameters():
        parameter.requires_grad_(False)
    xr.testing.assert_allclose(vl.run(a, items(2), [Saliency()], progress=False), wanted)


def test_a_hook_that_no_image_passes_through_has_no_gradient():
    a = model(0).requires_grad_(False)

    class Positions(Saliency):
        def gradient_hooks(self, model):
            return ["hook_pos_embed"]

    with pytest.raises(vl.errors.AnalysisError, match="'hook_pos_embed' does not depend on the image"):
        vl.run(a, items(2), [Positions()], progress=False)


def test_a_set_statistic_has_no_image_and_stands_beside_the_rows():
    a, b, dataset = model(0), model(1), items(7)
    data = vl.run({"a": a, "b": b}, dataset, [Mean(), vl.Prediction()], batch_size=3, progress=False)
    assert data["mean"].dims == ("checkpoint", "condition")
    np.testing.assert_allclose(
        data["mean"].sel(checkpoint="b", condition="clean"),
        streams(b, dataset).mean((1, 2)).double().mean(),
        rtol=1e-6,
    )
    assert data["rank"].dims == ("checkpoint", "condition", "image")
    single = vl.run(b, dataset, [Mean()], progress=False)["mean"]
    np.testing.assert_allclose(
        single.sel(condition="clean"), data["mean"].sel(checkpoint="b", condition="clean")
    )


def test_an_analysis_of_named_images_sees_only_those():
    a, dataset = model(0), items(7)
    named = ("image 5", "image 1")
    data = vl.run(a, dataset, [Middle(named), Saliency(named), vl.Prediction()], batch_size=2, progress=False)
    assert data["named_image"].values.tolist() == ["image 1", "image 5"]  # in the order of the data set
    assert data["middle"].dims == ("condition", "named_image", "d_model")
    assert data["saliency"].dims == ("condition", "named_image")
    assert data["rank"].sizes["image"] == 7
    wanted = streams(a, [dataset[1], dataset[5]]).mean(1)
    np.testing.assert_allclose(data["middle"].sel(condition="clean"), wanted, rtol=1e-4, atol=1e-6)


def test_named_images_must_be_there_and_the_same_for_all():
    a = model(0)
    with pytest.raises(vl.errors.AnalysisError, match=r"names the image 'imagee 1'.*nearest: 'image 1'"):
        vl.run(a, items(3), [Middle(("imagee 1",))], progress=False)
    with pytest.raises(vl.errors.AnalysisError, match="one tuple of image_ids for all"):
        vl.run(a, items(3), [Middle(("image 1",)), Saliency(("image 2",))], progress=False)
    with pytest.raises(vl.errors.AnalysisError, match="a tuple of image ids, or None"):
        vl.run(a, items(3), [Middle("image 1"), Saliency(("image 2",))], progress=False)


def test_a_paired_analysis_of_one_checkpoint_is_refused():
    with pytest.raises(vl.errors.AnalysisError, match=r"Distance looks at two checkpoints, and there is one"):
        vl.run(model(0), items(2), [Distance()], progress=False)


@pytest.mark.parametrize("analysis", [Distance(), Mean()])
def test_pixels_that_differ_between_checkpoints_are_refused_where_activations_are_paired(analysis):
    attack = {"mine": vl.images.WhiteBox(lambda model, pixels, labels: pixels)}
    both = {"a": model(0), "b": model(1)}
    with pytest.raises(vl.errors.AnalysisError, match="under 'mine' each checkpoint sees pixels of its own"):
        vl.run(both, items(2), [analysis], conditions=["clean", attack], progress=False)


def test_a_white_box_condition_shows_each_checkpoint_its_own_pixels():
    seen = []

    def gradient_sign(model, pixels, labels):
        with torch.enable_grad():
            pixels = pixels.requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(model.normalize(pixels)), labels)
            (gradient,) = torch.autograd.grad(loss, pixels)
        seen.append((pixels + 4 / 255 * gradient.sign()).clamp(0, 1).detach())
        return seen[-1]

    both, dataset = {"a": model(0), "b": model(1)}, items(4)
    attack = {"fgsm 4/255": vl.images.WhiteBox(gradient_sign)}
    data = vl.run(both, dataset, [vl.Prediction()], conditions=["clean", attack], progress=False)
    assert len(seen) == 2
    assert not torch.equal(*seen)
    with torch.no_grad():
        logits = both["b"](both["b"].normalize(seen[1]))
    got = data["correct_probability"].sel(checkpoint="b", condition="fgsm 4/255")
    np.testing.assert_allclose(got, logits.softmax(-1)[torch.arange(4), torch.arange(4)], rtol=1e-4)
    clean = data["correct_probability"].sel(condition="clean")
    assert (data["correct_probability"].sel(condition="fgsm 4/255") < clean).all()


def test_what_is_no_analysis_is_refused():
    with pytest.raises(vl.errors.AnalysisError, match=r"Prediction is a class.*Write Prediction\(\)"):
        vl.run(model(0), items(2), [vl.Prediction], progress=False)
    with pytest.raises(
        vl.errors.AnalysisError, match=r"str is no analysis.*hooks, compare \(PairedAnalysis\)"
    ):
        vl.run.__wrapped__(model(0), items(2), ["Prediction"], progress=False)


def test_a_set_statistic_that_returns_rows_is_refused():
    class Rows(Mean):
        def finish(self, state):
            return xr.Dataset({"mean": ("image", [0.0])})

    with pytest.raises(vl.errors.AnalysisError, match="Rows returned 'mean' with the dim 'image'"):
        vl.run(model(0), items(2), [Rows()], progress=False)


def test_an_axis_that_changes_between_batches_is_refused():
    class Odd:
        def hooks(self, model):
            return {}

        def __call__(self, model, cache, logits, batch):
            return vl.table({"x": (("part",), logits[:, : len(batch)])}, part=range(len(batch)))

    with pytest.raises(
        vl.errors.AnalysisError, match=r"Odd gives part = \[0\] \(1 values\), where it was \[0, 1\]"
    ):
        vl.run(model(0), items(3), [Odd()], batch_size=2, progress=False)


def test_a_size_that_changes_between_batches_is_refused():
    class Odd:
        def hooks(self, model):
            return {}

        def __call__(self, model, cache, logits, batch):
            return vl.table({"x": (("part",), logits[:, : len(batch)])})

    with pytest.raises(
        vl.errors.AnalysisError, match=r"Odd gives 'x' with {'part': 1}.*{'part': 2}.* before"
    ):
        vl.run(model(0), items(3), [Odd()], batch_size=2, progress=False)


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_mixed_precision_rounds_and_returns_float32(precision):
    a, dataset = model(0), items(4)
    analyses = [vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy()]
    wanted = vl.run(a, dataset, analyses, progress=False)
    got = vl.run(a, dataset, analyses, precision=precision, progress=False)
    assert got["correct_probability"].dtype == np.float32
    assert not got["correct_probability"].equals(wanted["correct_probability"])
    xr.testing.assert_allclose(got["correct_probability"], wanted["correct_probability"], atol=0.02)
    # The lens's last place is the output in this precision too.
    last = got["lens_probability"].isel(resid_layer=-1, drop=True)
    np.testing.assert_allclose(last, got["correct_probability"], atol=2e-3)


def test_an_unknown_precision_is_refused():
    with pytest.raises(vl.errors.AnalysisError, match=r"precision is 'fp8'.*'bfloat16'"):
        vl.run(model(0), items(2), [vl.Prediction()], precision="fp8", progress=False)


def test_checkpoints_of_different_architectures_are_refused(small_timm):
    with pytest.raises(
        vl.errors.ArchitectureError, match=r"'a' and 'b' are of different architectures.*n_layers"
    ):
        vl.run({"a": model(0), "b": vl.HookedViT(small_timm)}, items(2), [vl.Prediction()], progress=False)
    with pytest.raises(vl.errors.AnalysisError, match="There is no checkpoint"):
        vl.run({}, items(2), [vl.Prediction()], progress=False)
