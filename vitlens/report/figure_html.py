"""A figure as the page holds it: its heading, its caption, its place, and its JSON."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_json


def element_id(place: int, name: str) -> str:
    """An element's id, and the name of the picture that a reader saves."""
    return f"figure-{place}-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def figure_html(element: str, name: str, figure: go.Figure) -> str:
    """A figure's heading, caption and place."""
    ours = _ours(figure)
    heading = figure_heading(name, figure)
    subtitle = _plain(figure.layout.title.subtitle.text or "") if ours else ""
    caption = str(figure_meta(figure).get("caption", ""))
    height = figure.layout.height or 450
    style = f"height:{height - (ours['title_px'] if ours else 0)}px"
    if figure.layout.width:
        style += f";width:{figure.layout.width}px"
    elif ours:
        style += f";min-width:{ours['min_width_px']}px"
    return (
        f'<figure aria-labelledby="{element}-title">\n<h3 id="{element}-title">{html.escape(heading)}</h3>\n'
        f'<figcaption><p>{html.escape(caption)}</p><p class="soft">{html.escape(subtitle)}</p></figcaption>\n'
        f'<div class="scroll" tabindex="0"><div class="plot" id="{element}" role="img" '
        f'aria-label="{html.escape(f"{heading}. {caption}")}" style="{style}"></div></div>\n</figure>'
    )


def figure_heading(name: str, figure: go.Figure) -> str:
    """A figure's heading, as plain text."""
    words = name.replace("_", " ")
    return _plain(figure.layout.title.text or words) if _ours(figure) else words


def figure_meta(figure: go.Figure) -> dict[str, Any]:
    """What a figure says to the page."""
    meta = figure.layout.meta
    return meta if isinstance(meta, dict) else {}


def _ours(figure: go.Figure) -> dict[str, Any]:
    """What a figure of vitlens says to the page in `layout.meta`; empty for any other figure."""
    meta = figure_meta(figure)
    return meta if "title_px" in meta else {}


def figure_json(figure: go.Figure) -> str:
    """A figure as JSON, in the page's own theme; its title the page writes as a heading."""
    ours = _ours(figure)
    shown = go.Figure(figure)
    if ours:
        shown.update_layout(
            title=None,
            template=None,
            height=figure.layout.height - ours["title_px"],
            margin={"t": figure.layout.margin.t - ours["title_px"]},
        )
    # The encoder is named, for another would be taken where it is installed, and write other bytes.
    content = json.loads(to_json(shown, validate=False, engine="json"))
    return json.dumps(
        {"data": content["data"], "layout": content["layout"], "themed": bool(ours)}, separators=(",", ":")
    )


def _plain(text: str) -> str:
    """Text as plotly would show it, without its tags and entities."""
    return html.unescape(re.sub(r"<[^>]*>", " ", text))
