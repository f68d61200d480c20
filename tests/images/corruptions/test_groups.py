"""Groups of corruptions, as they follow from the measured frequencies."""

import pytest

from vitlens.errors import ConditionError
from vitlens.images import (
    CORRUPTIONS,
    frequency_group,
    frequency_groups,
    measure_frequency,
    measured_frequency,
    parse_conditions,
)
from vitlens.images.corruptions.groups import FREQUENCY_GROUPS, GROUP_NAMES


def test_every_corruption_but_frost_was_measured_at_every_severity():
    expected = {
        (name, level)
        for name, spec in CORRUPTIONS.items()
        if not spec.needs_assets and spec.source
        for level in range(1, 6)
    }
    assert set(measured_frequency()) == expected


def test_the_groups_are_those_of_the_published_figures():
    groups = frequency_groups()
    assert tuple(groups) == FREQUENCY_GROUPS
    assert {"brightness", "contrast", "fog", "snow"} <= set(groups["low_frequency"])
    blurs = {"gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"}
    assert blurs == set(groups["removes_high_frequency"])
    noises = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"}
    assert noises | {"sharpen", "jpeg", "pixelate"} <= set(groups["adds_high_frequency"])
    assert groups["geometric"] == ("elastic",)


def test_no_corruption_is_in_two_groups():
    members = [name for names in frequency_groups().values() for name in names]
    assert len(members) == len(set(members))


def test_the_rule_takes_the_lowest_share_first_and_then_the_loss():
    assert frequency_group("geometry", 0.6, 0) == "geometric"
    assert frequency_group("weather", 0.03, -9.6) == "low_frequency"
    assert frequency_group("blur", 0.22, -7.7) == "removes_high_frequency"
    assert frequency_group("noise", 0.9, 7.7) == "adds_high_frequency"
    assert frequency_group("weather", 0.3, 1.0) is None


def test_a_group_stands_for_its_corruptions_in_conditions():
    names = [condition.name for condition in parse_conditions(["removes_high_frequency@2-3"])]
    expected = frequency_groups()["removes_high_frequency"]
    assert names == [f"{name}@{level}" for name in expected for level in (2, 3)]
    stored = parse_conditions(["removes_high_frequency@3:jpeg_quality=85"])
    assert stored[0].name == f"{expected[0]}@3:jpeg_quality=85"
    assert {condition.jpeg_quality for condition in stored} == {85}


@pytest.mark.parametrize("name", sorted(GROUP_NAMES))
def test_a_group_asks_for_its_severity(name):
    with pytest.raises(ConditionError, match=f"'{name}' has no severity"):
        parse_conditions([name])


def test_a_corruption_of_a_group_and_the_group_itself_are_one_condition_twice():
    with pytest.raises(ConditionError, match="'gaussian_blur@3' is given twice"):
        parse_conditions(["gaussian_blur@3", "removes_high_frequency@3"])


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_the_shipped_table_is_what_photographs_give(photographs, severity):
    items = [
        {"pixels": pixels, "label": 0, "image_id": str(index)}
        for index, pixels in enumerate(photographs[::2])
    ]
    names = [name for name, _ in list(measured_frequency())[::5]]
    table = measure_frequency(items, [f"{name}@{severity}" for name in names], progress=False)
    for row, name in zip(table.itertuples(), names, strict=True):
        shipped = measured_frequency()[name, severity]
        # Twenty photographs against a thousand.
        reach = 1.5 * (row.hf_energy_high - row.hf_energy_low) + 0.01
        assert row.hf_energy == pytest.approx(shipped["hf_energy"], abs=reach), name
        reach = 1.5 * (row.delta_hf_db_high - row.delta_hf_db_low) + 0.1
        assert row.delta_hf_db == pytest.approx(shipped["delta_hf_db"], abs=reach), name
