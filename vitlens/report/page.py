"""The report: one HTML file that holds all it needs and asks the network for nothing."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from .. import files
from ..comparison.metrics import per_image_metrics
from ..errors import ComparisonError
from ..running.finiteness import NOT_FINITE, some_images
from .charts import figures as draw
from .charts.reading import left_out, n_classes, n_images, names
from .charts.sections import FURTHER, SECTIONS
from .charts.style import template
from .charts.variables import titles
from .corruptions import corruptions_html
from .definitions import definitions
from .dictionaries import feature_lines, features_html, similarity_lines
from .figure_html import element_id, figure_heading, figure_html, figure_json, figure_meta
from .findings import Links, findings_html
from .protocol import ComparisonLike, check_comparison
from .shell import PAGE, Section, asset, body, contents, data_block
from .summary_tables import cells_html, rows_json, scalars_html
from .tables import provenance_table
from .transferred import transfer_html
from .wording import Spoken, joined, metric_variable

_FEW = 100
"""Below so many images the page says so."""


def write(
    comparison: ComparisonLike,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    figures: Mapping[str, go.Figure] | None = None,
    summary: pd.DataFrame | None = None,
) -> Path:
    """Write a comparison as one HTML file: what changed in words, the figures, tables, and provenance.

    The file opens with no network. It is the same, byte for byte, for the same comparison.

    A comparison may hold more than `ComparisonLike` asks for, and what is there is shown: `transfer` and
    `similarity`, tables; `galleries`, heading -> `vitlens.saes.Gallery`.

    Args:
        comparison: labelled values; no model is needed.
        path: where the file shall stand. It is written whole or not at all.
        title: of the page; by default, which checkpoints are compared.
        figures: what to show, by default all of `figures(comparison)`. A figure of your own may say its
            caption in `layout.meta["caption"]` and its heading in `layout.meta["section"]`, else it stands
            under "Further". Sections and figures keep this order.
        summary: the rows to report, as `comparison.summary(...)` gave them with margins of your own; by
            default those of `comparison.summary()`.

    Returns:
        The path.

    Raises:
        ComparisonError: `path` is a folder.

    Example:
        >>> import tempfile, types
        >>> import xarray as xr
        >>> from vitlens.comparison.summary import summarize
        >>> data = xr.Dataset(
        ...     {"rank": (("checkpoint", "condition", "image"), [[[0, 3]], [[0, 0]]])},
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean"]},
        ... )
        >>> comparison = types.SimpleNamespace(
        ...     data=data, reference="base", examples=None, features=None, class_names=["cat", "dog"],
        ...     provenance={}, summary=lambda: summarize(data),
        ... )
        >>> path = write(comparison, Path(tempfile.mkdtemp()) / "report.html")
        >>> "<h1>What changed from base to tuned</h1>" in path.read_text(encoding="utf-8")
        True
    """
    check_comparison(comparison)
    if files.as_path(path, "path", ComparisonError).is_dir():
        raise ComparisonError(
            f"{os.fspath(path)} is a folder.",
            expected="the name of a file",
            remedy="Add one, such as report.html.",
        )
    if summary is None:
        summary = comparison.summary()
    level, attributes = float(summary.attrs.get("level", 0.95)), summary.attrs
    summary = summary.reset_index(drop=True)
    summary.attrs = {**attributes, "level": level}
    if figures is None:
        figures = draw(comparison, summary)
    metrics = per_image_metrics(comparison.data, n_classes=n_classes(comparison))
    spoken = Spoken({metric.name: metric.unit for metric in metrics}, titles(comparison.data))
    shown = _Shown(figures)
    galleries, rules = _galleries(comparison)
    extra = {
        "Features": features_html(comparison.features, _table_of(comparison, "similarity")) + galleries,
        "Corruptions": corruptions_html(comparison.data, comparison.examples),
        "Transfer": transfer_html(_table_of(comparison, "transfer"), spoken),
    }
    sections = [
        Section("Summary", _summary(comparison, summary, spoken, shown)),
        *shown.sections(extra, definitions(comparison.data, metrics, spoken)),
        Section("Tables", scalars_html(summary, spoken) + cells_html(summary, spoken)),
        Section("Provenance", _provenance(comparison.provenance)),
    ]
    sections = [section for section in sections if section.text]
    templates = {"light": template().to_plotly_json(), "dark": template(dark=True).to_plotly_json()}
    files.write_text(
        path,
        PAGE.substitute(
            title=html.escape(title or _title(comparison)),
            css=asset("report.css") + asset("comparison.css") + rules,
            subject=_subject(comparison),
            contents=contents(sections),
            body=body(sections),
            data=data_block("templates", json.dumps(templates))
            + data_block("summary-data", rows_json(summary))
            + "".join(data_block(f"{each.element}-data", figure_json(each.figure)) for each in shown.figures),
            plotly=get_plotlyjs(),
            script=asset("report.js") + asset("tables.js"),
        ),
    )
    return Path(path)


class _Shown:
    """The figures of a page: their elements, their sections, and which shows a metric."""

    def __init__(self, figures: Mapping[str, go.Figure]) -> None:
        self.figures = [
            _Figure(element_id(place, name), name, figure)
            for place, (name, figure) in enumerate(figures.items(), start=1)
        ]

    def of_metric(self, metric: str) -> str | None:
        """The element of the figure that shows a metric: of several the last, which shows differences."""
        variable = metric_variable(metric)
        found = [each.element for each in self.figures if each.meta.get("variable") == variable]
        return found[-1] if found else None

    def sections(
        self, extra: Mapping[str, str], definitions: Mapping[str, Sequence[tuple[str, str]]]
    ) -> list[Section]:
        """A section for each heading, in a report's order; headings of one's own stand where they come."""
        grouped: dict[str, list[_Figure]] = {}
        for each in self.figures:
            grouped.setdefault(str(each.meta.get("section", FURTHER)), []).append(each)
        for heading in (heading for heading, text in extra.items() if text):
            grouped.setdefault(heading, [])
        order = {heading: place for place, heading in enumerate((*SECTIONS[:-1], "Transfer"))}
        ours = sorted(
            (heading for heading in grouped if heading in order), key=lambda heading: order[heading]
        )
        return [
            Section(
                heading,
                "\n".join(
                    [
                        *(
                            figure_html(
                                each.element, each.name, each.figure, definitions.get(each.variable, ())
                            )
                            for each in grouped[heading]
                        ),
                        extra.get(heading, ""),
                    ]
                ),
                [(each.element, figure_heading(each.name, each.figure)) for each in grouped[heading]],
            )
            for heading in (*ours, *(heading for heading in grouped if heading not in order))
        ]


class _Figure:
    """A figure of the page."""

    def __init__(self, element: str, name: str, figure: go.Figure) -> None:
        self.element, self.name, self.figure = element, name, figure
        self.meta = figure_meta(figure)
        self.variable = str(self.meta.get("variable", ""))


def _title(comparison: ComparisonLike) -> str:
    others = [name for name in names(comparison.data, "checkpoint") if name != comparison.reference]
    return f"What changed from {comparison.reference} to {joined(others)}" if others else comparison.reference


def _subject(comparison: ComparisonLike) -> str:
    """What was compared, as a list of definitions."""
    data = comparison.data
    others = [name for name in names(data, "checkpoint") if name != comparison.reference]
    said = {
        "Reference": comparison.reference,
        "Compared with it": ", ".join(others),
        "Images": f"{n_images(data)}, each under every condition",
        "Left out": left_out(data),
        "Conditions": ", ".join(names(data, "condition")),
        "Classes": "" if comparison.class_names is None else f"{len(comparison.class_names):,}",
    }
    for key in ("data", "date"):
        value = comparison.provenance.get(key)
        said[key.capitalize()] = value if isinstance(value, str) else ""
    said["Not finite"] = "; ".join(
        f"{found['checkpoint']} under {found['condition']}: {some_images(found['n_images'])}, first at "
        f"{found['place']}"
        for found in data.attrs.get(NOT_FINITE, ())
    )
    rows = "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in said.items() if text)
    return f"<dl>{rows}</dl>"


def _summary(comparison: ComparisonLike, summary: pd.DataFrame, spoken: Spoken, shown: _Shown) -> str:
    """The findings in words."""
    pools = _pools(comparison, summary)
    conditions = {str(name) for name in summary["condition"].unique()} - {*pools}
    # A pool of one condition has that condition's rows word for word: they are said once.
    alone = [name for name, members in pools.items() if len(members) == 1 and members[0] in conditions]
    told = summary[~summary["condition"].isin(alone)]
    is_scalar = told["layer"].isna() & told["head"].isna()
    links = Links(shown.of_metric, frozenset(told.index[is_scalar]))
    said = findings_html(told, spoken, links, pools=[*pools]) + _pooled(pools)
    if said:
        level = f"{100 * summary.attrs['level']:g} % intervals of the difference, paired over images"
        said = f'<p class="soft">In brackets: {level}.{_few(summary)}</p>\n{said}'
    alike = feature_lines(comparison.features) + similarity_lines(_table_of(comparison, "similarity"))
    if not alike:
        return said
    figure = shown.of_metric("feature_similarity")
    heading = f'<a class="to-figure" href="#{figure}">SAE features</a>' if figure else "SAE features"
    return f"{said}\n<h3>{heading}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in alike)}</ul>"


def _few(summary: pd.DataFrame) -> str:
    """A word of caution where there are few images."""
    n = int(summary["n"].max())
    if n >= _FEW:
        return ""
    return (
        f" Of {n} images alone: intervals are wide, where differences are skewed less sure than their level "
        "says, and single heads and layers want many more images."
    )


def _pools(comparison: ComparisonLike, summary: pd.DataFrame) -> dict[str, list[str]]:
    """The summary's pools with their conditions, none where it does not say them.

    A frame that does not say its pools, such as one read from a file, has those that are no conditions.
    """
    found = [str(name) for name in summary["condition"].unique()]
    said = summary.attrs.get("pools")
    if isinstance(said, Mapping):
        return {name: [str(member) for member in said[name]] for name in found if name in said}
    known = {*names(comparison.data, "condition")}
    return {name: [] for name in found if name not in known}


def _pooled(pools: Mapping[str, Sequence[str]]) -> str:
    """What the pools stand for."""
    said = [
        f"{name} is {members[0]} alone"
        if len(members) == 1
        else f"{name} is the mean over {joined([*members])}"
        for name, members in pools.items()
        if members
    ]
    if not said:
        return ""
    return f'<p class="soft">Pooled conditions, of each image: {html.escape("; ".join(said))}.</p>'


def _table_of(comparison: ComparisonLike, name: str) -> pd.DataFrame | None:
    found = getattr(comparison, name, None)
    return found if isinstance(found, pd.DataFrame) and len(found) else None


def _galleries(comparison: ComparisonLike) -> tuple[str, str]:
    """Galleries and the rules of their pictures; empty without any."""
    found = getattr(comparison, "galleries", None)
    if not isinstance(found, Mapping) or not found:
        return "", ""
    from .galleries import galleries_html  # sae-lens takes seconds to import, and is wanted only here

    text, rules = galleries_html(found)
    return text, asset("wall.css") + rules


def _provenance(provenance: Mapping[str, Any]) -> str:
    """How to repeat it, and below that all the rest, folded."""
    if not provenance:
        return ""
    call = provenance.get("call")
    rest = {key: value for key, value in provenance.items() if key != "call"}
    said = ""
    if isinstance(call, str):
        said = (
            '<p>The call to repeat it:</p>\n<pre class="scroll" tabindex="0">'
            f"<code>{html.escape(call)}</code></pre>\n"
        )
    table = provenance_table(rest)
    folded = (
        "<details><summary>Versions, weights, data and seeds</summary>"
        '<div class="scroll provenance" tabindex="0" role="region" aria-label="All that was recorded">'
        f"{table}</div></details>"
    )
    return said + (folded if table else "")
