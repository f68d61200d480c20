"""Attacks as conditions of a run: white-box, or one checkpoint's pixels for all."""

import numpy as np
import pytest
import torch
from small import items, model

import vitlens as vl
from vitlens.errors import AnalysisError, ConditionError
from vitlens.images.attacks import ActivationChange, Attack, pgd

from .made import PLACE, Distance, Mean, Saliency


def stacked(dataset):
    return (
        torch.stack([item["pixels"] for item in dataset]),
        torch.tensor([item["label"] for item in dataset]),
        [item["image_id"] for item in dataset],
    )


class Seen:
    """Which pixels a model was shown."""

    def hooks(self, model):
        return {}

    def __call__(self, model, cache, logits, batch):
        return vl.table({"seen": (("pixel",), batch.pixels.flatten(1))}, pixel=range(3 * 32 * 32))


def run(models, conditions, analyses=None, **settings):
    return vl.run(
        models,
        items(5),
        analyses or [Seen()],
        conditions=conditions,
        batch_size=2,
        progress=False,
        **settings,
    )


def test_each_checkpoint_is_attacked_by_itself():
    both = {"a": model(0), "b": model(1)}
    data = run(both, ["clean", "pgd:steps=3"], seed=4)
    pixels, labels, ids = stacked(items(5))
    for name, each in both.items():
        wanted = pgd(each, pixels, labels, steps=3, image_ids=ids, seed=4)
        seen = data["seen"].sel(checkpoint=name, condition="pgd:steps=3").values
        # Another batch rounds in another way, and a sign near 0 may turn.
        assert (np.abs(seen - wanted.flatten(1).numpy()) > 1e-6).mean() < 1e-3
    assert (data["seen"].sel(condition="clean", checkpoint="a") == pixels.flatten(1).numpy()).all()


@pytest.mark.parametrize("on", ["a", "b"])
def test_one_checkpoint_is_attacked_and_all_see_its_pixels(on):
    both = {"a": model(0), "b": model(1)}
    shared = run(both, [f"pgd:steps=3,on={on}"])["seen"].isel(condition=0)
    own = run(both, ["pgd:steps=3"])["seen"].isel(condition=0)
    for name in both:
        assert (shared.sel(checkpoint=name).values == own.sel(checkpoint=on).values).all()


@pytest.mark.parametrize("analysis", [Distance(), Mean()])
def test_what_pairs_activations_takes_the_pixels_of_one_and_refuses_those_of_each(analysis):
    both = {"a": model(0), "b": model(1)}
    with pytest.raises(AnalysisError, match=r"under 'fgsm' each checkpoint sees pixels .*'pgd:on=a'"):
        run(both, ["fgsm"], [analysis])
    assert run(both, ["fgsm:on=b"], [analysis]).sizes["condition"] == 1


def test_gradient_analyses_see_attacked_pixels():
    data = run(model(0), ["clean", "fgsm"], [Saliency()])
    assert not np.allclose(data["saliency"].sel(condition="clean"), data["saliency"].sel(condition="fgsm"))


def test_what_cannot_be_attacked_is_refused_before_the_first_image():
    class Unread(list):
        def __getitem__(self, index):
            pytest.fail("an image was read")

    both = {"a": model(0), "b": model(1)}
    images = Unread(items(2))
    with pytest.raises(ConditionError, match=r"attacks the checkpoint 'c'\. Expected: one of 'a', 'b'"):
        vl.run(both, images, [Seen()], conditions=["pgd:on=c"], progress=False)
    with pytest.raises(ConditionError, match=r"checkpoint 'base'\. Expected: one of 'model'"):
        vl.run(both["a"], images, [Seen()], conditions=["pgd:on=base"], progress=False)
    lost = {"lost": Attack(objective=ActivationChange("blocks.9.hook_mlp_out"))}
    with pytest.raises(vl.errors.HookError, match=r"blocks\.9\.hook_mlp_out"):
        vl.run(both, images, [Seen()], conditions=[lost], progress=False)


class KilledError(Exception):
    pass


def test_a_run_under_attack_goes_on_where_it_was_killed(tmp_path):
    both, images = {"a": model(0), "b": model(1)}, items(8)
    settings = {"conditions": ["clean", "pgd:steps=2", "fgsm:on=b"], "batch_size": 2, "progress": False}

    class Dies(list):
        def __getitem__(self, index):
            if index == 5:
                raise KilledError
            return super().__getitem__(index)

    wanted = vl.run(both, images, [vl.Prediction()], **settings)
    stored = {**settings, "output": tmp_path, "shard_images": 2}
    with pytest.raises((KilledError, vl.errors.DatasetError)):
        vl.run(both, Dies(images), [vl.Prediction()], on_bad_image="raise", **stored)
    assert any(tmp_path.glob("rows-*"))
    again = vl.run(both, images, [vl.Prediction()], output=tmp_path, shard_images=2, **settings)
    assert again.identical(wanted)


def test_attacks_of_one_name_and_other_settings_are_other_runs(tmp_path):
    settings = {"output": tmp_path, "progress": False}
    vl.run(model(), items(2), [vl.Prediction()], conditions=[{"mine": Attack(steps=1)}], **settings)
    with pytest.raises(
        AnalysisError, match=r"holds another run: its conditions is .*steps=1.* now .*steps=2"
    ):
        vl.run(model(), items(2), [vl.Prediction()], conditions=[{"mine": Attack(steps=2)}], **settings)


def test_activations_are_read_on_attacked_pixels():
    subject, images = model(), items(3)
    rows = vl.activations(subject, images, PLACE, condition="pgd:steps=2", progress=False)
    pixels, labels, ids = stacked(images)
    shown = pgd(subject, pixels, labels, steps=2, image_ids=ids)
    _, cache = subject.run_with_cache(subject.normalize(shown), names_filter=PLACE)
    assert torch.allclose(rows, cache[PLACE][:, 1:].flatten(0, 1).detach(), atol=1e-4)
    with pytest.raises(ConditionError, match="'pgd:on=base' attacks the checkpoint 'base'"):
        vl.activations(subject, images, PLACE, condition="pgd:on=base", progress=False)


def test_lenses_and_probes_can_be_trained_under_attack():
    subject, images = model(), items(6)
    conditions = ["clean", "fgsm"]
    probe = vl.LinearProbe.fit(subject, images, conditions=conditions, ridge=1.0, progress=False)
    clean = vl.LinearProbe.fit(subject, images, ridge=1.0, progress=False)
    assert not torch.equal(probe.weights, clean.weights)
    lens = vl.TunedLens.train(subject, images, conditions=conditions, n_steps=2, progress=False)
    vl.run(subject, images, [lens], conditions=["fgsm"], progress=False)
    for fit in (vl.LinearProbe.fit, vl.TunedLens.train):
        with pytest.raises(ConditionError, match="attacks the checkpoint 'base'"):
            fit(subject, images, conditions=["fgsm:on=base"], progress=False)


def test_ablations_take_their_means_from_attacked_pixels():
    both, images = {"a": model(0), "b": model(1)}, items(4)
    made = {
        condition: vl.Ablation.mean(both, images, condition=condition, progress=False)
        for condition in ("clean", "fgsm", "fgsm:on=b")
    }
    assert len({repr(each) for each in made.values()}) == 3


def test_a_comparison_shows_clean_pictures_where_each_checkpoint_sees_its_own():
    both = {"a": model(0), "b": model(1)}
    conditions = ["pgd:steps=1,eps=0.3", "fgsm:eps=0.3,on=b"]
    comparison = vl.compare(
        both, items(4), analyses=[vl.Prediction()], conditions=conditions, n_examples=2, progress=False
    )
    pictures = comparison.examples["pixels"]
    white_box, shared = (pictures.isel(condition=index).values for index in range(2))
    pixels, _, _ = stacked([items(4)[0], items(4)[3]])
    clean = (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    assert (clean == white_box).all()
    assert (clean != shared).mean() > 0.9
