"""Conditions: strings, ranges, operations of one's own."""

import dataclasses

import pytest
import torch

from vitlens.errors import ConditionError, HookError, LabelError
from vitlens.images import (
    CORRUPTIONS,
    Condition,
    WhiteBox,
    corrupt,
    parse_condition,
    parse_conditions,
)
from vitlens.images.attacks import ActivationChange, Attack, fgsm, pgd
from vitlens.images.fourier import FourierNoise

from .attacks import made
from .conftest import textured


def test_clean_hands_the_images_back():
    pixels = textured(2, 8, 8)
    assert parse_condition("clean").apply(pixels, ["a", "b"]) is pixels


@pytest.mark.parametrize("name", [name for name, spec in CORRUPTIONS.items() if spec.is_ready])
def test_a_string_is_the_corruption_at_its_severity(name):
    pixels = textured(2, 16, 16)
    condition = parse_condition(f"{name}@4")
    assert condition == Condition(f"{name}@4", name, 4)
    expected = corrupt(pixels, name, 4, image_ids=["a", "b"], seed=5, step=6)
    assert torch.equal(condition.apply(pixels, ("a", "b"), seed=5, step=6), expected)


def test_a_range_names_one_condition_for_each_severity():
    names = [condition.name for condition in parse_conditions(["gaussian_blur@2-4", "clean", "contrast@3-3"])]
    assert names == ["gaussian_blur@2", "gaussian_blur@3", "gaussian_blur@4", "clean", "contrast@3"]


def test_a_mapping_names_operations_of_ones_own():
    def invert(pixels):
        return 1 - pixels

    pixels = textured(2, 8, 8)
    (condition,) = parse_conditions([{"inverted": invert}])
    assert condition.name == "inverted"
    assert torch.equal(condition.apply(pixels, ["a", "b"]), 1 - pixels)
    assert parse_condition(condition) is condition


def test_conditions_can_be_compared_and_hashed():
    assert len({parse_condition("clean"), parse_condition("clean"), parse_condition("contrast@1")}) == 2


def test_an_operation_that_writes_in_place_does_not_reach_the_clean_images():
    pixels = textured(1, 8, 8)
    before = pixels.clone()
    condition = parse_condition({"black": lambda images: images.zero_()})
    assert not condition.apply(pixels, ["a"]).any()
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda pixels: pixels * 2 + 1, r"returned go from .* to .*float32 in \[0, 1\]"),
        (lambda pixels: pixels / 0 * 0, "returned hold NaN"),
        (lambda pixels: pixels[:1], r"returned have shape \[1, 3, 8, 8\].*of shape \[2, 3, 8, 8\]"),
        (lambda pixels: pixels[..., :4], r"returned have shape \[2, 3, 8, 4\]"),
        (lambda pixels: pixels.double(), r"returned have shape .* and are torch\.float64"),
        (lambda pixels: (pixels * 255).byte(), r"returned are torch\.uint8"),
        (lambda pixels: pixels.numpy(), "returned are a ndarray, not a tensor"),
        (lambda pixels: None, "returned are a NoneType"),
    ],
)
def test_what_an_operation_returns_is_looked_at(operation, message):
    condition = parse_condition({"mine": operation})
    with pytest.raises(ConditionError, match=rf"(?s)pixels that condition 'mine' {message}"):
        condition.apply(textured(2, 8, 8), ["a", "b"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gausian_blur@3", r"no corruption 'gausian_blur'.*'gaussian_blur'"),
        ("Clean", "no corruption 'Clean'"),
        ("", "no corruption ''"),
        ("gaussian_blur", r"'gaussian_blur' has no severity.*gaussian_blur@1-5"),
        ("gaussian_blur@", "has no severity"),
        ("gaussian_blur@0", "has the severity '0'"),
        ("gaussian_blur@6", "has the severity '6'"),
        ("gaussian_blur@03", "has the severity '03'"),
        ("gaussian_blur@3 ", "has the severity '3 '"),
        ("gaussian_blur@3.5", "has the severity '3.5'"),
        ("gaussian_blur@5-1", "has the severity '5-1'"),
        ("gaussian_blur@3@4", "has the severity '3@4'"),
        ("pgd:eps=4", r"eps_pixel is 4\.0\. .*Did you mean 4/255"),
        ("pgd:epsilon=4/255", r"'pgd:epsilon=4/255' has the option 'epsilon'.*nearest: 'eps'"),
        ("pgd:eps=tiny", "has eps=tiny"),
        ("pgd:norm=l3", "norm of the attack is 'l3'"),
        ("pgd:steps=0", "steps is 0"),
        ("pgd:random_start=maybe", r"has random_start=maybe\. Expected: yes or no"),
        ("fgsm:steps=3", r"has the option 'steps'.*'eps', 'on'"),
        ("fgsm@3", "'fgsm@3' has the severity '3'"),
        ({"pgd": torch.sqrt}, "condition of your own is 'pgd'"),
        ({"clean": torch.sqrt}, "condition of your own is 'clean'"),
        ({"gaussian_blur@3": torch.sqrt}, "condition of your own is 'gaussian_blur@3'"),
        ({"": torch.sqrt}, "condition of your own is ''"),
    ],
)
def test_a_misspelt_condition_says_what_would_be_right(spec, message):
    with pytest.raises(ConditionError, match=f"(?s){message}"):
        parse_conditions(["clean", spec])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("contrast@1-2", "names 2 conditions"),
        ({"a": torch.sqrt, "b": torch.sqrt}, "names 2 conditions"),
        ({}, "names 0"),
    ],
)
def test_one_condition_is_asked_for_and_several_given(spec, message):
    with pytest.raises(ConditionError, match=message):
        parse_condition(spec)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["clean", "clean"], "'clean' is given twice"),
        (["contrast@1-3", "contrast@2"], "'contrast@2' is given twice"),
        ([{"a": torch.sqrt}, {"a": torch.sqrt}], "'a' is given twice"),
        ([], "No conditions were given"),
        ("clean", r"conditions are one string, 'clean'.*Write \['clean'\]"),
    ],
)
def test_conditions_are_at_least_one_and_each_once(specs, message):
    with pytest.raises(ConditionError, match=message):
        parse_conditions(specs)


def test_a_condition_built_by_hand_is_checked_like_a_string():
    with pytest.raises(ConditionError, match="severity of 'contrast' is None"):
        Condition("weak", "contrast")
    with pytest.raises(ConditionError, match="no corruption 'contrst'"):
        Condition("weak", "contrst", 1)


def test_a_white_box_condition_asks_the_model_and_wants_one():
    def toward(model, pixels, labels):
        pixels *= model  # in place: the clean images must not see it
        return pixels + labels.view(-1, 1, 1, 1) / 10

    (condition,) = parse_conditions([{"mine": WhiteBox(toward)}])
    pixels = textured(2, 8, 8)
    before = pixels.clone()
    got = condition.apply(pixels, ["a", "b"], model=0.5, labels=torch.tensor([0, 1]))
    assert torch.equal(got, before * 0.5 + torch.tensor([0.0, 0.1]).view(2, 1, 1, 1))
    assert torch.equal(pixels, before)
    assert not condition.shares_pixels
    assert parse_condition("contrast@2").shares_pixels
    with pytest.raises(ConditionError, match="'mine' looks inside the model, and there is none here"):
        condition.apply(pixels, ["a", "b"])


@pytest.mark.parametrize(
    ("spec", "attack"),
    [
        ("fgsm", Attack("fgsm", 4 / 255, None, 1, random_start=False)),
        ("fgsm:eps=8/255", Attack.fgsm(8 / 255)),
        ("pgd", Attack()),
        ("pgd:eps=2/255,steps=20,alpha=1/255", Attack("pgd", 2 / 255, 1 / 255, 20)),
        ("pgd:norm=l2,eps=3,restarts=2,random_start=no", Attack("pgd", 3.0, None, 10, "l2", 2, False)),
        ("pgd:on=base", Attack(on="base")),
    ],
)
def test_a_string_names_an_attack(spec, attack):
    assert parse_condition(spec) == Condition(spec, attack)
    assert parse_condition(spec).needs_model
    assert parse_condition(spec).shares_pixels is (attack.on is not None)


@pytest.mark.parametrize(
    ("spec", "attack"),
    [
        ("fgsm:eps=8/255", lambda *batch, **start: fgsm(*batch, eps_pixel=8 / 255)),
        ("pgd:steps=2", lambda *batch, **start: pgd(*batch, steps=2, **start)),
        ("pgd:steps=2,norm=l2,eps=1", lambda *batch, **start: pgd(*batch, 1, None, 2, "l2", **start)),
    ],
)
def test_an_attack_as_a_condition_is_the_call(spec, attack):
    model, (pixels, labels) = made.model(), made.images()
    ids = ["a", "b", "c", "d"]
    found = parse_condition(spec).apply(pixels, ids, seed=3, model=model, labels=labels)
    assert torch.equal(found, attack(model, pixels, labels, image_ids=ids, seed=3))


def test_an_attack_that_aims_inside_is_a_condition_under_a_name_of_ones_own():
    model, (pixels, _) = made.model(), made.images()
    inside = Attack(steps=2, objective=ActivationChange("blocks.0.hook_resid_post"))
    condition = parse_condition({"residual": inside})
    condition.check({"model": model})
    found = condition.apply(pixels, ["a", "b", "c", "d"], model=model)  # labels are not wanted
    assert not torch.equal(found, pixels)
    assert "blocks.0.hook_resid_post" in condition.identity
    lost = dataclasses.replace(inside, objective=ActivationChange("blocks.7.hook_resid_post"))
    with pytest.raises(HookError, match=r"'blocks\.7\.hook_resid_post' is not a hook"):
        parse_condition({"residual": lost}).check({"model": model})


def test_an_attack_wants_a_model_and_labels_of_its_classes():
    pixels, labels = made.images()
    ids = ["a", "b", "c", "d"]
    with pytest.raises(ConditionError, match="'pgd' looks inside the model, and there is none here"):
        parse_condition("pgd").apply(pixels, ids, labels=labels)
    with pytest.raises(LabelError, match=r"labels go from .* to 1\d\."):
        parse_condition("pgd").apply(pixels, ids, labels=labels + 10, model=made.model())


def test_the_attacked_checkpoint_has_to_be_one_of_the_run():
    models = {"base": made.model(), "tuned": made.model(1)}
    assert parse_condition("pgd:on=tuned").attacked_checkpoint == "tuned"
    parse_condition("pgd:on=tuned").check(models)
    with pytest.raises(
        ConditionError,
        match=r"'pgd:on=tunned' attacks the checkpoint 'tunned'\. .*'base', 'tuned' \(nearest: 'tuned'",
    ):
        parse_condition("pgd:on=tunned").check(models)


def test_a_conditions_identity_says_what_its_name_leaves_out():
    assert "eps_pixel=0.0156" in parse_condition("pgd").identity
    assert parse_condition("pgd").identity != parse_condition("fgsm").identity
    one, other = (parse_condition({"mine": Attack(eps_pixel=eps)}) for eps in (0.1, 0.2))
    assert one.name == other.name
    assert one.identity != other.identity
    assert parse_condition("clean").identity == "clean"


def test_a_quality_goes_with_corruptions_of_the_registry_alone():
    with pytest.raises(
        ConditionError, match="'mine' has a jpeg_quality, and is no corruption of the registry"
    ):
        Condition("mine", torch.sqrt, jpeg_quality=85)


def test_fourier_noise_is_told_apart_by_its_band_and_rms_and_objectives_not_by_their_address():
    quiet, loud = (Condition("low", FourierNoise((0.0, 0.1), rms)) for rms in (0.01, 0.5))
    assert quiet.identity != loud.identity

    class Mine:
        hook_names = ("hook_embed",)

        def __call__(self, model, activations, clean, logits, labels):
            return logits.sum(-1)

    first, second = (Condition("mine", Attack(objective=Mine())) for _ in range(2))
    assert first.identity == second.identity


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pdg:eps=4/255", "no corruption 'pdg'.*nearest: 'pgd'"),
        ("lowfrequency@3", "no corruption 'lowfrequency'.*nearest: 'low_frequency'"),
        ("clean@3", "'clean@3' has the severity '3'.*'clean' without one"),
        ("fourier@3", r"'fourier@3' has the severity '3'.*fourier:band=0-1/8"),
        ("pgd:steps=" + "9" * 50, "Expected: a whole number"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(spec, message):
    with pytest.raises(ConditionError, match=f"(?s){message}"):
        parse_conditions([spec])
