"""How numbers are written: units, signs, intervals, lists; and which variable a metric is made from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..comparison.words import metric_words

MINUS = "−"


def metric_variable(metric: str) -> str:
    """The variable that a metric of a summary was made from.

    Example:
        >>> metric_variable("top5_accuracy"), metric_variable("never_correct_share")
        ('rank', 'first_correct_layer')
        >>> metric_variable("attention_entropy_nats[cls]")
        'attention_entropy_nats'
    """
    name = metric.partition("[")[0]
    if re.fullmatch(r"top\d+_accuracy", name):
        return "rank"
    return re.sub("never_correct_share$", "first_correct_layer", name)


@dataclass(frozen=True)
class Numbers:
    """Writes values of one unit.

    Attributes:
        unit: as the metric says it; `"share"` is written in percent, and differences of it in points.
    """

    unit: str

    def value(self, value: float) -> str:
        """A level.

        Example:
            >>> Numbers("share").value(0.615), Numbers("nats").value(1.23456), Numbers("").value(math.nan)
            ('61.5 %', '1.235', '–')
        """
        return self._digits(value) + (" %" if self.unit == "share" and math.isfinite(value) else "")

    def difference(self, value: float) -> str:
        """A difference, with its sign.

        Example:
            >>> Numbers("share").difference(-0.021), Numbers("nats").difference(0.3)
            ('−2.1', '+0.300')
        """
        text = self._digits(value)
        return text if not value > 0 else f"+{text}"

    def interval(self, low: float, high: float) -> str:
        """Both ends of an interval of a difference; nothing where there is none."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return ""
        return f"[{self.difference(low)}, {self.difference(high)}]"

    @property
    def difference_unit(self) -> str:
        """The unit of a difference, in words; empty for a bare number."""
        return {"share": "percentage points", "probability": "", "resid_layer": "layers"}.get(
            self.unit, self.unit
        )

    def _digits(self, value: float) -> str:
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            text = "∞"
        elif self.unit == "share":
            text = f"{100 * abs(value):.1f}"
        elif self.unit in ("probability", "nats"):
            text = f"{abs(value):.3f}"
        elif self.unit == "resid_layer":
            text = f"{abs(value):.2f}"
        else:
            text = f"{abs(value):.4g}"
        return (MINUS if value < 0 and float(text.replace("∞", "inf")) else "") + text


@dataclass(frozen=True)
class Spoken:
    """What the metrics of a summary are called, and how their values are written.

    Attributes:
        units: unit of each metric, by its name.
        titles: of variables, as their figures have them; a metric of another is called by its name.
    """

    units: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def words(self, metric: object) -> str:
        """A metric as one says it, plain text.

        Example:
            >>> Spoken(titles={"speed": "How fast it is"}).words("speed")
            'How fast it is'
        """
        return metric_words(str(metric), self.titles)

    def numbers(self, metric: object) -> Numbers:
        """Writes the values of a metric."""
        return Numbers(self.units.get(str(metric), ""))


def joined(parts: list[str]) -> str:
    """Parts of a list as prose.

    Example:
        >>> joined(["a", "b", "c"])
        'a, b and c'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
