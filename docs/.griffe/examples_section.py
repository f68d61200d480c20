"""Lets the site render our docstrings' `Example:` as a section of runnable examples."""

from typing import Any

import griffe


class ExamplesSection(griffe.Extension):
    """griffe knows `Examples:` only; without it an example is shown as running text."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section in what the site reads; the source stays as it is."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
