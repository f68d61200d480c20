"""Lets the site read our docstrings as they are meant: an `Example:` that is run, `Returns:` as one text."""

import re
from typing import Any

import griffe

_RETURNS = re.compile(r"(?<=\nReturns:\n)    \S.*\n((?:    .*\n|\n)*)")


class ExamplesSection(griffe.Extension):
    """griffe knows `Examples:` only, and takes every line below `Returns:` for a value of its own."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section and indent the text in what the site reads; the source stays as it is."""
        if obj.docstring is not None:
            text = f"{obj.docstring.value}\n".replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = _RETURNS.sub(_indented, text).rstrip()


def _indented(returns: re.Match[str]) -> str:
    first, *others = returns[0].splitlines(keepends=True)
    return first + "".join(f"    {line}" if line.strip() else line for line in others)
