"""What options are made of."""

import argparse

import pytest

from vitlens.cli import compare, corrupt, finetune
from vitlens.cli.options import Several

LEAST = {
    compare: "base tuned --data data",
    corrupt: "photo --output sheet.html",
    finetune: "base --data data --output run",
}


@pytest.mark.parametrize("command", LEAST)
def test_an_option_given_again_adds_to_what_it_gave(command):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    lists = [action for action in parser._actions if action.option_strings and action.nargs == "+"]
    assert lists
    for action in lists:
        words = list(action.choices or ("7", "8", "9"))
        expected = words if action.type is None else [action.type(word) for word in words]
        option = action.option_strings[0]
        line = [*LEAST[command].split(), option, words[0], option, *words[1:]]
        assert getattr(parser.parse_args(line), action.dest) == expected
        assert getattr(parser.parse_args(line), action.dest) == expected  # and no line learns from another


def test_a_default_stands_where_nothing_is_given_and_falls_where_something_is():
    parser = argparse.ArgumentParser()
    parser.add_argument("--often", action=Several, default=["a"])
    parser.add_argument("--seldom", action=Several)
    assert vars(parser.parse_args([])) == {"often": ["a"], "seldom": None}
    assert parser.parse_args(["--often", "b", "--seldom", "c", "--often", "d", "e"]).often == ["b", "d", "e"]
    assert parser.parse_args(["--often", "a"]).often == ["a"]
    assert vars(parser.parse_args([])) == {"often": ["a"], "seldom": None}
