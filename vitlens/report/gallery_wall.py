"""The exhibits of a gallery as HTML: pictures under their heat, and how a feature is used."""

from __future__ import annotations

import html
import math

from ..saes.gallery_data import Exhibit, FeatureProfile, Gallery, ShownImage, strongest_patch
from .charts.pictures import SMALL_PX, heat_uri
from .gallery_pictures import Pictures
from .histogram_svg import digits, histogram_svg
from .wording import joined

N_CLASSES_SHOWN = 5

N_LEAST_IMAGES_OF_A_CLASS = 2
"""One image says nothing of its class."""

TOKEN_WORDS = {
    "patch": "patches",
    "cls": "class tokens",
    "register": "registers",
    "distillation": "distillation tokens",
    "all": "all tokens",
}


class Wall:
    """Writes exhibits.

    Args:
        gallery: what is shown.
        pictures: the photographs of the page, with those of this gallery.
        level: of the headings inside an exhibit.
    """

    def __init__(self, gallery: Gallery, pictures: Pictures, *, level: int = 3) -> None:
        self.gallery = gallery
        self.pictures = pictures
        self.level = level
        self.is_pair = len(gallery.checkpoints) == 2
        self.has_heat = any(image.heat is not None for each in gallery.exhibits for image in each.images)

    def exhibit(self, exhibit: Exhibit) -> str:
        """One feature or pair."""
        parts = []
        similarity = {name: value for name, value in exhibit.similarity.items() if not math.isnan(value)}
        if similarity:
            said = joined([f"{name.replace('_', ' ')} {value:.3f}" for name, value in similarity.items()])
            parts.append(f"<p>{html.escape(said[:1].upper() + said[1:])}.</p>")
        parts += [
            f"<p>{self._whose(at)}{html.escape(_use(profile, self.gallery.n_images))}</p>"
            for at, profile in enumerate(exhibit.features)
        ]
        if self.has_heat and exhibit.images:
            parts.append(self._scales(exhibit))
        top, middle = (
            [self._shot(exhibit, image) for image in exhibit.images if image.picked == picked]
            for picked in ("top", "middle")
        )
        if top:
            parts.append(self._wall(top))
        if middle:
            below = f'<div class="middle">{self._heading("From the middle half")}{self._wall(middle)}</div>'
            parts.append(f'<div class="facts">{below}{self._facts(exhibit)}</div>')
        elif top:
            parts.append(f'<div class="facts">{self._facts(exhibit)}</div>')
        return "\n".join(parts)

    def _heading(self, words: str) -> str:
        return f"<h{self.level}>{words}</h{self.level}>"

    def _wall(self, shots: list[str]) -> str:
        return f'<div class="wall{" two" if self.is_pair else ""}">\n{"".join(shots)}\n</div>'

    def _whose(self, checkpoint: int) -> str:
        return (
            f"<strong>{html.escape(self.gallery.checkpoints[checkpoint])}</strong>: " if self.is_pair else ""
        )

    def _scales(self, exhibit: Exhibit) -> str:
        scales = ", ".join(
            f'{self._whose(at)}<span class="scale">0 <i></i> {digits(exhibit.largest_heat(at))}</span>'
            for at in range(len(exhibit.features))
        )
        return f'<p class="soft">Heat, activation on a patch: {scales}</p>'

    def _shot(self, exhibit: Exhibit, image: ShownImage) -> str:
        """One image: a picture for each checkpoint, and what it is of."""
        pictures = [self._picture(exhibit, image, at) for at in range(len(exhibit.features))]
        what = html.escape(self.gallery.class_name(image.label))
        if self.is_pair:
            sides = "".join(
                f'<div>{picture}<span class="side">{html.escape(name)} {self._values(image, at)}</span></div>'
                for at, (name, picture) in enumerate(zip(self.gallery.checkpoints, pictures, strict=True))
            )
            return (
                f'<figure class="shot"><div class="sides">{sides}</div>'
                f"<figcaption>{what}</figcaption></figure>"
            )
        return (
            f'<figure class="shot">{pictures[0]}'
            f"<figcaption>{self._values(image, 0, what)}</figcaption></figure>"
        )

    def _picture(self, exhibit: Exhibit, image: ShownImage, checkpoint: int) -> str:
        n_rows, n_columns = image.pixels.shape[:2]
        heat = image.pixels[:1, :1, 0] * 0.0 if image.heat is None else image.heat[checkpoint]
        said = f"{self.gallery.class_name(image.label)}, image {image.image_id}: "
        said += f"activation {digits(float(image.activation[checkpoint]))}"
        if self.is_pair:
            said += f" in {self.gallery.checkpoints[checkpoint]}"
        if strongest := strongest_patch(image, checkpoint):
            said += f", largest at patch row {strongest[0]}, column {strongest[1]} (from 0) of "
            said += f"{heat.shape[0]} × {heat.shape[1]}"
        name = self.pictures.name(image) + (" small" if max(n_rows, n_columns) <= SMALL_PX else "")
        return (
            f'<img class="{name}" src="{heat_uri(heat, exhibit.largest_heat(checkpoint))}" '
            f'alt="{html.escape(said)}" title="{html.escape(image.image_id)}" '
            f'style="--shape:{n_columns}/{n_rows}">'
        )

    def _values(self, image: ShownImage, checkpoint: int, what: str = "") -> str:
        """The largest activation, and those of the tokens that stand on no patch."""
        values: dict[str, list[str]] = {}
        for kind, value in zip(self.gallery.prefix_kinds, image.prefix[checkpoint].tolist(), strict=True):
            values.setdefault(kind, []).append(digits(value))
        beside = [
            f"{TOKEN_WORDS[kind][: None if len(each) > 1 else -1]} {', '.join(each)}"
            for kind, each in values.items()
        ]
        value = f'<span class="value">{digits(float(image.activation[checkpoint]))}</span> {what}'
        return value + (f'<span class="beside">{html.escape("; ".join(beside))}</span>' if beside else "")

    def _facts(self, exhibit: Exhibit) -> str:
        facts = []
        for at, profile in enumerate(exhibit.features):
            if not profile.n_active_images:
                continue
            said = (
                f"Histogram of {int(profile.counts.sum()):,} activations from 0 to {digits(profile.largest)}"
            )
            facts.append(
                f"<div>{self._heading(f'{self._whose(at)}Tokens, by activation')}"
                f"{histogram_svg(profile.counts, profile.edges, said)}</div>"
                f"<div>{self._heading(f'{self._whose(at)}Classes')}{self._classes(profile)}</div>"
            )
        return "".join(facts)

    def _classes(self, profile: FeatureProfile) -> str:
        rows = profile.classes[profile.classes["n_images"] >= N_LEAST_IMAGES_OF_A_CLASS].head(N_CLASSES_SHOWN)
        if not len(rows):
            return '<p class="soft">One image a class is too few to say.</p>'
        columns = ("label", "n_active_images", "n_images", "lift", "mean_activation")
        body = "".join(
            f"<tr><td>{html.escape(self.gallery.class_name(label))}</td>"
            f'<td class="number">{n_active:,} of {n:,}</td>'
            f'<td class="number">{digits(lift)} ×</td><td class="number">{digits(mean)}</td></tr>'
            for label, n_active, n, lift, mean in zip(*(rows[name].tolist() for name in columns), strict=True)
        )
        heads = "".join(f'<th scope="col">{each}</th>' for each in ("class", "images", "lift", "mean"))
        return (
            f'<div class="scroll" tabindex="0" role="region" '
            f'aria-label="Classes of feature {profile.feature}">'
            f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def _use(profile: FeatureProfile, n_images: int) -> str:
    """On how much of the data set a feature is active."""
    n_tokens = sum(profile.n_tokens.values())
    if not profile.n_active_images:
        return f"Active on none of the {n_tokens:,} tokens of {n_images:,} images."
    shares = [
        f"{digits(100 * profile.n_active_tokens[kind] / n)} % of {TOKEN_WORDS[kind]} "
        f"({profile.n_active_tokens[kind]:,} of {n:,})"
        for kind, n in profile.n_tokens.items()
    ]
    return (
        f"Active on {joined(shares)}, in {profile.n_active_images:,} of {n_images:,} images. "
        f"Largest activation {digits(profile.largest)}."
    )


def how_to_read(n_top_images: int, n_middle_images: int, *, of_each: bool) -> str:
    """What the images of an exhibit are, and its heat; `of_each` of two checkpoints. Plain text."""
    each = " of each checkpoint" if of_each else ""
    parts = [
        f"First stand the {n_top_images} images{each} with the largest activation on any token, "
        "which is the number below a picture."
    ]
    if n_middle_images:
        parts.append(
            f"Top images flatter a feature, so {n_middle_images} others{each} are drawn at random "
            "from the middle half of the images on which it is active."
        )
    parts.append(
        "The more opaque the heat on a patch, the larger the activation there; each feature has one scale "
        "for all its pictures."
    )
    return " ".join(parts)
