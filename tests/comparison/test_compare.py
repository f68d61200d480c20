"""Comparing checkpoints: the same pixels, in step, with what is needed to repeat it."""

import copy
import dataclasses

import numpy as np
import pandas as pd
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
        row = rows.loc[[("top1_accuracy", condition)]].iloc[0]
        assert row["value_reference"] == pytest.approx(float(correct.sel(checkpoint="base")))
        assert row["value"] == pytest.approx(float(correct.sel(checkpoint="tuned")))
        assert row["n"] == 24


@pytest.mark.parametrize("without", [{"global_pool": ""}, {"num_classes": 0}])
def test_checkpoints_without_a_classifier_are_compared_by_what_needs_none(images, without):
    models = {"base": model(0, **without), "tuned": model(1, **without)}
    made = vl.compare(models, images[:4], progress=False)
    assert set(made.data) == {"attention_entropy_nats"}
    assert made.examples is None


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


def with_metadata(saes, **changes):
    """The same SAEs with other metadata."""
    changed = copy.deepcopy(saes)
    for its in changed.values():
        for sae in its:
            for name, value in changes.items():
                setattr(sae.cfg.metadata, name, value)
    return changed


def never():
    raise AssertionError("an image was read")
    yield


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seed": None}, "ComparisonError", r"An SAE of 'base' does not say its seed\..*metadata"),
        ({"kind": None, "tokens": None}, "ComparisonError", "An SAE of 'base' does not say its kind, tokens"),
        ({"seed": 0}, "ComparisonError", "there is no pair to match.*different seeds"),
        ({"hook_name": "blocks.7.hook_resid_post"}, "HookError", r"blocks\.7\.hook_resid_post"),
        ({"tokens": "register"}, "ArchitectureError", "register"),
        ({"hook_name": "blocks.1.attn.hook_q"}, "AnalysisError", r"hook_q' is \(1, 17, 4, 8\)"),
        (
            {"hook_name": "blocks.1.mlp.hook_post"},
            "ComparisonError",
            r"base\[0\] has d_in 32, and 'blocks\.1\.mlp\.hook_post' is 128 wide.*which model the SAE",
        ),
    ],
)
def test_saes_that_cannot_be_matched_are_refused_before_an_image_is_read(saes, changes, error, message):
    models, trained = saes
    pair = {name: models[name] for name in ("base", "tuned")}
    with pytest.raises(getattr(vl.errors, error), match=message):
        vl.compare(pair, never(), saes=with_metadata(trained, **changes), progress=False)


def test_saes_of_one_checkpoint_alone_are_refused_before_an_image_is_read(saes):
    models, trained = saes
    pair = {name: models[name] for name in ("base", "tuned")}
    alone = {name: trained[name] for name in ("base", "unrelated")}
    with pytest.raises(vl.errors.ComparisonError, match="Among the SAEs of base, unrelated there is no pair"):
        vl.compare(pair, never(), saes=alone, progress=False)
    with pytest.raises(vl.errors.ComparisonError, match="Among the SAEs of no checkpoint there is no pair"):
        vl.compare(pair, never(), saes={}, progress=False)


def test_a_random_weight_model_of_another_architecture_is_refused_before_an_image_is_read(saes):
    models, trained = saes
    pair = {name: models[name] for name in ("base", "tuned")}
    with pytest.raises(vl.errors.ArchitectureError, match=r"'base' and 'unrelated'.*n_layers 3 and 2"):
        vl.compare(pair, never(), saes=trained, unrelated_model=model(2, depth=2), progress=False)


def test_a_checkpoint_that_is_called_as_the_null_is_refused_beside_saes(saes):
    models, trained = saes
    with pytest.raises(vl.errors.ComparisonError, match=r"A checkpoint is called 'unrelated'.*otherwise"):
        vl.compare(
            {"base": models["base"], "unrelated": models["tuned"]}, never(), saes=trained, progress=False
        )


def test_a_generator_is_compared_by_decoders_alone_and_says_so(saes, images):
    models, trained = saes
    pair = {name: models[name] for name in ("base", "tuned")}
    with pytest.warns(UserWarning, match="a list_iterator, which is used up after one pass"):
        made = vl.compare(pair, iter(images), saes=trained, progress=False)
    assert made.galleries is None
    assert made.features["activation_correlation"].isna().all()
    assert made.data.sizes["image"] == len(images)


def test_features_of_models_without_a_classifier_are_shown_too(saes, images):
    _, trained = saes
    bare = {"base": model(0, num_classes=0), "tuned": model(1, num_classes=0)}
    made = vl.compare(bare, images, saes=trained, n_gallery_features=2, progress=False)
    assert {len(gallery.checkpoints) for gallery in made.galleries.values()} == {1, 2}
    assert all(len(gallery) <= 2 for gallery in made.galleries.values())


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
    assert '<td class="equivalent"' in content


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


class Stops(torch.utils.data.Dataset):
    """A data set that breaks off at one image, and counts what it gives."""

    def __init__(self, items, at=None):
        self.items, self.at, self.n_read = items, at, 0
        self.image_ids = [item["image_id"] for item in items]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index == self.at:
            raise OSError("gone")
        self.n_read += 1
        return self.items[index]


@pytest.fixture
def kept(images, tmp_path):
    """Makes a comparison in a folder."""

    def make(dataset=images, **changes):
        options = {
            "conditions": ["clean", "gaussian_noise@3"],
            "output": tmp_path / "kept",
            "progress": False,
        }
        return vl.compare({"base": model(0), "tuned": model(1)}, dataset, **options | changes)

    return make


def test_a_comparison_that_broke_off_goes_on_and_gives_the_same(images, kept):
    many = [dict(item, image_id=f"{place}") for place, item in enumerate(images * 12)]
    with pytest.raises(vl.errors.DatasetError, match="gone"):
        kept(Stops(many, at=270), n_examples=0, on_bad_image="raise")
    again = Stops(many)
    made = kept(again, n_examples=0)
    assert again.n_read == len(many) - 256 + 2 * 8  # the first part is not measured again
    xr.testing.assert_identical(made.data, kept(many, n_examples=0, output=None).data)


def test_a_finished_comparison_is_read_back_after_a_look_at_eight_images(images, kept, tmp_path):
    made = kept(Stops(images))
    again = Stops(images)
    found = kept(again)
    assert again.n_read == min(8, len(images))
    xr.testing.assert_identical(found.data, made.data)
    xr.testing.assert_identical(found.examples, made.examples)
    assert found.provenance == made.provenance
    xr.testing.assert_identical(vl.Comparison.load(tmp_path / "kept").data, made.data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"batch_size": 8}, "batch_size: 32 there, 8 now"),
        ({"precision": "bfloat16"}, "precision: None there, 'bfloat16' now"),
        ({"conditions": ["clean"]}, "conditions: "),
        ({"analyses": [vl.Prediction()]}, "analyses: "),
        ({"n_examples": 2}, "n_examples: 4 there, 2 now"),
        ({"n_gallery_features": 2}, "n_gallery_features: 4 there, 2 now"),
        ({"class_names": list("abcdefghij")}, "class_names_sha256: None there"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused(images, kept, change, message):
    few = images[:4]
    kept(few)
    with pytest.raises(
        vl.errors.ComparisonError, match=rf"holds another comparison \({message}.*Name another"
    ):
        kept(few, **change)


def test_other_images_in_the_same_folder_are_refused(images, kept, tmp_path):
    kept(images[:4])
    with pytest.raises(vl.errors.ComparisonError, match=r"images\.image_ids_sha256"):
        kept(images[4:8])
    (tmp_path / "kept" / "comparison.safetensors").unlink()
    with pytest.raises(vl.errors.AnalysisError, match=r"holds another run: its images\.image_ids_sha256: "):
        kept(images[4:8])  # the rows that are left know it too


def test_other_pixels_or_labels_under_the_same_ids_are_refused(images, kept):
    few = images[:4]
    kept(few)
    darker = [item | {"pixels": item["pixels"] / 2} for item in few]
    with pytest.raises(vl.errors.ComparisonError, match=r"images\.pixels_sha256"):
        kept(darker)
    with pytest.raises(vl.errors.ComparisonError, match=r"images\.labels_sha256"):
        kept([item | {"label": (item["label"] + 1) % 10} for item in few])


def test_the_order_of_checkpoints_tells_comparisons_apart(images, tmp_path):
    models = {"base": model(0), "tuned": model(1)}
    options = {"output": tmp_path, "n_examples": 0, "progress": False}
    vl.compare(models, images[:4], **options)
    with pytest.raises(vl.errors.ComparisonError, match="order: "):
        vl.compare(dict(reversed(models.items())), images[:4], **options)


def test_another_operation_or_analysis_of_the_same_name_is_refused(images, kept):
    few = images[:4]
    kept(few, conditions=[{"dark": lambda pixels: pixels / 2}])
    with pytest.raises(vl.errors.ComparisonError, match="conditions: "):
        kept(few, conditions=[{"dark": lambda pixels: pixels / 9}])


def test_reading_back_what_only_its_reader_knows_to_be_the_same_is_warned_of(images, kept):
    kept(iter(images[:4]), n_examples=0)
    with pytest.warns(UserWarning, match="whether they are the same is for you to know"):
        kept(iter(images[:4]), n_examples=0)


def test_a_damaged_comparison_is_named(images, kept, tmp_path):
    kept(images[:4])
    path = tmp_path / "kept" / "comparison.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(vl.errors.CheckpointError, match=r"comparison\.safetensors cannot be read"):
        kept(images[:4])
    path.unlink()  # the rows are still there
    assert kept(images[:4]).data.sizes["image"] == 4


def test_a_file_is_no_folder_to_keep_a_comparison_in(images, kept, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(vl.errors.ComparisonError, match="which is a file"):
        kept(images[:4])


def test_a_comparison_with_matched_features_is_kept_whole(saes, images, tmp_path, monkeypatch):
    models, trained = saes
    pair = {name: models[name] for name in ("base", "tuned")}
    options = {"saes": trained, "unrelated_model": models["unrelated"], "n_examples": 0, "progress": False}
    made = vl.compare(pair, images, output=tmp_path, **options)
    monkeypatch.setattr(vl.comparison.comparing, "compare_features", None)  # nothing is matched again
    found = vl.compare(pair, images, output=tmp_path, **options)
    pd.testing.assert_frame_equal(made.features, found.features)
    assert list(found.galleries) == list(made.galleries)
    for heading, gallery in made.galleries.items():
        pd.testing.assert_frame_equal(found.galleries[heading].table(), gallery.table())
    fewer = trained | {"base": trained["base"][:1]}
    with pytest.raises(vl.errors.ComparisonError, match=r"saes\.base"):
        vl.compare(pair, images, output=tmp_path, **options | {"saes": fewer})


def test_the_call_that_repeats_it_is_told(comparison):
    assert comparison.provenance["call"] == (
        "vitlens.compare({'base': ..., 'tuned': ...}, dataset, analyses=[Prediction(), LogitLens(), "
        "AttentionEntropy(normalized=False)], conditions=['clean', 'gaussian_noise@3'], n_examples=4, "
        "batch_size=32, precision=None, seed=0)"
    )


def test_the_example_images_are_kept_under_every_condition(images):
    models = {"base": model(0), "tuned": model(1)}
    conditions = ["gaussian_noise@3", "contrast@2", "fgsm:eps=1/255"]
    kept = vl.compare(models, images[:3], conditions=conditions, n_examples=1, progress=False).examples
    assert kept["shown_condition"].values.tolist() == ["clean", *conditions]
    assert kept["condition"].values.tolist() == conditions[:2]
    pixels = kept["condition_pixels"].isel(image=0)
    clean = (images[0]["pixels"].permute(1, 2, 0) * 255).round().byte()
    np.testing.assert_array_equal(pixels.sel(shown_condition="clean"), clean)
    np.testing.assert_array_equal(pixels.sel(shown_condition="fgsm:eps=1/255"), clean)
    dim = vl.corrupt(images[0]["pixels"][None], "contrast", 2)[0].permute(1, 2, 0)
    np.testing.assert_array_equal(pixels.sel(shown_condition="contrast@2"), (dim * 255).round().byte())


def test_transfer_is_kept_with_the_comparison(comparison, tmp_path):
    with pytest.raises(vl.errors.ComparisonError, match="fog@3"):
        comparison.with_transfer(seen=["gaussian_noise@3"], unseen=["fog@3"])
    both = comparison.data.sel(condition=["clean", "gaussian_noise@3", "gaussian_noise@3"])
    both = both.assign_coords(condition=["clean", "gaussian_noise@3", "own"])
    made = dataclasses.replace(comparison, data=both)
    made = made.with_transfer(seen=["gaussian_noise@3"], unseen=["own"], metrics=["correct_probability"])
    found = vl.Comparison.load(made.save(tmp_path / "comparison.safetensors")).transfer
    pd.testing.assert_frame_equal(found, made.transfer)
    difference = found[found["condition"] == "seen - unseen"]
    assert (difference["gain"] == 0).all()
