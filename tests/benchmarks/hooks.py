"""What hooks cost: ratios to the plain timm forward pass, interleaved in one process.

    python tests/benchmarks/hooks.py [--rounds 15] [--threads 2]

Each round times every variant once, in an order drawn anew, and is divided by its own plain forward pass;
the table shows the median ratio with its quartiles. Holding hundreds of megabytes costs page faults, which
belong to the allocator: run it again with

    MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=1073741824

to see the same without them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

import vitlens as vl

CASES = {"ViT-S/16, batch 8": ("vit_small_patch16_224", 8), "ViT-tiny, batch 1": ("vit_tiny_patch16_224", 1)}


def bare(model: nn.Module, modules: dict[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    """The outputs of some modules, by torch's own hooks."""
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: kept.__setitem__(name, output))
        for name, module in modules.items()
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return kept


def variants(model: nn.Module, images: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    hooked = vl.HookedViT(model)
    residual = [name for name in hooked.hook_names if name.endswith(("resid_pre", "resid_post"))]
    quiet = [
        name
        for name in hooked.hook_names
        if not name.endswith(("hook_result", "hook_attn_scores", "hook_pattern"))
    ]
    blocks = {f"blocks.{index}": block for index, block in enumerate(model.blocks)}
    leaves = {
        name: module
        for name, module in model.named_modules()
        if name and not list(module.children()) and not isinstance(module, nn.Identity | nn.Dropout)
    }
    return {
        "plain timm": lambda: model(images),
        "hooked, no cache": lambda: hooked(images),
        "bare hooks, residual stream": lambda: bare(model, blocks, images),
        "residual stream of every layer": lambda: hooked.run_with_cache(images, names_filter=residual),
        "bare hooks, every module": lambda: bare(model, leaves, images),
        "every hook but scores and patterns": lambda: hooked.run_with_cache(images, names_filter=quiet),
        "every hook": lambda: hooked.run_with_cache(images),
    }


@torch.inference_mode()
def measure(name: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Ratios to the plain forward pass, round by round."""
    model = timm.create_model(name).eval()
    images = torch.randn(batch, 3, 224, 224)
    timed = variants(model, images)
    for run in timed.values():
        run()
    ratios: dict[str, list[float]] = {variant: [] for variant in timed}
    order = list(timed)
    for _ in range(rounds):
        random.shuffle(order)
        seconds = {}
        for variant in order:
            start = time.perf_counter()
            kept = timed[variant]()
            seconds[variant] = time.perf_counter() - start
            del kept
        for variant in timed:
            ratios[variant].append(seconds[variant] / seconds["plain timm"])
    return ratios


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    thresholds = "raised" if "MALLOC_TOP_PAD_" in os.environ else "default"
    print(f"{options.threads} threads, {options.rounds} rounds, allocator thresholds {thresholds}")
    columns = {case: measure(name, batch, options.rounds) for case, (name, batch) in CASES.items()}
    print(f"{'ratio to plain timm, median [quartiles]':<42}" + "".join(f"{case:>26}" for case in columns))
    for variant in next(iter(columns.values())):
        cells = []
        for ratios in columns.values():
            low, median, high = statistics.quantiles(ratios[variant], n=4)
            cells.append(f"{f'{median:.3f} [{low:.3f}, {high:.3f}]':>26}")
        print(f"{variant:<42}" + "".join(cells))


if __name__ == "__main__":
    main()
