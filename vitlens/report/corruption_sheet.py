"""The contact sheet: one photograph under every corruption and severity, as one HTML file."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from .. import files
from ..errors import ConditionError
from ..images import CORRUPTIONS, Corruption, corrupt, frequency_groups, spectrum
from ..images.corruptions import SEVERITIES, find_corruption
from ..images.corruptions.jpeg import check_quality
from .charts.pictures import picture_uri
from .shell import PAGE, Section, asset, body, contents
from .wording import joined

_QUALITY = 92
"""Of the pictures: high, since what is to be seen are single pixels."""


def write(
    image: Float[Tensor, "3 height width"],
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    image_id: str = "image",
    seed: int = 0,
    jpeg_quality: int | None = None,
    title: str | None = None,
    progress: bool = True,
) -> Path:
    """Write one photograph under corruptions at all severities, each with its measured frequencies.

    The file opens with no network. It is the same, byte for byte, for the same arguments.

    Args:
        image: in [0, 1].
        path: where the file shall stand. It is written whole or not at all.
        names: which corruptions; by default all. One whose photographs are missing is named, not shown.
        image_id: of the image; it and `seed` say what noise it gets.
        seed: of the corruptions.
        jpeg_quality: as in `corrupt`.
        title: of the page.
        progress: show a bar.

    Returns:
        The path.

    Raises:
        ConditionError: a name is unknown.
        PixelError: the image is none.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "sheet.html"
        >>> page = write(torch.full((3, 32, 32), 0.5), path, names=["contrast", "jpeg"], progress=False)
        >>> page.read_text(encoding="utf-8").count("<figure")
        11
    """
    asked = [find_corruption(name) for name in (CORRUPTIONS if names is None else names)]
    if jpeg_quality is not None:
        check_quality(jpeg_quality)
    missing = [spec.name for spec in asked if not spec.is_ready]
    shown = [spec.name for spec in asked if spec.is_ready]
    if not shown:
        raise ConditionError(
            "No corruption is left to show.",
            expected="a name whose files are there",
            remedy="Name a folder of photographs: --frost DIR on the command line, or "
            "vitlens.register_corruption(vitlens.images.frost(FOLDER)).",
        )
    pixels = image.unsqueeze(0).float()
    blocks: dict[str, list[tuple[Corruption, str]]] = {}
    with tqdm(total=len(shown) * len(SEVERITIES), unit="picture", disable=not progress) as bar:
        for name in shown:
            pictures = []
            for severity in SEVERITIES:
                corrupted = corrupt(
                    pixels, name, severity, image_ids=[image_id], seed=seed, jpeg_quality=jpeg_quality
                )
                pictures.append(_figure(corrupted, str(severity), _measured(pixels, corrupted)))
                bar.update()
            spec = CORRUPTIONS[name]
            blocks.setdefault(spec.family, []).append((spec, "".join(pictures)))
    groups = {name: group for group, members in frequency_groups().items() for name in members}
    sections = [
        Section(
            family.capitalize(),
            "\n".join(_block(*each, groups) for each in of_family),
            [(_element(spec), spec.name) for spec, _ in of_family],
        )
        for family, of_family in blocks.items()
    ]
    files.write_text(
        path,
        PAGE.substitute(
            title=html.escape(title or "One photograph under every corruption"),
            css=asset("report.css") + asset("sheet.css"),
            subject=_subject(pixels, image_id, seed, jpeg_quality, missing),
            contents=contents(sections),
            body=body(sections),
            data="",
            plotly="",
            script="",
        ),
    )
    return Path(path)


def _figure(pixels: Tensor, caption: str, measured: str) -> str:
    levels = (pixels[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    height, width = levels.shape[:2]
    small = ' class="small"' if max(height, width) <= 64 else ""
    picture = (
        f'<img{small} src="{picture_uri(levels, _QUALITY)}" width="{width}" height="{height}" '
        f'alt="severity {caption}">'
    )
    return f'<figure class="cell">{picture}<figcaption><b>{caption}</b> {measured}</figcaption></figure>'


def _measured(pixels: Tensor, corrupted: Tensor) -> str:
    found = spectrum(pixels, (corrupted * 255).round() / 255)
    words = [f"rms {255 * found.rms.item():.0f}"]
    if found.hf_energy.isfinite():
        words.append(f"{100 * found.hf_energy.item():.0f}&nbsp;% high")
    if found.delta_hf_db.isfinite():
        change = f"{found.delta_hf_db.item():+.1f}".replace("-0.0", "+0.0").replace("-", "−")
        words.append(f"{change}&nbsp;dB")
    return " · ".join(words)


def _element(spec: Corruption) -> str:
    return f"corruption-{spec.name}"


def _block(spec: Corruption, pictures: str, groups: Mapping[str, str]) -> str:
    """A corruption: its name, what it is, and five pictures side by side."""
    said = html.escape(" · ".join(_words(spec, groups)))
    return (
        f'<h3 id="{_element(spec)}">{html.escape(spec.name)}</h3>\n<p class="soft said">{said}</p>\n'
        f'<div class="strip" tabindex="0" role="group" aria-label="{html.escape(spec.name)}">{pictures}</div>'
    )


def _words(spec: Corruption, groups: Mapping[str, str]) -> Iterator[str]:
    if spec.name in groups:
        yield groups[spec.name].replace("_", " ")
    for at, name in enumerate(spec.parameter_names):
        values = [row[at] for row in spec.parameters]
        constant = len(set(values)) == 1
        yield f"{name} {values[0]:g}" if constant else f"{name} {', '.join(f'{each:g}' for each in values)}"
    if spec.stochastic:
        yield "drawn at random"


def _subject(
    pixels: Tensor, image_id: str, seed: int, jpeg_quality: int | None, missing: Sequence[str]
) -> str:
    height, width = pixels.shape[-2:]
    stored = f", stored as JPEG of quality {jpeg_quality}" if jpeg_quality is not None else ""
    left_out = (
        f"<p>Not shown: {html.escape(joined(list(missing)))}, whose photographs are missing.</p>\n"
        if missing
        else ""
    )
    return (
        f'<div class="subject">{_figure(pixels, "clean", f"{height} × {width} pixels")}\n'
        f"<div><p>{html.escape(image_id)}, seed {seed}{stored}; severities 1 (mildest) to 5.</p>\n"
        "<p>Below each picture: the change's root mean square in levels of 255; the share of the change's "
        "energy that lies above 1/8 cycle per pixel; and by how many decibels the image's own share of high "
        f"frequency rose or fell.</p>\n{left_out}</div></div>\n"
    )
