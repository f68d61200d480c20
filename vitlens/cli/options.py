"""What options are made of: whole numbers, refused with a sentence, and lists that go on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

ON_BAD_IMAGE: Mapping[str, Any] = {
    "choices": ["skip", "raise"],
    "default": "skip",
    "help": "a file that cannot be read is left out, with a warning, or ends the command (default skip)",
}
"""The option `--on-bad-image`, as `add_argument` takes it."""


def number(text: str) -> int:
    """A whole number, 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> number("12")
        12
    """
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number such as 0 or 32")
    return int(text)


def positive(text: str) -> int:
    """A whole number, 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> positive("12")
        12
    """
    value = number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return value


class Several(argparse.Action):
    """An option's values, one or more; given again, the option adds to them, and the default goes.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--conditions", action=Several, default=["clean"])
        >>> parser.parse_args(["--conditions", "fog@1", "--conditions", "fog@2", "fog@3"]).conditions
        ['fog@1', 'fog@2', 'fog@3']
        >>> parser.parse_args([]).conditions
        ['clean']
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs="+", **settings)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add to what this line has given so far."""
        before = getattr(namespace, self.dest, self.default)
        # argparse's own "extend" would add to the default; here it is still there only if nothing was given.
        setattr(namespace, self.dest, [*(() if before is self.default else before), *values])
