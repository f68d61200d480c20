"""A figure as the page holds it: its heading, its caption, its place, its numbers, and its JSON."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.io import to_json

from .charts.behind import KEY, kept
from .tables import frame_table

N_ROWS_SHOWN = 60
"""A figure of so many rows or fewer also shows them as a table; of more they can be saved."""

_N_SAID = 4
"""Checkpoints whose values a figure's label says."""


def element_id(place: int, name: str) -> str:
    """An element's id, and the name of the files that a reader saves."""
    return f"figure-{place}-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def figure_html(
    element: str, name: str, figure: go.Figure, definitions: Sequence[tuple[str, str]] = ()
) -> str:
    """A figure: its heading, caption and definitions, its place, and below it the numbers that it shows.

    Args:
        element: of the figure.
        name: of the figure.
        figure: it says the rest in `layout.meta`.
        definitions: what is shown, in words: term and definition, plain text.

    Returns:
        HTML.
    """
    ours = _ours(figure)
    heading = html.escape(figure_heading(name, figure))
    subtitle = _plain(figure.layout.title.subtitle.text or "") if ours else ""
    caption = str(figure_meta(figure).get("caption", ""))
    height = figure.layout.height or 450
    style = f"height:{height - (_band_px(figure) if ours else 0)}px"
    if figure.layout.width:
        style += f";width:{figure.layout.width}px"
    elif ours:
        style += f";min-width:{ours['min_width_px']}px"
    rows = kept(figure)
    said = " ".join(filter(None, (f"{figure_heading(name, figure)}. {caption}", _said(rows))))
    defined = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(definition)}</dd>" for term, definition in definitions
    )
    return (
        f'<figure id="{element}" aria-labelledby="{element}-title">\n'
        f'<h3 id="{element}-title">{heading}</h3>\n'
        f'<figcaption><p>{html.escape(caption)}</p><p class="soft">{html.escape(subtitle)}</p></figcaption>\n'
        f'<div class="choices"></div>\n<div class="scroll" tabindex="0" role="group" aria-label="{heading}">'
        f'<div class="plot" id="{element}-plot" role="img" aria-label="{html.escape(said)}" style="{style}">'
        f"</div></div>\n"
        f'<p class="tools"><button type="button" class="save-data" hidden>Data (CSV)</button> '
        f'<button type="button" class="save-picture" hidden>Picture (SVG)</button> '
        f'<a href="#{element}" aria-label="Link to {heading}">Link</a></p>\n'
        + (f"<details><summary>Definition</summary><dl>{defined}</dl></details>\n" if defined else "")
        + _numbers(heading, rows)
        + "</figure>"
    )


def figure_heading(name: str, figure: go.Figure) -> str:
    """A figure's heading, as plain text."""
    words = name.replace("_", " ")
    return _plain(figure.layout.title.text or words) if _ours(figure) else words


def figure_meta(figure: go.Figure) -> dict[str, Any]:
    """What a figure says to the page."""
    meta = figure.layout.meta
    return meta if isinstance(meta, dict) else {}


def figure_json(figure: go.Figure) -> str:
    """A figure as JSON, in the page's own theme; its title and its menus the page writes itself."""
    ours = _ours(figure)
    shown = go.Figure(figure)
    if ours:
        band = _band_px(figure)
        shown.update_layout(
            title=None,
            template=None,
            height=figure.layout.height - band,
            margin={"t": figure.layout.margin.t - band},
        )
        shown.layout.updatemenus = ()
    rows = figure_meta(figure).get(KEY)
    if rows is not None:
        shown.layout.meta = {key: value for key, value in figure_meta(figure).items() if key != KEY}
    content = _content(shown)
    return json.dumps(
        {
            "data": content["data"],
            "layout": content["layout"],
            "themed": bool(ours),
            "menus": _menus(figure) if ours else [],
            "rows": rows,
        },
        separators=(",", ":"),
    )


def _menus(figure: go.Figure) -> list[dict[str, Any]]:
    """The menus of a figure, to be drawn as the page's own controls."""
    found = _content({"menus": [menu.to_plotly_json() for menu in figure.layout.updatemenus]})["menus"]
    return [
        {
            "name": menu.get("name", "Show"),
            "active": menu.get("active", 0),
            "buttons": [
                {"label": _plain(button["label"]), "method": button["method"], "args": button["args"]}
                for button in menu["buttons"]
            ],
        }
        for menu in found
    ]


def _content(part: go.Figure | dict[str, Any]) -> dict[str, Any]:
    # The encoder is named, for another would be taken where it is installed, and write other bytes.
    content: dict[str, Any] = json.loads(to_json(part, validate=False, engine="json"))
    return content


def _band_px(figure: go.Figure) -> int:
    """Pixels that the title and the menus take, which the page writes itself."""
    ours = _ours(figure)
    return int(ours["title_px"] + ours.get("menu_px", 0))


def _ours(figure: go.Figure) -> dict[str, Any]:
    """What a figure of vitlens says to the page in `layout.meta`; empty for any other figure."""
    meta = figure_meta(figure)
    return meta if "title_px" in meta else {}


def _numbers(heading: str, rows: pd.DataFrame | None) -> str:
    if rows is None or not 0 < len(rows) <= N_ROWS_SHOWN:
        return ""
    return (
        f"<details><summary>The numbers</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Numbers of {heading}">'
        f"{frame_table(rows)}</div></details>\n"
    )


def _said(rows: pd.DataFrame | None) -> str:
    """What is to be seen, in a sentence: for each checkpoint its least and its largest value, and where."""
    if rows is None or not len(rows) or not {"checkpoint", "value"} <= set(rows):
        return ""
    first = [name for name in ("panel", "kind", "query_kind", "measure") if name in rows]
    for name in first:
        rows = rows[rows[name] == rows[name].iloc[0]]
    where = [name for name in rows if name in _PLACES and rows[name].nunique() > 1]
    said = []
    for checkpoint, of_checkpoint in list(rows.groupby("checkpoint", sort=False))[:_N_SAID]:
        known = of_checkpoint[of_checkpoint["value"].notna()]
        if not len(known):
            continue
        ends = [known.loc[known["value"].idxmin()], known.loc[known["value"].idxmax()]]
        told = [
            f"{end['value']:.4g}"
            + (f" ({', '.join(_place(name, end[name]) for name in where)})" if where else "")
            for end in ends
        ]
        said.append(f"{checkpoint}: {told[0]}" + ("" if told[0] == told[1] else f" to {told[1]}"))
    return f"Least and largest, {'; '.join(said)}." if said else ""


_PLACES = ("condition", "resid_layer", "layer", "head", "component")


def _place(name: str, label: Any) -> str:
    return str(label) if name in ("condition", "component") else f"{name} {label}"


def _plain(text: str) -> str:
    """Text as plotly would show it, without its tags and entities."""
    return html.unescape(re.sub(r"<[^>]*>", " ", text))
