"""Throughput and memory of fine-tuning beside a bare loop: timm's forward pass, backward, timm's AdamW.

    python tests/benchmarks/finetune.py [--model vit_small_patch16_224] [--batch-size 32] [--rounds 9]
    python tests/benchmarks/finetune.py --memory
    python tests/benchmarks/finetune.py --threads 1 --cpu-time    # on a machine that is busy

The bare loop takes its steps in the same process, between those of `vl.training.finetune`: each time that
a batch is asked for, it steps on the batch before, stacked and normalized for it outside the clock. What is
inside vitlens's time is reading items, corrupting, normalizing, the loss, clipping, the schedule and the log.
Printed is vitlens's throughput as a share of the bare loop's, step by step. Of the clean images without
clipping the two losses are compared as well, which shows that both do the same work. With CUDA both train in
bfloat16, and the clock is read once in 20 steps, so that neither has to wait for the device at each. Memory
is the peak of a process of its own; on CUDA, what torch allocated at most.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import vitlens as vl

LEARNING_RATE, N_CLASSES, N_BATCHES = 1e-4, 1000, 4
SUITE = [f"{name}@1-5" for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
CASES: dict[str, dict[str, Any]] = {
    "clean images": {"p_clean": 1},
    "- without clipping": {"p_clean": 1, "max_grad_norm": None},
    "gaussian_blur@1-5": {"conditions": ("gaussian_blur@1-5",)},
    "gaussian_noise@1-5": {"conditions": ("gaussian_noise@1-5",)},
    "one of all corruptions, drawn for each image": {"conditions": tuple(SUITE)},
}
ON_CUDA = torch.cuda.is_available()
CLOCK: dict[str, Any] = {"clock": time.perf_counter}


class Images(torch.utils.data.Dataset[dict[str, Any]]):
    """Smooth images that lie in memory."""

    def __init__(self, n_images: int) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(n_images, 3, 28, 28, generator=generator)
        self.pixels = nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
        self.labels = torch.randint(N_CLASSES, (n_images,), generator=generator).tolist()
        self.image_ids = [f"{index}" for index in range(n_images)]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "pixels": self.pixels[index],
            "label": self.labels[index],
            "image_id": self.image_ids[index],
        }


class Bare:
    """The loop that one would write without vitlens."""

    def __init__(self, model: vl.HookedViT, steps: int) -> None:
        self.model, self.steps = model.model.to("cuda" if ON_CUDA else "cpu").train(), steps
        self.optimizer = create_optimizer_v2(self.model, opt="adamw", lr=LEARNING_RATE, weight_decay=0.05)
        self.losses: list[Tensor] = []

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """One step; the rate falls along the same half cosine."""
        rate = LEARNING_RATE * (1 + math.cos(math.pi * len(self.losses) / self.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=ON_CUDA):
            logits = self.model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())


class TakingTurns(Images):
    """Images whose reader, between its own batches, waits while the bare loop trains on the last ones."""

    def __init__(self, n_images: int, batch_size: int, n_steps_a_turn: int, bare: Bare, like: Any) -> None:
        super().__init__(n_images)
        self._batch_size, self._n_steps_a_turn, self._bare, self._like = (
            batch_size,
            n_steps_a_turn,
            bare,
            like,
        )
        self._asked: list[int] = []
        self._since: float | None = None
        self.seconds: list[tuple[float, float]] = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        if len(self._asked) == self._batch_size * self._n_steps_a_turn:
            self._turn()
        if self._since is None:
            self._since = now()
        self._asked.append(index)
        return super().__getitem__(index)

    def _turn(self) -> None:
        assert self._since is not None
        ours = now() - self._since
        batches = []
        for start in range(0, len(self._asked), self._batch_size):
            chosen = self._asked[start : start + self._batch_size]
            labels = torch.tensor([self.labels[index] for index in chosen])
            images = self._like.normalize(self.pixels[chosen])
            batches.append((images.cuda(), labels.cuda()) if ON_CUDA else (images, labels))
        start_bare = now()
        for images, labels in batches:
            self._bare(images, labels)
        self.seconds.append((ours, now() - start_bare))
        self._asked, self._since = [], None


def now() -> float:
    """The clock, once the device has done what it was given."""
    if ON_CUDA:
        torch.cuda.synchronize()
    return CLOCK["clock"]()


def new_model(name: str) -> vl.HookedViT:
    """Random weights, always the same."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=N_CLASSES).eval()
    nn.init.trunc_normal_(model.head.weight, std=0.02)
    return vl.HookedViT(model.cuda() if ON_CUDA else model)


def new_config(case: str, steps: int, batch_size: int) -> vl.training.FinetuneConfig:
    """The recipe of a case."""
    settings = {"precision": "bfloat16"} if ON_CUDA else {}
    return vl.training.FinetuneConfig(
        steps=steps, batch_size=batch_size, learning_rate=LEARNING_RATE, **settings, **CASES[case]
    )


def time_case(case: str, chosen: argparse.Namespace) -> None:
    """Print one row."""
    n_steps_a_turn = 20 if ON_CUDA else 1
    steps = n_steps_a_turn * (chosen.rounds + 2)  # the first turn warms up, the last has none after it
    bare = Bare(new_model(chosen.model), steps)
    model = new_model(chosen.model)
    images = TakingTurns(
        N_BATCHES * chosen.batch_size, chosen.batch_size, n_steps_a_turn, bare, new_model(chosen.model)
    )
    result = vl.training.finetune(model, images, new_config(case, steps, chosen.batch_size), progress=False)
    ratios = [theirs / ours for ours, theirs in images.seconds[1:]]
    low, median, high = statistics.quantiles(ratios, n=4)
    of_bare = statistics.median(theirs for _, theirs in images.seconds[1:])
    rate = chosen.batch_size * n_steps_a_turn / of_bare
    row = f"{case:<46}{f'{median:.3f} [{low:.3f}, {high:.3f}]':>24}{median * rate:>12.1f}{rate:>12.1f}"
    if case == "- without clipping":
        theirs = torch.stack(bare.losses).cpu()
        ours = torch.tensor(result.log["loss"].tolist()[: len(theirs)])
        row += f"   losses differ by {((ours - theirs).abs() / theirs).max():.1e} at most"
    print(row, flush=True)


# ------------------------------------------------------------------ memory


def peak_mib(whose: str, name: str, batch_size: int) -> float:
    """The most memory that three steps hold, with everything that this process holds besides."""
    images = Images(batch_size)
    model = new_model(name)
    if whose == "bare loop":
        bare = Bare(model, 3)
        batch = model.normalize(images.pixels)
        labels = torch.tensor(images.labels)
        for _ in range(3):
            bare(*((batch.cuda(), labels.cuda()) if ON_CUDA else (batch, labels)))
    else:
        vl.training.finetune(model, images, new_config(whose, 3, batch_size), progress=False)
    if ON_CUDA:
        return torch.cuda.max_memory_allocated() / 2**20
    # ru_maxrss would start from the parent's.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) / 2**10


def memory(chosen: argparse.Namespace) -> None:
    """Print the peaks, each of a process of its own, and their ratios to the bare loop's."""
    reference = None
    print(f"{'peak memory':<46}{'MiB':>12}{'ratio':>12}")
    for whose in ("bare loop", "clean images", *list(CASES)[2:]):
        given = ["--peak", whose, "--model", chosen.model, "--batch-size", str(chosen.batch_size)]
        given += ["--threads", str(chosen.threads)]
        ended = subprocess.run([sys.executable, __file__, *given], check=True, capture_output=True, text=True)
        peak = float(ended.stdout)
        reference = reference or peak
        print(f"{whose:<46}{peak:>12.0f}{peak / reference:>12.3f}", flush=True)


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", choices=["bare loop", *CASES], help=argparse.SUPPRESS)
    parser.add_argument("--cpu-time", action="store_true", help="of the process: for a machine that is busy")
    chosen = parser.parse_args()
    if chosen.cpu_time:
        CLOCK["clock"] = time.process_time
    torch.set_num_threads(chosen.threads)
    if chosen.peak:
        print(peak_mib(chosen.peak, chosen.model, chosen.batch_size))
        return
    where = torch.cuda.get_device_name() if ON_CUDA else f"{chosen.threads} threads"
    print(f"{chosen.model}, batch {chosen.batch_size}, {where}")
    if chosen.memory:
        memory(chosen)
        return
    print(f"{'share of the bare loop, [quartiles]':<46}{'':>24}{'images/s':>12}{'bare':>12}")
    for case in chosen.only:
        time_case(case, chosen)


if __name__ == "__main__":
    main()
