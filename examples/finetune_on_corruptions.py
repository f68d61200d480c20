r"""Fine-tune a ViT on corrupted images, as something to compare with where it started.

Without arguments, the demo's digits and its base model (made first by compare_checkpoints.py):

    python examples/finetune_on_corruptions.py --conditions contrast@1-3 --output demo/contrast

With arguments, anybody's:

    python examples/finetune_on_corruptions.py --architecture deit_tiny_patch16_224 \
        --weights deit_tiny.safetensors --data train/ \
        --conditions gaussian_blur@1-4 --steps 300 --output tuned/

A clean control of the same length tells what the corruption did from what more training did:

    python examples/finetune_on_corruptions.py ... --p-clean 1 --output control/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import vitlens as vl


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fine-tune, and say where the model is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", help="timm's name, for a file that is a bare state dict")
    parser.add_argument("--weights", default="demo/base/model.safetensors", help="where to start")
    parser.add_argument("--data", help="images: a folder with a folder for each class (default: the digits)")
    parser.add_argument("--conditions", nargs="*", default=[], help="such as gaussian_blur@1-4")
    parser.add_argument("--p-clean", type=float, default=0.5, help="share of clean images (default: 0.5)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--layer-decay", type=float, default=None)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="run", help="folder of the result (default: run)")
    options = parser.parse_args(arguments)

    model = vl.load(options.weights, options.architecture)
    dataset = vl.images.folder(options.data, model) if options.data else vl.images.digits("train")
    config = vl.training.FinetuneConfig(
        conditions=options.conditions if options.p_clean < 1 else [],
        p_clean=options.p_clean,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.steps // 10,
        layer_decay=options.layer_decay,
        seed=options.seed,
    )
    result = vl.training.finetune(model, dataset, config, options.output, num_workers=options.num_workers)
    print(f"model: {result.path}")


if __name__ == "__main__":
    try:
        main()
    except vl.errors.VitlensError as error:
        sys.exit(f"{type(error).__name__}: {error}")
