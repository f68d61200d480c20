"""Draws the diagrams on the page of concepts: the way of the data, where hooks stand, how places are counted.

python docs/figures/diagrams.py [FOLDER]

They are put into the page as they are, so that lines and letters take the page's color, light or dark.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 372
STREAM, BRANCH = 16, 52
"""Where the residual stream and a branch run, in pixels from the left."""
HOOK = "fill:var(--md-typeset-a-color,#0072b2)"
SANS = "font-family:system-ui,sans-serif"
MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"


@dataclass
class Drawing:
    """Parts of a picture from top to bottom; `y` is where the next one begins."""

    title: str
    y: int = 8
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: int, y: int, words: str, style: str = SANS, size: int = 12, anchor: str = "start"
    ) -> None:
        """Words, by the left end (or the middle) of their base line."""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="currentColor" '
            f'style="{style}">{words}</text>'
        )

    def line(self, x1: int, y1: int, x2: int, y2: int) -> None:
        """A straight line."""
        self.parts.append(f'<path d="M{x1} {y1}L{x2} {y2}" stroke="currentColor" stroke-width="1.5"/>')

    def hook(self, x: int, y: int, name: str) -> None:
        """A hook's dot and its name."""
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="4" style="{HOOK}"/>')
        self.parts.append(
            f'<text class="hook" x="{x + 8}" y="{y + 4}" font-size="11.5" style="{HOOK};{MONO}">{name}</text>'
        )

    def step(self, words: str, x: int = BRANCH - 12, right: int = WIDTH - 4) -> None:
        """A box with what is computed."""
        self.parts.append(
            f'<rect x="{x}" y="{self.y}" width="{right - x}" height="24" rx="4" fill="currentColor" '
            'fill-opacity="0.07" stroke="currentColor" stroke-opacity="0.5"/>'
        )
        self.text(x + 8, self.y + 16, words)
        self.y += 24

    def hooks(self, *names: str, x: int = BRANCH) -> None:
        """Hooks beside each other on a branch."""
        self.line(x, self.y, x, self.y + 24)
        at = x
        for name in names:
            self.hook(at, self.y + 12, name)
            at += 28 + round(6.9 * len(name)) if len(names) == 2 else 104
        self.y += 24

    def on_stream(self, name: str) -> None:
        """A hook on the residual stream."""
        self.hook(STREAM, self.y + 10, name)
        self.y += 24

    def leave(self) -> None:
        """A branch leaves the stream."""
        bend = BRANCH - STREAM
        self.parts.append(
            f'<path d="M{STREAM} {self.y - 4}h{bend - 8}q8 0 8 8v4" fill="none" stroke="currentColor" '
            'stroke-width="1.5"/>'
        )
        self.y += 8

    def join(self) -> None:
        """A branch is added to the stream."""
        self.parts.append(
            f'<path d="M{BRANCH} {self.y}v4q0 8 -8 8H{STREAM + 7}" fill="none" stroke="currentColor" '
            'stroke-width="1.5"/>'
        )
        y = self.y + 12
        self.parts.append(
            f'<path d="M{STREAM - 7} {y}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0m3 0h8m-4 -4v8"'
            ' fill="none" stroke="currentColor" stroke-width="1.5"/>'
        )
        self.y += 28

    def svg(self, with_stream: bool = True) -> str:
        """The picture."""
        stream = f'<path d="M{STREAM} 0V{self.y}" stroke="currentColor" stroke-width="1.5"/>\n'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.y}" role="img" '
            f'aria-label="{self.title}">\n{stream if with_stream else ""}'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def attention(drawing: Drawing, *, rotary: bool = False) -> None:
    """The attention branch of a block that has one norm before each branch."""
    drawing.leave()
    drawing.step("LayerNorm or RMS norm: divide by the scale")
    drawing.hooks("ln1.hook_scale", "ln1.hook_normalized")
    drawing.step("gain and bias; queries, keys, values")
    drawing.hooks("attn.hook_q", "attn.hook_k", "attn.hook_v")
    if rotary:
        drawing.step("rotary embedding, of patches alone")
        drawing.hooks("attn.hook_rot_q", "attn.hook_rot_k")
    drawing.step("query · key / √d_head")
    drawing.hooks("attn.hook_attn_scores")
    drawing.step("softmax over keys")
    drawing.hooks("attn.hook_pattern")
    drawing.step("mix the values")
    drawing.hooks("attn.hook_z")
    drawing.step("W_O, head by head; LayerScale")
    drawing.hooks("attn.hook_result")
    drawing.step("sum over heads; bias; drop path")
    drawing.hooks("hook_attn_out")
    drawing.join()


def mlp(drawing: Drawing, *, gated: bool = False) -> None:
    """The MLP branch of a block that has one norm before each branch."""
    drawing.leave()
    drawing.step("LayerNorm or RMS norm: divide by the scale")
    drawing.hooks("ln2.hook_scale", "ln2.hook_normalized")
    if gated:
        drawing.step("gain and bias; W_gate and W_in")
        drawing.hooks("mlp.hook_pre", "mlp.hook_pre_linear")
        drawing.step("SiLU(pre) × pre_linear")
    else:
        drawing.step("gain and bias; W_in")
        drawing.hooks("mlp.hook_pre")
        drawing.step("GELU")
    drawing.hooks("mlp.hook_post")
    drawing.step("W_out, bias; LayerScale; drop path")
    drawing.hooks("hook_mlp_out")
    drawing.join()


def sequential_block(title: str, *, eva: bool = False) -> str:
    """A block that adds attention, then an MLP."""
    drawing = Drawing(title)
    drawing.on_stream("hook_resid_pre")
    attention(drawing, rotary=eva)
    drawing.on_stream("hook_resid_mid")
    mlp(drawing, gated=eva)
    drawing.on_stream("hook_resid_post")
    return drawing.svg()


def parallel_block() -> str:
    """A block whose attention and MLP read one norm and are added together."""
    drawing, right = Drawing("Hooks of a parallel block"), 246
    drawing.on_stream("hook_resid_pre")
    drawing.leave()
    drawing.step("LayerNorm or RMS norm: divide by the scale")
    drawing.hooks("ln1.hook_scale", "ln1.hook_normalized")
    drawing.step("gain and bias; one joint projection")
    top = drawing.y
    for name in ("attn.hook_q", "attn.hook_k", "attn.hook_v"):
        drawing.hooks(name)
    edge = right - 20
    drawing.step("query · key / √d_head", right=edge)
    drawing.hooks("attn.hook_attn_scores")
    drawing.step("softmax over keys", right=edge)
    drawing.hooks("attn.hook_pattern")
    drawing.step("mix the values", right=edge)
    drawing.hooks("attn.hook_z")
    drawing.step("W_O, by head; LayerScale", right=edge)
    drawing.hooks("attn.hook_result")
    drawing.step("sum; bias; drop path", right=edge)
    drawing.hooks("hook_attn_out")
    bottom, drawing.y = drawing.y, top
    drawing.hooks("mlp.hook_pre", x=right)
    drawing.step("GELU", x=right - 12)
    drawing.hooks("mlp.hook_post", x=right)
    drawing.step("W_out; LayerScale", x=right - 12)
    drawing.step("drop path", x=right - 12)
    drawing.hooks("hook_mlp_out", x=right)
    drawing.line(right, drawing.y, right, bottom)
    drawing.y = bottom
    drawing.step("sum of both branches")
    drawing.join()
    drawing.on_stream("hook_resid_post")
    return drawing.svg()


def places(n_layers: int = 3) -> str:
    """The residual stream of a small model, with both ways of counting."""
    drawing, step, y = Drawing("layer counts blocks, resid_layer counts places between them"), 100, 62
    drawing.line(8, y, WIDTH - 8, y)
    for layer in range(n_layers):
        x = 36 + step * layer + 22
        drawing.parts.append(
            f'<rect x="{x}" y="{y - 20}" width="56" height="40" rx="4" stroke="currentColor" '
            'style="fill:var(--md-default-bg-color,#fff)"/>'
        )
        drawing.text(x + 28, y + 4, "block", anchor="middle")
        drawing.text(x + 28, y - 30, f"{layer}", MONO, anchor="middle")
    for place in range(n_layers + 1):
        x = 36 + step * place
        drawing.parts.append(f'<circle cx="{x}" cy="{y}" r="4" style="{HOOK}"/>')
        drawing.parts.append(
            f'<text x="{x}" y="{y + 40}" font-size="12" text-anchor="middle" style="{HOOK};{MONO}">'
            f"{place}</text>"
        )
    drawing.text(8, 14, "layer: a block")
    drawing.parts.append(
        f'<text x="8" y="{y + 62}" font-size="12" style="{HOOK};{SANS}">resid_layer: a place on the residual '
        "stream</text>"
    )
    drawing.y = y + 72
    return drawing.svg(with_stream=False)


def way_of_the_data() -> str:
    """From images to a report, with the sparse autoencoders' way beside it."""
    drawing, left, right, edge, height, gap = Drawing("The way of the data"), 4, 232, WIDTH - 4, 42, 22

    def station(row: int, name: str, words: str, x: int = left, end: int = right) -> None:
        y = 4 + row * (height + gap)
        drawing.parts.append(
            f'<rect x="{x}" y="{y}" width="{end - x}" height="{height}" rx="4" fill="currentColor" '
            'fill-opacity="0.07" stroke="currentColor" stroke-opacity="0.5"/>'
        )
        drawing.text(x + 10, y + 18, name, f"{SANS};font-weight:600", 13)
        drawing.text(x + 10, y + 34, words, size=11)

    def arrow(x1: int, y1: int, x2: int, y2: int) -> None:
        drawing.line(x1, y1, x2, y2)
        head = "l-4 -6m4 6l4 -6" if x1 == x2 else "l-6 -4m6 4l-6 4" if x1 < x2 else "l6 -4m-6 4l6 4"
        drawing.parts.append(
            f'<path d="M{x2} {y2}{head}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        )

    stations = {
        "images": "pixels in [0, 1]",
        "condition": "clean, or a seeded corruption",
        "normalize": "the model’s own mean and std",
        "HookedViT": "exact, with a hook at every place",
        "ActivationCache": "only what the analyses asked for",
        "analyses": "pure functions of one batch",
        "one labelled table": "a row an image (xarray)",
        "comparison": "paired statistics, intervals",
        "report": "figures, tables, one HTML page",
    }
    for row, (name, words) in enumerate(stations.items()):
        station(row, name, words)
    beside, middle, center = 262, (262 + edge) // 2, (left + right) // 2
    step = height + gap
    for row in range(len(stations) - 1):
        arrow(center, 4 + row * step + height, center, 4 + (row + 1) * step)
    station(4, "activations", "the same pass", beside, edge)
    station(5, "SAEs", "on each model", beside, edge)
    station(6, "matching", "with its null", beside, edge)
    arrow(right, 4 + 4 * step + height // 2, beside, 4 + 4 * step + height // 2)
    for row in (4, 5):
        arrow(middle, 4 + row * step + height, middle, 4 + (row + 1) * step)
    drawing.line(middle, 4 + 6 * step + height, middle, 4 + 7 * step + height // 2)
    arrow(middle, 4 + 7 * step + height // 2, right, 4 + 7 * step + height // 2)
    drawing.y = 4 + (len(stations) - 1) * step + height + 4
    return drawing.svg(with_stream=False)


def drawn() -> dict[str, str]:
    """Every diagram, by the name of its file."""
    return {
        "hooks_pre_norm.svg": sequential_block("Hooks of a pre-norm block"),
        "hooks_parallel.svg": parallel_block(),
        "hooks_eva.svg": sequential_block("Hooks of Eva's block", eva=True),
        "places.svg": places(),
        "way_of_the_data.svg": way_of_the_data(),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, picture in drawn().items():
        (folder / name).write_text(picture, encoding="utf-8")
