"""Turns each script of examples/ into a page of the docs: prose, code, and what the code printed and drew.

    python docs/examples/pages.py                # run all, write docs/examples/*.md and figures
    python docs/examples/pages.py logit_lens     # or some

It runs in `--work` (default: demo/pages), where models that were trained before are read back. Figures are
drawn by kaleido, which wants Chrome or Chromium. `tests/examples` holds pages and scripts together.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = Path(__file__).parent
# In the order in which one would read them.
EXAMPLES = (
    "hooks_and_cache",
    "logit_lens",
    "attention",
    "train_sae",
    "match_features",
    "finetune_on_corruptions",
    "compare_checkpoints",
    "transplant_layers",
    "write_an_analysis",
    "eva_and_huggingface",
)
# The demo's own models take minutes: the page about comparing has the small ones, by flags.
ARGUMENTS = {
    "compare_checkpoints": "--base demo/small/control/model.safetensors "
    "--tuned blur=demo/small/blur/model.safetensors --data demo/digits --sae-tokens 60000 "
    "--conditions clean gaussian_blur@3 gaussian_noise@4 contrast@2 --output demo/compare_checkpoints"
}
MAX_BYTES = 60_000


@dataclass
class Cell:
    """A part of a script between two `# %%`: prose, or code with what it printed and drew."""

    is_prose: bool
    text: str
    printed: str = ""
    figures: list[str] = field(default_factory=list)


def cells(script: Path) -> tuple[str, list[Cell]]:
    """The docstring of a script, and its cells."""
    text = script.read_text(encoding="utf-8")
    head, *rest = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    found = re.fullmatch(r'r?"""(.*?)"""\s*', head, flags=re.DOTALL)
    if found is None:
        raise ValueError(f"{script.name} has more than a docstring before its first cell")
    made = []
    for kind, body in zip(rest[::2], rest[1::2], strict=True):
        is_prose = kind.strip() == "[markdown]"
        if is_prose:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        made.append(Cell(is_prose, body.strip("\n")))
    return found[1], made


def run(script: Path, docstring: str, parts: list[Cell], figures: Path) -> None:
    """Run the code cell by cell, and note what each prints and draws."""
    sys.path.insert(0, str(script.parent))
    common = importlib.import_module("common")
    drawn: list[tuple[Any, str]] = []
    common.show = lambda figure, name, options: drawn.append((figure, name))
    names: dict[str, Any] = {"__name__": "__main__", "__doc__": docstring}
    sys.argv = [script.name, *ARGUMENTS.get(script.stem, "").split()]
    for cell in parts:
        if cell.is_prose:
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(cell.text, str(script), "exec"), names)
        cell.printed = said.getvalue().strip("\n")
        cell.figures = [draw(figure, f"{script.stem}-{name}", figures).name for figure, name in drawn]
        drawn.clear()
    if script.stem == "compare_checkpoints":
        report = Path("demo/compare_checkpoints/report.html")
        report = photograph(report, figures / "compare_checkpoints-report.png")
        parts[-1].figures.append(report.name)


def digits_as_files(folder: Path) -> None:
    """The digits held out, as a folder of images in a folder for each class."""
    from torchvision.transforms.v2.functional import to_pil_image

    import vitlens as vl

    for item in vl.images.digits("test"):
        path = folder / str(item["label"]) / f"{Path(item['image_id']).name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(item["pixels"]).save(path)


def draw(figure: Any, name: str, folder: Path) -> Path:
    """The figure as SVG; as PNG where that is much smaller."""
    from vitlens.comparison.exporting import export

    figure.update_layout(paper_bgcolor="white")
    svg, png = export({name: figure}, folder, ("svg", "png"), scale=1.0)
    shrink(png)
    is_small = svg.stat().st_size < min(MAX_BYTES, 3 * png.stat().st_size)
    kept, other = (svg, png) if is_small else (png, svg)
    other.unlink()
    if kept.stat().st_size > MAX_BYTES:
        raise ValueError(f"{kept.name} has {kept.stat().st_size} bytes, more than {MAX_BYTES}")
    return kept


def photograph(page: Path, target: Path) -> Path:
    """The first screen of an HTML page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Of the machine, where there is one; else playwright's own.
        found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1100, "height": 760})
        tab.goto(page.resolve().as_uri())
        tab.wait_for_timeout(1500)
        tab.screenshot(path=target)
        browser.close()
    return shrink(target)


def shrink(png: Path) -> Path:
    """The same picture in 32 colors."""
    from PIL import Image

    with Image.open(png) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(png, optimize=True)
    return png


def page(script: Path, docstring: str, parts: list[Cell]) -> str:
    """The Markdown of a page."""
    title, *rest = parts
    commands = textwrap.dedent(docstring.partition("\n")[2])
    indented = re.compile(r"((?:^    .*\n)+)", flags=re.MULTILINE)
    commands = indented.sub(lambda found: f"```sh\n{textwrap.dedent(found[1])}```\n", commands)
    blocks = [title.text, commands.strip("\n")]
    for cell in rest:
        if cell.is_prose:
            blocks.append(cell.text)
            continue
        blocks.append(f"```python\n{cell.text}\n```")
        if cell.printed and script.stem in ARGUMENTS:
            command = f"python examples/{script.name} {ARGUMENTS[script.stem]}"
            command = " \\\n    ".join(textwrap.wrap(command, 100, break_on_hyphens=False))
            said = "The models are the small ones of the other examples, the images the digits as files:"
            blocks.append(f"> {said}\n\n```text\n$ {command}\n{cell.printed}\n```")
        elif cell.printed and "## What was found" in blocks[-2]:
            blocks.append("\n>\n".join(f"> {line}" for line in cell.printed.splitlines()))
        elif cell.printed:
            blocks.append(f"```text\n{cell.printed}\n```")
        blocks.extend(f"![{alt(name)}](figures/{name})" for name in cell.figures)
    return "\n\n".join(blocks) + "\n"


def alt(name: str) -> str:
    """A figure's name as words."""
    return Path(name).stem.partition("-")[2].replace("_", " ").capitalize()


def without_results(markdown: str) -> str:
    """A page without what its code printed and drew: prose and code, which are the script's."""
    return "\n\n".join(
        block for block in blocks_of(markdown) if not block.startswith(("```text", "> ", "!["))
    )


def blocks_of(markdown: str) -> Iterator[str]:
    """The parts of a page: fenced code whole, all else by paragraph."""
    for number, part in enumerate(re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)):
        if number % 2:
            yield part
        else:
            yield from (block for block in part.strip("\n").split("\n\n") if block.strip())


def main() -> None:
    """Read the command line, run, and write."""
    words = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**words)
    parser.add_argument("names", nargs="*", metavar="NAME", help="(default: all)")
    parser.add_argument("--work", default="demo/pages", help="where they run (default: %(default)s)")
    parser.add_argument("--only-code", action="store_true", help="run nothing: a page without results")
    options = parser.parse_args()
    figures = PAGES / "figures"
    Path(options.work).mkdir(parents=True, exist_ok=True)
    os.chdir(options.work)
    warnings.simplefilter("ignore")  # third parties'; what an example says of itself it prints
    for name in options.names or EXAMPLES:
        script = ROOT / "examples" / f"{name}.py"
        docstring, parts = cells(script)
        for old in figures.glob(f"{name}-*"):
            old.unlink()
        if not options.only_code:
            if name == "compare_checkpoints":
                digits_as_files(Path("demo/digits"))
            run(script, docstring, parts, figures)
        (PAGES / f"{name}.md").write_text(page(script, docstring, parts), encoding="utf-8")
        sys.stdout.write(f"docs/examples/{name}.md\n")


if __name__ == "__main__":
    main()
