"""Options in a condition's string: what stands after the colon in "pgd:eps=4/255,steps=10"."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import ConditionError
from ..names import nearest


class Options:
    """Named values of one condition, each asked for once and then checked to be all that was given.

    Args:
        condition: the whole string, for error messages.
        text: what stands after the colon.
        known: the names that there are.

    Raises:
        ConditionError: an entry is not NAME=VALUE, a name is unknown or comes twice.

    Example:
        >>> options = Options("pgd:eps=4/255", "eps=4/255", ["eps", "steps"])
        >>> round(options.number("eps", 1.0) * 255), options.whole("steps", 10), options.text("on")
        (4, 10, None)
    """

    def __init__(self, condition: str, text: str, known: Collection[str]) -> None:
        self.condition = condition
        self._example = ", ".join(f"'{name}'" for name in known)
        self._values: dict[str, str] = {}
        for entry in text.split(",") if text else ():
            name, equals, value = (part.strip() for part in entry.partition("="))
            if not equals or not name or not value:
                raise self.wrong(f"has the option {entry!r}", "NAME=VALUE", "Write eps=4/255, say.")
            if name not in known:
                raise self.wrong(
                    f"has the option '{name}'",
                    f"one of {self._example} (nearest: {nearest(name, known)})",
                    "Correct the name.",
                )
            if name in self._values:
                raise self.wrong(f"gives '{name}' twice", "each option once", "Remove one.")
            self._values[name] = value

    @property
    def given(self) -> Mapping[str, str]:
        """The options as they were written."""
        return self._values

    def wrong(self, given: str, expected: str, remedy: str) -> ConditionError:
        """An error about this condition."""
        return ConditionError(f"The condition '{self.condition}' {given}.", expected=expected, remedy=remedy)

    def text(self, name: str) -> str | None:
        """An option as it was written; None where it is left out."""
        return self._values.get(name)

    def number(self, name: str, default: float) -> float:
        """A number such as 0.5, 2e-3 or 4/255."""
        text = self._values.get(name)
        if text is None:
            return default
        value = as_number(text)
        if value is None:
            raise self.wrong(f"has {name}={text}", "a number such as 0.5 or 4/255", "Correct the value.")
        return value

    def whole(self, name: str, default: int) -> int:
        """A whole number of 0 or more."""
        text = self._values.get(name)
        if text is None:
            return default
        if not text.isdecimal() or len(text) > 9:
            raise self.wrong(f"has {name}={text}", "a whole number", "Correct the value.")
        return int(text)


def as_number(text: str) -> float | None:
    """A decimal number or a fraction of two; None where `text` is neither.

    Example:
        >>> as_number("1/8"), as_number("0.5"), as_number("half")
        (0.125, 0.5, None)
    """
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        return None
    return value if abs(value) < float("inf") else None
