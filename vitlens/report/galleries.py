"""Galleries of SAE features inside a report: folded, an exhibit at a time."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from ..saes.gallery_data import Exhibit, Gallery
from .charts.pictures import HEAT_RGB, MOST_OPAQUE
from .gallery_pictures import Pictures
from .gallery_wall import Wall, how_to_read

MOST_PX = 4e6
"""Of all photographs together: 1 to 2 MB."""


def galleries_html(galleries: Mapping[str, Gallery]) -> tuple[str, str]:
    """Galleries of features, each folded.

    Args:
        galleries: heading -> gallery.

    Returns:
        HTML, and the rules of the style sheet that hold its pictures.
    """
    if not galleries:
        return "", ""
    pictures = Pictures(galleries.values(), MOST_PX)
    parts = []
    for place, (heading, gallery) in enumerate(galleries.items()):
        wall = Wall(gallery, pictures, level=5)
        folded = "".join(
            f'<details class="exhibit"{" open" if place == at == 0 else ""}>'
            f"<summary>{_summary(exhibit)}</summary>{wall.exhibit(exhibit)}</details>"
            for at, exhibit in enumerate(gallery.exhibits)
        )
        chosen = f"{gallery.provenance['features']}; {gallery.n_images:,} images."
        above = f'<h3>{html.escape(heading)}</h3>\n<p class="soft">{html.escape(chosen)}</p>'
        parts.append(f'<div class="gallery">{above}\n{folded}</div>')
    has_pair = any(len(gallery.checkpoints) == 2 for gallery in galleries.values())
    red, green, blue = HEAT_RGB
    colors = f":root{{--heat:{red} {green} {blue};--most:{MOST_OPAQUE}}}\n"
    reading = dict.fromkeys(
        how_to_read(gallery.n_top_images, gallery.n_middle_images, of_each=has_pair)
        for gallery in galleries.values()
    )
    told = "".join(f"<p>{html.escape(each)}</p>" for each in reading)
    return "\n".join([f"<h3>What the galleries show</h3>\n{told}", *parts]), colors + pictures.rules()


def _summary(exhibit: Exhibit) -> str:
    """The exhibit's name, and the first number that a match says of it."""
    name, value = next(iter(exhibit.similarity.items()), ("", math.nan))
    beside = "" if math.isnan(value) else f"{name.replace('_', ' ')} {value:.3f}"
    return f'<h4>{html.escape(exhibit.name)}</h4> <span class="soft">{html.escape(beside)}</span>'
