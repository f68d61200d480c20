"""The registry: what stands in it, one's own corruptions, and what is refused."""

import pytest
import torch
from PIL import Image

import vitlens as vl
from vitlens.errors import ConditionError
from vitlens.images import CORRUPTIONS, Corruption, corrupt, parse_conditions, register_corruption
from vitlens.images.corruptions import IMAGENET_C, IMAGENET_C_EXTRA, catalogue, registry

from ..conftest import textured

FIVE = ((0.9,), (0.8,), (0.7,), (0.6,), (0.5,))


def own(name="my_corruption", apply=lambda pixels, factor: pixels * factor, **keywords):
    return Corruption(name, FIVE, ("factor",), "tone", apply, **keywords)


@pytest.fixture
def registered(monkeypatch):
    """A registry that forgets what the test adds."""
    monkeypatch.setattr(registry, "_REGISTERED", kept := dict(registry._REGISTERED))
    monkeypatch.setattr(registry, "CORRUPTIONS", kept)
    return kept


def test_the_suite_is_nineteen_and_sharpen():
    names = {spec.name for spec in (*IMAGENET_C, *IMAGENET_C_EXTRA)}
    assert len(IMAGENET_C) == 15
    assert len(names) == 19
    assert names | {"sharpen"} <= set(CORRUPTIONS)
    assert vl.CORRUPTIONS is CORRUPTIONS


def test_the_registry_is_read_only_and_says_what_each_parameter_is():
    with pytest.raises(TypeError):
        CORRUPTIONS["own"] = CORRUPTIONS["contrast"]
    for name, spec in CORRUPTIONS.items():
        assert spec.name == name
        assert len(spec.parameters) == 5
        assert all(len(row) == len(spec.parameter_names) for row in spec.parameters)
        with pytest.raises(AttributeError):
            spec.family = "other"


def test_a_corruption_of_ones_own_works_by_its_name_everywhere(registered):
    register_corruption(own())
    pixels = textured(2, 8, 8)
    assert torch.equal(corrupt(pixels, "my_corruption", 5), pixels * 0.5)
    names = [condition.name for condition in parse_conditions(["my_corruption@1-2", "clean"])]
    assert names == ["my_corruption@1", "my_corruption@2", "clean"]


def test_one_that_draws_gets_a_stream_for_each_image(registered):
    def shifted(pixels, generators, factor):
        drawn = torch.stack([torch.rand((), generator=generator) for generator in generators])
        return pixels * factor * drawn.view(-1, 1, 1, 1)

    register_corruption(own(apply=shifted, stochastic=True))
    pixels = torch.ones(2, 3, 4, 4)
    both = corrupt(pixels, "my_corruption", image_ids=["a", "b"])
    assert not torch.equal(both[0], both[1])
    assert torch.equal(corrupt(pixels[1:], "my_corruption", image_ids=["b"]), both[1:])


def test_a_name_is_given_once_and_replaced_when_asked(registered):
    register_corruption(own())
    with pytest.raises(ConditionError, match=r"'my_corruption' is registered already.*replace=True"):
        register_corruption(own())
    register_corruption(own(apply=lambda pixels, factor: pixels * 0), replace=True)
    assert not corrupt(torch.ones(1, 3, 4, 4), "my_corruption").any()


@pytest.mark.parametrize("name", ["contrast", "clean", "pgd", "fourier", "imagenet_c", "low_frequency"])
def test_the_names_of_vitlens_are_not_given_away(registered, name):
    with pytest.raises(ConditionError, match=f"'{name}' is a name of vitlens"):
        register_corruption(own(name), replace=True)


@pytest.mark.parametrize("name", ["", "my-noise", "a@3", "a:b", "3d"])
def test_a_name_can_stand_in_a_condition(name):
    with pytest.raises(ConditionError, match=r"A corruption is called .*letters, digits and underscores"):
        own(name)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        (((1.0,), (2.0,)), ("factor",)),
        (FIVE, ("a", "b")),
    ],
)
def test_parameters_are_five_rows_of_numbers_with_a_value_for_each_name(parameters, names):
    with pytest.raises(ConditionError, match=r"'mine' has the parameters .*five rows of numbers"):
        Corruption("mine", parameters, names, "tone", lambda pixels, factor: pixels)


def test_an_operation_that_writes_in_place_does_not_reach_the_clean_images(registered):
    register_corruption(own(apply=lambda pixels, factor: pixels.mul_(factor)))
    pixels = textured(1, 8, 8)
    before = pixels.clone()
    assert torch.equal(corrupt(pixels, "my_corruption", 5), before * 0.5)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda pixels, factor: pixels[:, :1], r"have shape \[1, 1, 8, 8\]"),
        (lambda pixels, factor: pixels * float("nan"), "hold NaN"),
        (lambda pixels, factor: pixels.double(), "have shape .* and are torch.float64"),
        (lambda pixels, factor: None, "are a NoneType, not a tensor"),
    ],
)
def test_what_a_registered_operation_returns_is_looked_at(registered, operation, message):
    register_corruption(own(apply=operation))
    with pytest.raises(
        ConditionError, match=rf"pixels that the corruption 'my_corruption' returned {message}"
    ):
        corrupt(textured(1, 8, 8), "my_corruption")


def test_what_leaves_the_range_is_clipped(registered):
    register_corruption(own(apply=lambda pixels, factor: pixels * 4 - 1))
    assert corrupt(textured(1, 8, 8), "my_corruption").aminmax() == (0, 1)


def test_a_condition_is_told_from_one_of_another_operation_by_its_identity(registered):
    register_corruption(own())
    first = parse_conditions(["my_corruption@1"])[0].identity
    register_corruption(own(apply=lambda pixels, factor: pixels * factor * 0.5), replace=True)
    assert parse_conditions(["my_corruption@1"])[0].identity != first


def test_nothing_but_frost_goes_by_its_name_and_other_photographs_are_asked_for(registered, tmp_path):
    with pytest.raises(ConditionError, match="'frost' is a name of vitlens"):
        register_corruption(own("frost"))
    Image.new("RGB", (64, 64), "white").save(tmp_path / "other.png")
    with pytest.raises(ConditionError, match="'frost' is registered already, with other files"):
        register_corruption(vl.images.frost(tmp_path))
    register_corruption(vl.images.frost(tmp_path), replace=True)


def test_a_corruption_of_ones_own_without_its_files_is_refused(registered):
    register_corruption(own(needs_assets=True))
    with pytest.raises(ConditionError, match="'my_corruption' needs files, and its `assets` is None"):
        corrupt(textured(1, 8, 8), "my_corruption")


def test_frost_without_its_folder_says_how_to_name_one(registered):
    registered["frost"] = next(spec for spec in catalogue.IMAGENET_C if spec.name == "frost")
    assert not registered["frost"].is_ready
    message = r"'frost' needs photographs.*vitlens\.register_corruption\(vitlens\.images\.frost\(FOLDER\)\)"
    with pytest.raises(ConditionError, match=message):
        corrupt(textured(1, 16, 16), "frost", image_ids=["a"])
    with pytest.raises(ConditionError, match=message):
        parse_conditions(["clean", "frost@3"])
    with pytest.raises(ConditionError, match=message):
        parse_conditions(["imagenet_c@3"])


def test_registering_a_folder_of_frost_makes_the_whole_set_ready(registered, frost_folder):
    registered["frost"] = next(spec for spec in catalogue.IMAGENET_C if spec.name == "frost")
    for _ in range(2):  # and again, as a notebook does
        register_corruption(vl.images.frost(frost_folder))
    conditions = parse_conditions(["imagenet_c@3"])
    assert len(conditions) == 15
    assert conditions[8].name == "frost@3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gausian_blur", "no corruption 'gausian_blur'.*nearest: 'gaussian_blur'"),
        ("lowfrequency", "no corruption 'lowfrequency'.*nearest: 'low_frequency'"),
        ("pdg", "no corruption 'pdg'.*nearest: 'pgd'"),
        ("low_frequency", "'low_frequency' is no corruption, but the name of a group or a condition"),
        ("fog@3", "'fog@3' is no corruption, but the name of a group or a condition"),
    ],
)
def test_an_unknown_corruption_lists_the_nearest_or_says_what_it_is(name, message):
    with pytest.raises(ConditionError, match=message):
        corrupt(textured(1, 16, 16), name)
