"""Shares of a gap and the agreement of estimates, against ratios and correlations written out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import xarray as xr

import vitlens as vl
from vitlens.comparison.gap import gap_closed, patching_agreement

LABELS = ["none", "all", "0_mlp_out", "1_mlp_out", "2_mlp_out", "L0H0", "L0H1", "L1H0", "classifier"]


def made(n_images=200, seed=0, gap=1.0, **shares):
    """Two checkpoints under two conditions; each component closes a share of each image's own gap."""
    rng = np.random.default_rng(seed)
    shares = {label: rng.uniform(-0.2, 1) for label in LABELS[2:]} | shares
    values = np.empty((2, 2, n_images, len(LABELS)), dtype=np.float32)
    estimates = np.empty((2, 2, n_images, len(LABELS) - 2), dtype=np.float32)
    for condition in range(2):
        before = rng.normal(-2, 0.5, n_images)
        gaps = rng.normal(gap, 1, n_images)
        effects = np.stack(
            [shares[label] * gaps + rng.normal(0, 0.3, n_images) for label in LABELS[2:]], axis=1
        )
        values[0, condition] = before[:, None]
        values[1, condition] = np.column_stack([before, before + gaps, before[:, None] + effects])
        estimates[0, condition] = 0
        estimates[1, condition] = 0.5 * effects + rng.normal(0, 0.2, effects.shape)
    return xr.Dataset(
        {
            "transplant_log_probability": (
                ("checkpoint", "condition", "image", "transplant_component"),
                values,
            ),
            "transplant_correct": (
                ("checkpoint", "condition", "image", "transplant_component"),
                values > -1.8,
            ),
            "attribution_patching": (("checkpoint", "condition", "image", "patching_component"), estimates),
        },
        coords={
            "checkpoint": ["base", "tuned"],
            "condition": ["clean", "contrast@3"],
            "transplant_component": LABELS,
            "patching_component": LABELS[2:],
        },
    )


def test_the_share_is_the_ratio_of_means():
    data = made()
    table = gap_closed(data, n_resamples=100)
    assert len(table) == 2 * 2 * 7
    assert set(table["checkpoint"]) == {"tuned"}
    for variable, metric in (
        ("transplant_log_probability", "log_probability"),
        ("transplant_correct", "accuracy"),
    ):
        for condition in data["condition"].values:
            here = data[variable].sel(checkpoint="tuned", condition=condition).astype(float)
            R, D, T = (here.sel(transplant_component=label).mean() for label in ("none", "all", "L0H1"))
            rows = table[(table["metric"] == metric) & (table["condition"] == condition)]
            (row,) = rows[rows["component"] == "L0H1"].to_dict("records")
            np.testing.assert_allclose(
                [row["value_reference"], row["value"], row["value_transplanted"]], [R, D, T], rtol=1e-6
            )
            np.testing.assert_allclose(row["gap_closed"], (T - R) / (D - R), rtol=1e-6)
            assert row["ci_low"] < row["gap_closed"] < row["ci_high"]
            assert row["gap_ci_low"] < row["gap"] < row["gap_ci_high"]
            assert row["n"] == 200


def test_intervals_are_percentiles_of_the_ratio_under_paired_resampling():
    data = made(60)
    row = gap_closed(data, n_resamples=4000).query(
        "metric == 'log_probability' and condition == 'clean' and component == '1_mlp_out'"
    )
    here = data["transplant_log_probability"].sel(checkpoint="tuned", condition="clean").values
    here = here.astype(float)
    R, D, T = here[:, 0], here[:, 1], here[:, LABELS.index("1_mlp_out")]
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        chosen = rng.integers(60, size=60)
        drawn.append((T - R)[chosen].mean() / (D - R)[chosen].mean())
    width = np.ptp(np.quantile(drawn, [0.025, 0.975]))
    np.testing.assert_allclose(
        row[["ci_low", "ci_high"]].values[0], np.quantile(drawn, [0.025, 0.975]), atol=0.1 * width
    )


def test_intervals_cover_the_true_share():
    rows = [
        gap_closed(made(80, seed, L0H0=0.5), n_resamples=300).query(
            "metric == 'log_probability' and component == 'L0H0'"
        )
        for seed in range(40)
    ]
    covered = [((row["ci_low"] < 0.5) & (row["ci_high"] > 0.5)).values for row in rows]
    assert 0.88 < np.mean(covered) <= 1


def test_where_there_may_be_no_gap_the_share_has_no_interval():
    table = gap_closed(made(40, gap=0.0), n_resamples=200).query("metric == 'log_probability'")
    assert ((table["gap_ci_low"] < 0) & (table["gap_ci_high"] > 0)).all()
    assert table[["ci_low", "ci_high"]].isna().all().all()
    same = made(20)
    same["transplant_correct"][:] = True
    rows = gap_closed(same, n_resamples=50).query("metric == 'accuracy'")
    assert rows[["gap_closed", "ci_low", "ci_high"]].isna().all().all()


def test_an_image_without_a_value_is_left_out_of_its_condition():
    data = made(50)
    data["transplant_log_probability"][1, 0, 3, 4] = np.nan
    table = gap_closed(data, n_resamples=50)
    few = table.query("metric == 'log_probability' and condition == 'clean'")
    assert set(few["n"]) == {49}
    assert set(table.drop(few.index)["n"]) == {50}
    assert few[["gap_closed", "ci_low"]].notna().all().all()


def test_agreement_is_the_correlation_of_mean_effects_by_kind():
    data = made()
    table = patching_agreement(data, n_resamples=200)
    assert table["kind"].tolist() == ["all", "mlp", "head"] * 2
    here = data.sel(checkpoint="tuned", condition="clean")
    exact = here["transplant_log_probability"]
    effects = (exact - exact.sel(transplant_component="none")).mean("image").values[2:]
    estimates = here["attribution_patching"].mean("image").values
    for kind, chosen in (("all", slice(None)), ("mlp", slice(0, 3)), ("head", slice(3, 6))):
        (row,) = table[(table["condition"] == "clean") & (table["kind"] == kind)].to_dict("records")
        x, y = effects[chosen], estimates[chosen]
        np.testing.assert_allclose(row["pearson"], scipy.stats.pearsonr(x, y)[0], rtol=1e-5)
        np.testing.assert_allclose(row["spearman"], scipy.stats.spearmanr(x, y)[0], rtol=1e-5)
        assert row["pearson_ci_low"] <= row["pearson"] <= row["pearson_ci_high"]
        assert row["n_components"] == len(x)
        assert row["n"] == 200


def test_an_exact_estimate_agrees_exactly_and_a_reversed_one_not_at_all():
    data = made()
    exact = data["transplant_log_probability"]
    effects = (exact - exact.sel(transplant_component="none")).values[..., 2:]
    for sign in (1, -1):
        data["attribution_patching"].values[:] = sign * effects
        table = patching_agreement(data, n_resamples=50)
        ends = ["pearson", "pearson_ci_low", "pearson_ci_high", "spearman", "spearman_ci_low"]
        np.testing.assert_allclose(table[ends], sign, rtol=1e-6)


def test_an_estimate_that_is_the_same_for_all_components_has_no_correlation():
    data = made()
    data["attribution_patching"].values[:] = 1
    table = patching_agreement(data, n_resamples=50)
    assert table[["pearson", "pearson_ci_low", "spearman"]].isna().all().all()


def test_the_numbers_depend_on_the_seed_alone():
    data = made(40)
    for function in (gap_closed, patching_agreement):
        first, again, other = (function(data, n_resamples=50, seed=seed) for seed in (0, 0, 1))
        assert first.equals(again)
        assert not first.equals(other)


def test_the_rows_of_a_run_are_taken_as_they_are():
    from vitlens.analyses.attribution_patching import AttributionPatching
    from vitlens.analyses.transplant import Transplant
    from vitlens.testing import randomize

    models = {
        name: vl.HookedViT(
            randomize(
                vl.HookedViT.from_timm("vit_tiny_patch16_224", depth=3, img_size=32, num_classes=10).model,
                seed,
            )
        )
        for seed, name in enumerate(("base", "tuned"))
    }
    items = [vl.images.digits("test")[index] for index in range(8)]
    data = vl.run(models, items, [Transplant(), AttributionPatching()], progress=False)
    table = gap_closed(data, n_resamples=100)
    assert table["component"].nunique() == 3 * (3 + 3) + 2
    assert patching_agreement(data, n_resamples=100)["kind"].tolist() == [
        "all",
        "resid",
        "attn",
        "mlp",
        "head",
    ]


@pytest.mark.parametrize("function", [gap_closed, patching_agreement])
def test_data_that_do_not_tell_are_refused(function):
    data = made(10)
    with pytest.raises(
        vl.errors.ComparisonError, match=r"The data hold nothing of Transplant.* \(variables: a\)"
    ):
        function(xr.Dataset({"a": 1}))
    with pytest.raises(
        vl.errors.ComparisonError, match=r"The data have 1 checkpoints\. Expected: the recipient"
    ):
        function(data.isel(checkpoint=[0]))
    with pytest.raises(vl.errors.ComparisonError, match=r"reference is 'bose', which .* Nearest: 'base'\."):
        function(data, reference="bose")
    with pytest.raises(
        vl.errors.ComparisonError, match=r"'tuned' is not what the parts were transplanted into"
    ):
        function(data, reference="tuned")
    with pytest.raises(vl.errors.ComparisonError, match=r"level is 95\."):
        function(data, level=95)
    with pytest.raises(vl.errors.ComparisonError, match=r"'transplant_log_probability' has the dims"):
        function(data[["transplant_log_probability", "attribution_patching"]].isel(condition=0))


def test_too_few_common_components_are_refused():
    data = made(10).isel(patching_component=slice(0, 2))
    with pytest.raises(vl.errors.ComparisonError, match=r"share 2 components\. Expected: three or more"):
        patching_agreement(data)
