"""What instruments say of models of a made world, against what is true there.

A blur leaves the shape and takes the texture; the shape lies inside its mask. Whoever says otherwise of a
model trained here is wrong, whatever the model.
"""

import numpy as np
import pytest
import scipy.stats
import torch

import vitlens as vl

from .conftest import BLUR, CONDITIONS, coverage

N_KINDS = 4  # shapes, and textures
CHANCE = 1 / N_KINDS


def at_chance(correct):
    """Whether a share of truth values is what guessing gives, at the 0.001 % level."""
    return scipy.stats.binomtest(int(correct.sum()), len(correct), CHANCE).pvalue > 1e-5


@pytest.fixture(scope="module")
def predicted(checkpoints, held_out):
    return vl.run(checkpoints, held_out, [vl.Prediction()], conditions=CONDITIONS, progress=False)[
        "predicted"
    ]


def test_both_checkpoints_know_the_world(predicted, held_out):
    for checkpoint in ("base", "tuned"):
        correct = predicted.sel(checkpoint=checkpoint, condition="clean").values == held_out.labels
        assert correct.mean() > 0.8


def test_nobody_tells_textures_under_blur_and_fine_tuning_on_blur_moves_the_model_to_shape(
    predicted, held_out
):
    labels = np.array(held_out.labels)
    under_blur = predicted.sel(condition=BLUR)
    shapes = {}
    for checkpoint in ("base", "tuned"):
        said = under_blur.sel(checkpoint=checkpoint).values
        assert at_chance(said % N_KINDS == labels % N_KINDS)
        shapes[checkpoint] = said // N_KINDS == labels // N_KINDS
    assert shapes["tuned"].mean() > 0.9
    gained = (shapes["tuned"] & ~shapes["base"]).sum()
    lost = (shapes["base"] & ~shapes["tuned"]).sum()
    assert scipy.stats.binomtest(int(gained), int(gained + lost)).pvalue < 1e-3
    assert gained > lost


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("factor", ["shape", "texture"])
def test_a_probe_finds_a_factor_where_it_is_and_nowhere_else(checkpoints, factor, condition):
    train = vl.images.textured_shapes("train", n=800, label=factor)
    test = vl.images.textured_shapes("test", n=400, label=factor)
    for model in checkpoints.values():
        probe = vl.LinearProbe.fit(model, train, conditions=[condition], progress=False)
        data = vl.run(model, test, [probe], conditions=[condition], progress=False)
        correct = data["probe_correct"].sel(condition=condition)
        # The class token enters block 0 as a constant: nothing can be read from it.
        assert at_chance(correct.sel(resid_layer=0).values)
        for resid_layer in range(1, model.cfg.n_layers + 1):
            here = correct.sel(resid_layer=resid_layer).values
            if factor == "texture" and condition == BLUR:
                assert at_chance(here)
            else:
                assert here.mean() > 0.6
        if not (factor == "texture" and condition == BLUR):
            assert correct.sel(resid_layer=model.cfg.n_layers).mean() > 0.85


def inside_minus_outside(maps, masks):
    """Mean over patches on the shape less mean over patches off it, for each image."""
    inside, outside = masks > 0.5, masks == 0
    return np.array([m[i].mean() - m[o].mean() for m, i, o in zip(maps, inside, outside, strict=True)])


def is_positive(differences):
    return scipy.stats.ttest_1samp(differences, 0, alternative="greater").pvalue < 1e-3


def test_a_patchs_lens_knows_the_texture_on_the_shape_and_nothing_off_it(bag_of_patches, held_out):
    # Its patches do not see each other: what lies off the shape cannot know what is on it.
    textures = vl.images.textured_shapes("test", n=len(held_out), label="texture")
    analyses = [vl.Prediction(), vl.TokenLens()]
    data = vl.run(bag_of_patches, textures, analyses, conditions=CONDITIONS, progress=False)
    covered = coverage(held_out, patch_size=8)
    inside, outside = covered > 0.5, covered == 0
    labels = np.array(textures.labels)
    assert (data["predicted"].sel(condition="clean").values == labels).mean() > 0.7
    right = data["token_lens_predicted"] == labels[None, :, None, None, None]
    for resid_layer in right["resid_layer"].values:
        for condition in CONDITIONS:
            here = right.sel(resid_layer=resid_layer, condition=condition).values
            # One patch an image: those of one image do not err independently.
            assert at_chance(np.array([values[off][0] for values, off in zip(here, outside, strict=True)]))
    last = right.isel(resid_layer=-1)
    assert last.sel(condition="clean").values[inside].mean() > 0.45
    assert abs(last.sel(condition=BLUR).values[inside].mean() - CHANCE) < 0.05


def test_attributions_and_rollouts_lie_on_the_shape(checkpoints, held_out, masks):
    n = 96
    few = [held_out[index] for index in range(n)]
    analyses = [vl.AttentionRollout(), vl.GradientRollout(), vl.IntegratedGradients(n_steps=16)]
    data = vl.run(checkpoints, few, analyses, conditions=["clean"], progress=False).sel(condition="clean")
    for checkpoint in ("base", "tuned"):
        for name in ("attention_rollout", "gradient_rollout", "integrated_gradients"):
            maps = data[name].sel(checkpoint=checkpoint).values
            assert is_positive(inside_minus_outside(maps, masks[:n])), name


def test_what_was_gained_under_blur_is_in_the_stream_that_a_transplant_carries(checkpoints, held_out):
    shapes = vl.images.textured_shapes("test", n=len(held_out), label="shape")

    class ShapeTransplant:
        """Whether the shape is right with the tuned stream after each block in the base."""

        def hooks(self, model):
            return {}

        def compare(self, reference, checkpoint, batch):
            said = [
                vl.transplant(checkpoint.model, reference.model, batch.pixels, name).argmax(-1)
                for name in (f"blocks.{layer}.hook_resid_post" for layer in range(4))
            ]
            right = [each // N_KINDS == batch.labels for each in (reference.logits.argmax(-1), *said)]
            return vl.table({"shape_right": (("place",), torch.stack(right, dim=1))}, place=range(5))

    data = vl.run(checkpoints, shapes, [ShapeTransplant()], conditions=[BLUR], progress=False)
    right = data["shape_right"].sel(checkpoint="tuned", condition=BLUR).mean("image").values
    plain, last = right[0], right[-1]
    # The tuned stream at the end, under the base's own norm and head, is nearly the tuned model.
    assert last > plain + 0.1
    assert right[1] < last
