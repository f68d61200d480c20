"""What the examples share: their flags, small models for whoever brings none, and where figures go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from torch.utils.data import Subset

import vitlens as vl


def flags(
    name: str, doc: str | None, *, n_images: int = 200, checkpoints: str = "several"
) -> argparse.ArgumentParser:
    """The flags that all examples have; an example adds its own.

    Args:
        name: of the example, and of its folder within the output folder.
        doc: what `--help` says first.
        n_images: default of `--n-images`.
        checkpoints: `several`, `one`, so that there is no `--tuned`, or `none`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(example=name)
    add = parser.add_argument
    parser.set_defaults(tuned=None)
    if checkpoints != "none":
        add("--base", metavar="FILE", help="a checkpoint: a file that vitlens.save wrote, or a state dict")
        of_bare_state_dicts(parser)
    if checkpoints == "several":
        add(
            "--tuned",
            metavar="[NAME=]FILE",
            action="append",
            default=[],
            help="a checkpoint to compare with it; repeatable",
        )
    add("--data", metavar="FOLDER", help="images: a folder with a folder for each class")
    add("--n-images", type=int, default=n_images, help="measure on so many of them (default: %(default)s)")
    add("--output", default="demo", metavar="FOLDER", help="for all that is written (default: %(default)s)")
    return parser


def read(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; in a notebook, the defaults. Refused errors end a script with a sentence."""
    options = parser.parse_args(arguments())
    if not in_notebook():
        sys.excepthook = _end
    if "architecture" in options and bool(options.base) != bool(options.data):
        parser.error("--base and --data want each other")
    if options.tuned is not None and bool(options.base) != bool(options.tuned):
        parser.error("--base and --tuned want each other")
    options.folder = Path(options.output) / options.example
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def in_notebook() -> bool:
    """Whether cells are run by a kernel, whose command line is not ours."""
    return "ipykernel" in sys.modules


def arguments() -> list[str] | None:
    """What argparse is to read: the command line, in a notebook nothing."""
    return [] if in_notebook() else None


def of_bare_state_dicts(parser: argparse.ArgumentParser) -> None:
    """The flags that say what a bare state dict does not."""
    add = parser.add_argument
    add("--architecture", help="timm's name, for files that are bare state dicts")
    add("--num-classes", type=int, help="their number of classes, if not timm's default")
    add("--image-size", type=int, help="their images' height and width, if not timm's default")


def load(path: str, options: argparse.Namespace) -> vl.HookedViT:
    """A checkpoint; a file that describes itself needs no architecture."""
    try:
        return vl.load(path)
    except vl.errors.ArchitectureError:
        if options.architecture is None:
            raise
        given = {"num_classes": options.num_classes, "img_size": options.image_size}
        sizes = {name: size for name, size in given.items() if size is not None}
        return vl.load(path, options.architecture, **sizes)


def reinitialized(model: vl.HookedViT) -> vl.HookedViT:
    """The same architecture with random weights: whatever it shares with the others, chance can do."""
    description = vl.models.describe(model.model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return vl.HookedViT(vl.models.build(description).eval(), data_config=model.data_config)


def checkpoint(options: argparse.Namespace) -> vl.HookedViT:
    """One model: the file that was given, or a small one trained on scanned digits."""
    return load(options.base, options) if options.base else small_base(options)


def checkpoints(options: argparse.Namespace) -> dict[str, vl.HookedViT]:
    """Those given, the reference first; else `control` and `blur`, two fine-tunes of the small model.

    Both are trained from it equally long on the same digits. Half of blur's are blurred; the control's are
    all clean, so that what differs between the two is the blur's doing.
    """
    if options.base:
        models = {"base": load(options.base, options)}
        for index, given in enumerate(options.tuned):
            name, _, path = given.rpartition("=")
            name = name or ("tuned" if index == 0 else f"tuned_{index + 1}")
            models[name] = load(path, options)
        return models
    base = small_base(options)
    return {
        name: _finetuned(base, Path(options.output) / "small" / name, conditions=conditions)
        for name, conditions in {"control": [], "blur": ["gaussian_blur@1-4"]}.items()
    }


def small_base(options: argparse.Namespace) -> vl.HookedViT:
    """The small model, trained in seconds, and read back where an example has trained it before."""
    folder = Path(options.output) / "small" / "base"
    return _finetuned(untrained(0), folder, steps=300, learning_rate=3e-3, max_grad_norm=None)


def untrained(seed: int) -> vl.HookedViT:
    """A ViT of four blocks with four heads each, for 32×32 images in sixteen patches and ten classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=64, depth=4, num_heads=4, num_classes=10
        )
    # 1,297 images are too few to learn from scratch where a patch is.
    with torch.no_grad():
        module.pos_embed.zero_()
        module.pos_embed[0, 1:] = build_sincos2d_pos_embed([4, 4], dim=64)
    return vl.HookedViT(module.eval(), data_config={"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0})


def images(options: argparse.Namespace, model: vl.HookedViT, folder: str | None = None) -> Subset[Any]:
    """The images to measure on, spread over `--data` or `folder`, or over the digits held out."""
    given = folder or options.data
    found = vl.images.folder(given, model) if given else vl.images.digits("test")
    return vl.images.spread(found, options.n_images)


def class_names(dataset: Subset[Any]) -> Sequence[str]:
    """What the classes of `images` are called, by index."""
    whole = dataset.dataset
    return list(getattr(whole, "class_names", None) or whole.classes)


def show(figure: Any, name: str, options: argparse.Namespace) -> None:
    """Write a plotly figure as a page of its own, and say where; in a notebook, show it."""
    if in_notebook():
        figure.show()
        return
    path = options.folder / f"{name}.html"
    figure.write_html(path, include_plotlyjs="directory")
    print(f"figure: {path}")


def _finetuned(
    model: vl.HookedViT,
    folder: Path,
    *,
    conditions: Sequence[str] = (),
    steps: int = 150,
    learning_rate: float = 1e-3,
    max_grad_norm: float | None = 1.0,
) -> vl.HookedViT:
    recipe = vl.training.FinetuneConfig(
        conditions=conditions,
        p_clean=0.5 if conditions else 1,
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=20,
        max_grad_norm=max_grad_norm,
    )
    return vl.training.finetune(model, vl.images.digits("train"), recipe, folder).model


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, vl.errors.VitlensError):
        print(f"{kind.__name__}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
