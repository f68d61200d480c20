"""Overflow in half precision is said, and never becomes a plausible number."""

import warnings

import numpy as np
import pytest
import torch
from small import items, model

import vitlens as vl
from vitlens import analyses
from vitlens.functional import attention_distance, class_rank, entropy_nats, is_distribution, patch_distances
from vitlens.running.finiteness import NOT_FINITE
from vitlens.saes import ActivationStore

from .made import overflowing

N = 6
NAMED = ("image 1", "image 4")
SAID = (
    r"'model' under 'clean' has NaN or infinity at .* for 4 images \('image 0', 'image 1', 'image 2', ...\)"
)


def measured(made, todo, **settings):
    settings = {"batch_size": 4, "precision": "float16", "progress": False} | settings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = vl.run(made, items(N), todo, **settings)
    return data, [str(each.message) for each in caught]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_no_distribution_have_no_rank_and_no_entropy(bad):
    logits = torch.tensor([[3.0, 1.0, 2.0], [bad, 1.0, 2.0], [3.0, 1.0, bad], [3.0, 1.0, -torch.inf]])
    labels = torch.tensor([0, 0, 0, 0])
    assert is_distribution(logits).tolist() == [True, False, False, True]
    assert class_rank(logits, labels).tolist() == [0, 3, 3, 0]
    assert entropy_nats(logits).isnan().tolist() == [False, True, True, False]


def test_a_query_whose_weights_overflowed_does_not_vanish_from_the_mean_distance():
    pattern = torch.eye(4)
    pattern[1] = 0  # attends to nothing: left out
    assert attention_distance(pattern, patch_distances((2, 2))) == 0
    pattern[2, 2] = torch.nan
    assert attention_distance(pattern, patch_distances((2, 2))).isnan()


def test_float32_is_finite_and_says_nothing():
    data, said = measured(overflowing(), [vl.Prediction(), vl.LogitLens()], precision=None)
    assert not said
    assert NOT_FINITE not in data.attrs
    assert all(bool(data[name].notnull().all()) for name in data if name != "first_correct_layer")
    assert data["rank"].dtype == data["predicted"].dtype == np.int64


def test_an_overflow_is_said_once_with_the_hook_the_analysis_and_the_images():
    data, said = measured(overflowing(), [vl.Prediction(), vl.LogitLens()])
    (message,) = said
    assert "at 'blocks.1.hook_resid_pre' (read by LogitLens)" in message
    assert "float16 ends at 65504" in message
    with pytest.warns(UserWarning, match=SAID):
        vl.run(overflowing(), items(N), [vl.Prediction()], precision="float16", batch_size=4, progress=False)
    assert data.attrs[NOT_FINITE] == [
        {
            "checkpoint": "model",
            "condition": "clean",
            "place": "'blocks.1.hook_resid_pre' (read by LogitLens)",
            "n_images": N,
            "image_ids": ["image 0", "image 1", "image 2"],
        }
    ]


ALONE = [
    analyses.AttentionEntropy(),
    analyses.AttentionDistance(),
    analyses.AttentionMap(NAMED),
    analyses.AttentionRollout(NAMED),
    analyses.AttentionShare(),
    analyses.ArtifactTokens(),
    analyses.GradientTimesActivation(),
    analyses.LogitAttribution(),
    analyses.TokenLens(NAMED),
]


@pytest.mark.parametrize("analysis", ALONE, ids=lambda each: type(each).__name__)
def test_what_an_overflow_reaches_is_nan(analysis):
    """Of places along the stream the first is before the overflow; there, and only there, are numbers."""
    data, said = measured(overflowing(), [analysis])
    assert len(said) == 1
    assert type(analysis).__name__ in said[0]
    for name, values in data.items():
        after = values
        for dim in ("resid_layer", "layer"):
            if dim in values.dims:
                after = values.isel({dim: slice(1, None)})
        if "component" in values.dims:
            after = values.sel(component=[c for c in values["component"].values if c.startswith("L1")])
        assert bool(after.isnull().all()), name


def test_what_is_known_before_an_overflow_stays():
    made = overflowing()
    half, _ = measured(made, [vl.LogitLens()])
    whole, _ = measured(made, [vl.LogitLens()], precision=None)
    assert half["lens_rank"].isel(resid_layer=0).values == pytest.approx(
        whole["lens_rank"].isel(resid_layer=0).values
    )
    assert bool(half["first_correct_layer"].isnull().all() & half["last_change_layer"].isnull().all())


def test_paired_analyses_and_set_statistics_give_nan_and_say_so():
    both = {"base": overflowing(0), "tuned": overflowing(1)}
    data, said = measured(both, [vl.Representation(), vl.CKA()])
    assert len(said) == 1
    assert "(read by Representation, CKA)" in said[0]
    reached = data.isel(resid_layer=slice(1, None))
    assert all(bool(values.isnull().all()) for values in reached.values())
    assert bool(data["resid_cosine"].isel(resid_layer=0).notnull().all())


def test_interventions_call_no_silent_model_right_or_wrong():
    both = {"base": overflowing(0), "tuned": overflowing(1)}
    data, _ = measured(both, [analyses.Ablation(), analyses.Transplant()])
    assert bool(data["transplant_correct"].isnull().any())
    unknown = data["transplant_log_probability"].isnull()
    assert bool((data["transplant_correct"].isnull() == unknown).all())


def test_one_bad_image_leaves_the_others_as_they_are():
    made, images = model(), items(N)
    clean = vl.run(made, images, [vl.Prediction()], progress=False)

    class OneBad:
        """Not a number in the middle of one image's stream, as an overflow would leave it."""

        def __call__(self, activation):
            changed = activation.clone()
            changed[2, 3] = torch.nan
            return changed

    hook = made.model.blocks[1].register_forward_pre_hook(lambda _, args: (OneBad()(args[0]),))
    with pytest.warns(UserWarning, match=r"for 1 image \('image 2'\)\. .*Look for damaged weights"):
        data = vl.run(made, images, [vl.Prediction()], progress=False)
    hook.remove()
    others = [i for i in range(N) if i != 2]
    for name in set(data) - {"label"}:
        assert data[name].isel(image=2).isnull(), name
        assert data[name].isel(image=others).values == pytest.approx(clean[name].isel(image=others).values)


def test_rows_on_disk_keep_what_was_not_finite_and_say_it_again(tmp_path):
    settings = {"output": tmp_path, "shard_images": 4}
    made = overflowing()
    first, _ = measured(made, [vl.Prediction()], **settings)
    again, said = measured(made, [vl.Prediction()], **settings)
    assert first.attrs[NOT_FINITE][0]["n_images"] == N
    assert first.identical(again)
    assert len(said) == 1
    assert f"for {N} images" in said[0]


def test_a_model_in_half_precision_is_watched_as_well():
    made = overflowing()
    made.model.half()
    _, said = measured(made, [vl.Prediction()], precision=None)
    assert len(said) == 1
    assert "float16 ends at 65504" in said[0]
    made = overflowing()
    made.model.bfloat16()
    data, said = measured(made, [vl.Prediction()], precision=None)
    assert not said
    assert bool(data["rank"].notnull().all())


def test_activations_that_overflowed_are_said_where_they_are_taken():
    made, hook = overflowing(), "blocks.0.hook_mlp_out"
    made.model.half()
    with pytest.warns(UserWarning, match=r"'blocks\.0\.hook_mlp_out' \(read by activations\)"):
        rows = vl.activations(made, items(2), hook, progress=False)
    assert not bool(rows.isfinite().all())


def test_a_store_in_float16_refuses_what_it_cannot_hold(tmp_path):
    made = model()
    with torch.no_grad():
        made.model.blocks[0].mlp.fc2.bias.add_(1e5)
    hook = "blocks.0.hook_resid_post"
    with pytest.raises(vl.errors.SAEError, match=r"holds NaN or infinity in float16 .*float32 or bfloat16"):
        ActivationStore.write(
            tmp_path / "half", made, items(3), hook_names=[hook], dtype="float16", progress=False
        )
    store = ActivationStore.write(
        tmp_path / "whole", made, items(3), hook_names=[hook], dtype="bfloat16", progress=False
    )
    assert store.n_images == 3


def test_training_an_sae_refuses_activations_that_overflowed():
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)).half()
    rows[7, 3] = 1e5
    with pytest.raises(vl.errors.SAEError, match="NaN or infinity in 1 of 200 tokens"):
        vl.saes.train(rows, d_sae=16, k_per_token=2, batch_size=32, n_tokens=320, progress=False)


def test_an_sae_finds_no_features_and_no_share_where_activations_overflowed():
    hook = "blocks.0.hook_resid_post"
    source = (model(), items(30), hook)
    sae = vl.saes.train(source, d_sae=16, k_per_token=2, batch_size=32, n_tokens=640, progress=False)
    data, said = measured(overflowing(), [vl.saes.SAECode(sae)])
    assert len(said) == 1
    assert "SAECode" in said[0]
    assert all(bool(values.isnull().all()) for values in data.values())


def test_a_probe_is_not_fitted_on_what_overflowed():
    made = overflowing()
    made.model.half()
    with pytest.raises(vl.errors.AnalysisError, match="probe would be fitted on are NaN"):
        analyses.LinearProbe.fit(made, items(20), progress=False)


def test_a_comparison_leaves_unknown_images_out_of_every_pair_and_its_report_says_so(tmp_path):
    both = {"base": model(0), "tuned": overflowing(1)}
    both["tuned"].model.half()
    with pytest.warns(UserWarning, match="'tuned' under 'clean'"):
        comparison = vl.compare(both, items(12), n_examples=2, progress=False, output=tmp_path / "kept")
    rows = comparison.summary(n_resamples=200)
    study = rows[rows["metric"].isin(["top1_accuracy", "first_correct_layer", "never_correct_share"])]
    assert len(study) == 3
    assert (study["n"] == 0).all()
    assert study["difference"].isna().all()
    assert vl.Comparison.load(tmp_path / "kept").data.identical(comparison.data)
    page = comparison.report(tmp_path / "report.html").read_text()
    assert "<dt>Not finite</dt><dd>tuned under clean: 12 images, first at" in page
    assert "no prediction: its logits are not finite" in page
