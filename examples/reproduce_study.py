r"""The study whole: one model, four fine-tunes, and a verdict on each claim about what they did.

From one base, with the same images in the same order, the same number of steps and the same seed:

    removes   half of the images under corruptions that take high frequencies away (the blurs)
    adds      half of the images under corruptions that add high frequencies (the noises)
    both      half of the images under either
    control   clean images alone: what more training did without any corruption

Then, on held-out images that are clean, under the corruptions trained on, and under families that none of the
four has seen: accuracy, probability of the correct class, first correct layer, attention entropy; sparse
autoencoders of all five and of a random model, and how alike they are; and which parts of each model carry
its robustness into the control. Claims and margins stand in `study_claims.py`, before any number.

Without arguments the base is trained on scikit-learn's scanned digits:

    python examples/reproduce_study.py

With arguments, anybody's; DeiT-tiny, or ViT-B/16 as the study has it (with a GPU):

    python examples/reproduce_study.py --architecture deit_tiny_patch16_224 --weights deit_tiny.safetensors \
        --train train/ --held-out val/ --steps 300 --batch-size 16 --learning-rate 5e-5 --layer-decay 0.75
    python examples/reproduce_study.py --architecture vit_base_patch16_224 --weights vit_base.safetensors \
        --train imagenet/train --held-out imagenet/val --n-images 5000 --steps 10000 --learning-rate 2e-5 \
        --layer-decay 0.75 --precision bfloat16 --num-workers 8

Whatever is interrupted goes on when the same command is given again, and what is there is not made again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import reinitialized
from study_claims import MARGINS
from study_output import Stopwatch, write_page
from study_parts import sweep
from study_saes import UNRELATED, codes, dictionaries, quality, similarity
from study_table import TRAINED_ON, scalars, show, split, table
from study_verdicts import claim_rows, verdicts

import vitlens as vl


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fine-tune, measure, judge, and say where everything is."""
    options = parse(arguments)
    output = Path(options.output)
    recipes = {"removes": tuple(options.removes), "adds": tuple(options.adds)}
    groups = split(options.conditions, recipes)
    configs = {
        name: config([each for recipe in TRAINED_ON[name] for each in recipes[recipe]], options)
        for name in ("control", "removes", "adds", "both")
    }
    watch = Stopwatch(output / "times.json")

    with watch("fine-tuning"):
        base, train, held_out, class_names = material(options, output)
        models = {"base": base}
        for name, recipe in configs.items():
            print(f"{name}: {options.steps} steps, {described(recipe)}")
            models[name] = vl.training.finetune(
                base, train, recipe, output / name, num_workers=options.num_workers
            ).model
    unrelated = reinitialized(base).to(base.device)
    hook_name = options.sae_hook or f"blocks.{3 * base.cfg.n_layers // 4}.hook_resid_post"
    base.check_hook_names([hook_name])
    some = vl.images.spread(held_out, min(options.n_sweep_images, len(held_out)))
    how = {"batch_size": options.batch_size, "seed": options.seed}

    with watch("sparse autoencoders"):
        settings = sae_settings(base, options)
        shown = vl.images.spread(train, min(options.sae_images, len(train)))
        saes = dictionaries({**models, UNRELATED: unrelated}, shown, hook_name, output / "saes", settings)

    with watch("comparison"):
        measured = {
            "saes": saes, "unrelated_model": unrelated, "class_names": class_names, "n_gallery_features": 0,
            "num_workers": options.num_workers, "precision": options.precision, **how,
        }  # fmt: skip
        conditions = [condition for members in groups.values() for condition in members]
        comparison = vl.compare(
            models, held_out, conditions=conditions, output=output / "comparison", **measured
        )
        # The same dictionaries beside the control's: what the corruption did, and not more training.
        control_first = {name: models[name] for name in sorted(models, key=lambda name: name != "control")}
        beside_control = vl.compare(
            control_first,
            some,
            analyses=[vl.Prediction()],
            n_examples=0,
            output=output / "beside_control",
            **measured,
        )

    with watch("codes under corruption"):
        of_codes = codes(models, saes, some, conditions, output / "codes.safetensors", **how)
    with watch("transplants"):
        parts = sweep(models, some, groups, output / "transplants", num_workers=options.num_workers, **how)

    with watch("tables and report"):
        # A clean image's codes are its own, nothing to compare; of the images, only some were coded.
        of_codes = of_codes.where(of_codes["condition"] != "clean").reindex(
            image=comparison.data["image"], checkpoint=comparison.data["checkpoint"]
        )
        data = scalars(comparison.data).merge(of_codes)
        rows = table(
            data,
            groups,
            n_classes=base.cfg.n_classes,
            margins=MARGINS,
            primary=[*MARGINS],
            seed=options.seed,
        )
        alike = similarity([comparison, beside_control])
        claims = claim_rows(rows, alike, parts)
        judged = verdicts(claims)
        there = ("top1_accuracy", "correct_probability", "first_correct_layer")
        summary = comparison.summary(margins={name: MARGINS[name] for name in there})
        report = comparison.report(
            output / "report.html", title="Four fine-tunes and their base", summary=summary
        )
    tables = {
        "groups": rows, "similarity": alike, "saes": quality(saes), "parts": parts, "claims": claims,
        "verdicts": judged,
        "conditions": summary[summary["layer"].isna()].drop(columns=["layer", "head"]),
    }  # fmt: skip
    run = {
        **described_run(options, arguments, base, train, held_out),
        "hook": hook_name,
        "sae": settings,
        "recipes": {name: described(recipe) for name, recipe in configs.items()},
        "groups": groups,
        "times_seconds": watch.seconds,
    }
    page = write_page(Path(options.page or output), comparison, tables, run)
    show(rows, groups)
    print(f"\n{judged.to_string(index=False)}\n\npage and tables: {page}\nreport: {report}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what does not go together is refused before anything is loaded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", help="the base: a file that vitlens.save wrote, or a state dict (default: the digits')")
    add("--architecture", help="timm's name, for a file that is a bare state dict")
    add("--train", help="training images: a folder with a folder for each class")
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
    add("--checkpoint-every-steps", type=int, default=100)
    add("--sae-hook", help="where SAEs read (default: the block at three quarters)")
    add("--sae-images", type=int, help="training images that they are trained on (default: 1000)")
    add("--sae-tokens", type=int, help="tokens a training (default: 400000)")
    add("--sae-expansion", type=int, default=4, help="features per axis of the stream (default: 4)")
    add("--k-per-token", type=int, default=16, help="active features of BatchTopK (default: 16)")
    add("--n-seeds", type=int, default=3, help="SAEs of each kind and model; 3 or more give intervals")
    add("--n-sweep-images", type=int, help="held-out images for transplants and codes (default: 200)")
    add("--num-workers", type=int, default=0)
    add("--seed", type=int, default=0)
    add("--output", default="study", help="folder of everything (default: study)")
    add("--page", help="folder for study.md and its tables and figures (default: that of --output)")
    add("--note", default="", help="a sentence for the page: what a reader should know of these images")
    add("--quick", action="store_true", help="a rehearsal: few steps, few images, poor models")
    options = parser.parse_args(arguments)
    if options.weights and not (options.train and options.held_out):
        parser.error("--weights wants --train and --held-out besides")
    if not options.weights and (options.train or options.held_out or options.architecture):
        parser.error("--architecture, --train and --held-out want --weights besides")
    quick = {"steps": 10, "n_images": 40, "sae_images": 40, "sae_tokens": 1024, "n_sweep_images": 20}
    usual = {"steps": 400, "n_images": None, "sae_images": 1000, "sae_tokens": 400_000, "n_sweep_images": 200}
    for name, value in (quick if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.n_images is not None and options.n_images < 2:
        parser.error("--n-images wants 2 or more")
    ready = [name for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
    options.conditions = options.conditions or [f"{name}@3" for name in ready]
    return options


def material(options: argparse.Namespace, output: Path) -> tuple[vl.HookedViT, Any, Any, Sequence[str]]:
    """The base, the images to train on and those to measure on, and the classes' names."""
    if options.weights is None:
        import digits_models

        base = digits_models.base_model(output, quick=options.quick)
        train: Any = digits_models.Jittered(vl.images.digits("train"), copies=10, seed=1)
        held_out: Any = vl.images.digits("test")
        class_names: Sequence[str] = [str(digit) for digit in range(10)]
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = vl.load(options.weights, options.architecture, device=device)
        train, held_out = vl.images.folder(options.train, base), vl.images.folder(options.held_out, base)
        class_names = held_out.class_names
    if options.n_images:
        held_out = vl.images.spread(held_out, options.n_images)
    return base, train, held_out, class_names


def family(group: str, name: str) -> list[str]:
    """The corruptions of a family that do to high frequencies what the group's name says, all severities."""
    members = vl.images.frequency_groups()[group]
    return [f"{member}@1-5" for member in members if vl.CORRUPTIONS[member].family == name]


def config(conditions: Sequence[str], options: argparse.Namespace) -> vl.training.FinetuneConfig:
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
        checkpoint_every_steps=options.checkpoint_every_steps,
        seed=options.seed,
    )


def sae_settings(base: vl.HookedViT, options: argparse.Namespace) -> dict[str, Any]:
    """How every SAE is trained."""
    return {
        "n_seeds": options.n_seeds,
        "num_workers": options.num_workers,
        "recipe": {
            "d_sae": options.sae_expansion * base.cfg.d_model,
            "k_per_token": options.k_per_token,
            "n_tokens": options.sae_tokens,
            "batch_size": min(1024, options.sae_tokens // 4),
        },
    }


def described(recipe: vl.training.FinetuneConfig) -> str:
    """What a fine-tune sees."""
    if not recipe.conditions:
        return "clean images"
    return f"{1 - recipe.p_clean:.0%} of the images under {', '.join(map(str, recipe.conditions))}"


def described_run(
    options: argparse.Namespace,
    arguments: Sequence[str] | None,
    base: vl.HookedViT,
    train: Any,
    held_out: Any,
) -> Mapping[str, Any]:
    """What a reader of the page needs to know of the run; of paths their last part alone."""
    given = list(arguments or sys.argv[1:])
    words = [Path(word).name if "/" in word and " " not in word else word for word in given]
    return {
        "command": f"python examples/reproduce_study.py {shlex.join(words)}",
        "model": options.architecture or "a small ViT (32 × 32 pixels, 6 blocks) trained on scanned digits",
        "n_parameters": sum(each.numel() for each in base.model.parameters()),
        "weights_sha256": vl.weights_sha256(base),
        "n_train": len(train),
        "n_held_out": len(held_out),
        "n_sweep": min(options.n_sweep_images, len(held_out)),
        "n_sae_images": min(options.sae_images, len(train)),
        "steps": options.steps,
        "batch_size": options.batch_size * options.accumulation_steps,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "is_digits": options.weights is None,
        "note": options.note,
        "machine": "With a GPU"
        if base.device.type == "cuda"
        else f"On a CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)},",
    }


if __name__ == "__main__":
    try:
        main()
    except vl.errors.VitlensError as error:
        sys.exit(f"{type(error).__name__}: {error}")
