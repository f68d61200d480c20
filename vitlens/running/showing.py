"""What each checkpoint sees of a batch under a condition."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..images import Batch, Condition
from ..models import HookedViT


def shown(
    condition: Condition, clean: Batch, models: Mapping[str, HookedViT], *, seed: int
) -> dict[str, Batch]:
    """What each checkpoint sees.

    All see the same pixels, those of one attacked checkpoint included, unless the condition looks inside the
    model and names none: then each is asked for itself.

    Args:
        condition: what is done to the images; it has been checked against the models.
        clean: the images as they are.
        models: checkpoint name -> model; `model` is the name of one that was given alone.
        seed: of the condition.

    Returns:
        Checkpoint name -> batch, on the checkpoint's device.

    Example:
        >>> import timm, vitlens as vl
        >>> from vitlens.images import collate, parse_condition
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> batch = collate([vl.images.digits("test")[0]])
        >>> list(shown(parse_condition("contrast@3"), batch, {"base": model, "tuned": model}, seed=0))
        ['base', 'tuned']
    """
    if not condition.shares_pixels:
        return {name: _seen_by(condition, clean, model, seed) for name, model in models.items()}
    attacked = condition.attacked_checkpoint
    if attacked is None:
        pixels = condition.apply(clean.pixels, clean.image_ids, seed=seed)
        batch = Batch(pixels, clean.labels, clean.image_ids)
    else:
        batch = _seen_by(condition, clean, models[attacked], seed)
    return {name: moved(batch, model.device) for name, model in models.items()}


def _seen_by(condition: Condition, clean: Batch, model: HookedViT, seed: int) -> Batch:
    own = moved(clean, model.device)
    pixels = condition.apply(own.pixels, own.image_ids, seed=seed, model=model, labels=own.labels)
    return Batch(pixels.detach(), own.labels, own.image_ids)


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on another device; the same one where it is there already."""
    if batch.pixels.device == device:
        return batch
    return Batch(batch.pixels.to(device), batch.labels.to(device), batch.image_ids)
