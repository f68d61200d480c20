"""What analyses cost: `vitlens.run` over the bare timm forward passes of the same batches, and its memory.

    python tests/benchmarks/analyses.py [--rounds 15] [--threads 2]
    python tests/benchmarks/analyses.py --case "DeiT-tiny, batch 32" --only "Prediction, LogitLens"
    python tests/benchmarks/analyses.py --memory

Times are interleaved in one process and divided by the bare forward passes of the same round, which get
their images normalized, stacked and ready: reading, checking, normalizing and collecting rows are in the
ratio. "Bare torch" does the same work as the row above it with torch's own hooks and as few operations as
it takes. Memory is the peak of a process of its own beyond what it held before it began. Against page
faults, which belong to the allocator, see hooks.py.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from interleaved import interleaved, print_table
from torch import Tensor, nn

import vitlens as vl

CASES = {"DeiT-tiny, batch 32": "deit_tiny_patch16_224", "ViT-S/16, batch 32": "vit_small_patch16_224"}
N_BATCHES, BATCH = 2, 32


class Drawn(torch.utils.data.Dataset[dict[str, object]]):
    """Images drawn when they are asked for."""

    def __init__(self, n_images: int, size: int) -> None:
        self.n_images, self.size = n_images, size

    def __len__(self) -> int:
        return self.n_images

    def __getitem__(self, index: int) -> dict[str, object]:
        generator = torch.Generator().manual_seed(index)
        pixels = torch.rand(3, self.size, self.size, generator=generator)
        return {"pixels": pixels, "label": index % 10, "image_id": f"{index}"}


def bare_lens(model: nn.Module, images: Tensor, attention: bool) -> object:
    """Lens logits at every place by plain hooks, their softmax, and with `attention` every entropy."""
    lens: list[Tensor] = []
    entropies: list[Tensor] = []
    handles = []

    def read(x: Tensor) -> None:
        lens.append(model.head(model.norm(x[:, 0])).softmax(-1))

    def attend(module: nn.Module, _: object, output: Tensor, n_heads: int) -> None:
        batch, n_pos, _ = output.shape
        q, k, _ = output.view(batch, n_pos, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
        pattern = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        entropies.append(torch.special.entr(pattern).sum(-1))

    for block in model.blocks:
        handles.append(block.register_forward_pre_hook(lambda _, inputs: read(inputs[0])))
        if attention:
            n_heads = block.attn.num_heads
            handles.append(
                block.attn.qkv.register_forward_hook(lambda m, i, o, n=n_heads: attend(m, i, o, n))
            )
    handles.append(model.blocks[-1].register_forward_hook(lambda _, __, output: read(output)))
    model(images)
    for handle in handles:
        handle.remove()
    return lens, entropies


def variants(name: str) -> dict[str, Callable[[], object]]:
    """What is timed of one architecture."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    nn.init.trunc_normal_(model.head.weight, std=0.02)
    hooked = vl.HookedViT(model)
    drawn = Drawn(N_BATCHES * BATCH, 224)
    items = [drawn[index] for index in range(len(drawn))]
    images = [
        hooked.normalize(torch.stack([item["pixels"] for item in items[start : start + BATCH]]))
        for start in range(0, len(items), BATCH)
    ]
    lens = [vl.Prediction(), vl.LogitLens()]

    def run(*analyses: object) -> Callable[[], object]:
        return lambda: vl.run(hooked, items, analyses, batch_size=BATCH, progress=False)

    @torch.no_grad()
    def bare(work: Callable[[Tensor], object]) -> list[object]:
        return [work(batch) for batch in images]

    return {
        "bare forward passes": lambda: bare(model),
        "the same once more": lambda: bare(model),
        "Prediction": run(vl.Prediction()),
        "Prediction, LogitLens": run(*lens),
        "- bare torch": lambda: bare(lambda batch: bare_lens(model, batch, attention=False)),
        "Prediction, LogitLens, AttentionEntropy": run(*lens, vl.AttentionEntropy()),
        "- bare torch, attention besides the fused one": lambda: bare(
            lambda batch: bare_lens(model, batch, attention=True)
        ),
    }


# ------------------------------------------------------------------ memory


def peak_mib() -> float:
    """The process's peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forward_only() -> None:
    """One forward pass of ViT-B/16, batch 32."""
    model, images = vit_b()
    report("forward", lambda: model.model(images))


def with_entropy() -> None:
    """The same with every entropy, by the same engine."""
    model, images = vit_b()
    wanted = [vl.AttentionEntropy().hooks(model)]
    from vitlens.running import forward

    report("entropy", lambda: forward(model, images, wanted))


def many_images(n_images: int) -> None:
    """A whole run over so many images: its peak, what of it was in use, and what its rows take."""
    torch.manual_seed(0)
    model = vl.HookedViT(
        timm.models.VisionTransformer(
            img_size=64, patch_size=8, embed_dim=192, depth=6, num_heads=3, num_classes=10
        )
    )
    analyses = [vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy()]
    in_use: list[float] = []

    def look(pixels: Tensor) -> Tensor:
        in_use.append(in_use_mib())
        return pixels

    def run(n_images: int) -> object:
        return vl.run(model, Drawn(n_images, 64), analyses, conditions=[{"seen": look}], progress=False)

    run(320)  # the allocator finds its size
    in_use.clear()
    data = report("peak", lambda: run(n_images))
    print(f"in use at the last batch, beyond the first {in_use[-1] - in_use[0]:.2f}")
    print(f"rows {data.nbytes / 2**20:.2f}")


class _Mallinfo2(ctypes.Structure):
    # By malloc.h: ten counts, of which two are read.
    _fields_ = [(f"count_{place}", ctypes.c_size_t) for place in range(10)]


def in_use_mib() -> float:
    """What the process has asked for and not given back, by glibc's count."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo2
    found = mallinfo()
    in_heap, mapped = found.count_7, found.count_4  # uordblks, hblkhd
    return (in_heap + mapped) / 2**20


def vit_b() -> tuple[vl.HookedViT, Tensor]:
    """ViT-B/16, and a batch in [0, 1]."""
    model = vl.HookedViT(timm.create_model("vit_base_patch16_224").eval())
    return model, torch.rand(BATCH, 3, 224, 224)


@torch.no_grad()
def report(what: str, work: Callable[[], object]) -> object:
    """Do it, and print what its peak adds."""
    before = peak_mib()
    result = work()
    print(f"{what} {peak_mib() - before:.1f} of {peak_mib():.1f}")
    return result


TASKS: dict[str, Callable[[], None]] = {
    "forward": forward_only,
    "entropy": with_entropy,
    "200": lambda: many_images(200),
    "2000": lambda: many_images(2000),
}


def memory(threads: int) -> None:
    """Print the table of memory; each line is a process of its own."""
    for task in TASKS:
        command = [sys.executable, str(Path(__file__)), "--task", task, "--threads", str(threads)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{task:<10}" + "; ".join(said.split("\n")[:-1]) + " MiB")
    n_pos, n_heads = 197, 12
    print(f"one layer's pattern: {BATCH * n_heads * n_pos**2 * 4 / 2**20:.1f} MiB")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--only", nargs="+", help="rows besides those of the bare forward passes")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--task", choices=list(TASKS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    if options.task:
        TASKS[options.task]()
    elif options.memory:
        memory(options.threads)
    else:
        for case in options.case:
            timed = variants(CASES[case])
            bare = list(timed)[:2]
            timed = {row: timed[row] for row in [*bare, *(options.only or list(timed)[2:])]}
            ratios = interleaved(timed, options.rounds, lambda _: "bare forward passes")
            print_table(f"{options.threads} threads, {options.rounds} rounds", {case: ratios})


if __name__ == "__main__":
    main()
