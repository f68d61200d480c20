"""Conditions: strings, ranges, operations of one's own."""

import pytest
import torch

from vitlens.errors import ConditionError
from vitlens.images import (
    CORRUPTIONS,
    Condition,
    WhiteBox,
    corrupt,
    parse_condition,
    parse_conditions,
)

from .conftest import textured


def test_clean_hands_the_images_back():
    pixels = textured(2, 8, 8)
    assert parse_condition("clean").apply(pixels, ["a", "b"]) is pixels


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
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
        (
            "pgd:eps=4/255,steps=10",
            "'pgd:eps=4/255,steps=10' looks like an attack, and this version of vitlens has none",
        ),
        ("fgsm", "looks like an attack"),
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
