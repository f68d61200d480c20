"""Figures of an SAE, against numpy and at their fixed points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import vitlens as vl
from vitlens import saes
from vitlens.errors import SAEError, ShapeError
from vitlens.saes.estimates import SPLICE_FIGURES
from vitlens.saes.evaluate import evaluate
from vitlens.saes.evaluation import decoder_coherence
from vitlens.saes.intervals import Resamples
from vitlens.saes.tokens import as_tokens
from vitlens.saes.transfer import transfer
from vitlens.testing import randomize

from .conftest import believed, identity_sae, items, make_sae

HOOK = "blocks.1.hook_resid_post"

matrices = npst.arrays(
    np.float32,
    st.tuples(st.integers(2, 9), st.integers(1, 5)),
    elements=st.floats(-1000, 1000, width=32),
)


@settings(deadline=None, max_examples=50)
@given(x=matrices, seed=st.integers(0, 99))
def test_fvu_is_the_ratio_that_numpy_gives(x, seed):
    noise = np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32)
    deviations = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    measured = saes.fvu(torch.from_numpy(x), torch.from_numpy(x + noise))
    if (deviations**2).sum() == 0:
        assert measured == math.inf
    else:
        error = x.astype(np.float64) - (x + noise).astype(np.float64)
        assert measured == pytest.approx((error**2).sum() / (deviations**2).sum(), rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(x=matrices)
def test_the_mean_predictor_has_an_fvu_of_exactly_one(x):
    x = torch.from_numpy(x).double()
    mean = x.mean(dim=0).expand_as(x)
    if not torch.equal(x, x[:1].expand_as(x)):
        assert saes.fvu(x, mean) == 1.0
        assert saes.fvu(x, x) == 0.0


def test_a_scalar_mean_would_flatter_where_dimensions_have_different_means():
    # Peers' R² with one mean for all dimensions calls the constant predictor nearly perfect.
    x = torch.tensor([[100.0, 0.0], [100.0, 1.0]])
    assert saes.fvu(x, torch.tensor([100.0, 0.5]).expand(2, 2)) == 1.0


def test_fvu_of_activations_far_from_zero_does_not_cancel():
    x = 1e4 + torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    expected = np.square(x.numpy().astype(np.float64) - x.numpy().astype(np.float64).mean(0)).sum()
    assert saes.fvu(x, x + 0.5) == pytest.approx(5000 * 3 * 0.25 / expected, rel=1e-6)


def test_fvu_without_variance_is_undefined_or_infinite():
    x = torch.ones(3, 2)
    assert math.isnan(saes.fvu(x, x))
    assert saes.fvu(x, x + 1) == math.inf


@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (6,), (1, 3, 2)])
def test_fvu_refuses_to_broadcast(shape):
    with pytest.raises(ShapeError, match=r"x has shape \[3, 2\]"):
        saes.fvu(torch.zeros(3, 2), torch.zeros(shape))


def test_l0_and_dead_features_count_what_is_not_zero():
    codes = torch.tensor([[[0.0, 1e-30, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0]]])
    assert saes.l0(codes) == 1.5
    assert saes.dead_features(codes).tolist() == [0, 3]
    assert saes.dead_features(torch.ones(2, 3)).tolist() == []


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), n_tokens=st.integers(2, 40), batch_size=st.integers(1, 50))
def test_figures_are_those_of_all_tokens_at_once_whatever_the_batch(seed, n_tokens, batch_size):
    generator = torch.Generator().manual_seed(seed)
    sae = make_sae(torch.randn(9, 4, generator=generator), threshold=1.5)
    x = torch.randn(n_tokens, 4, generator=generator) + 3
    codes = sae.encode(x)
    active = (codes > 0).numpy()
    measured = saes.figures(sae, x, batch_size=batch_size)
    assert measured["l0"] == pytest.approx(active.sum(axis=1).mean())
    assert measured["n_dead"] == (active.sum(axis=0) == 0).sum() == len(saes.dead_features(codes))
    assert measured["n_dense"] == (active.mean(axis=0) > 0.5).sum()
    assert measured["fvu"] == pytest.approx(saes.fvu(x, sae.decode(codes)), rel=1e-5)
    assert measured["n_tokens"] == n_tokens


def test_long_passes_go_block_by_block(monkeypatch):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 5
    whole = saes.fvu(x, x + 1)
    monkeypatch.setattr("vitlens.saes.tokens._N_BLOCK_TOKENS", 7)
    assert saes.fvu(x, x + 1) == pytest.approx(whole, rel=1e-12)
    x[41] = math.nan
    with pytest.raises(SAEError, match="in 1 of 50 tokens"):
        as_tokens(x, "They")


def test_figures_refuse_what_does_not_fit():
    sae = make_sae(torch.eye(3))
    with pytest.raises(SAEError, match=r"activations are 4 wide, the SAE's d_in is 3.*hook_name"):
        saes.figures(sae, torch.ones(2, 4))
    with pytest.raises(SAEError, match="NaN or infinity in 1 of 2"):
        saes.figures(sae, torch.tensor([[1.0, 2, 3], [math.nan, 0, 0]]))
    with pytest.raises(SAEError, match="batch_size is 0"):
        saes.figures(sae, torch.ones(2, 3), batch_size=0)


def test_the_training_form_and_broken_weights_are_refused():
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    in_training = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=3, d_sae=4, k=1))
    with pytest.raises(SAEError, match=r"The SAE is a BatchTopKTrainingSAE.*inference form"):
        saes.figures(in_training, torch.ones(2, 3))
    with pytest.raises(SAEError, match="NaN or infinity among its weights"):
        saes.figures(make_sae(torch.full((3, 3), math.nan)), torch.ones(2, 3))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), d_sae=st.integers(2, 30), block=st.integers(1, 31))
def test_coherence_is_that_of_all_cosines_at_once_whatever_the_block(seed, d_sae, block):
    rows = np.random.default_rng(seed).standard_normal((d_sae, 5)).astype(np.float32)
    cosines = np.abs(_cosines(rows))
    np.fill_diagonal(cosines, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitlens.saes.evaluation.N_BLOCK_FEATURES", block)
        largest, mean = decoder_coherence(torch.tensor(np.vstack([rows, np.zeros((1, 5), np.float32)])))
    assert largest == pytest.approx(cosines.max(), rel=1e-5)
    assert mean == pytest.approx(cosines.max(axis=1).mean(), rel=1e-5)


def _cosines(rows):
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return directions @ directions.T


def test_coherence_of_orthogonal_and_of_opposite_directions():
    assert decoder_coherence(torch.eye(4)) == (0, 0)
    assert decoder_coherence(torch.cat([torch.eye(3), -torch.eye(3)])) == (1, 1)
    assert all(math.isnan(value) for value in decoder_coherence(torch.ones(1, 3)))


def some_sae(seed=0, tokens="all", hook_name=HOOK):
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(40, 32, generator=generator) / 6
    sae = make_sae(decoder, threshold=0.6, hook_name=hook_name, tokens=tokens)
    sae.b_dec.copy_(torch.randn(32, generator=generator))
    return sae


def tuned_of(small_timm):
    import copy

    tuned = copy.deepcopy(small_timm)
    with torch.no_grad():
        for mine, theirs in zip(
            tuned.parameters(), randomize(copy.deepcopy(small_timm), seed=5).parameters(), strict=True
        ):
            mine.lerp_(theirs, 0.2)
    return vl.HookedViT(tuned)


def test_an_evaluation_has_the_figures_of_the_activations_by_themselves(small_timm):
    model, sae = vl.HookedViT(small_timm), some_sae()
    conditions = ["clean", "contrast@3"]
    evaluation = evaluate(sae, model, items(9), conditions=conditions, batch_size=4, progress=False)
    for condition in conditions:
        for kind in ("cls", "patch", "all"):
            x = vl.activations(model, items(9), HOOK, tokens=kind, condition=condition, progress=False)
            expected = saes.figures(sae, x)
            cell = evaluation.figures.sel(condition=condition, token_kind=kind, estimate="value")
            for name in ("l0", "fvu", "n_dead", "n_dense", "decoder_coherence_max", "decoder_coherence_mean"):
                assert cell[name].item() == pytest.approx(expected[name], rel=1e-5), (name, kind)
            assert cell["n_tokens"].item() == expected["n_tokens"]


def test_the_mean_predictor_on_a_model_has_an_fvu_of_one(small_timm):
    model = vl.HookedViT(small_timm)
    x = vl.activations(model, items(9), HOOK, tokens="patch", progress=False)
    mean = make_sae(torch.zeros(4, 32), hook_name=HOOK, tokens="patch")
    mean.b_dec.copy_(x.double().mean(dim=0))
    evaluation = evaluate(mean, model, items(9), splice=False, progress=False)
    figures = evaluation.figures.sel(estimate="value").squeeze()
    assert figures["fvu"].item() == pytest.approx(1, abs=1e-6)
    assert (figures["l0"], figures["n_dead"]) == (0, 4)


def test_nothing_lost_is_a_share_of_exactly_one_in_every_resample(small_timm):
    model = vl.HookedViT(small_timm)
    sae = identity_sae(32, hook_name=HOOK, tokens="all")
    evaluation = evaluate(sae, model, believed(model, items(12)), progress=False)
    for name in ("accuracy", "correct_probability", "loss_nats"):
        assert (evaluation.figures[f"{name}_recovered"].sel(token_kind="all") == 1).all()
    table = evaluation.summary()
    row = table[(table.metric == "loss_nats_recovered") & (table.token_kind == "all")].iloc[0]
    assert (row.value, row.ci_low, row.ci_high, row.n, row.note) == (1, 1, 1, 12, "")
    assert table.columns.tolist()[:3] == ["metric", "condition", "token_kind"]
    assert not table.duplicated(["metric", "condition", "token_kind"]).any()


def test_a_share_is_not_clipped_and_is_paired_over_images(small_timm):
    model = vl.HookedViT(small_timm)
    evaluation = evaluate(some_sae(), model, believed(model, items(30)), n_resamples=4000, progress=False)
    loss = evaluation.rows["sae_splice_loss_nats"].isel(condition=0).sel(token_kind="patch")
    original, spliced, zeroed = loss.transpose("intervention", "image").values.astype(float)
    share = (zeroed.mean() - spliced.mean()) / (zeroed.mean() - original.mean())
    figure = evaluation.figures["loss_nats_recovered"].isel(condition=0).sel(token_kind="patch")
    assert figure.sel(estimate="value").item() == pytest.approx(share)
    rng = np.random.default_rng(7)
    drawn = rng.integers(30, size=(4000, 30))
    means = [values[drawn].mean(axis=1) for values in (original, spliced, zeroed)]
    low, high = np.quantile((means[2] - means[1]) / (means[2] - means[0]), [0.025, 0.975])
    width = high - low
    assert figure.sel(estimate="ci_low").item() == pytest.approx(low, abs=0.15 * width)
    assert figure.sel(estimate="ci_high").item() == pytest.approx(high, abs=0.15 * width)
    worse = original - spliced  # were the splice better than the original, the share would be above 1
    assert (share > 1) == (worse.mean() > 0)


def test_where_zeroing_costs_nothing_there_is_no_share(small_timm):
    model = vl.HookedViT(small_timm)
    # Pooling reads the class token, so what the last block leaves of the patches is read by nobody.
    sae = identity_sae(32, hook_name="blocks.2.hook_resid_post", tokens="patch")
    table = evaluate(sae, model, believed(model, items(12)), progress=False).summary().set_index("metric")
    assert np.isnan(table.loc["loss_nats_recovered", ["value", "ci_low", "ci_high"]].astype(float)).all()
    assert (
        table.loc["loss_nats_recovered", "note"] == "the interval of zeroed minus original does not exclude 0"
    )
    assert table.loc["loss_nats_change_zeroed", "value"] == 0
    assert table.loc["fvu", "note"] == ""


def test_no_figure_depends_on_the_batch_and_a_stored_evaluation_is_read_back(small_timm, tmp_path):
    model, sae = vl.HookedViT(small_timm), some_sae()
    first = evaluate(sae, model, items(7), batch_size=3, output=tmp_path / "run", progress=False)
    again = evaluate(sae, model, items(7), batch_size=3, output=tmp_path / "run", progress=False)
    assert first.figures.identical(again.figures)
    assert first.rows.identical(again.rows)
    other = evaluate(sae, model, items(7), batch_size=7, progress=False)
    for name in first.figures.data_vars:
        np.testing.assert_allclose(other.figures[name], first.figures[name], rtol=1e-4, err_msg=str(name))


def test_an_evaluation_says_whose_the_sae_is(small_timm):
    model, sae = vl.HookedViT(small_timm), some_sae()
    settings = {"splice": False, "progress": False}
    assert evaluate(sae, model, items(2), **settings).sae_checkpoint == "unknown"
    sae.cfg.metadata["model"] = {"weights_sha256": vl.models.weights_sha256(model)}
    assert evaluate(sae, model, items(2), **settings).sae_checkpoint == "same weights"
    elsewhere = evaluate(sae, tuned_of(small_timm), items(2), **settings)
    assert elsewhere.sae_checkpoint == "other weights"
    assert set(elsewhere.summary().sae_checkpoint) == {"other weights"}
    assert "SAE of other weights" in repr(elsewhere)


def test_another_hook_is_warned_of_once_and_a_misfit_is_refused_before_the_run(small_timm):
    model = vl.HookedViT(small_timm)
    with pytest.warns(UserWarning, match="is used at") as warned:
        evaluate(some_sae(), model, items(2), hook_name="blocks.0.hook_mlp_out", progress=False)
    assert len(warned) == 1
    with pytest.raises(SAEError, match="n_resamples is 10"):
        evaluate(some_sae(), model, items(2), n_resamples=10, progress=False)
    with pytest.raises(SAEError, match="d_in is 16"):
        evaluate(identity_sae(16, hook_name=HOOK, tokens="all"), model, items(2), progress=False)


def test_an_interval_of_a_mean_is_near_that_of_t():
    from scipy import stats

    values = np.random.default_rng(0).gamma(3, size=200)
    value, low, high = Resamples(4000, seed=1).of(values)
    expected = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert value == pytest.approx(values.mean())
    assert [low, high] == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    assert np.isnan(Resamples(100, seed=0).of(np.ones((1, 2)))[1:]).all()


def test_a_resample_without_a_denominator_widens_the_interval_and_does_not_undo_it():
    parts = np.zeros((6, 2))
    parts[:2] = 1, 1
    value, low, high = Resamples(2000, seed=0).of(parts, lambda means: means[..., 0] / means[..., 1])
    assert (value, low, high) == (1, -np.inf, np.inf)  # (4/6)**6 of the resamples have neither image
    parts = np.zeros((40, 2))
    parts[:12] = 1, 1
    assert Resamples(2000, seed=0).of(parts, lambda m: m[..., 0] / m[..., 1]).tolist() == [1, 1, 1]


def test_a_share_above_one_is_reported_as_it_came():
    rng = np.random.default_rng(0)
    losses = np.stack([1.0 + 0 * rng.random(50), 0.5 + rng.random(50) / 9, 2 + rng.random(50)], axis=-1)
    rows = xr.Dataset({"sae_splice_loss_nats": (("image", "intervention"), losses)})
    figure = next(figure for figure in SPLICE_FIGURES if figure.name == "loss_nats_recovered")
    value, low, high = figure.estimated(figure.parts(rows, "sae"), Resamples(500, seed=0)).values
    means = losses.mean(axis=0)
    assert value == pytest.approx((means[2] - means[1]) / (means[2] - means[0]))
    assert 1 < low < value < high


def test_transfer_has_every_sae_on_every_checkpoint_and_paired_differences(small_timm):
    models = {"base": vl.HookedViT(small_timm), "tuned": tuned_of(small_timm)}
    dictionaries = {"base": some_sae(0), "tuned": some_sae(1)}
    images = believed(models["base"], items(12))
    table = transfer(models, dictionaries, images, conditions=["clean", "contrast@2"], progress=False)
    keys = ["metric", "condition", "token_kind", "sae", "checkpoint", "reference_sae", "reference_checkpoint"]
    found = table.set_index(keys)["value"].to_dict()
    for sae in models:
        for checkpoint, model in models.items():
            alone = evaluate(
                dictionaries[sae], model, images, conditions=["clean", "contrast@2"], progress=False
            )
            for row in alone.summary().itertuples():
                if row.metric in set(table.metric):
                    cell = found[row.metric, row.condition, row.token_kind, sae, checkpoint, "", ""]
                    assert cell == pytest.approx(row.value, rel=1e-4, nan_ok=True)
    assert len(table) == len(set(table.metric)) * 2 * 3 * (4 + 4)
    for reference in (("base", "base"), ("tuned", "tuned")):
        cell = ("fvu", "clean", "patch")
        difference = found[*cell, "base", "tuned", *reference]
        assert difference == pytest.approx(
            found[*cell, "base", "tuned", "", ""] - found[*cell, *reference, "", ""], abs=1e-9
        )


def test_a_checkpoint_beside_itself_differs_by_exactly_nothing(small_timm):
    model, sae = vl.HookedViT(small_timm), some_sae(tokens="patch")
    images = believed(model, items(8))
    table = transfer({"base": model, "tuned": model}, {"base": sae, "tuned": sae}, images, progress=False)
    differences = table[table.reference_sae != ""]
    assert (differences[["value", "ci_low", "ci_high"]].dropna() == 0).all(axis=None)
    assert set(differences.metric) == {"l0", "fvu", "loss_nats_change_spliced", "loss_nats_recovered"}


def test_transfer_refuses_saes_of_no_checkpoint_and_of_other_places(small_timm):
    models = {"base": vl.HookedViT(small_timm), "tuned": vl.HookedViT(small_timm)}
    with pytest.raises(SAEError, match=r"an SAE of 'tunde', which is none.*nearest: 'tuned'"):
        transfer(models, {"tunde": some_sae()}, items(2), progress=False)
    elsewhere = {"base": some_sae(), "tuned": some_sae(hook_name="blocks.0.hook_resid_post")}
    with pytest.raises(SAEError, match=r"'base' reads all tokens of 'blocks\.1.*one place"):
        transfer(models, elsewhere, items(2), progress=False)


def test_deit_tiny_loses_nothing_by_an_sae_that_changes_nothing(deit_tiny, data_folder):
    model = vl.HookedViT(deit_tiny)
    photographs = vl.images.folder(data_folder / "imagenet_samples", model)
    images = [photographs[i] for i in range(0, len(photographs), len(photographs) // 6)][:6]
    sae = identity_sae(192, hook_name="blocks.9.hook_resid_post", tokens="all")
    evaluation = evaluate(sae, model, images, progress=False)
    loss = evaluation.rows["sae_splice_loss_nats"]
    assert float(abs(loss.sel(intervention="spliced") - loss.sel(intervention="original")).max()) < 1e-5
    figures = evaluation.figures.sel(estimate="value", condition="clean")
    assert figures["fvu"].max() < 1e-10
    assert figures["loss_nats_recovered"].sel(token_kind="all").item() == pytest.approx(1, abs=1e-5)
    assert figures["loss_nats_change_zeroed"].sel(token_kind="cls") > 1
