"""The long jobs of vitlens, small: each writes to a folder, counts what it does, and has a result to compare.

A count is a byte in a file outside of the folder, so that it outlives the process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from torch.utils.data import Dataset

import vitlens as vl
from vitlens.claims import LOCK_NAME
from vitlens.saes.trainer import Trainer as SAETrainer
from vitlens.testing import randomize
from vitlens.training import FinetuneConfig
from vitlens.training.trainer import Trainer

PLACE = "blocks.1.hook_resid_post"


class Images(Dataset):
    """Random images; reading one is counted, and takes so long."""

    def __init__(self, n: int, count: Path | None = None, seconds: float = 0.0) -> None:
        self._pixels = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        self._count, self._seconds = count, seconds

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(index)
        counted(self._count)
        time.sleep(self._seconds)
        return {"pixels": self._pixels[index], "label": index % 4, "image_id": f"image {index}"}


def counted(count: Path | None) -> None:
    if count is not None:
        file = os.open(count, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, b".")
        os.close(file)


def model(seed: int = 0) -> vl.HookedViT:
    made = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=4, drop_path_rate=0.1
    )
    return vl.HookedViT(randomize(made, seed=seed))


def two() -> dict[str, vl.HookedViT]:
    return {"base": model(0), "tuned": model(1)}


def run(folder: Path, count: Path | None = None, seconds: float = 0.0, num_workers: int = 0) -> None:
    analyses = [vl.Prediction(), vl.LogitLens(), vl.Representation(), vl.CKA()]
    vl.run(
        two(), Images(64, count, seconds), analyses, conditions=["clean", "gaussian_noise@3"], batch_size=4,
        shard_images=8, num_workers=num_workers, output=folder, progress=False,
    )  # fmt: skip


def store(folder: Path, count: Path | None = None, seconds: float = 0.0, num_workers: int = 0) -> None:
    vl.saes.ActivationStore.write(
        folder, two(), Images(64, count, seconds), hook_names=[PLACE], conditions=["clean", "contrast@2"],
        batch_size=4, shard_images=8, num_workers=num_workers, progress=False,
    )  # fmt: skip


def sae(folder: Path, count: Path | None = None, seconds: float = 0.0, num_workers: int = 0) -> None:
    rows = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    step = SAETrainer.step

    def taken(self, batch):
        counted(count)
        time.sleep(seconds)
        return step(self, batch)

    SAETrainer.step = taken
    try:
        vl.saes.train(
            rows, d_sae=16, k_per_token=2, batch_size=64, n_tokens=64 * 60, dead_window_tokens=256,
            output=folder, save_every_seconds=0.0, progress=False,
        )  # fmt: skip
    finally:
        SAETrainer.step = step


def finetune(folder: Path, count: Path | None = None, seconds: float = 0.0, num_workers: int = 0) -> None:
    config = FinetuneConfig(
        conditions=["gaussian_noise@1-5"], steps=24, batch_size=4, ema_decay=0.9, checkpoint_every_steps=4,
        evaluate_every_steps=8, snapshot_steps=(12,),
    )  # fmt: skip
    step = Trainer.step

    def made(self, *arguments):
        counted(count)
        time.sleep(seconds)
        return step(self, *arguments)

    Trainer.step = made
    try:
        vl.training.finetune(
            model(), Images(24), config, folder, evaluate_on=Images(8), num_workers=num_workers,
            progress=False,
        )  # fmt: skip
    finally:
        Trainer.step = step


def compare(folder: Path, count: Path | None = None, seconds: float = 0.0, num_workers: int = 0) -> None:
    vl.compare(
        two(), Images(600, count, seconds), batch_size=64, output=folder, num_workers=num_workers,
        progress=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A long job.

    Attributes:
        make: does it.
        unit: what it counts.
        interval: how many units a kill may cost at most.
        said: the interval in words.
        finished: a file that is there when it is done.
    """

    make: Callable[..., None]
    unit: str
    interval: int
    said: str
    finished: str


JOBS = {
    "run": Job(run, "images", 8, "a shard of rows", "rows-000007.json"),
    "store": Job(store, "images", 16, "the shard being filled and the one being written", "manifest.json"),
    "train": Job(sae, "steps", 1, "the steps since the last saved state", "cfg.json"),
    "finetune": Job(finetune, "steps", 4, "the steps since the last checkpoint", "model.safetensors"),
    "compare": Job(
        compare, "images", 264, "a shard of rows, and images looked at for examples", "comparison.safetensors"
    ),
}


def content(path: Path) -> bytes:
    """What a file of safetensors says: its metadata stand in another order each time."""
    with safe_open(path, framework="numpy") as file:
        tensors = [(key, file.get_tensor(key)) for key in sorted(file.keys())]
        said = [sorted((file.metadata() or {}).items()), [(key, str(each.dtype)) for key, each in tensors]]
    return json.dumps(said).encode() + b"".join(each.tobytes() for _, each in tensors)


def is_a_result(path: Path) -> bool:
    # A job that is killed as its last act leaves its lock, which nobody holds.
    return path.is_file() and path.name != LOCK_NAME


def result(name: str, folder: Path) -> dict[str, bytes]:
    """What a finished job has left, without dates and rates: equal bytes for equal results."""
    if name == "compare":
        data = vl.Comparison.load(folder).data
        arrays = {str(key): each.values.tobytes() for key, each in data.data_vars.items()}
        return arrays | {f"axis {key}": str(each.values).encode() for key, each in data.coords.items()}
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if is_a_result(path)}
    left = {key: path.read_bytes() for key, path in files.items()}
    if name == "finetune":
        left |= {key: content(path) for key, path in files.items() if path.suffix == ".safetensors"}
        rows = map(json.loads, files["log.jsonl"].read_text().splitlines())
        kept = sorted(
            json.dumps({key: each for key, each in row.items() if key != "images_per_second"}) for row in rows
        )
        left["log.jsonl"] = "\n".join(kept).encode()
        del left["curves.html"]
    return left
