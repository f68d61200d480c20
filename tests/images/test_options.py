"""Options in a condition's string."""

import pytest

from vitlens.errors import ConditionError
from vitlens.images.options import Options, as_number

KNOWN = ("eps", "steps", "on")


def options(text):
    return Options(f"pgd:{text}", text, KNOWN)


def test_options_are_read_by_their_kind_and_default_where_left_out():
    given = options("eps=4/255, steps=10,on=base")
    assert given.number("eps", 0) == 4 / 255
    assert given.whole("steps", 0) == 10
    assert given.text("on") == "base"
    assert dict(given.given) == {"eps": "4/255", "steps": "10", "on": "base"}
    none = options("")
    assert (none.number("eps", 0.5), none.whole("steps", 7), none.text("on")) == (0.5, 7, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4/255", 4 / 255),
        ("2e-3", 0.002),
        ("-1", -1.0),
        ("1/0", None),
        ("inf", None),
        ("nan", None),
        ("1/2/3", None),
        ("", None),
        ("/3", None),
    ],
)
def test_numbers_are_decimals_or_fractions(text, value):
    assert as_number(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eps", r"'pgd:eps' has the option 'eps'\. Expected: NAME=VALUE"),
        ("eps=", "has the option 'eps='"),
        ("=3", "has the option '=3'"),
        ("eps=1,,steps=2", "has the option ''"),
        ("step=3", r"has the option 'step'\. Expected: one of 'eps', 'steps', 'on' \(nearest: 'steps'"),
        ("eps=1,eps=2", "gives 'eps' twice"),
    ],
)
def test_what_is_no_option_is_refused(text, message):
    with pytest.raises(ConditionError, match=message):
        options(text)


def test_a_value_of_another_kind_is_refused_when_it_is_asked_for():
    with pytest.raises(ConditionError, match=r"has eps=much\. Expected: a number such as 0\.5 or 4/255"):
        options("eps=much").number("eps", 0)
    for text in ("steps=1.5", "steps=-1", "steps=many"):
        with pytest.raises(ConditionError, match="Expected: a whole number"):
            options(text).whole("steps", 0)
