"""What the kept images say of the conditions: the same numbers as vitlens.spectrum, and honest gaps."""

import dataclasses
import re

import numpy as np
import pytest
import torch
import xarray as xr

from vitlens import report
from vitlens.images import CORRUPTIONS, corrupt, measured_frequency, spectrum
from vitlens.report.corruptions import corruptions_html
from vitlens.report.measured import known, measured, pictures


def levels(pixels):
    return (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def photos():
    """Two images with structure at all scales."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear")
    return (0.8 * smooth + 0.2 * torch.rand(2, 3, 48, 48, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def examples(photos):
    """Pixels under four conditions; the attack's are the clean ones, since each checkpoint sees its own."""
    conditions = ["clean", "gaussian_blur@3", "contrast@2", "pgd:eps=4/255"]
    blurred, flat = (
        corrupt(photos, name, severity, image_ids=["a", "b"])
        for name, severity in (("gaussian_blur", 3), ("contrast", 2))
    )
    return xr.Dataset(
        {
            "condition_pixels": (
                ("shown_condition", "image", "row", "column", "channel"),
                np.stack([levels(each) for each in (photos, blurred, flat, photos)]),
            )
        },
        coords={"shown_condition": conditions, "image": ["a", "b"]},
    )


def test_the_measures_are_those_of_spectrum_on_the_kept_pixels(photos, examples):
    found = measured(examples)
    assert found["condition"].values.tolist() == ["gaussian_blur@3", "contrast@2"]
    kept = examples["condition_pixels"].transpose(..., "channel", "row", "column").values / np.float32(255)
    for at, condition in enumerate(found["condition"].values, start=1):
        wanted = spectrum(torch.from_numpy(kept[0]), torch.from_numpy(kept[at]))
        here = found.sel(condition=condition)
        np.testing.assert_allclose(here["hf_energy"], wanted.hf_energy)
        np.testing.assert_allclose(here["delta_hf_db"], wanted.delta_hf_db)
        np.testing.assert_allclose(here["radial_power"], wanted.radial_power)
    assert (found["delta_hf_db"].sel(condition="gaussian_blur@3") < -3).all()


def test_pixels_that_each_checkpoint_has_of_its_own_are_not_taken_for_the_conditions(examples):
    assert list(pictures(examples)) == ["clean", "gaussian_blur@3", "contrast@2"]


def test_pixels_of_the_attention_maps_serve_where_no_others_were_kept(examples):
    older = examples.rename(condition_pixels="pixels", shown_condition="condition")
    xr.testing.assert_identical(measured(older), measured(examples))


@pytest.mark.parametrize("kept", [[], ["clean"], ["gaussian_blur@3"]])
def test_without_clean_pixels_and_others_nothing_is_measured(examples, kept):
    assert measured(examples.sel(shown_condition=kept)) is None
    assert measured(None) is None


def test_gray_pictures_are_shown_and_not_measured(examples):
    gray = examples.isel(channel=slice(0, 1))
    assert measured(gray) is None
    data = xr.Dataset(coords={"condition": ["clean", "gaussian_blur@3"]})
    assert corruptions_html(data, gray).count("<img") == 2


def test_a_condition_is_known_by_its_name():
    spec = CORRUPTIONS["fog"]
    found = known("fog@3:jpeg_quality=85")
    assert found.family == spec.family
    assert tuple(found.parameters.values()) == spec.parameters[2]
    for name in ("clean", "fog", "fog@9", "my own@3", "pgd:eps=4/255"):
        assert not known(name).family, name


def test_without_kept_pixels_the_librarys_own_measures_are_shown_and_said_to_be_that():
    text = corruptions_html(xr.Dataset(coords={"condition": ["clean", "gaussian_blur@3"]}), None)
    assert "not on these images" in text
    assert f"{100 * measured_frequency()['gaussian_blur', 3]['hf_energy']:.3g}</td>" in text
    assert "sigma_pixels" in text
    assert "<img" not in text


def test_without_corruptions_there_is_no_section():
    assert corruptions_html(xr.Dataset(coords={"condition": ["clean", "pgd:eps=4/255"]}), None) == ""


def test_each_condition_has_its_picture_and_its_row(examples):
    data = xr.Dataset(coords={"condition": examples["shown_condition"].values})
    text = corruptions_html(data, examples)
    assert re.findall(r'alt="(.*?)"', text) == [
        "a under clean",
        "a under gaussian_blur@3",
        "a under contrast@2",
    ]
    assert text.count("<tr>") == 3
    assert "Means over 2 example images" in text


def test_the_figure_shows_the_mean_power_of_the_change(comparison, examples):
    made = dataclasses.replace(comparison, data=comparison.data[["rank"]], examples=examples, features=None)
    figure = report.figures(made)["corruption_spectra"]
    found = measured(examples)
    inside = (found["frequency"].values > 0) & (found["frequency"].values <= 0.5)
    shown = [trace for trace in figure.data if trace.name == "the change"]
    for trace, condition in zip(shown, found["condition"].values, strict=True):
        wanted = found["radial_power"].sel(condition=condition).mean("image").values[inside]
        np.testing.assert_allclose(trace.y, np.where(wanted > 1e-9, wanted, np.nan))
        np.testing.assert_allclose(trace.x, found["frequency"].values[inside])
