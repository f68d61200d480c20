"""The gallery as a page: one HTML file of pictures with their heat that asks nothing of the network."""

from __future__ import annotations

import html
import os
from pathlib import Path

from .. import files
from ..comparison.sae_groups import KIND_WORDS as SAE_WORDS
from ..saes.gallery_data import Gallery
from .charts.pictures import HEAT_RGB, MOST_OPAQUE
from .gallery_pictures import Pictures
from .gallery_wall import TOKEN_WORDS, Wall, how_to_read
from .shell import PAGE, Section, asset, body, contents
from .tables import provenance_table
from .wording import joined


def write(gallery: Gallery, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """Write a gallery as one HTML file: for each feature its images with their heat, its use, its classes.

    The file opens with no network. It is the same, byte for byte, for the same gallery.

    Args:
        gallery: what `vitlens.saes.gallery` or `pair_gallery` gave.
        path: where the file shall stand. It is written whole or not at all.
        title: of the page; by default, what is shown.

    Returns:
        The path.

    Example:
        See `vitlens.saes.gallery`.
    """
    pictures = Pictures([gallery])
    wall = Wall(gallery, pictures)
    sections = [Section(exhibit.name, wall.exhibit(exhibit)) for exhibit in gallery.exhibits]
    provenance = f'<div class="scroll provenance">{provenance_table(gallery.provenance)}</div>'
    sections.append(Section("Provenance", provenance))
    is_pair = len(gallery.checkpoints) == 2
    reading = how_to_read(gallery.n_top_images, gallery.n_middle_images, of_each=is_pair)
    red, green, blue = HEAT_RGB
    heat = f":root{{--heat:{red} {green} {blue};--most:{MOST_OPAQUE}}}\n"
    files.write_text(
        path,
        PAGE.substitute(
            title=html.escape(title or _title(gallery)),
            css=asset("report.css") + asset("wall.css") + asset("gallery.css") + heat + pictures.rules(),
            subject=f"{_subject(gallery)}<p>{html.escape(reading)}</p>",
            contents=f'<div class="features">{contents(sections)}</div>',
            body=(_SWITCH if wall.has_heat else "") + body(sections),
            data="",
            plotly="",
            script="",
        ),
    )
    return Path(path)


_SOURCES = ("timm", "huggingface", "file", "name")
"""Entries of a model's provenance that say which it is."""

_SWITCH = '<p class="switch"><label><input type="checkbox" id="heat" checked> Show the heat</label></p>\n'


def _title(gallery: Gallery) -> str:
    n = f"{len(gallery):,}"
    if len(gallery.checkpoints) == 2:
        return f"{n} matched features of {joined(list(gallery.checkpoints))}"
    return f"{n} features of a sparse autoencoder"


def _subject(gallery: Gallery) -> str:
    """What is shown, as a list of definitions."""
    said: dict[str, str] = {}
    for name, parts in gallery.provenance["checkpoints"].items():
        model, sae = parts["model"], parts["sae"]
        source = next((str(model[key]) for key in _SOURCES if key in model), "")
        what = f"{SAE_WORDS.get(sae['kind'], sae['kind'])} SAE, {sae['d_sae']:,} features"
        if "k_per_token" in sae:
            what += f", k = {sae['k_per_token']} per token"
        where = f"{sae['hook_name']}, {TOKEN_WORDS[sae['tokens']]}"
        said["Model" if len(gallery.checkpoints) == 1 else name] = "; ".join(
            filter(None, (source, what, where))
        )
    said["Features"] = str(gallery.provenance["features"])
    said["Images"] = f"{gallery.n_images:,}, condition {gallery.provenance['condition']}"
    said["Seed"] = str(gallery.provenance["seed"])
    rows = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>" for key, text in said.items())
    return f"<dl>{rows}</dl>"
