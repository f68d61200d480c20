"""Effects of matched, lost and new features, against means taken by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.errors import SAEError
from vitlens.saes.causal import ablation_hook
from vitlens.saes.feature_effects import feature_effects
from vitlens.saes.like_frequency import drawn_alike

from .conftest import items, make_sae

HOOK = "blocks.1.hook_resid_post"
D_IN, N_SHARED, N_OWN = 32, 20, 20
CONDITIONS = ("clean", "contrast@5")


@pytest.fixture(scope="module")
def checkpoints():
    """Two models that differ a little, and two SAEs that share half of their features, in another order."""
    import timm

    made = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=D_IN, depth=3, num_heads=4, num_classes=10
    )
    base = vl.testing.randomize(made)
    tuned = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += 0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    rows = torch.randn(N_SHARED + 2 * N_OWN, D_IN, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    own_b = torch.cat([rows[N_SHARED + N_OWN :], rows[:N_SHARED].flip(0)])
    saes = {
        "base": make_sae(rows[: N_SHARED + N_OWN], threshold=2.0, hook_name=HOOK, tokens="patch"),
        "tuned": make_sae(own_b, threshold=2.0, hook_name=HOOK, tokens="patch"),
    }
    match = vl.saes.match(*saes.values(), progress=False)
    # Mutual neighbors pair some of each one's own features too; those are taken for lost and new here.
    pairs = match.pairs[match.pairs["decoder_cosine"] > 0.99]
    match = replace(
        match,
        pairs=pairs,
        unmatched_a=np.arange(N_SHARED, N_SHARED + N_OWN),
        unmatched_b=np.arange(N_OWN),
    )
    assert len(pairs) == N_SHARED
    return {"base": vl.HookedViT(base), "tuned": vl.HookedViT(tuned)}, saes, match


@pytest.fixture(scope="module")
def effects(checkpoints):
    models, saes, match = checkpoints
    return feature_effects(
        models, saes, match, items(8), conditions=CONDITIONS, n_features_per_group=6, progress=False
    )


def test_pairs_lost_and_new_features_are_drawn_alike_and_paired(effects, checkpoints):
    _, _, match = checkpoints
    by_group = effects.features.groupby(["group", "sae"])["feature"].apply(list)
    assert {*by_group.index} == {
        ("matched", "base"), ("lost", "base"), ("matched", "tuned"), ("new", "tuned")
    }  # fmt: skip
    assert {len(features) for features in by_group} == {6}
    drawn = set(zip(by_group["matched", "base"], by_group["matched", "tuned"], strict=True))
    assert drawn <= set(zip(match.pairs["feature_a"], match.pairs["feature_b"], strict=True))
    assert {*by_group["lost", "base"]} <= {*match.unmatched_a}
    assert {*by_group["new", "tuned"]} <= {*match.unmatched_b}
    octaves = {
        group: sorted(np.floor(np.log2(part["n_active_tokens"])))
        for group, part in effects.features.query("group != 'matched'").groupby("group")
    }
    pairs = effects.features.query("group == 'matched'").groupby("sae")["n_active_tokens"].apply(np.array)
    octaves["matched"] = sorted(np.floor(np.log2(np.sqrt(pairs["base"] * pairs["tuned"]))))
    assert octaves["lost"] == octaves["new"] == octaves["matched"]


@torch.no_grad()
def test_the_table_holds_means_over_features_and_images_of_single_ablations(effects, checkpoints):
    models, saes, _ = checkpoints
    images = items(8)
    pixels = torch.stack([item["pixels"] for item in images])
    ids = [item["image_id"] for item in images]
    pixels = {"clean": pixels, "contrast@5": vl.corrupt(pixels, "contrast", severity=5, image_ids=ids)}
    own = range(8), [item["label"] for item in images]
    table = effects.table
    absolutes = table[table["reference_group"] == ""].set_index(
        ["metric", "condition", "group", "sae", "checkpoint"]
    )
    assert len(absolutes) == 4 * 2 * 4 * 2
    for (group, sae), features in effects.features.groupby(["group", "sae"])["feature"]:
        for checkpoint, model in models.items():
            for condition in CONDITIONS:
                x = model.normalize(pixels[condition])
                intact = model(x)
                changes = {"logit": [], "probability": []}
                for feature in features:
                    hook = ablation_hook(saes[sae], model, [feature])
                    logits = model.run_with_hooks(x, fwd_hooks=[hook])
                    changes["logit"].append((logits - intact)[own])
                    changes["probability"].append((logits.softmax(-1) - intact.softmax(-1))[own])
                for quantity, each in changes.items():
                    values = torch.stack(each)
                    for metric, mean in {
                        f"{quantity}_change": values.mean(),
                        f"absolute_{quantity}_change": values.abs().mean(),
                    }.items():
                        row = absolutes.loc[metric, condition, group, sae, checkpoint]
                        assert row["value"] == pytest.approx(float(mean), rel=1e-3, abs=2e-5)
                        assert row["ci_low"] <= row["value"] <= row["ci_high"]
                        assert (row["n"], row["n_features"]) == (8, 6)


def test_differences_are_paired_over_images(effects):
    table = effects.table
    differences = table[table["reference_group"] != ""]
    keys = ["group", "sae", "checkpoint"]
    found = {
        (tuple(row[keys]), tuple(row[[f"reference_{key}" for key in keys]]))
        for _, row in differences.iterrows()
    }
    groups = {
        (("lost", "base", name), ("matched", "base", name)) for name in ("base", "tuned")
    } | {
        (("new", "tuned", name), (*reference, name))
        for name in ("base", "tuned")
        for reference in [("matched", "tuned"), ("lost", "base")]
    }  # fmt: skip
    drawn = [("matched", "base"), ("lost", "base"), ("matched", "tuned"), ("new", "tuned")]
    across = {((*group, "tuned"), (*group, "base")) for group in drawn}
    at_home = {(("matched", "tuned", "tuned"), ("matched", "base", "base"))}
    assert found == groups | across | at_home

    absolutes = table[table["reference_group"] == ""].set_index(["metric", "condition", *keys])["value"]
    for _, row in differences.iterrows():
        where = row["metric"], row["condition"]
        cell, reference = (
            absolutes[(*where, *row[[f"{which}{key}" for key in keys]])] for which in ("", "reference_")
        )
        assert row["value"] == pytest.approx(cell - reference, abs=1e-12)

    rows = effects.rows["base_ablated_logit_change"].sel(condition="clean", checkpoint="tuned")
    features = effects.features.query("sae == 'base'").groupby("group")["feature"].apply(list)
    lost, matched = (
        rows.sel(base_feature=features[group]).mean("base_feature") for group in ("lost", "matched")
    )
    difference = (lost - matched).values.astype(float)
    rng = np.random.default_rng(5)
    resampled = difference[rng.integers(8, size=(20_000, 8))].mean(axis=1)
    interval = differences.query(
        "metric == 'logit_change' and condition == 'clean' and group == 'lost' and checkpoint == 'tuned'"
        " and reference_group == 'matched'"
    ).iloc[0]
    # The library's percentiles are moved outward, as a t interval of eight images is wider.
    widened = np.quantile(resampled, [0.0057, 1 - 0.0057])
    np.testing.assert_allclose(
        interval[["ci_low", "ci_high"]].astype(float), widened, atol=difference.std() / 8
    )


def test_the_seed_says_what_is_drawn(effects, checkpoints):
    models, saes, match = checkpoints
    asked = {"conditions": CONDITIONS, "n_features_per_group": 6, "n_resamples": 100, "progress": False}
    again = feature_effects(models, saes, match, items(8), batch_size=3, rows_per_pass=5, **asked)
    assert again.features.equals(effects.features)
    np.testing.assert_allclose(again.table["value"], effects.table["value"], rtol=1e-3, atol=2e-5)
    other = feature_effects(models, saes, match, items(8), seed=1, **asked)
    assert not other.features.equals(effects.features)
    assert repr(again) == "FeatureEffects(6 features each of matched, lost, new; 8 images)"


def test_a_group_without_features_is_left_out(checkpoints):
    models, saes, match = checkpoints
    match = replace(match, unmatched_a=np.array([], dtype=np.int64), unmatched_b=np.arange(3))
    effects = feature_effects(models, saes, match, items(4), n_resamples=100, progress=False)
    assert {*effects.table["group"]} == {"matched", "new"}
    assert {*effects.table["reference_group"]} == {"", "matched", "new"}
    assert 1 <= effects.table["n_features"].iloc[0] <= 3


def test_what_does_not_belong_together_is_refused(checkpoints):
    models, saes, match = checkpoints
    with pytest.raises(SAEError, match=r"The models are \['base'\], the SAEs are of \['base', 'tuned'\]"):
        feature_effects({"base": models["base"]}, saes, match, items(4))
    with pytest.raises(SAEError, match="The match is of 39 and 40 features, the SAEs have 40 and 40"):
        feature_effects(models, saes, replace(match, n_a=39), items(4))
    with pytest.raises(SAEError, match="generator of no known length"):
        feature_effects(models, saes, match, (item for item in items(4)))
    with pytest.raises(SAEError, match="n_features_per_group is 0"):
        feature_effects(models, saes, match, items(4), n_features_per_group=0)
    with pytest.raises(SAEError, match="rows_per_pass is 0"):
        feature_effects(models, saes, match, items(4), rows_per_pass=0)
    with pytest.raises(SAEError, match="n_resamples is 3"):
        feature_effects(models, saes, match, items(4), n_resamples=3)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 300), max_size=40), min_size=2, max_size=4),
    st.integers(1, 30),
    st.integers(0, 9),
)
def test_groups_drawn_alike_have_as_many_members_in_every_octave(groups, n, seed):
    frequencies = {str(place): np.array(each, dtype=float) for place, each in enumerate(groups)}
    octaves = {
        name: np.array([int(each).bit_length() for each in group]) for name, group in frequencies.items()
    }  # 0 for a frequency of 0
    live = [{*each.tolist()} - {0} for each in octaves.values() if (each > 0).any()]
    if not live or not set.intersection(*live):
        with pytest.raises(SAEError, match="No octave of activation frequency has features of all groups"):
            drawn_alike(frequencies, n, seed)
        return
    drawn = drawn_alike(frequencies, n, seed)
    available = sum(
        min((each == octave).sum() for each in octaves.values() if (each > 0).any())
        for octave in set.intersection(*live)
    )
    counts = []
    for name, places in drawn.items():
        assert len({*places.tolist()}) == len(places)
        assert (octaves[name][places] > 0).all()
        if (octaves[name] > 0).any():
            counts.append(np.bincount(octaves[name][places], minlength=12))
            assert len(places) == min(n, available)
        else:
            assert len(places) == 0
    assert all((each == counts[0]).all() for each in counts)
