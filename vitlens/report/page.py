"""The report: one HTML file that holds all it needs and asks the network for nothing."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from .. import files
from ..comparison.metrics import per_image_metrics
from ..errors import ComparisonError
from .charts import figures as draw
from .charts.reading import n_images, names
from .charts.sections import FURTHER
from .charts.style import template
from .figure_html import element_id, figure_heading, figure_html, figure_json, figure_meta
from .findings import feature_lines, findings
from .protocol import ComparisonLike
from .shell import PAGE, Section, asset, body, contents, data_block
from .tables import provenance_table, scalar_table
from .wording import joined


def write(
    comparison: ComparisonLike,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    figures: Mapping[str, go.Figure] | None = None,
    summary: pd.DataFrame | None = None,
) -> Path:
    """Write a comparison as one HTML file: what was compared, what changed, the figures, and provenance.

    The file opens with no network. It is the same, byte for byte, for the same comparison.

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
    if Path(path).is_dir():
        raise ComparisonError(
            f"{os.fspath(path)} is a folder.",
            expected="the name of a file",
            remedy="Add one, such as report.html.",
        )
    if summary is None:
        summary = comparison.summary()
    if figures is None:
        figures = draw(comparison, summary)
    units = {metric.name: metric.unit for metric in per_image_metrics(comparison.data)}
    shown = [
        (element_id(place, name), name, figure)
        for place, (name, figure) in enumerate(figures.items(), start=1)
    ]
    grouped: dict[str, list[tuple[str, str, go.Figure]]] = {}
    for each in shown:
        grouped.setdefault(str(figure_meta(each[2]).get("section", FURTHER)), []).append(each)
    sections = [
        Section("Summary", _findings(summary, units, comparison.features)),
        Section("Table", _table(summary, units)),
        *(
            Section(
                heading,
                "\n".join(figure_html(*each) for each in group),
                [(f"{element}-title", figure_heading(name, figure)) for element, name, figure in group],
            )
            for heading, group in grouped.items()
        ),
        Section("Provenance", _provenance(comparison.provenance)),
    ]
    sections = [section for section in sections if section.text]
    templates = {"light": template().to_plotly_json(), "dark": template(dark=True).to_plotly_json()}
    files.write_text(
        path,
        PAGE.substitute(
            title=html.escape(title or _title(comparison)),
            css=asset("report.css"),
            subject=_subject(comparison),
            contents=contents(sections),
            body=body(sections),
            data=data_block("templates", json.dumps(templates))
            + "".join(data_block(f"{element}-data", figure_json(figure)) for element, _, figure in shown),
            plotly=get_plotlyjs(),
            script=asset("report.js"),
        ),
    )
    return Path(path)


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
        "Conditions": ", ".join(names(data, "condition")),
        "Classes": "" if comparison.class_names is None else f"{len(comparison.class_names):,}",
    }
    for key in ("data", "date"):
        value = comparison.provenance.get(key)
        said[key.capitalize()] = value if isinstance(value, str) else ""
    rows = "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in said.items() if text)
    return f"<dl>{rows}</dl>"


def _findings(summary: pd.DataFrame, units: Mapping[str, str], features: pd.DataFrame | None) -> str:
    """The summary in words, a heading for each checkpoint."""
    parts = []
    for found in findings(summary, units):
        points = "".join(
            f"<li><strong>{html.escape(name)}</strong>"
            f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in said)}</ul></li>"
            for name, said in found.points
        )
        parts.append(
            f"<h3>{html.escape(found.checkpoint)}</h3><p>{html.escape(found.lead)}</p><ul>{points}</ul>"
        )
    alike = feature_lines(features)
    if alike:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in alike)
        parts.append(
            f"<h3>SAE features</h3><p>Mean decoder cosine of the nearest feature:</p><ul>{items}</ul>"
        )
    return "\n".join(parts)


def _table(summary: pd.DataFrame, units: Mapping[str, str]) -> str:
    """The scalar rows, and how to read them."""
    level = float(summary.attrs.get("level", 0.95))
    table = scalar_table(summary, units, level)
    if not table:
        return ""
    return (
        "<p>Each difference is checkpoint minus reference, paired over the same images. Intervals "
        "are for one "
        "difference at a time; p-values are adjusted for all tests of their family. "
        "<em>Changed</em>: the adjusted "
        "p is small enough. <em>Equivalent</em>: the difference lies within a margin given beforehand. "
        "<em>Undecided</em>: neither, or not tested.</p>\n"
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="Summary table">{table}</div>'
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    return f'<div class="scroll provenance">{provenance_table(provenance)}</div>'
