"""What the figures show, in words: a definition beside each, from its metrics or from the variable itself."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from ..comparison.metrics import Metric
from .charts.variables import definition, is_drawable, long_name
from .wording import Spoken, metric_variable


def definitions(
    data: xr.Dataset, metrics: Sequence[Metric], spoken: Spoken
) -> dict[str, list[tuple[str, str]]]:
    """Variable -> what is made from it, in words: name and definition.

    A variable of which no metric is made, such as one over `resid_layer`, defines itself.
    """
    defined: dict[str, list[tuple[str, str]]] = {}
    for metric in metrics:
        variable = metric_variable(metric.name)
        words = " ".join(metric.description.split())
        said = long_name(data[variable]) if variable in data else ""
        if said and words.startswith(said):  # nobody has said more of it than the variable itself
            words = f"{definition(data[variable])} {words.removeprefix(said).lstrip('. ')}".strip()
        defined.setdefault(variable, []).append((spoken.words(metric.name), words))
    for name, title in spoken.titles.items():
        if name not in defined and is_drawable(data[name]):
            defined[name] = [(title, definition(data[name]))]
    return defined
