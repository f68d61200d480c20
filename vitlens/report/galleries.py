"""Galleries of SAE features inside a report: folded, an exhibit at a time."""

from __future__ import annotations

import html
from collections.abc import Mapping

from ..saes.gallery_data import Gallery
from .charts.pictures import HEAT_RGB, MOST_OPAQUE
from .gallery_wall import Wall


def galleries_html(galleries: Mapping[str, Gallery]) -> tuple[str, str]:
    """Galleries of features, each folded.

    Args:
        galleries: heading -> gallery.

    Returns:
        HTML, and the rules of the style sheet that hold its pictures.
    """
    parts, rules = [], []
    for place, (heading, gallery) in enumerate(galleries.items()):
        wall = Wall(gallery, prefix=f"g{place}-", level=5)
        folded = "".join(
            f'<details class="exhibit"{" open" if at == 0 else ""}>'
            f"<summary><h4>{html.escape(exhibit.name)}</h4></summary>{wall.exhibit(exhibit)}</details>"
            for at, exhibit in enumerate(gallery.exhibits)
        )
        parts.append(f'<div class="gallery"><h3>{html.escape(heading)}</h3>\n{folded}</div>')
        rules.append(wall.rules())
    if not parts:
        return "", ""
    red, green, blue = HEAT_RGB
    return "\n".join(parts), f":root{{--heat:{red} {green} {blue};--most:{MOST_OPAQUE}}}\n" + "".join(rules)
