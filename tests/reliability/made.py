"""Images and small models, sound and overflowing, for the tests of this folder's numbers."""

import timm
import torch

import vitlens as vl
from vitlens.testing import randomize


def items(n):
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": i % 10, "image_id": f"image {i}"}
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


def overflowing(seed=0):
    """A model whose MLP reaches beyond float16 inside block 0, and whose output is of the usual size."""
    made = model(seed)
    mlp = made.model.blocks[0].mlp
    with torch.no_grad():
        mlp.fc1.weight.mul_(1e6)
        mlp.fc2.weight.mul_(1e-6)
    return made


def dark(n, every):
    """Images every so many of which is dark, and the model that overflows on the others alone."""
    made, images = model(), items(n)
    for image in images[::every]:
        image["pixels"] = torch.full((3, 32, 32), 0.5)
    return made, images
