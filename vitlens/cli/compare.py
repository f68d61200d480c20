"""`vitlens compare`: two checkpoints or more on a folder of images, as a report."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from ..comparison import Comparison, compare, exporting
from ..comparison.checks import check_known, check_margins
from ..comparison.metrics import per_image_metrics
from ..comparison.pools import check_pools
from ..comparison.storing import FILE_NAME
from ..comparison.transfer import checked_groups
from ..errors import ComparisonError
from ..files import write_text
from ..images import first_readable, folder, frost, parse_conditions, register_corruption, spread
from ..models import HookedViT
from ..names import nearest
from ..running import run as measure
from . import dictionaries, measures
from .checkpoints import add_architecture, device, loaded, named, sizes_of
from .options import ON_BAD_IMAGE, Several, number, positive
from .places import check_page, file_and_folder
from .stopping import telling

_FIGURES = "figures"
_SUMMARY = "summary.csv"
_MOST_LINES = 40
"""Of the table on the terminal."""

EPILOG = f"""\
what can be measured (--analyses), and what it costs beside the models' own passes:
{measures.told()}

examples:
  vitlens compare base.safetensors run/model.safetensors --data photographs \\
      --conditions clean gaussian_blur@3 --output report.html
  vitlens compare base.safetensors blur=blur/model.safetensors noise=noise/model.safetensors \\
      --data photographs --conditions clean fog@1-2 gaussian_noise@3 --pool fog=fog@1,fog@2 \\
      --margin top1_accuracy=0.02 --output report.html

sparse autoencoders (--saes) are folders as vitlens.saes.save writes them; several of a checkpoint stand as
base=saes/0,saes/1. Those of one kind and hook are matched with the reference's. `unrelated` stands for a
model with random weights, which shows what chance gives; without --unrelated by its decoders alone.

Beside report.html a folder report.data is made: rows as they come, so that a stopped command goes on when it
is typed again; at the end the whole comparison (vitlens.Comparison.load reads it) and summary.csv.

exit status: 0 done; 1 refused, with the reason; 2 not understood; 130 stopped by Ctrl-C;
143 ended by SIGTERM.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    add = parser.add_argument
    add("base", metavar="BASE", help="the reference: [NAME=]FILE, a file of vitlens or a bare state dict")
    add("tuned", metavar="TUNED", nargs="+", help="what is compared with it: [NAME=]FILE")
    add("--data", type=Path, required=True, metavar="DIR", help="images: a folder for each class")
    add("--output", type=Path, default=Path("report.html"), metavar="FILE", help="(default report.html)")

    group = parser.add_argument_group("the checkpoints").add_argument
    add_architecture(group)
    group("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU where there is one)")
    group(
        "--precision", choices=["bfloat16", "float16"], help="of matrix products, instead of the model's own"
    )

    group = parser.add_argument_group("what is measured").add_argument
    conditions = "such as clean gaussian_blur@3 fog@1-5 pgd:eps=4/255 (default clean)"
    group("--conditions", action=Several, default=["clean"], metavar="NAME", help=conditions)
    usual = list(measures.USUAL)
    asked = f"see below (default {' '.join(usual)})"
    group("--analyses", action=Several, default=usual, metavar="NAME", help=asked)
    group("--n-images", type=positive, metavar="N", help="so many images, spread evenly over the folder")
    group("--n-examples", type=number, default=4, metavar="N", help="images shown in the report (default 4)")
    saes = "a checkpoint's sparse autoencoders, to be matched; `unrelated` may be one, see below"
    group("--saes", action=Several, default=[], metavar="NAME=DIR,...", help=saes)
    unrelated = "the random-weight checkpoint behind the SAEs of `unrelated`"
    group("--unrelated", type=Path, metavar="FILE", help=unrelated)
    features = "matched, lost and new features in the report, of each (default 4)"
    group("--n-gallery-features", type=number, default=4, metavar="N", help=features)
    group("--frost", type=Path, metavar="DIR", help="a folder of photographs of frost")
    group("--batch-size", type=positive, default=32, metavar="N", help="images of a pass (default 32)")
    group("--num-workers", type=number, default=0, metavar="N", help="processes that load images (default 0)")
    group("--seed", type=number, default=0, help="of corruptions and of resampling (default 0)")

    group = parser.add_argument_group("what is concluded").add_argument
    margin = "the largest difference that counts as none; without one nothing is called equivalent"
    group("--margin", action=Several, default=[], metavar="METRIC=VALUE", help=margin)
    primary = "metrics to be tested, and corrected for, together"
    group("--primary", action=Several, metavar="METRIC", help=primary)
    pool = (
        "conditions taken together, as one of its own: weather=fog@3,snow@3; with pools called seen and "
        "unseen the report says what transfers"
    )
    group("--pool", action=Several, default=[], metavar="NAME=CONDITION,...", help=pool)
    group("--level", type=_level, default=0.95, metavar="P", help="of the intervals (default 0.95)")

    group = parser.add_argument_group("what is written besides").add_argument
    kinds = "write every figure as an image too, into report.data/figures; needs vitlens[export]"
    group("--format", action=Several, default=[], choices=["svg", "pdf", "png"], help=kinds)
    group("--title", help="of the report")
    group("--on-bad-image", **ON_BAD_IMAGE)
    group("--no-progress", action="store_true", help="show no bar")


def run(chosen: argparse.Namespace) -> None:
    """Compare, write, and say what changed and where it is told."""
    check_page(chosen.output, "report.html")
    page, beside = file_and_folder(chosen.output, "report.html")
    files = named(chosen.base, chosen.tuned)
    margins = _once("--margin", [_margin(text) for text in chosen.margin])
    folders = dictionaries.places(chosen.saes, files, chosen.unrelated)
    asked = measures.chosen(chosen.analyses)
    if chosen.frost is not None:
        register_corruption(frost(chosen.frost))
    conditions = [condition.name for condition in parse_conditions(chosen.conditions)]
    pools = check_pools(_once("--pool", [_pool(text, conditions) for text in chosen.pool]), conditions)
    if transfers := {"seen", "unseen"} <= pools.keys():
        clean = "clean" if "clean" in conditions else None
        labels = xr.Dataset(coords={"condition": conditions})
        checked_groups(labels, pools["seen"], pools["unseen"], clean)
    sizes = sizes_of(chosen)
    if chosen.format:
        exporting.check(beside / _FIGURES, chosen.format, scale=2.0)
    place = device(chosen.device)
    models = {name: loaded(path, chosen.architecture, sizes, place) for name, path in files.items()}
    unrelated = None
    if chosen.unrelated is not None:
        unrelated = loaded(chosen.unrelated, chosen.architecture, sizes, place)
    saes = dictionaries.loaded(folders, place)
    images = folder(chosen.data, next(iter(models.values())))
    dataset = images if chosen.n_images is None else spread(images, chosen.n_images)
    if margins or chosen.primary:
        _check_metrics(models, first_readable(images), asked, margins, chosen.primary or ())
    with telling(f"what was done is in {beside}, and the same command goes on"):
        comparison = compare(
            models,
            dataset,
            analyses=asked,
            conditions=chosen.conditions,
            saes=saes,
            unrelated_model=unrelated,
            class_names=images.class_names if next(iter(models.values())).cfg.n_classes else None,
            n_examples=chosen.n_examples,
            n_gallery_features=chosen.n_gallery_features,
            batch_size=chosen.batch_size,
            precision=chosen.precision,
            seed=chosen.seed,
            output=beside,
            num_workers=chosen.num_workers,
            on_bad_image=chosen.on_bad_image,
            progress=not chosen.no_progress,
        )
        if os.environ.get("RANK", "0") == "0":  # of several processes one writes
            command = {"call": f"vitlens {shlex.join(chosen.arguments)}"}
            made = dataclasses.replace(comparison, provenance={**comparison.provenance, **command})
            if transfers:
                made = made.with_transfer(seen=pools["seen"], unseen=pools["unseen"], level=chosen.level)
            summary = made.summary(
                level=chosen.level, margins=margins, primary=chosen.primary, pools=pools or None
            )
            _write(made, summary, page, beside, chosen)


def _once(option: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a mapping, if none names what another names."""
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ComparisonError(
            f"{option} names '{twice}' twice.", expected="each once", remedy="Leave one of them out."
        )
    return dict(pairs)


def _margin(text: str) -> tuple[str, float]:
    """Metric and margin of `METRIC=VALUE`."""
    metric, _, value = text.rpartition("=")
    try:
        margin = {metric: float(value)}
    except ValueError:
        margin = {}
    if not metric or not margin:
        raise ComparisonError(
            f"--margin is given {text!r}.",
            expected="METRIC=VALUE, such as top1_accuracy=0.02",
            remedy="Give the largest difference that you would call none, in the metric's unit.",
        )
    check_margins(margin)
    return metric, margin[metric]


def _pool(text: str, conditions: Sequence[str]) -> tuple[str, list[str]]:
    """Name and conditions of `NAME=CONDITION,CONDITION,...`; a condition may have commas of its own."""
    name, _, rest = text.partition("=")
    if not name or not rest:
        raise ComparisonError(
            f"--pool is given {text!r}.",
            expected="NAME=CONDITION,CONDITION, such as seen=fog@3,snow@3",
            remedy="Name conditions that --conditions names too.",
        )
    members: list[str] = []
    while rest:
        fitting = [each for each in conditions if rest == each or rest.startswith(f"{each},")]
        if not fitting:
            strange = rest.partition(",")[0]
            raise ComparisonError(
                f"--pool {name} names '{strange}', which is none of the conditions.",
                expected=f"some of {', '.join(conditions)}",
                remedy=f"Nearest: {nearest(strange, conditions)}; or add it to --conditions.",
            )
        members.append(max(fitting, key=len))
        rest = rest[len(members[-1]) + 1 :]
    return name, members


def _check_metrics(
    models: Mapping[str, HookedViT],
    image: Any,
    analyses: Sequence[Any],
    margins: Mapping[str, float],
    primary: Sequence[str],
) -> None:
    """Refuse metrics that the analyses will not give, by measuring one image before the long work."""
    of_images = [each for each in analyses if not hasattr(each, "finish")]
    n_classes = next(iter(models.values())).cfg.n_classes or None
    data = measure(models, [image], of_images, progress=False) if of_images else None
    metrics = [] if data is None else per_image_metrics(data, n_classes=n_classes)
    check_known(margins, "--margin", "metric", [metric.name for metric in metrics])
    check_known(primary, "--primary", "scalar metric", [each.name for each in metrics if not each.is_map])


def _write(
    comparison: Comparison, summary: pd.DataFrame, page: Path, beside: Path, chosen: argparse.Namespace
) -> None:
    """The report and what stands beside it; and the same in short on the terminal."""
    from .. import report  # with plotly, which takes long to import

    write_text(beside / _SUMMARY, summary.to_csv(index=False))
    figures = report.figures(comparison, summary)
    report.write(comparison, page, title=chosen.title, figures=figures, summary=summary)
    told = {"report": page, "summary, every row": beside / _SUMMARY, "all of it": beside / FILE_NAME}
    if chosen.format:
        comparison.export(beside / _FIGURES, chosen.format, figures=figures)
        told["figures"] = beside / _FIGURES
    lines = "".join(f"{what}: {where}\n" for what, where in told.items())
    sys.stdout.write(f"{_table(summary)}\n{lines}")


def _table(summary: pd.DataFrame) -> str:
    """What was tested or has a margin, a line each."""
    is_scalar = summary["layer"].isna() & summary["head"].isna()
    rows = summary[is_scalar & (summary["p_adjusted"].notna() | summary["margin"].notna())]
    if rows.empty and summary["margin"].notna().any():
        return f"Only values of layers or heads were tested: they are in {_SUMMARY}.\n"
    if rows.empty:
        return "Nothing was tested: no metric is among --primary, and none has a --margin.\n"
    shown = rows.head(_MOST_LINES)
    interval = [
        f"{row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]" for row in shown.itertuples()
    ]
    percent = f"{100 * summary.attrs['level']:g}"
    table = pd.DataFrame(
        {
            "metric": shown["metric"],
            "condition": shown["condition"],
            "checkpoint": shown["checkpoint"],
            str(shown["reference"].iloc[0]): shown["value_reference"].map("{:.3f}".format),
            "value": shown["value"].map("{:.3f}".format),
            f"difference, {percent} % interval": interval,
            "adjusted p": [
                "" if pd.isna(p) else "<.001" if p < 0.0005 else f"{p:.3f}" for p in shown["p_adjusted"]
            ],
            "verdict": shown["verdict"],
            "n": shown["n"],
        }
    ).to_string(index=False)
    left = len(rows) - len(shown)
    return f"{table}\n" + (f"and {left} more in {_SUMMARY}\n" if left else "")


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = 0.0
    if not 0.5 < level < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no level such as 0.95")
    return level
