"""Images with something in them, and a model to show them to."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from vitlens.models import HookedViT


def textured(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """[n 3 height width] on 256 levels: a slope, an edge and grain, in colors of their own."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(0, 1, width).expand(height, width)
    edge = (torch.arange(height)[:, None] > height / 2).float().expand(height, width)
    grain = torch.rand(n, 3, height, width, generator=generator)
    weights = torch.rand(n, 3, 2, 1, 1, generator=generator)
    mixed = 0.4 * weights[:, :, 0] * slope + 0.4 * weights[:, :, 1] * edge + 0.3 * grain
    return (mixed.clamp(0, 1) * 255).round() / 255


@pytest.fixture
def small_model():
    """Ten classes at 32 × 32, cropped as timm crops by default."""
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=10
    )
    return HookedViT(module.eval())


@pytest.fixture(scope="session")
def photographs(data_folder) -> torch.Tensor:
    """Every 25th photograph, at 224 × 224."""
    paths = sorted((data_folder / "imagenet_samples").glob("*/*.jpg"))[::25]
    arrays = [
        np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
        for path in paths
    ]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
