"""Similarity of dictionaries in a comparison: its share, interval and verdict."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

import vitlens as vl
from vitlens.comparison.features import (
    SIMILARITY_COLUMNS,
    compare_features,
    match_features,
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
    return compare_features(compared, trained, images, unrelated_model=models["unrelated"], progress=False)


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


def test_the_features_are_those_of_match_features(tables, saes, images):
    models, trained = saes
    compared = {name: models[name] for name in ("base", "tuned", "other")}
    alone = match_features(compared, trained, images, unrelated_model=models["unrelated"], progress=False)
    assert alone.equals(tables[0])
    assert set(alone["role"]) == {"checkpoints", "seeds", "unrelated"}


def test_fewer_than_three_seeds_are_undecided(saes, images):
    models, trained = saes
    compared = {"base": models["base"], "tuned": models["tuned"]}
    few = {"base": trained["base"][:2], "tuned": trained["tuned"][:2], "unrelated": trained["unrelated"]}
    _, similarity = compare_features(
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
    _, similarity = compare_features(compared, pair, images, progress=False)
    row = similarity.iloc[0]
    assert np.isnan(row["similarity_share"])
    assert (row["verdict"], row["reason"]) == ("undecided", "no unrelated similarity")


def test_two_saes_of_one_checkpoint_that_share_a_seed_leave_the_share_unknown(saes, images):
    models, trained = saes
    compared = {"base": models["base"], "tuned": models["tuned"]}
    doubled = {"base": [*trained["base"], trained["base"][0]], "tuned": trained["tuned"]}
    features, similarity = compare_features(
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
