"""Random images, and a random model that takes a millisecond for one."""

import timm
import torch

import vitlens as vl
from vitlens.testing import randomize


def items(n, size=32):
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixels": torch.rand(3, size, size, generator=generator), "label": i % 10, "image_id": f"image {i}"}
        for i in range(n)
    ]


def model(seed=0):
    made = randomize(
        timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10
        ),
        seed=seed,
    )
    return vl.HookedViT(made)
