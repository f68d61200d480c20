r"""The study's protocol: one model, four fine-tunes, and what each did on images of kinds seen and unseen.

From one base, with the same images in the same order, the same number of steps and the same seed:

    removes   half of the images under corruptions that take high frequencies away (the blurs)
    adds      half of the images under corruptions that add high frequencies (the noises)
    both      half of the images under either
    control   clean images alone: what more training did without any corruption

Each is then compared with the control, image by image, on held-out images: clean, under the corruptions that
it was trained on, and under those of families that none of the four has seen. Without arguments the base is
the demo's, trained on scikit-learn's scanned digits:

    python examples/study_protocol.py

With arguments, anybody's:

    python examples/study_protocol.py --architecture deit_tiny_patch16_224 --weights deit_tiny.safetensors \
        --data train/ --held-out val/ --steps 1000 --learning-rate 5e-5 --layer-decay 0.75 --output study/

Whatever is interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from study_table import TRAINED_ON, show, split, table

import vitlens as vl


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fine-tune, compare, and say where everything is."""
    options = parse(arguments)
    output = Path(options.output)
    recipes = {"removes": tuple(options.removes), "adds": tuple(options.adds)}
    groups = split(options.conditions, recipes)
    # One of each group is watched; what is measured at the end is no part of the recipe.
    watched = [members[0] for members in groups.values()] if options.evaluate_every_steps else ["clean"]
    configs = {
        name: config([each for recipe in TRAINED_ON[name] for each in recipes[recipe]], watched, options)
        for name in ("control", "removes", "adds", "both")
    }
    if options.weights is None:
        import digits_models

        base = digits_models.base_model(output, quick=options.quick)
        train: Any = digits_models.Jittered(vl.images.digits("train"), copies=10, seed=1)
        held_out: Any = vl.images.digits("test")
        class_names: Sequence[str] = [str(digit) for digit in range(10)]
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = vl.load(options.weights, options.architecture, device=device)
        train, held_out = vl.images.folder(options.data, base), vl.images.folder(options.held_out, base)
        class_names = held_out.class_names
    if options.n_images:
        held_out = vl.images.spread(held_out, options.n_images)

    models = {"base": base}
    for name, recipe in configs.items():
        print(f"{name}: {options.steps} steps, {described(recipe)}")
        models[name] = vl.training.finetune(
            base,
            train,
            recipe,
            output / name,
            evaluate_on=held_out if options.evaluate_every_steps else None,
            num_workers=options.num_workers,
        ).model

    comparison = vl.compare(
        {"control": models.pop("control"), **models},
        held_out,
        conditions=[condition for members in groups.values() for condition in members],
        class_names=class_names,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        seed=options.seed,
    )
    rows = table(comparison.data, groups, margin=options.margin, seed=options.seed)
    rows.to_csv(output / "table.csv", index=False)
    summary = comparison.summary()
    summary.to_csv(output / "summary.csv", index=False)
    report = comparison.report(
        output / "report.html", title="Four fine-tunes and their base", summary=summary
    )
    show(rows, groups)
    print(f"\ntable: {output / 'table.csv'}\neach condition: {output / 'summary.csv'}\nreport: {report}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what does not go together is refused before anything is loaded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", help="the base: a file that vitlens.save wrote, or a state dict (default: the digits')")
    add("--architecture", help="timm's name, for a file that is a bare state dict")
    add("--data", help="training images: a folder with a folder for each class")
    add("--held-out", help="images to measure on, likewise")
    add("--n-images", type=int, help="measure on so many held-out images, spread over the folder")
    add("--removes", nargs="+", default=family("removes_high_frequency", "blur"), help="(default: all blurs)")
    add("--adds", nargs="+", default=family("adds_high_frequency", "noise"), help="(default: all noises)")
    add("--conditions", nargs="+", help="to measure under, besides clean (default: every corruption @3)")
    add("--p-clean", type=float, default=0.5, help="share of clean images in training (default: 0.5)")
    add("--steps", type=int, help="of each fine-tune (default: 400)")
    add("--batch-size", type=int, default=32)
    add("--accumulation-steps", type=int, default=1)
    add("--learning-rate", type=float, default=5e-4, help="(default: 5e-4; large trained ViTs want less)")
    add("--layer-decay", type=float)
    add("--precision", choices=["bfloat16", "float16"])
    add("--evaluate-every-steps", type=int, help="follow each fine-tune on the held-out images")
    add("--checkpoint-every-steps", type=int, default=100)
    add("--margin", type=float, help="the largest difference of a share that shall count as none")
    add("--num-workers", type=int, default=0)
    add("--seed", type=int, default=0)
    add("--output", default="study", help="folder of everything (default: study)")
    add("--quick", action="store_true", help="a rehearsal: few steps, few images, poor models")
    options = parser.parse_args(arguments)
    if options.weights and not (options.data and options.held_out):
        parser.error("--weights wants --data and --held-out besides")
    if not options.weights and (options.data or options.held_out or options.architecture):
        parser.error("--architecture, --data and --held-out want --weights besides")
    if options.steps is None:
        options.steps = 10 if options.quick else 400
    if options.n_images is None and options.quick:
        options.n_images = 40
    if options.n_images is not None and options.n_images < 2:
        parser.error("--n-images wants 2 or more")
    ready = [name for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
    options.conditions = options.conditions or [f"{name}@3" for name in ready]
    return options


def family(group: str, name: str) -> list[str]:
    """The corruptions of a family that do to high frequencies what the group's name says, all severities."""
    members = vl.images.frequency_groups()[group]
    return [f"{member}@1-5" for member in members if vl.CORRUPTIONS[member].family == name]


def described(recipe: vl.training.FinetuneConfig) -> str:
    """What a fine-tune sees."""
    if not recipe.conditions:
        return "clean images"
    return f"{1 - recipe.p_clean:.0%} of the images under {', '.join(map(str, recipe.conditions))}"


def config(
    conditions: Sequence[str], watched: Sequence[str], options: argparse.Namespace
) -> vl.training.FinetuneConfig:
    """The recipe of one fine-tune; the four differ in what corrupts their images and in nothing else."""
    return vl.training.FinetuneConfig(
        conditions=tuple(conditions),
        p_clean=options.p_clean if conditions else 1.0,
        steps=options.steps,
        batch_size=options.batch_size,
        accumulation_steps=options.accumulation_steps,
        learning_rate=options.learning_rate,
        warmup_steps=options.steps // 10,
        layer_decay=options.layer_decay,
        precision=options.precision,
        evaluation_conditions=tuple(watched),
        evaluate_every_steps=options.evaluate_every_steps,
        checkpoint_every_steps=options.checkpoint_every_steps,
        seed=options.seed,
    )


if __name__ == "__main__":
    try:
        main()
    except vl.errors.VitlensError as error:
        sys.exit(f"{type(error).__name__}: {error}")
