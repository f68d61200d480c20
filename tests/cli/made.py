"""Checkpoints and folders of images for the commands' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
from PIL import Image

import vitlens as vl
from vitlens.testing import randomize

SETTINGS = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 2}


def model(seed: int = 0, **changes: int) -> vl.HookedViT:
    """A small model of two classes with random weights; `changes` are timm's arguments."""
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**SETTINGS | changes), seed))


def photographs(folders: list[Path], n: int, size: int = 40) -> None:
    """Write `n` images of random pixels into each folder, numbered from 0."""
    generator = np.random.default_rng(0)
    for folder in folders:
        folder.mkdir(parents=True)
        for index in range(n):
            pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
