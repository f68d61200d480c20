"""`vitlens finetune`: a checkpoint fine-tuned on a folder of images; the same command again goes on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import TrainingError
from ..images import folder, frost, register_corruption
from ..models import load
from .checkpoints import add_architecture, sizes_of
from .folders import held_out
from .options import Several, number
from .stopping import telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments; each of the recipe is called as its field of `FinetuneConfig`."""
    add = parser.add_argument
    start = "where to start: a file of vitlens, or a state dict; write it first"
    add("weights", type=Path, metavar="WEIGHTS", help=start)
    add_architecture(add, "a bare state dict")
    add("--data", type=Path, required=True, metavar="DIR", help="images: a folder for each class")
    add("--output", type=Path, required=True, metavar="DIR", help="the run's own folder")
    add("--evaluate-on", type=Path, metavar="DIR", help="held-out images, with the same folders of classes")
    add("--frost", type=Path, metavar="DIR", help="a folder of photographs of frost")
    add("--num-workers", type=int, default=0, metavar="N", help="processes that load images (default 0)")
    add("--log-with", action=Several, default=(), metavar="NAME", help="tensorboard, wandb, ... if installed")
    add("--no-progress", action="store_true", help="show no bar")
    for title, options in _RECIPE.items():
        group = parser.add_argument_group(title)
        for name, described in options.items():
            # What is not given is left to FinetuneConfig, whose defaults are the only ones.
            group.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, **described)


def run(chosen: argparse.Namespace) -> None:
    """Fine-tune, and say how good the model is and where it lies."""
    if chosen.frost is not None:
        register_corruption(frost(chosen.frost))
    config = _config(vars(chosen))
    model = load(chosen.weights, chosen.architecture, **sizes_of(chosen))
    from ..training import finetune  # with the optimizers and schedules, when they are needed
    from ..training.starting import starting_model

    # The folders are to be told apart by the classes that the new head will have.
    shown = model if config.new_head is None else starting_model(model, config)
    dataset = folder(chosen.data, shown)
    on = chosen.evaluate_on
    with telling(f"what was done is in {chosen.output}, and the same command goes on"):
        result = finetune(
            model,
            dataset,
            config,
            chosen.output,
            evaluate_on=None if on is None else held_out(on, shown, dataset),
            log_with=tuple(chosen.log_with),
            num_workers=chosen.num_workers,
            progress=not chosen.no_progress,
        )
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        sys.stdout.write(_told(result.evaluations))
        sys.stdout.write(f"{result.path}\n")


def _fraction(text: str) -> float:
    """A number such as 0.5 or 4/255."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"'{text}' is no number such as 0.5 or 4/255") from None


def _number_or_none(text: str) -> float | None:
    return None if text == "none" else _fraction(text)


def _some(what: Any, metavar: str, text: str) -> dict[str, Any]:
    return {"type": what, "metavar": metavar, "help": text}


_RECIPE: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "what the images go through": {
        "conditions": {
            "action": Several,
            "metavar": "NAME",
            "help": "such as gaussian_blur@1-5, removes_high_frequency@3, pgd:eps=4/255",
        },
        "p_clean": _some(_fraction, "P", "probability that an image stays clean (default 0.5)"),
    },
    "how long, how many at once": {
        "steps": _some(int, "N", "optimizer steps (default 1000)"),
        "epochs": _some(_fraction, "N", "passes over the images, instead of steps"),
        "batch_size": _some(int, "N", "images of a step, over all processes (default 32)"),
        "accumulation_steps": _some(int, "N", "parts that a step is taken in (default 1)"),
        "precision": {"choices": ["bfloat16", "float16"], "help": "instead of float32"},
    },
    "optimizer": {
        "optimizer": _some(str, "NAME", "timm's name of it (default adamw)"),
        "learning_rate": _some(_fraction, "RATE", "after the warm-up (default 1e-4)"),
        "warmup_steps": _some(int, "N", "steps in which the rate rises, in equal parts (default 0)"),
        "weight_decay": _some(_fraction, "W", "(default 0.05)"),
        "layer_decay": _some(_number_or_none, "F", "factor from a block to the one below (default none)"),
        "max_grad_norm": _some(_number_or_none, "NORM", "gradients are clipped to it; or none (default 1.0)"),
        "ema_decay": _some(_number_or_none, "D", "average the weights, and save the average (default none)"),
    },
    "regularization, and what trains": {
        "drop_path_rate": _some(_number_or_none, "P", "(default none: as the model has it)"),
        "label_smoothing": _some(_fraction, "S", "of the cross-entropy (default 0.0)"),
        "trainable": {
            "action": Several,
            "metavar": "PART",
            "help": "all, or some of head, attention, norm, embed, blocks.10, ... (default all)",
        },
        "new_head": _some(int, "N", "put a new head for so many classes in place of the model's"),
    },
    "loss": {
        "loss": {
            "choices": ["cross_entropy", "adversarial", "trades", "consistency"],
            "help": "(default cross_entropy)",
        },
        "eps": _some(_fraction, "EPS", "adversarial, trades: radius on pixels in [0, 1] (default 4/255)"),
        "alpha": _some(
            _fraction, "ALPHA", "adversarial, trades: length of the attack's step (default 2.5 eps / steps)"
        ),
        "attack_steps": _some(int, "N", "adversarial, trades: the attack's steps (default 10)"),
        "norm": {"choices": ["linf", "l2"], "help": "adversarial, trades: the radius's norm (default linf)"},
        "beta": _some(_fraction, "BETA", "trades: weight of robustness (default 6)"),
        "consistency_weight": _some(
            _fraction, "W", "consistency: weight of the Jensen–Shannon divergence (default 12)"
        ),
    },
    "what is measured and kept on the way": {
        "evaluation_conditions": {
            "action": Several,
            "metavar": "NAME",
            "help": "what the held-out images go through (default clean)",
        },
        "evaluate_every_steps": _some(
            int, "N", "also at the start and every so many steps, besides at the end"
        ),
        "checkpoint_every_steps": _some(int, "N", "a killed run loses at most so many (default 100)"),
        "snapshot_steps": {
            "action": Several,
            "type": int,
            "metavar": "N",
            "help": "steps after which the model is kept, 0 for the start",
        },
        "seed": _some(number, "N", "of order, corruptions, dropout and a new head (default 0)"),
    },
}

_ATTACK = {"eps": "eps_pixel", "alpha": "alpha_pixel", "attack_steps": "steps", "norm": "norm"}
_OBJECTIVES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cross_entropy": ("CrossEntropy", {}),
    "adversarial": ("Adversarial", _ATTACK),
    "trades": ("Trades", {**_ATTACK, "beta": "beta"}),
    "consistency": ("Consistency", {"consistency_weight": "weight"}),
}
"""What --loss names: the class, and its field for each option that goes with it."""


def _config(given: Mapping[str, Any]) -> Any:
    """The recipe of the options that were given."""
    from ..training import FinetuneConfig

    recipe = {field.name: given[field.name] for field in fields(FinetuneConfig) if field.name in given}
    for name in ("conditions", "evaluation_conditions", "snapshot_steps"):
        if name in recipe:
            recipe[name] = tuple(recipe[name])
    if "trainable" in recipe:
        words = tuple(recipe["trainable"])
        recipe["trainable"] = words[0] if len(words) == 1 else words
    return FinetuneConfig(**{**recipe, "loss": _objective(given)})


def _objective(given: Mapping[str, Any]) -> Any:
    from ..training import losses

    chosen = given.get("loss", "cross_entropy")
    name, own = _OBJECTIVES[chosen]
    for option in sorted({option for _, theirs in _OBJECTIVES.values() for option in theirs}):
        if option in given and option not in own:
            owners = [loss for loss, (_, theirs) in _OBJECTIVES.items() if option in theirs]
            raise TrainingError(
                f"--{option.replace('_', '-')} is given with the loss {chosen}.",
                expected=f"it with the loss {' or '.join(owners)}",
                remedy="Name that --loss, or leave the option out.",
            )
    return getattr(losses, name)(**{field: given[option] for option, field in own.items() if option in given})


def _told(evaluations: pd.DataFrame) -> str:
    """The last evaluation, a line a condition; nothing where there was none."""
    if evaluations.empty:
        return ""
    last = evaluations[evaluations["step"] == evaluations["step"].max()]
    return "".join(
        f"{row.condition}: top-1 {row.top1_accuracy:.3f} [{row.top1_low:.3f}, {row.top1_high:.3f}], "
        f"probability of the correct class {row.correct_probability:.3f} "
        f"[{row.correct_probability_low:.3f}, {row.correct_probability_high:.3f}], {row.n_images} images\n"
        for row in last.itertuples()
    )
