"""What a comparison costs: time, memory, and the share of it spent outside the two models' forward passes.

    VITLENS_DATA=... python tests/benchmarks/compare.py [--n-images 1000] [--threads 2] [--profile]

`vl.compare` on DeiT-tiny and a copy whose head is changed a little, photographs, eight conditions, and five
analyses. Whenever the comparison runs a model, the bare timm module is run on the same normalized images
right after, so that noise of the machine falls on both alike; its time is the forward passes', and is taken
off the comparison's. Reading files, corruptions, hooks, the analyses themselves, rows and examples are the
rest. Summary and report follow, timed apart. Memory is the peak of the process, and what it held before.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch.utils.data import Subset

import vitlens as vl
from vitlens.running import measurement, passes

CONDITIONS = [
    "clean",
    "gaussian_noise@3",
    "defocus_blur@3",
    "gaussian_blur@3",
    "fog@3",
    "contrast@2",
    "pixelate@3",
    "jpeg@3",
]


class Clock:
    """Seconds spent in calls."""

    def __init__(self) -> None:
        self.seconds, self.n = 0.0, 0

    def timing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start
                self.n += 1

        return timed


def models() -> dict[str, vl.HookedViT]:
    """DeiT-tiny, and the same with noise on its head."""
    state = load_file(Path(os.environ["VITLENS_DATA"]) / "deit_tiny_patch16_224.fp16.safetensors")
    made = {}
    for name in ("base", "tuned"):
        model = timm.create_model("deit_tiny_patch16_224").eval()
        model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
        if name == "tuned":
            with torch.no_grad():
                generator = torch.Generator().manual_seed(0)
                model.head.weight += 0.01 * torch.randn(model.head.weight.shape, generator=generator)
        made[name] = vl.HookedViT(model)
    return made


def peak_mib() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def held_mib() -> float:
    """Of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Measure once, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--conditions", nargs="+", default=CONDITIONS)
    parser.add_argument("--profile", action="store_true", help="print where the rest of the time goes")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    compared = models()
    folder = vl.images.folder(Path(os.environ["VITLENS_DATA"]) / "imagenet_samples", compared["base"])
    n = min(chosen.n_images, len(folder))
    images = Subset(folder, [place * len(folder) // n for place in range(n)])
    analyses = [
        vl.Prediction(),
        vl.LogitLens(),
        vl.AttentionEntropy(),
        vl.AttentionDistance(),
        vl.Representation(),
    ]
    bare, hooked, shown = Clock(), Clock(), Clock()
    whole = passes.forward
    bare_pass = bare.timing(lambda model, images: model.model(images))

    def both(model: vl.HookedViT, pixels: torch.Tensor, wanted: Any, **named: Any) -> Any:
        made = hooked.timing(whole)(model, pixels, wanted, **named)
        bare_pass(model, model.normalize(pixels))
        return made

    measurement.forward = both
    measurement.shown = shown.timing(measurement.shown)
    with torch.no_grad():  # the allocator finds its size
        both(compared["base"], torch.zeros(chosen.batch_size, 3, 224, 224), [])
    bare.seconds = bare.n = hooked.seconds = hooked.n = 0
    before = held_mib()
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        if chosen.profile:
            profiler.enable()
        comparison = vl.compare(
            compared,
            images,
            analyses=analyses,
            conditions=chosen.conditions,
            class_names=folder.class_names,
            batch_size=chosen.batch_size,
            num_workers=chosen.num_workers,
            output=output,
            progress=False,
        )
        profiler.disable()
        seconds = time.perf_counter() - start - bare.seconds
        peak = peak_mib()
        start = time.perf_counter()
        summary = comparison.summary()
        summarized = time.perf_counter() - start
        start = time.perf_counter()
        page = comparison.report(Path(output) / "report.html", summary=summary)
        reported, size = time.perf_counter() - start, page.stat().st_size / 1e6
    n_passes = n * len(chosen.conditions) * len(compared)
    outside = seconds - bare.seconds
    rows = {
        "comparison": (
            seconds,
            f"{1000 * seconds / n_passes:.2f} ms for an image under a condition and model",
        ),
        "  bare forward passes": (bare.seconds, f"{100 * bare.seconds / seconds:.1f} %"),
        "  outside of them": (outside, f"{100 * outside / seconds:.1f} %"),
        "    what hooks add to a pass": (hooked.seconds - bare.seconds, ""),
        "    corruptions": (shown.seconds, ""),
        "    all else": (seconds - hooked.seconds - shown.seconds, ""),
        "summary": (summarized, f"{len(summary)} rows"),
        "report": (reported, f"{size:.1f} MB"),
    }
    print(f"{n} images, {len(chosen.conditions)} conditions, {chosen.threads} threads, {bare.n} batches")
    for what, (taken, words) in rows.items():
        print(f"{what:<30}{taken:8.1f} s   {words}")
    print(f"peak memory {peak:.0f} MiB, of which before the comparison {before:.0f} MiB")
    if chosen.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
