"""Comparing checkpoints: the same pixels, in step, with what is needed to repeat it."""

import numpy as np
import pytest
import timm
import torch
import xarray as xr

import vitlens as vl
from vitlens.testing import randomize


def model(seed, **kwargs):
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 4,
        "num_classes": 10,
    }
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**settings | kwargs), seed))


@pytest.fixture(scope="module")
def images():
    digits = vl.images.digits("test")
    return [digits[index] for index in range(24)]


@pytest.fixture(scope="module")
def comparison(images):
    models = {"base": model(0), "tuned": model(1)}
    return vl.compare(models, images, conditions=["clean", "gaussian_noise@3"], progress=False)


def test_each_checkpoint_has_what_run_gives_it_alone(comparison, images):
    analyses = [vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy()]
    for name, seed in (("base", 0), ("tuned", 1)):
        alone = vl.run(
            model(seed), images, analyses, conditions=["clean", "gaussian_noise@3"], progress=False
        )
        xr.testing.assert_allclose(comparison.data.sel(checkpoint=name, drop=True), alone)


def test_the_summary_pairs_the_same_images(comparison):
    rows = comparison.summary().set_index(["metric", "condition"])
    for condition in ("clean", "gaussian_noise@3"):
        correct = (comparison.data["rank"] == 0).sel(condition=condition).mean("image")
        row = rows.loc[("top1_accuracy", condition)]
        assert row["value_reference"] == pytest.approx(float(correct.sel(checkpoint="base")))
        assert row["value"] == pytest.approx(float(correct.sel(checkpoint="tuned")))
        assert row["n"] == 24


def test_examples_are_spread_over_the_images_and_carry_the_same_pixels(comparison, images):
    examples = comparison.examples
    assert examples["image"].values.tolist() == [images[i]["image_id"] for i in (0, 8, 15, 23)]
    clean = examples["pixels"].sel(condition="clean").values[1]
    np.testing.assert_array_equal(clean, (images[8]["pixels"].permute(1, 2, 0) * 255).round().byte())
    noisy = vl.corrupt(images[8]["pixels"][None], "gaussian_noise", 3, image_ids=[images[8]["image_id"]])
    shown = examples["pixels"].sel(condition="gaussian_noise@3").values[1]
    np.testing.assert_array_equal(shown, (noisy[0].permute(1, 2, 0) * 255).round().byte())
    everywhere = comparison.data["predicted"].sel(image=examples["image"])
    np.testing.assert_array_equal(examples["predicted"], everywhere)


def test_a_generator_can_be_compared_without_examples(images):
    models = {"base": model(0), "tuned": model(1)}
    assert vl.compare(models, iter(images), progress=False).examples is None


def test_provenance_says_what_is_needed_to_repeat_it(comparison):
    provenance = comparison.provenance
    assert provenance["checkpoints"]["base"]["weights_sha256"] == vl.weights_sha256(model(0))
    assert provenance["conditions"] == ["clean", "gaussian_noise@3"]
    assert provenance["images"]["n"] == 24
    assert {"vitlens", "torch", "timm"} <= provenance["versions"].keys()


def test_checkpoints_of_different_architectures_are_refused_before_any_image_is_read():
    def never():
        raise AssertionError("an image was read")
        yield

    models = {"base": model(0), "tuned": model(0, depth=2)}
    with pytest.raises(vl.errors.ArchitectureError, match=r"'base' and 'tuned'.*n_layers 3 and 2"):
        vl.compare(models, never(), progress=False)


def test_one_checkpoint_is_no_comparison(images):
    with pytest.raises(vl.errors.ComparisonError, match=r"There are 1 checkpoints.*vitlens\.run"):
        vl.compare({"base": model(0)}, images, progress=False)


def test_a_model_without_a_classifier_is_compared_by_what_it_has(images):
    models = {"base": model(0, num_classes=0), "tuned": model(1, num_classes=0)}
    comparison = vl.compare(models, images, progress=False)
    assert list(comparison.data) == ["attention_entropy_nats"]
    assert comparison.examples is None
    assert set(comparison.summary()["metric"]) == {
        "attention_entropy_nats[cls]",
        "attention_entropy_nats[patch]",
    }


@pytest.fixture(scope="module")
def saes(images):
    models = {"base": model(0), "tuned": model(1), "unrelated": model(2)}
    trained = {}
    for seed, name in enumerate(["base", "base", "tuned", "unrelated"]):
        source = (models[name], images, "blocks.1.hook_resid_post")
        options = {
            "d_sae": 48,
            "k_per_token": 4,
            "n_tokens": 2048,
            "batch_size": 128,
            "seed": seed,
            "progress": False,
        }
        trained.setdefault(name, []).append(vl.saes.train(source, **options))
    return models, trained


def test_features_are_matched_beside_both_ends_of_the_null(saes, images):
    models, trained = saes
    pair = {name: models[name] for name in ("base", "tuned")}
    comparison = vl.compare(
        pair, images, saes=trained, unrelated_model=models["unrelated"], progress=False, n_examples=0
    )
    roles = comparison.features.groupby("role")[["seed_a", "seed_b"]].agg(lambda seeds: sorted(set(seeds)))
    assert roles.loc["checkpoints"].tolist() == [[0, 1], [2]]
    assert roles.loc["seeds"].tolist() == [[0], [1]]
    assert roles.loc["unrelated"].tolist() == [[0, 1], [3]]
    rows = comparison.features
    assert rows["decoder_cosine"].between(-1 - 1e-5, 1 + 1e-5).all()
    assert rows.loc[rows["mutual"], "activation_correlation"].notna().any()
    assert rows.loc[~rows["mutual"], "activation_correlation"].isna().all()


def test_a_pair_never_shares_a_seed(saes, images):
    models, trained = saes
    pair = {"base": models["base"], "tuned": models["tuned"]}
    alike = {"base": trained["base"][:1], "tuned": trained["base"][:1]}
    with pytest.raises(vl.errors.ComparisonError, match=r"no pair to match.*different seeds"):
        vl.compare(pair, images, saes=alike, progress=False, n_examples=0)


def test_saes_of_no_checkpoint_are_refused(saes, images):
    models, trained = saes
    pair = {"base": models["base"], "tuned": models["tuned"]}
    with pytest.raises(vl.errors.ComparisonError, match="SAEs for 'other', which is no checkpoint"):
        vl.compare(pair, images, saes={"other": trained["base"]}, progress=False, n_examples=0)


def test_a_torch_seed_does_not_matter(images):
    models = {"base": model(0), "tuned": model(1)}
    torch.manual_seed(0)
    first = vl.compare(models, images, conditions=["gaussian_noise@3"], progress=False).data
    torch.manual_seed(1)
    xr.testing.assert_identical(
        first, vl.compare(models, images, conditions=["gaussian_noise@3"], progress=False).data
    )


def test_the_report_states_the_summary_it_is_given(comparison, tmp_path):
    wide = comparison.summary(margins={"correct_probability": 1.0})
    assert (wide.loc[wide["metric"] == "correct_probability", "verdict"] == "equivalent").all()
    path = comparison.report(tmp_path / "report.html", title="Mine", summary=wide)
    content = path.read_text(encoding="utf-8")
    assert "<h1>Mine</h1>" in content
    assert '<td class="equivalent">' in content


def test_images_that_an_analysis_names_are_among_the_examples(images):
    models = {"base": model(0), "tuned": model(1)}
    named = (images[5]["image_id"],)
    made = vl.compare(
        models,
        images,
        analyses=[vl.Prediction(), vl.AttentionRollout(image_ids=named)],
        n_examples=2,
        progress=False,
    )
    assert made.examples["image"].values.tolist() == [images[place]["image_id"] for place in (0, 5, 23)]
