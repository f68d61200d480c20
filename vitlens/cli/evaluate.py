"""`vitlens evaluate`: how good checkpoints are, each by itself, on a folder of images."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..analyses import Prediction
from ..errors import AnalysisError, ComparisonError, VitlensError
from ..files import write_text
from ..images import Condition, folder, frost, parse_conditions, register_corruption, spread
from ..models import HookedViT, weights_sha256
from ..running import run as measure
from .checkpoints import add_architecture, device, loaded, named_as_typed, sizes_of
from .options import ON_BAD_IMAGE, Several, number, positive
from .places import check_table, file_and_folder
from .scores import COLUMNS, METRICS, scores
from .stopping import telling
from .tables import cell, crossed

EPILOG = """\
what is measured under each condition, with 95 % intervals over the images:
  top-1, top-5 and top-10 accuracy (Wilson's interval; none that the model has too few classes for)
  mean probability of the correct class, and mean entropy of the class probabilities in nats
  expected calibration error: how far confidence lies from accuracy, and what a calibrated model would show
  corruption error and its mean (mCE), of those corruptions of ImageNet-C that are named at severities 1 to 5;
    to be set beside published ones only on ImageNet's validation images under imagenet_c@1-5:jpeg_quality=85

examples:
  vitlens evaluate base.safetensors --data photographs --conditions clean gaussian_blur@3
  vitlens evaluate base=base.safetensors blur=blur/model.safetensors --data photographs \\
      --conditions clean fog@1-5 pgd:eps=1/255 --output accuracy.csv

photographs is a folder with a folder of images for each class. The checkpoints may be of different
architectures: each sees the images in its own size and normalization. Intervals that overlap do not say that
two checkpoints are alike: what differs between them, on the same images, is told by vitlens compare.

Beside accuracy.csv a folder accuracy.data is made: rows as they come, so that a stopped command goes on when
it is typed again.

exit status: 0 done; 1 refused, with the reason; 2 not understood; 130 stopped by Ctrl-C;
143 ended by SIGTERM.
"""

_DEFAULT = {name: each.default for name, each in inspect.signature(measure).parameters.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments; defaults are those of `vitlens.run`."""
    add = parser.add_argument
    files = "[NAME=]FILE, a file of vitlens or a bare state dict; without NAME it is called as the file is"
    add("checkpoints", metavar="CHECKPOINT", nargs="+", help=files)
    add("--data", type=Path, required=True, metavar="DIR", help="images: a folder for each class")
    written = "a table of all figures as CSV; without it they are shown, and nothing is kept"
    add("--output", type=Path, metavar="FILE", help=written)

    group = parser.add_argument_group("the checkpoints").add_argument
    add_architecture(group)
    group("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU where there is one)")
    precision = "of matrix products, instead of the model's own"
    group("--precision", choices=["bfloat16", "float16"], help=precision)

    group = parser.add_argument_group("what is measured").add_argument
    default = list(_DEFAULT["conditions"])
    conditions = f"such as clean gaussian_blur@3 fog@1-5 pgd:eps=4/255 (default {' '.join(default)})"
    group("--conditions", action=Several, default=default, metavar="NAME", help=conditions)
    group("--n-images", type=positive, metavar="N", help="so many images, spread evenly over the folder")
    group("--frost", type=Path, metavar="DIR", help="a folder of photographs of frost")
    for name, what, text in (
        ("batch_size", positive, "images of a pass"),
        ("num_workers", number, "processes that load images"),
        ("seed", number, "of corruptions and of resampling"),
    ):
        default = _DEFAULT[name]
        option = f"--{name.replace('_', '-')}"
        group(option, type=what, default=default, metavar="N", help=f"{text} (default {default})")
    group("--on-bad-image", **ON_BAD_IMAGE)
    group("--no-progress", action="store_true", help="show no bar")


def run(chosen: argparse.Namespace) -> None:
    """Measure each checkpoint, write, and tell."""
    output, beside = _places(chosen.output)
    files = named_as_typed(chosen.checkpoints)
    if chosen.frost is not None:
        register_corruption(frost(chosen.frost))
    conditions = parse_conditions(chosen.conditions)
    sizes = sizes_of(chosen)
    place = device(chosen.device)
    ready = {name: _ready(name, path, conditions, chosen, sizes, place) for name, path in files.items()}
    tables = []
    kept = "without --output nothing is kept"
    if beside is not None:
        kept = f"what was done is in {beside}, and the same command goes on"
    with telling(kept):
        for name, (model, dataset) in ready.items():
            if len(ready) > 1 and not chosen.no_progress:
                sys.stderr.write(f"{name}\n")
            data = measure(
                model,
                dataset,
                [Prediction()],
                conditions=conditions,
                batch_size=chosen.batch_size,
                seed=chosen.seed,
                precision=chosen.precision,
                output=None if beside is None else beside / _identity(model),
                num_workers=chosen.num_workers,
                on_bad_image=chosen.on_bad_image,
                progress=not chosen.no_progress,
            )
            table = scores(data, n_classes=model.cfg.n_classes, seed=chosen.seed)
            table.insert(0, "checkpoint", name)
            tables.append(table)
    if os.environ.get("RANK", "0") == "0":  # of several processes one writes
        table = pd.concat(tables, ignore_index=True)
        if output is not None:
            write_text(output, table.to_csv(index=False))
        sys.stdout.write(_told(table))
        if output is not None:
            sys.stdout.write(f"\nall of it: {output}\n")


def _places(output: Path | None) -> tuple[Path | None, Path | None]:
    """The table and the folder beside it, where something is to be written."""
    if output is None:
        return None, None
    if output.suffix != ".csv":
        raise ComparisonError(
            f"--output is {output}.",
            expected="the name of a table, ending with .csv",
            remedy="Name a file such as accuracy.csv; reports are made by vitlens compare.",
        )
    check_table(output, "accuracy.csv", ("checkpoint", *COLUMNS))
    return file_and_folder(output, "accuracy.csv")


def _ready(
    name: str,
    path: Path,
    conditions: Sequence[Condition],
    chosen: argparse.Namespace,
    sizes: Mapping[str, Any],
    place: torch.device,
) -> tuple[HookedViT, Any]:
    """A checkpoint and its images, if it can be evaluated on them."""
    model = loaded(path, chosen.architecture, sizes, place)
    with _about(name):
        if not model.cfg.has_classifier:
            raise AnalysisError(
                "There is no classifier.",
                expected="checkpoints with a classification head, whose answers are right or wrong",
                remedy="Leave it out; vitlens compare shows what differs in models without one.",
            )
        for condition in conditions:
            condition.check({"model": model})
        dataset = folder(chosen.data, model)
    return model, dataset if chosen.n_images is None else spread(dataset, chosen.n_images)


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Say of which checkpoint an error speaks."""
    try:
        yield
    except VitlensError as error:
        said = f"{name}: {error.given}"
        raise type(error)(said, expected=error.expected, remedy=error.remedy) from error


def _identity(model: HookedViT) -> str:
    """A name for the rows of a model: weights alone do not say what it makes of an image."""
    shown = {"data_config": model.data_config, "image_size": model.cfg.image_size}
    said = json.dumps([weights_sha256(model), shown], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _told(table: pd.DataFrame) -> str:
    """A table for each metric: conditions down, checkpoints across."""
    table = table.assign(cell=[cell(row) for row in table.itertuples()])
    parts = []
    for metric, what in METRICS.items():
        part = table[table["metric"] == metric]
        if len(part):
            parts.append(f"{what}\n{crossed(part, 'condition', 'checkpoint').to_string()}\n")
    sizes = sorted(set(table["n"]))
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    parts.append(f"95 % intervals over {n} images\n")
    return "\n".join(parts)
