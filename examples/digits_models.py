"""The demo's checkpoints: a small ViT trained on scanned digits, and copies fine-tuned on corruptions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

import vitlens as vl

# What each tuned copy sees on half of its images: one family takes high frequencies away, one adds them.
RECIPES = {
    "blur": ["gaussian_blur@1-4"],
    "noise": ["gaussian_noise@2-5"],
}
CONDITIONS = [
    "clean",
    "gaussian_blur@3",  # seen by "blur"
    "gaussian_noise@4",  # seen by "noise"
    "defocus_blur@2",
    "pixelate@5",
    "impulse_noise@4",
    "sharpen@5",
    "contrast@2",
]


class Jittered(Dataset):
    """A data set `copies` times over, each copy turned, moved and scaled a little, always the same way."""

    def __init__(self, dataset: Dataset, copies: int, seed: int = 0) -> None:
        self.dataset, self.copies, self.seed = dataset, copies, seed
        self.image_ids = [f"{name}#{copy}" for copy in range(copies) for name in dataset.image_ids]
        self.labels = [label for _ in range(copies) for label in dataset.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, object]:
        name = f"{self.seed} {self.image_ids[index]}"
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
        angle, right, down, scale = torch.rand(4, generator=torch.Generator().manual_seed(number)).tolist()
        item = self.dataset[index % len(self.dataset)]
        pixels = transforms.affine(
            item["pixels"],
            angle=20 * angle - 10,
            translate=[round(4 * right - 2), round(4 * down - 2)],
            scale=0.9 + 0.2 * scale,
            shear=[0.0, 0.0],
            interpolation=transforms.InterpolationMode.BILINEAR,
        )
        return {**item, "pixels": pixels.clamp(0, 1), "image_id": self.image_ids[index]}


def untrained(seed: int) -> vl.HookedViT:
    """A ViT for 32×32 images and ten classes, its position embedding set to sines and cosines."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = timm.models.VisionTransformer(
            img_size=32, patch_size=4, embed_dim=64, depth=6, num_heads=4, num_classes=10
        )
    # 1,297 images are too few to learn from scratch where a patch is.
    with torch.no_grad():
        module.pos_embed.zero_()
        module.pos_embed[0, 1:] = build_sincos2d_pos_embed([8, 8], dim=64)
    return vl.HookedViT(module.eval(), data_config={"mean": (0.5,) * 3, "std": (0.5,) * 3})


def base_model(folder: Path, *, quick: bool = False) -> vl.HookedViT:
    """Train the base on clean digits, or go on where an earlier call was stopped."""
    recipe = vl.training.FinetuneConfig(
        p_clean=1,
        steps=20 if quick else 810,
        learning_rate=1.5e-3,
        warmup_steps=10 if quick else 20,
        max_grad_norm=None,
    )
    print(f"base: {recipe.steps} steps on clean digits")
    digits = Jittered(vl.images.digits("train"), copies=20)
    return vl.training.finetune(untrained(seed=0), digits, recipe, folder / "base").model


def checkpoints(folder: Path, *, quick: bool = False) -> dict[str, vl.HookedViT]:
    """Train the base and its tuned copies, or go on where an earlier call was stopped."""
    digits = vl.images.digits("train")
    base = base_model(folder, quick=quick)
    models = {"base": base}
    for name, conditions in RECIPES.items():
        recipe = vl.training.FinetuneConfig(
            conditions=conditions,
            steps=10 if quick else 400,
            learning_rate=5e-4,
            warmup_steps=5 if quick else 40,
        )
        print(f"{name}: {recipe.steps} steps, half of the images under {', '.join(conditions)}")
        models[name] = vl.training.finetune(
            base, Jittered(digits, copies=10, seed=1), recipe, folder / name
        ).model
    return models
