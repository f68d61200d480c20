"""Similarity of dictionaries in a comparison: its share, interval and verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

import vitlens as vl
from vitlens.comparison.feature_galleries import drawn
from vitlens.comparison.features import (
    SIMILARITY_COLUMNS,
    compare_features,
    similarity_verdict,
)
from vitlens.testing import randomize

HOOK = "blocks.0.hook_resid_post"


def model(seed):
    settings = {
        "img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 10
    }  # fmt: skip
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**settings), seed))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [
        {"pixels": pixels, "label": 0, "image_id": f"image_{i}"}
        for i, pixels in enumerate(torch.from_numpy(rng.random((128, 3, 16, 16), dtype=np.float32)))
    ]


@pytest.fixture(scope="module")
def saes(images):
    models = {"base": model(0), "tuned": model(0), "other": model(1), "unrelated": model(2)}
    settings = {"d_sae": 24, "k_per_token": 3, "n_tokens": 3072, "batch_size": 64, "progress": False}
    trained = {
        name: [
            vl.saes.train((its, images, HOOK), seed=10 * place + number, **settings)
            for number in range(2 if name == "unrelated" else 3)
        ]
        for place, (name, its) in enumerate(models.items())
    }
    return models, trained


@pytest.fixture(scope="module")
def tables(saes, images):
    models, trained = saes
    compared = {name: models[name] for name in ("base", "tuned", "other")}
    return compare_features(
        compared,
        trained,
        images,
        unrelated_model=models["unrelated"],
        n_gallery_features=3,
        progress=False,
    )


def test_the_share_and_its_interval_are_those_of_saes_similarity(tables, saes, images):
    models, trained = saes
    from vitlens.running import activations

    taken = {
        name: activations(its, images, HOOK, tokens="patch", progress=False) for name, its in models.items()
    }
    pairs = {name: trained[name] for name in ("base", "tuned", "other")}
    expected = vl.saes.similarity(
        pairs, unrelated=trained["unrelated"], activations=taken, progress=False
    ).summary()
    expected = expected[expected["statistic"] == expected["statistic"].iloc[0]].set_index("checkpoint")
    found = tables[1].set_index("checkpoint")
    for checkpoint in ("tuned", "other"):
        for name in ("similarity_share", "ci_low", "ci_high", "pair", "seed_to_seed", "unrelated"):
            assert found.loc[checkpoint, name] == pytest.approx(expected.loc[checkpoint, name], nan_ok=True)
    assert list(tables[1].columns) == list(SIMILARITY_COLUMNS)
    assert found["n_seeds"].tolist() == [3, 3]
    assert set(found["hook_name"]) == {HOOK}
    assert (found["threshold"] == 0.9).all()
    assert tables[1].attrs["level"] == 0.95


def test_the_verdict_follows_from_the_interval(tables):
    for row in tables[1].itertuples():
        assert row.verdict == similarity_verdict(row.ci_low, row.ci_high)


def matched_by_hand(a, b, saes, images):
    """The first pair of two checkpoints' SAEs, by the library's own door."""
    models, trained = saes
    acts = [vl.activations(models[name], images, HOOK, tokens="patch", progress=False) for name in (a, b)]
    return vl.saes.match(trained[a][0], trained[b][0], tuple(acts), progress=False)


@pytest.mark.parametrize("other", ["tuned", "other", "unrelated"])
def test_matched_lost_and_new_features_are_those_of_a_match(tables, saes, images, other):
    assert set(tables[0]["role"]) == {"checkpoints", "seeds", "unrelated"}
    match = matched_by_hand("base", other, saes, images)
    rows = tables[0]
    rows = rows[(rows["checkpoint_a"] == "base") & (rows["checkpoint_b"] == other)]
    rows = rows[(rows["seed_a"] == rows["seed_a"].min()) & (rows["seed_b"] == rows["seed_b"].min())]
    assert sorted(rows.loc[rows["mutual"], "feature"]) == sorted(match.pairs["feature_a"])
    assert sorted(rows.loc[~rows["mutual"], "feature"]) == match.unmatched_a.tolist()
    assert rows["n_live_b"].unique().tolist() == [24 - len(match.dead_b)]
    assert rows["n_live_b"].iloc[0] - rows["mutual"].sum() == len(match.unmatched_b)


def test_each_checkpoint_has_its_matched_lost_and_new_features_shown(tables):
    place = f"BatchTopK SAE at {HOOK}, patch tokens"
    assert list(tables[2]) == [
        heading
        for name in ("tuned", "other")
        for heading in (
            f"{place}: features that base and {name} share",
            f"{place}: features of base that {name} has lost",
            f"{place}: features that are new in {name}",
        )
    ]


@pytest.mark.parametrize("other", ["tuned", "other"])
def test_what_is_shown_belongs_to_the_match_the_model_and_the_sae(tables, saes, images, other):
    match = matched_by_hand("base", other, saes, images)
    shared, lost, new = (gallery for heading, gallery in tables[2].items() if f"{other}" in heading[-20:])
    models, trained = saes
    pairs = match.pairs.set_index(["feature_a", "feature_b"])
    for exhibit in shared.exhibits:
        row = pairs.loc[tuple(profile.feature for profile in exhibit.features)]
        assert exhibit.similarity["decoder_cosine"] == pytest.approx(row["decoder_cosine"])
    assert shared.checkpoints == ("base", other)
    for gallery, name, features, best in (
        (lost, "base", match.unmatched_a, match.best_a),
        (new, other, match.unmatched_b, match.best_b),
    ):
        assert gallery.checkpoints == (name,)
        rows = vl.activations(models[name], images, HOOK, tokens="patch", progress=False)
        codes = trained[name][0].encode(rows)
        nearest = best.set_index("feature")["decoder_cosine"]
        assert len(gallery) == min(3, len(features))
        for exhibit in gallery.exhibits:
            (profile,) = exhibit.features
            assert profile.feature in features
            assert exhibit.similarity == {"nearest_decoder_cosine": nearest[profile.feature]}
            assert profile.largest == pytest.approx(float(codes[:, profile.feature].max()), rel=1e-5)
            assert 1 <= sum(image.picked == "top" for image in exhibit.images) <= 4
        assert f"{len(gallery)} of {len(features)} " in gallery.provenance["features"]


@given(n=st.integers(0, 50), n_drawn=st.integers(0, 9), seed=st.integers(0, 2**40))
def test_features_are_drawn_from_all_over_the_order_and_once(n, n_drawn, seed):
    places = drawn(n, n_drawn, seed)
    assert places == drawn(n, n_drawn, seed)
    assert len(places) == min(n, n_drawn)
    assert places == sorted(set(places))
    # Each between the ends of its part, which are no whole numbers.
    part = n / max(len(places), 1)
    assert all(part * at - 1 < place < part * (at + 1) for at, place in enumerate(places))


def test_without_galleries_none_is_made_and_the_tables_are_the_same(tables, saes, images):
    models, trained = saes
    compared = {name: models[name] for name in ("base", "tuned", "other")}
    features, similarity, galleries = compare_features(
        compared, trained, images, unrelated_model=models["unrelated"], progress=False
    )
    assert galleries == {}
    pd.testing.assert_frame_equal(features, tables[0])
    pd.testing.assert_frame_equal(similarity, tables[1])


def test_what_can_be_read_only_once_is_compared_by_decoders_alone(saes, images):
    models, trained = saes
    compared = {"base": models["base"], "tuned": models["tuned"]}
    pair = {name: trained[name] for name in compared}
    features, _, galleries = compare_features(compared, pair, iter(()), n_gallery_features=3, progress=False)
    assert galleries == {}
    by_decoders = vl.saes.match(pair["base"][0], pair["tuned"][0], progress=False)
    first = features[(features["seed_a"] == 0) & (features["seed_b"] == 10)]
    assert sorted(first.loc[first["mutual"], "feature"]) == sorted(by_decoders.pairs["feature_a"])
    assert features["activation_correlation"].isna().all()


def test_fewer_than_three_seeds_are_undecided(saes, images):
    models, trained = saes
    compared = {"base": models["base"], "tuned": models["tuned"]}
    few = {"base": trained["base"][:2], "tuned": trained["tuned"][:2], "unrelated": trained["unrelated"]}
    _, similarity, _ = compare_features(
        compared, few, images, unrelated_model=models["unrelated"], progress=False
    )
    row = similarity.iloc[0]
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert row["verdict"] == "undecided"
    assert row["n_seeds"] == 2
    assert row["reason"]


def test_without_unrelated_saes_there_is_no_share_and_the_reason_is_said(saes, images):
    models, trained = saes
    compared = {"base": models["base"], "tuned": models["tuned"]}
    pair = {name: trained[name] for name in compared}
    _, similarity, _ = compare_features(compared, pair, images, progress=False)
    row = similarity.iloc[0]
    assert np.isnan(row["similarity_share"])
    assert (row["verdict"], row["reason"]) == ("undecided", "no unrelated similarity")


def test_two_saes_of_one_checkpoint_that_share_a_seed_leave_the_share_unknown(saes, images):
    models, trained = saes
    compared = {"base": models["base"], "tuned": models["tuned"]}
    doubled = {"base": [*trained["base"], trained["base"][0]], "tuned": trained["tuned"]}
    features, similarity, _ = compare_features(
        compared, {**doubled, "unrelated": trained["unrelated"]}, images, progress=False,
        unrelated_model=models["unrelated"],
    )  # fmt: skip
    assert len(features)
    assert np.isnan(similarity["similarity_share"].iloc[0])
    assert similarity["reason"].iloc[0] == "two SAEs of base share a seed"


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ((0.91, 0.99), "equivalent"),
        ((0.95, 1.2), "equivalent"),
        ((1.05, 1.2), "equivalent"),
        ((0.9, 0.99), "changed"),
        ((0.2, 0.5), "changed"),
        ((0.5, 1.0), "undecided"),
        ((0.5, 1.5), "undecided"),
        ((np.nan, np.nan), "undecided"),
    ],
)
def test_equivalent_lies_above_the_threshold_and_changed_below_rerunning(bounds, verdict):
    assert similarity_verdict(*bounds) == verdict


@pytest.mark.parametrize("settings", [{"level": 95.0}, {"threshold": 1.0}])
def test_numbers_out_of_range_are_refused_before_anything_is_run(saes, settings):
    models, trained = saes
    name, value = next(iter(settings.items()))
    with pytest.raises(vl.errors.ComparisonError, match=rf"{name} is {value}.*Leave it out"):
        compare_features(models, trained, iter(()), progress=False, **settings)
