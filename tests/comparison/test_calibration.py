"""Calibration of checkpoints under conditions, against the function of one, and the truth it shall cover."""

import numpy as np
import pytest
import torch
import xarray as xr

from vitlens.comparison.calibration import calibration_error
from vitlens.errors import ComparisonError
from vitlens.functional.calibration import calibration_error as of_one

DIMS = ("checkpoint", "condition", "image")


def made(n_images, overconfidence=0.0, seed=0):
    """Two checkpoints, two conditions: right with a probability below the stated one."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1.2, (2, 2, n_images))
    correct = rng.random(confidence.shape) < np.clip(confidence - overconfidence, 0, 1)
    return xr.Dataset(
        {"rank": (DIMS, np.where(correct, 0, 3)), "predicted_probability": (DIMS, confidence)},
        coords={"checkpoint": ["base", "tuned"], "condition": ["clean", "fog@3"]},
    )


def test_every_row_is_the_functions_value():
    data = made(300, 0.1)
    table = calibration_error(data, n_bins=10, n_resamples=200)
    assert list(table.columns[:2]) == ["checkpoint", "condition"]
    assert table.attrs == {"n_bins": 10, "level": 0.95}
    for _, row in table.iterrows():
        cell = data.sel(checkpoint=row["checkpoint"], condition=row["condition"])
        confidence = torch.tensor(cell["predicted_probability"].values)
        correct = torch.tensor(cell["rank"].values == 0)
        assert row["value"] == pytest.approx(of_one(confidence, correct, n_bins=10).item())
        assert row["confidence"] == pytest.approx(confidence.mean().item())
        assert row["accuracy"] == pytest.approx(correct.double().mean().item())
        assert row["n"] == 300


def test_a_calibrated_model_is_told_what_chance_alone_shows():
    tables = [calibration_error(made(300, seed=seed), n_resamples=300, seed=seed) for seed in range(5)]
    values = np.concatenate([table["value"] for table in tables])
    expected = np.concatenate([table["value_if_calibrated"] for table in tables])
    assert values.mean() == pytest.approx(expected.mean(), abs=4 * values.std() / 20**0.5)
    assert sum((table["ci_low"] == 0).sum() for table in tables) >= 18


def test_the_interval_covers_the_error_of_the_population():
    truth = made(400_000, 0.1, seed=99).isel(checkpoint=[0], condition=[0])
    (population,) = calibration_error(truth, n_resamples=1)["value"]
    covered = [
        (low <= population) & (population <= high)
        for seed in range(15)
        for table in [calibration_error(made(300, 0.1, seed), n_resamples=300)]
        for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
    ]
    assert np.mean(covered) > 0.85


def test_one_model_has_no_checkpoint_column_and_images_without_a_value_are_left_out():
    data = made(50).isel(checkpoint=0, drop=True)
    data["predicted_probability"][0, :10] = np.nan
    table = calibration_error(data, n_resamples=50)
    assert list(table.columns[:2]) == ["condition", "value"]
    assert table["n"].tolist() == [40, 50]
    empty = calibration_error(data.isel(image=slice(0, 10)), n_resamples=50)
    assert empty["n"].tolist() == [0, 10]
    assert empty.loc[0, ["value", "ci_low", "ci_high"]].isna().all()


def test_the_seed_states_all_of_the_randomness():
    data = made(80, 0.1)
    first, again, other = (calibration_error(data, n_resamples=100, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_what_cannot_be_judged_is_refused():
    data = made(10)
    with pytest.raises(ComparisonError, match=r"have no predicted_probability.*Prediction\(\)"):
        calibration_error(data[["rank"]])
    for arguments, message in (
        ({"n_bins": 0}, "n_bins is 0"),
        ({"level": 2.0}, "level is 2"),
        ({"n_resamples": 0}, "n_resamples is 0"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ComparisonError, match=message):
            calibration_error(data, **arguments)
