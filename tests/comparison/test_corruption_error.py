"""mCE and relative mCE, against sums written out."""

import numpy as np
import pytest
import xarray as xr

from vitlens.comparison.corruption_error import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, mean_corruption_error
from vitlens.errors import ComparisonError


def made(suffix="", names=tuple(ALEXNET_ERROR), n_images=40, checkpoints=("base", "tuned"), extra=(), seed=0):
    """Ranks of two checkpoints under every corruption, in no order."""
    rng = np.random.default_rng(seed)
    conditions = [
        "clean",
        *extra,
        *(f"{name}@{severity}{suffix}" for name in names for severity in range(1, 6)),
    ]
    conditions = [str(name) for name in rng.permutation(conditions)]
    rank = rng.integers(0, 3, (len(checkpoints), len(conditions), n_images))
    return xr.Dataset(
        {"rank": (("checkpoint", "condition", "image"), rank)},
        coords={"checkpoint": list(checkpoints), "condition": conditions},
    )


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def test_values_are_the_papers_ratios_of_sums():
    data = made()
    table = mean_corruption_error(data, n_resamples=50)
    error = (data["rank"] != 0).mean("image")
    for checkpoint in ("base", "tuned"):
        clean = float(error.sel(checkpoint=checkpoint, condition="clean"))
        plain, relative = [], []
        for name, alexnet in ALEXNET_ERROR.items():
            errors = [float(error.sel(checkpoint=checkpoint, condition=f"{name}@{s}")) for s in range(1, 6)]
            plain.append(sum(errors) / (5 * alexnet))
            relative.append(sum(each - clean for each in errors) / (5 * alexnet - 5 * ALEXNET_CLEAN_ERROR))
            row = one(table, checkpoint=checkpoint, corruption=name, metric="corruption_error")
            assert row["value"] == pytest.approx(plain[-1])
        mce = one(table, checkpoint=checkpoint, corruption="mCE", metric="corruption_error")
        assert mce["value"] == pytest.approx(np.mean(plain))
        assert mce["n"] == 40
        row = one(table, checkpoint=checkpoint, corruption="mCE", metric="relative_corruption_error")
        assert row["value"] == pytest.approx(np.mean(relative))
    assert len(table) == 2 * 2 * 16


def test_alexnet_itself_has_errors_of_one():
    def ranks(error):
        return np.arange(10_000) < error * 10_000

    conditions = {f"{name}@{s}": ranks(error) for name, error in ALEXNET_ERROR.items() for s in range(1, 6)}
    conditions["clean"] = ranks(ALEXNET_CLEAN_ERROR)
    data = xr.Dataset(
        {"rank": (("condition", "image"), np.stack(list(conditions.values())).astype(int))},
        coords={"condition": list(conditions)},
    )
    result = mean_corruption_error(data, n_resamples=10)
    np.testing.assert_allclose(result["value"], 1, atol=1e-3)


def test_errors_are_keyed_by_name_and_their_mean_is_the_published_tables():
    assert ALEXNET_ERROR["glass_blur"] == 0.826268
    assert ALEXNET_ERROR["jpeg"] == 0.606500
    assert len(ALEXNET_ERROR) == 15
    assert pytest.approx(0.43478) == ALEXNET_CLEAN_ERROR


def test_one_resample_of_images_serves_all_conditions():
    # All conditions are alike, so that images are the only source of chance: fifteen of them tell no more.
    rng = np.random.default_rng(1)
    wrong = rng.integers(0, 2, 200)
    conditions = [f"{name}@{s}" for name in ALEXNET_ERROR for s in range(1, 6)]
    data = xr.Dataset(
        {"rank": (("condition", "image"), np.tile(wrong, (len(conditions), 1)))},
        coords={"condition": conditions},
    )
    table = mean_corruption_error(data, n_resamples=2000)
    assert set(table["metric"]) == {"corruption_error"}
    row = one(table, corruption="mCE")
    scale = np.mean([1 / alexnet for alexnet in ALEXNET_ERROR.values()])
    half = 1.96 * wrong.std(ddof=1) / 200**0.5 * scale
    assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(half, rel=0.1)
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_the_result_says_whether_it_is_mce_and_imagenet_cs():
    in_memory = mean_corruption_error(made(), n_resamples=10).attrs
    assert (in_memory["is_mce"], in_memory["is_imagenet_c"], in_memory["jpeg_quality"]) == (True, False, None)
    stored = mean_corruption_error(made(":jpeg_quality=85"), n_resamples=10).attrs
    assert (stored["is_mce"], stored["is_imagenet_c"], stored["jpeg_quality"]) == (True, True, 85)
    softer = mean_corruption_error(made(":jpeg_quality=50"), n_resamples=10).attrs
    assert (softer["is_imagenet_c"], softer["jpeg_quality"]) == (False, 50)


def test_a_subset_that_is_named_has_a_mean_of_another_name():
    data = made(":jpeg_quality=85", names=("fog", "snow"), extra=("speckle_noise@3", "fourier:band=0-1/8"))
    table = mean_corruption_error(data, corruptions=["snow"], n_resamples=10)
    assert table["corruption"].unique().tolist() == ["snow", "mean of 1"]
    assert not table.attrs["is_mce"]
    assert not table.attrs["is_imagenet_c"]
    assert set(table.attrs["not_taken"]) == {"fog", "speckle_noise"}


def test_images_without_a_rank_are_left_out_of_all():
    data = made(n_images=20)
    data["rank"] = data["rank"].astype(float)
    data["rank"][0, 3, :5] = np.nan
    table = mean_corruption_error(data, n_resamples=10)
    assert set(table["n"]) == {15}
    whole = mean_corruption_error(data.isel(image=slice(5, None)), n_resamples=10)
    np.testing.assert_allclose(table["value"], whole["value"])
    with pytest.raises(ComparisonError, match="No image has a rank under every condition"):
        mean_corruption_error(data.isel(image=slice(0, 5)))


def test_what_is_missing_is_said():
    data = made()
    lacking = data.drop_sel(condition=["fog@2", "fog@4", *(f"jpeg@{s}" for s in range(1, 6))])
    with pytest.raises(ComparisonError, match=r"lack fog@2/4, jpeg\. .*the fifteen .*corruptions=\[\.\.\.\]"):
        mean_corruption_error(lacking)
    with pytest.raises(ComparisonError, match=r"lack fog@2/4\. .*corruptions that were asked for"):
        mean_corruption_error(lacking, corruptions=["fog", "snow"])
    assert mean_corruption_error(lacking, corruptions="snow", n_resamples=5)["value"].notna().all()
    with pytest.raises(ComparisonError, match=r"error under 'fogg' is not known.* Nearest: 'fog'\."):
        mean_corruption_error(data, corruptions=["fogg"])
    with pytest.raises(ComparisonError, match="corruptions names none"):
        mean_corruption_error(data, corruptions=[])
    with pytest.raises(ComparisonError, match=r"have no rank.*Prediction\(\)"):
        mean_corruption_error(xr.Dataset())
    with pytest.raises(ComparisonError, match="lack gaussian_noise, shot_noise"):
        mean_corruption_error(data.sel(condition=["clean"]))
    both = xr.concat([data, made(":jpeg_quality=85")], dim="condition")
    with pytest.raises(ComparisonError, match=r"several qualities of JPEG: 85 and none.*data\.sel"):
        mean_corruption_error(both.isel(condition=np.unique(both["condition"], return_index=True)[1]))
    with pytest.raises(ComparisonError, match="level is 1"):
        mean_corruption_error(data, level=1.0)


def test_few_errors_give_no_interval_without_width():
    """Of 60 images under each severity, none wrong: 3 % of all may still be."""
    data = made(names=("fog",), n_images=60)
    data["rank"][:] = 0
    table = mean_corruption_error(data, corruptions=["fog"], n_resamples=50)
    row = one(table, checkpoint="base", corruption="fog", metric="corruption_error")
    assert row["value"] == 0
    assert row["ci_high"] * ALEXNET_ERROR["fog"] > 0.03
