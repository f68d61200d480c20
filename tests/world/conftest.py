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


def train(model, images, labels, n_steps, learning_rate, seed, batch_size=16):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=n_steps, pct_start=0.05, anneal_strategy="linear",
        cycle_momentum=False,
    )  # fmt: skip
    model.train()
    for _ in range(n_steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def first_that_learns(build, label, **recipe):
    """A model trained on the made world, by the first seed that gets 80 % of 200 further images right.

    A seed now and then stays on a plateau, and which one does depends on how a machine rounds.
    """
    n = 8000
    world = vl.images.textured_shapes("train", n=n + 200, label=label)
    pixels = torch.stack([world[index]["pixels"] for index in range(len(world))])
    labels = torch.tensor(world.labels)
    for seed in range(4):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = vl.HookedViT(build(), data_config={"mean": MEAN, "std": STD})
        train(model.model, model.normalize(pixels[:n]), labels[:n], seed=seed, **recipe)
        with torch.no_grad():
            predicted = model(model.normalize(pixels[n:])).argmax(-1)
        if (predicted == labels[n:]).float().mean() > 0.8:
            return model
    raise AssertionError("no seed has learnt the made world")


def small_vit():
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=16
    )
    # With timm's small positions a model this small sits on a plateau for long before it finds shapes.
    torch.nn.init.trunc_normal_(module.pos_embed, std=0.5, a=-9, b=9)
    return module


def without_attention():
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=4, num_classes=4,
        global_pool="avg", class_token=False,
    )  # fmt: skip
    for block in module.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
        block.attn.proj.requires_grad_(False)
    return module


@pytest.fixture(scope="session")
def checkpoints():
    """About a minute and a half on one core."""
    base = first_that_learns(small_vit, "class", n_steps=1400, learning_rate=1.5e-3)
    world = vl.images.textured_shapes("train", n=2000)
    pixels = torch.stack([world[index]["pixels"] for index in range(len(world))])
    blurred = vl.corrupt(pixels, "gaussian_blur", 3, image_ids=world.image_ids)
    tuned = vl.HookedViT(copy.deepcopy(base.model), data_config=base.data_config)
    both = tuned.normalize(torch.cat([pixels, blurred]))
    train(tuned.model, both, torch.tensor(world.labels).repeat(2), 400, 5e-4, seed=1)
    return {"base": base, "tuned": tuned}


@pytest.fixture(scope="session")
def bag_of_patches():
    """A model of textures whose attention adds nothing: each patch speaks for itself."""
    return first_that_learns(without_attention, "texture", n_steps=1000, learning_rate=2e-3, batch_size=64)


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
