"""`vitlens train-sae`: a sparse autoencoder on a checkpoint's activations; the same command again goes on."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.data import Subset

from ..errors import SAEError
from ..files import write_json
from ..images import (
    BAD_IMAGES,
    first_readable,
    folder,
    frost,
    known,
    parse_conditions,
    register_corruption,
    spread,
)
from ..running import activations
from .checkpoints import add_architecture, device, loaded, sizes_of
from .folders import held_out
from .options import ON_BAD_IMAGE, Several, number, positive
from .stopping import telling
from .tables import cell, crossed

EPILOG = """\
what is done:
  1. the images are shown to the checkpoint, and its activations at --hook kept in a store: FOLDER.store
     beside --output, or --store
  2. a sparse autoencoder is trained on them, but for those of some images, which are held out
  3. it is evaluated on the held-out images: active features per token, variance unexplained, dead features,
     and accuracy and loss of the checkpoint with the reconstruction in place of its activations
     (the threshold of a BatchTopK is set on these images too; --evaluate-on names others)

examples:
  vitlens train-sae base.safetensors --data photographs --hook blocks.9.hook_resid_post \\
      --output saes/base-0
  vitlens train-sae base.safetensors --data photographs --hook blocks.9.hook_resid_post \\
      --output saes/base-1 --seed 1 --store saes/base-0.store
  vitlens train-sae blur/model.safetensors --data photographs --hook blocks.9.hook_resid_post \\
      --output saes/blur-2 --seed 2 --scale-of saes/base-0

The second is another seed of the first and takes its activations. The third is of a tuned checkpoint, to be
compared with the base's. Activations are multiplied by one factor before training; it is fitted on the base,
and --scale-of takes it from the base's autoencoder, so that the features of both have one unit. Give each
autoencoder a --seed of its own: two that start alike look alike.

--output is sae-lens's format (vitlens.saes.load reads it) with evaluation.json beside the weights. The store
can be deleted when no other training wants it; how large it will be is images x tokens x width x 4 bytes.

exit status: 0 done; 1 refused, with the reason; 2 not understood; 130 stopped by Ctrl-C;
143 ended by SIGTERM.
"""

_SHOWN = {
    "l0": "active features per token (L0)",
    "fvu": "fraction of variance unexplained (FVU)",
    "n_dead": "dead features: active on none of these tokens",
    "accuracy_original": "accuracy of the checkpoint",
    "accuracy_spliced": "  with the reconstruction spliced in",
    "accuracy_zeroed": "  with zeros instead",
    "accuracy_recovered": "  share recovered, of what zeros cost",
    "loss_nats_original": "cross-entropy of the checkpoint, nats",
    "loss_nats_spliced": "  with the reconstruction spliced in",
    "loss_nats_zeroed": "  with zeros instead",
    "loss_nats_recovered": "  share recovered, of what zeros cost",
}
"""What the terminal shows of an evaluation; all of it is in evaluation.json."""


def _some(what: Any, metavar: str, text: str) -> dict[str, Any]:
    return {"type": what, "metavar": metavar, "help": text}


_RECIPE: Mapping[str, Mapping[str, Any]] = {
    "kind": _some(str, "KIND", "batch_topk, vanilla, topk, jumprelu or matryoshka (default batch_topk)"),
    "k_per_token": _some(number, "K", "active features per token; batch_topk, topk, matryoshka (default 32)"),
    "l1_coefficient": _some(float, "L1", "weight of the L1 penalty; vanilla (default 1.0)"),
    "n_tokens": _some(
        number, "N", "tokens to train on, with repetition (default: ten epochs or 1,000 steps)"
    ),
    "batch_size": _some(number, "N", "tokens of a step (default 4096)"),
    "learning_rate": _some(float, "RATE", "Adam's, at its peak (default: by the number of features)"),
    "n_holdout_tokens": _some(
        number, "N", "tokens held out, of whole images (default: a tenth, at most 32,768)"
    ),
    "dead_window_tokens": _some(
        number, "N", "tokens without firing after which a feature is revived (default: an epoch)"
    ),
    "seed": _some(number, "N", "of the initial weights, the held-out images and the order (default 0)"),
}
"""Options that are arguments of `vitlens.saes.train`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="a file of vitlens or a bare state dict")
    add("--data", type=Path, required=True, metavar="DIR", help="images: a folder for each class")
    hook = "where activations are taken, such as blocks.9.hook_resid_post"
    add("--hook", required=True, metavar="NAME", help=hook)
    add("--output", type=Path, required=True, metavar="FOLDER", help="the autoencoder's own folder")

    group = parser.add_argument_group("the checkpoint").add_argument
    add_architecture(group, "a bare state dict")
    group("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU where there is one)")

    group = parser.add_argument_group("the activations").add_argument
    tokens = "patch, cls, register, distillation or all (default patch)"
    group("--tokens", default="patch", metavar="KIND", help=tokens)
    conditions = "what the images go through, such as clean gaussian_blur@3 (default clean)"
    group("--conditions", action=Several, default=["clean"], metavar="NAME", help=conditions)
    group("--n-images", type=positive, metavar="N", help="so many images, spread evenly over the folder")
    group("--frost", type=Path, metavar="DIR", help="a folder of photographs of frost")
    store = "where they are kept, or are already (default: FOLDER.store beside --output)"
    group("--store", type=Path, metavar="DIR", help=store)
    # What is not given is left to the library, whose defaults are the only ones.
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    group("--store-dtype", metavar="DTYPE", help="float32, bfloat16 or float16 (default float32)", **given)
    passes = "images of a pass (default 32)"
    group("--n-images-per-pass", type=positive, metavar="N", help=passes, **given)
    group("--num-workers", type=number, default=0, metavar="N", help="processes that load images (default 0)")

    recipe = parser.add_argument_group("the autoencoder, and how it is trained")
    width = recipe.add_mutually_exclusive_group()
    width.add_argument("--d-sae", type=number, metavar="N", help="number of features")
    expansion = "features for each number of an activation, instead of --d-sae (default 8)"
    width.add_argument("--expansion", type=positive, default=8, metavar="F", help=expansion)
    for name, described in _RECIPE.items():
        recipe.add_argument(f"--{name.replace('_', '-')}", **described, **given)
    scale = "the base's autoencoder, for one of a tuned checkpoint: take its factor instead of fitting one"
    recipe.add_argument("--scale-of", type=Path, metavar="FOLDER", help=scale)
    options = "further settings of the kind, by sae-lens's names, such as l0_coefficient=2.0"
    recipe.add_argument("--options", action=Several, default=[], metavar="NAME=VALUE", help=options)

    group = parser.add_argument_group("what is evaluated, kept and shown").add_argument
    on = "images to evaluate on, with the same folders of classes, instead of the held-out ones"
    group("--evaluate-on", type=Path, metavar="DIR", help=on)
    kept = "the training is kept so often, and loses no more when it is killed (default 60)"
    group("--save-every-seconds", type=float, metavar="S", help=kept, **given)
    group("--on-bad-image", **ON_BAD_IMAGE)
    group("--no-progress", action="store_true", help="show no bar")


def run(chosen: argparse.Namespace) -> None:
    """Store activations, train on them, evaluate, and tell."""
    from .. import saes  # with sae-lens, which takes long to import
    from ..saes.resume import check_folder
    from . import sae_settings

    _check_alone()
    store_path = _store_path(chosen)
    check_folder(chosen.output)
    given = {name: value for name, value in vars(chosen).items() if name in _RECIPE}
    settings = {**given, "options": sae_settings.parsed_options(chosen.options)}
    if chosen.frost is not None:
        register_corruption(frost(chosen.frost))
    conditions = parse_conditions(chosen.conditions)
    sizes = sizes_of(chosen)
    place = device(chosen.device)
    model = loaded(chosen.checkpoint, chosen.architecture, sizes, place)
    images = folder(chosen.data, model)
    dataset: Any = images if chosen.n_images is None else spread(images, chosen.n_images)
    others = None if chosen.evaluate_on is None else held_out(chosen.evaluate_on, model, images)
    for condition in conditions:
        condition.check({"model": model})
    one = activations(model, [first_readable(dataset)], chosen.hook, tokens=chosen.tokens, progress=False)
    settings["d_sae"] = chosen.expansion * one.shape[1] if chosen.d_sae is None else chosen.d_sae
    recipe = sae_settings.check_recipe(settings, len(dataset), len(one) * len(conditions))
    if chosen.scale_of is not None:
        settings["activation_scale"] = sae_settings.scale_of(
            chosen.scale_of, chosen.hook, chosen.tokens, one.shape[1], recipe.seed
        )

    progress = not chosen.no_progress
    passes: dict[str, Any] = {"batch_size": chosen.n_images_per_pass} if "n_images_per_pass" in chosen else {}
    keeping: dict[str, Any] = (
        {"save_every_seconds": chosen.save_every_seconds} if "save_every_seconds" in chosen else {}
    )
    dtype: dict[str, Any] = {"dtype": chosen.store_dtype} if "store_dtype" in chosen else {}
    kept = f"what was done is in {store_path} and {chosen.output}, and the same command goes on"
    with telling(kept):
        store = saes.ActivationStore.write(
            store_path,
            model,
            dataset,
            hook_names=[chosen.hook],
            tokens=chosen.tokens,
            conditions=conditions,
            num_workers=chosen.num_workers,
            on_bad_image=chosen.on_bad_image,
            **dtype,
            **passes,
            progress=progress,
        )
        tokens = store[chosen.hook]
        sae = saes.train(tokens, device=place, output=chosen.output, progress=progress, **settings, **keeping)
        said = sae.cfg.metadata
        shown: Any = others
        if shown is None:
            # The images that train held out: it splits by the same two numbers.
            _, held = tokens.split(said.n_holdout_tokens, seed=said.seed)
            shown = _of_ids(dataset, held.image_ids)
        evaluation = saes.evaluate(
            sae,
            model,
            shown,
            conditions=conditions,
            splice=model.cfg.has_classifier,
            output=chosen.output / "evaluation",
            on_bad_image=chosen.on_bad_image,
            **passes,
            progress=progress,
        )
    path = chosen.output / "evaluation.json"
    bad = {**store.bad_images, **evaluation.rows.attrs.get(BAD_IMAGES, {})}
    table = evaluation.summary()
    write_json(
        path,
        {
            "call": f"vitlens {shlex.join(chosen.arguments)}",
            "images": {
                "of": str(chosen.evaluate_on or chosen.data),
                "n": evaluation.rows.sizes["image"],
                **({BAD_IMAGES: bad} if bad else {}),
            },
            "figures": table.astype(object).where(table.notna(), None).to_dict("records"),
        },
    )
    sys.stdout.write(_told(sae, table, "held-out images" if others is None else str(chosen.evaluate_on)))
    places = {
        "evaluation, every figure": path,
        "activations": store.path,
        "sparse autoencoder": chosen.output,
    }
    sys.stdout.write("".join(f"{what}: {where}\n" for what, where in places.items()))


def _check_alone() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SAEError(
            f"The command runs in {os.environ['WORLD_SIZE']} processes.",
            expected="a single one",
            remedy="Start it without torchrun and accelerate launch, another --seed in each terminal.",
        )


def _store_path(chosen: argparse.Namespace) -> Path:
    """Where the activations are kept."""
    if chosen.output.name in ("", ".."):
        raise SAEError(
            f"--output is {chosen.output}.",
            expected="a folder of the autoencoder's own",
            remedy="Name a new folder, such as saes/base-0.",
        )
    beside: Path = chosen.output.with_name(f"{chosen.output.name}.store")
    store: Path = chosen.store or beside
    if store.resolve() == chosen.output.resolve():
        raise SAEError(
            f"--store and --output are both {store}.",
            expected="a folder for each",
            remedy=f"Leave --store out for {beside}.",
        )
    return store


def _of_ids(dataset: Any, image_ids: Sequence[str]) -> Subset[Any]:
    """The images of these ids, in the order of the data set."""
    wanted = set(image_ids)
    return Subset(
        dataset, [place for place, each in enumerate(known(dataset, "image_ids")) if each in wanted]
    )


def _told(sae: Any, table: pd.DataFrame, of: str) -> str:
    """What was trained, and the main figures: a column for each condition and kind of token."""
    said = sae.cfg.metadata
    active = "" if said.k_per_token is None else f", {said.k_per_token} active per token"
    part = table[table["metric"].isin(_SHOWN)]
    part = part.assign(
        cell=[cell(row, 0 if row.metric == "n_dead" else 3) for row in part.itertuples()],
        where=part["condition"] + ", " + part["token_kind"],
    )
    figures = crossed(part, "metric", "where").reindex(
        [name for name in _SHOWN if name in set(part["metric"])]
    )
    width = max(map(len, _SHOWN.values()))
    notes = "".join(f"-: {note}\n" for note in part["note"].unique() if note)
    figures.index = pd.Index([f"{_SHOWN[name]:<{width}}" for name in figures.index])
    return (
        f"{said.kind} of {sae.cfg.d_sae} features{active}, on {said.tokens} tokens of {said.hook_name}, "
        f"activations times {said.activation_scale:.4g}\n\n{figures.to_string()}\n\n"
        f"95 % intervals over {table['n'].iloc[0]} images ({of})\n{notes}"
    )
