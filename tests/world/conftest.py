"""Two checkpoints trained on textured shapes: one on clean images, and that one tuned on blurred ones too."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

import vitlens as vl
from vitlens.images.textured_shapes import MEAN, STD

BLUR = "gaussian_blur@3"
CONDITIONS = ["clean", BLUR]


def train(model, images, labels, n_steps, learning_rate, seed):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=n_steps, pct_start=0.05, anneal_strategy="linear",
        cycle_momentum=False,
    )  # fmt: skip
    model.train()
    for _ in range(n_steps):
        chosen = torch.randint(len(images), (16,), generator=generator)
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


@pytest.fixture(scope="session")
def checkpoints():
    """About a minute on one core."""
    world = vl.images.textured_shapes("train", n=6000)
    pixels = torch.stack([world[index]["pixels"] for index in range(len(world))])
    labels = torch.tensor(world.labels)
    config = {"mean": MEAN, "std": STD}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.models.VisionTransformer(
            img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=16
        )
        # With timm's small positions a model this small sits on a plateau for long before it finds shapes.
        torch.nn.init.trunc_normal_(module.pos_embed, std=0.5, a=-9, b=9)
    base = vl.HookedViT(module, data_config=config)
    train(module, base.normalize(pixels), labels, 1200, 1.5e-3, seed=0)
    tuned = vl.HookedViT(copy.deepcopy(module), data_config=config)
    few = 2000
    blurred = vl.corrupt(pixels[:few], "gaussian_blur", 3, image_ids=world.image_ids[:few])
    both = tuned.normalize(torch.cat([pixels[:few], blurred]))
    train(tuned.model, both, labels[:few].repeat(2), 400, 5e-4, seed=1)
    return {"base": base, "tuned": tuned}


@pytest.fixture(scope="session")
def held_out():
    return vl.images.textured_shapes("test", n=400)


def coverage(dataset, patch_size):
    """[image patch_row patch_column]: the share of each patch that the shape covers."""
    masks = torch.stack([dataset[index]["factors"]["mask"].float() for index in range(len(dataset))])
    return np.asarray(F.avg_pool2d(masks.unsqueeze(1), patch_size).squeeze(1))


@pytest.fixture(scope="session")
def masks(held_out):
    """By patches of the checkpoints' size."""
    return coverage(held_out, patch_size=4)


@pytest.fixture(scope="session")
def bag_of_patches():
    """A model of textures whose attention adds nothing: each patch speaks for itself."""
    world = vl.images.textured_shapes("train", n=6000, label="texture")
    pixels = torch.stack([world[index]["pixels"] for index in range(len(world))])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=4, num_classes=4,
            global_pool="avg", class_token=False,
        )  # fmt: skip
    for block in module.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
        block.attn.proj.requires_grad_(False)
    model = vl.HookedViT(module, data_config={"mean": MEAN, "std": STD})
    train(module, model.normalize(pixels), torch.tensor(world.labels), 1500, 1.5e-3, seed=0)
    return model
