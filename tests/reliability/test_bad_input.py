"""Bad input over the whole public API and the command line: every call is refused in vitlens's own words."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vitlens as vl
from vitlens import errors

ROOMS = ("comparison", "functional", "images", "models", "report", "running", "saes", "testing", "training")

NOT_CALLED = {
    "a protocol or a type, which nobody calls": {
        "Analysis", "GradientAnalysis", "PairedAnalysis", "SetStatistic", "Family", "running.AnyAnalysis",
        "running.Reduction", "running.State", "images.AttackObjective", "images.ImageDataset",
        "images.Item", "images.OnBadImage", "report.ComparisonLike", "saes.Tokens", "training.Objective",
    },
    "what the library makes and hands out": {
        "Pass", "images.AttackReport", "images.Batch", "images.Spectrum", "models.HookPoint",
        "saes.Evaluation", "saes.FeatureEffects", "saes.FeatureMatch", "saes.Gallery", "saes.Similarity",
        "saes.StoredTokens", "training.FinetuneResult", "training.StepBatch",
    },
    "it takes no arguments, or any will do": {
        "AttentionDistance", "AttentionEntropy", "Prediction", "images.frequency_groups", "images.known",
        "images.measured_frequency", "training.CrossEntropy",
    },
    "a constant or a mapping, which answers with its own KeyError": {
        "CORRUPTIONS", "comparison.ALEXNET_CLEAN_ERROR", "comparison.ALEXNET_ERROR", "images.BAD_IMAGES",
        "images.CORRUPTIONS", "images.ConditionSpec",
    },
    "it is checked when it is used, and called so above": {
        "Representation", "images.WhiteBox",
    },
    "a step inside others, which have checked what it is given": {
        "images.as_far_as_known", "images.fingerprint", "images.first_readable", "images.frequency_group",
        "images.n_images", "images.numbered_batches", "images.readable", "images.spread",
        "images.texts_sha256", "images.without", "models.evaluating", "running.analysis_identity",
        "running.forward", "running.measuring", "running.normalization", "running.where_known",
        "saes.code_similarity", "saes.seed_interval",
    },
    "a formula on tensors: torch's own error says which shapes do not fit": {
        "functional.artifact_tokens", "functional.attention_relevance", "functional.cka_from_moments",
        "functional.class_rank", "functional.correct_log_probability", "functional.cosine",
        "functional.entropy_nats", "functional.first_correct_layer", "functional.gradient_times_activation",
        "functional.grouped_jackknife_se", "functional.head_attribution", "functional.is_distribution",
        "functional.kl_nats",
        "functional.last_change_layer", "functional.merge_cka_moments", "functional.patch_distances",
        "functional.relative_distance", "functional.ridge_regression", "functional.sum_by_patch",
        "saes.dead_features", "saes.decoder_coherence", "saes.l0",
    },
}  # fmt: skip
"""Reason -> public names that no call of the table is of."""


@pytest.fixture(scope="module")
def told():
    program = Path(__file__).with_name("calls.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_call_is_refused_with_the_error_and_the_words_of_the_table(told):
    odd = []
    for name, kind, words, (found, *parts) in told:
        said = all(word in part for word, part in zip(words, parts, strict=False))
        if found != kind or not said:
            odd.append((name, kind, words, found, parts))
    assert odd == []


def test_the_errors_of_the_table_are_vitlens_own_and_say_all_three_things(told):
    assert len(told) >= 80
    for name, kind, words, _ in told:
        if kind == "Refused":
            continue
        assert issubclass(getattr(errors, kind), errors.VitlensError), name
        assert len(words) == 3, name
        assert all(words), name


def public():
    """Every public name, a room's own with the room before it; those of `vitlens` itself without."""
    names = {name for name in vl.__all__ if name not in (*ROOMS, "errors", "names")}
    for room in ROOMS:
        module = importlib.import_module(f"vitlens.{room}")
        own = getattr(module, "__all__", ("check_family", "randomize"))
        names |= {f"{room}.{name}" for name in own if getattr(vl, name, None) is not getattr(module, name)}
    return names


def test_every_public_name_is_called_or_has_a_reason_why_not(told):
    called = {name for name, *_ in told} - {"cli"}
    reasons = [name for names in NOT_CALLED.values() for name in names]
    assert len(reasons) == len(set(reasons))
    assert called & set(reasons) == set()
    assert public() - called - set(reasons) == set()
    assert called - public() == set()
    assert set(reasons) - public() <= {"images.CORRUPTIONS"}
