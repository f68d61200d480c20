"""The Fourier heat map, against waves added by hand."""

import numpy as np
import pytest
import timm
import torch
from scipy import stats

import vitlens as vl
from vitlens.analyses.fourier_heat_map import fourier_heat_map
from vitlens.errors import AnalysisError, ConditionError
from vitlens.images import streams
from vitlens.report.charts.fourier import fourier_heat_map_figure
from vitlens.testing import randomize


def model_of(height, width, seed=0):
    torch.manual_seed(seed)
    return vl.HookedViT(
        randomize(
            timm.models.VisionTransformer(
                img_size=(height, width), patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3
            )
        )
    )


def items_of(n, height, width, model):
    """Images under the model's own answers, so that every error is a wave's."""
    pixels = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    with torch.no_grad():
        labels = model(model.normalize(pixels)).argmax(-1).tolist()
    return [
        {"pixels": image, "label": label, "image_id": f"{i}"}
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True))
    ]


@pytest.fixture(scope="module")
def model():
    return model_of(8, 12)


@pytest.fixture(scope="module")
def items(model):
    return items_of(12, 8, 12, model)


def test_every_cell_is_the_error_under_a_cosine_of_its_frequency(model, items):
    data = fourier_heat_map(model, items, l2_norm_pixel=2.0, n_side=None, seed=5, progress=False)
    np.testing.assert_allclose(data["frequency_y"], np.arange(-4, 5) / 8)
    np.testing.assert_allclose(data["frequency_x"], np.arange(-6, 7) / 12)
    assert data["frequency_x"].attrs["units"] == "cycles per pixel"
    for fy in data["frequency_y"].values:
        for fx in data["frequency_x"].values:
            wave = np.cos(2 * np.pi * (fy * np.arange(8)[:, None] + fx * np.arange(12)))
            wave *= 2 / np.linalg.norm(wave)
            shown = []
            for item in items:
                generator = streams.stream(5, item["image_id"], "fourier_wave", 0)
                signs = 2 * torch.randint(2, (3, 1, 1), generator=generator) - 1
                shown.append((item["pixels"] + signs * torch.from_numpy(wave)).clamp(0, 1).float())
            with torch.no_grad():
                predicted = model(model.normalize(torch.stack(shown))).argmax(-1)
            right = [int(p) == item["label"] for p, item in zip(predicted, items, strict=True)]
            cell = data.sel(frequency_y=fy, frequency_x=fx)
            assert cell["correct"].values.tolist() == right
            np.testing.assert_allclose(cell["error"], 1 - np.mean(right))
    assert data["clean_error"] == 0
    assert data["clean_correct"].all()
    assert 0 < float(data["error"].mean()) < 1


def test_the_map_mirrors_itself_and_says_what_it_is(model, items):
    data = fourier_heat_map(model, items, l2_norm_pixel=3.0, n_side=5, level=0.9, progress=False)
    np.testing.assert_array_equal(data["error"], data["error"].values[::-1, ::-1])
    assert data["correct"].dtype == bool
    assert (data.attrs["n"], data.attrs["l2_norm_pixel"], data.attrs["level"]) == (12, 3.0, 0.9)
    # Wilson's interval, written out.
    z, n, p = stats.norm.ppf(0.95), 12, data["error"].values
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    np.testing.assert_allclose(data["ci_low"], (middle - half) / (1 + z * z / n), atol=1e-12)
    np.testing.assert_allclose(data["ci_high"], (middle + half) / (1 + z * z / n), atol=1e-12)


def test_a_window_of_low_frequencies_is_part_of_the_whole_map(model, items):
    whole = fourier_heat_map(model, items, l2_norm_pixel=2.0, n_side=None, progress=False)
    low = fourier_heat_map(
        model, items, l2_norm_pixel=2.0, max_frequency_cycles_per_pixel=0.25, n_side=None, progress=False
    )
    assert dict(low.sizes) == {"frequency_y": 5, "frequency_x": 7, "image": 12}
    inside = whole.sel(frequency_y=low["frequency_y"], frequency_x=low["frequency_x"])
    np.testing.assert_array_equal(low["correct"], inside["correct"])


def test_half_of_the_grid_is_measured_and_an_output_is_read_back(model, items, tmp_path, monkeypatch):
    calls = []
    call = vl.Prediction.__call__
    monkeypatch.setattr(
        vl.Prediction, "__call__", lambda *args: (calls.append(len(args[-1])), call(*args))[1]
    )
    arguments = {"l2_norm_pixel": 2.0, "n_side": 5, "output": tmp_path / "map", "progress": False}
    first = fourier_heat_map(model, items, **arguments)
    # Of 25 cells nine lie at half a cycle per pixel and repeat the opposite border: 16 frequencies, of which
    # four are their own opposites; and the clean images.
    assert sum(calls) == 12 * (10 + 1)
    again = fourier_heat_map(model, items, **arguments)
    assert sum(calls) == 12 * (10 + 1)
    assert first.identical(again)


def test_checkpoints_keep_their_axis(model, items):
    models = {"first": model, "second": model_of(8, 12, seed=1)}
    data = fourier_heat_map(models, items, l2_norm_pixel=2.0, n_side=3, progress=False)
    alone = fourier_heat_map(model, items, l2_norm_pixel=2.0, n_side=3, progress=False)
    assert data["error"].dims == ("checkpoint", "frequency_y", "frequency_x")
    assert data["clean_error"].dims == ("checkpoint",)
    np.testing.assert_array_equal(data["correct"].sel(checkpoint="first"), alone["correct"])
    figure = fourier_heat_map_figure(data)
    assert len(figure.data) == 2
    np.testing.assert_allclose(figure.data[1].z, 100 * data["error"].sel(checkpoint="second"))
    assert figure.layout.yaxis2.scaleanchor == "x2"
    assert len(fourier_heat_map_figure(alone).data) == 1
    assert figure.layout.meta["section"] == "Accuracy"


def test_what_is_no_grid_is_refused(model, items):
    for arguments, message in (
        (
            {"n_side": 4},
            r"n_side is 4; up to 0.5 cycles per pixel, 8 pixels have 9 .* an odd number from 3 to 9",
        ),
        ({"n_side": 11}, "an odd number from 3 to 9"),
        ({"max_frequency_cycles_per_pixel": 0.6}, r"is 0\.6\. Expected: a value above 0, up to 0\.5"),
        ({"max_frequency_cycles_per_pixel": 0.1, "n_side": None}, "more than frequency 0 alone"),
        ({"level": 95}, "level is 95"),
    ):
        with pytest.raises(AnalysisError, match=message):
            fourier_heat_map(model, items, **{"l2_norm_pixel": 1.0, "progress": False} | arguments)
    with pytest.raises(AnalysisError, match="There is no checkpoint"):
        fourier_heat_map({}, items, l2_norm_pixel=1.0)
    with pytest.raises(ConditionError, match="l2_norm_pixel is -1"):
        fourier_heat_map(model, items, l2_norm_pixel=-1.0, n_side=3)
    with pytest.raises(ConditionError, match="whole numbers of cycles"):
        fourier_heat_map(model, items, l2_norm_pixel=1.0, n_side=None, image_size=(10, 12), progress=False)
