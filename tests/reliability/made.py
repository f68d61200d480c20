"""Small models that overflow, for the tests of this folder's numbers."""

import torch
from small import items, model


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
