"""A model and its images as a source of tokens: their activations are taken into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..errors import SAEError
from ..images import ImageDataset, n_images, parse_conditions
from ..models import HookedViT, weights_sha256
from ..running.activations import taken
from .tokens import InMemory


def take(
    model: HookedViT,
    dataset: ImageDataset,
    hook_name: str,
    *,
    tokens: str,
    conditions: Sequence[Any],
    n_images_per_pass: int,
    seed: int,
    progress: bool,
) -> InMemory:
    """The activations of one hook, those of one image together, conditions after one another.

    Args:
        model: run as it is.
        dataset: items as in `vitlens.run`.
        hook_name: a hook whose activation is [batch pos d_in].
        tokens: `patch`, `cls`, `register`, `distillation` or `all`.
        conditions: what is done to the images first.
        n_images_per_pass: images in a forward pass.
        seed: of the corruptions.
        progress: show a bar for each condition.

    Returns:
        Rows on the CPU, whose origin says what a store's would.

    Raises:
        SAEError: several conditions, of a data set that does not say its length.
    """
    asked, n = parse_conditions(conditions), n_images(dataset)
    if n is None and len(asked) > 1:
        raise SAEError(
            f"The data set is a {type(dataset).__name__} of no known length, for {len(asked)} conditions.",
            expected="a data set that can be read once for each condition",
            remedy="Put the items into a list, or store their activations with ActivationStore.write.",
        )
    origin = {
        "hook_name": hook_name,
        "tokens": tokens,
        "conditions": [condition.name for condition in asked],
        "model": {
            "config": asdict(model.cfg),
            "provenance": model.provenance,
            "weights_sha256": weights_sha256(model),
        },
    }
    shown = [
        taken(
            model, dataset, hook_name, tokens=tokens, condition=condition, seed=seed,
            batch_size=n_images_per_pass, on_bad_image="skip", progress=progress,
        )
        for condition in asked
    ]  # fmt: skip
    if n is None:
        return InMemory(torch.cat([rows for rows, _ in shown]), origin=origin)
    if len({n_read for _, n_read in shown}) > 1:
        raise SAEError(
            f"Of the images {' and '.join(f'{n_read:,}' for _, n_read in shown)} could be read under one "
            "condition and another.",
            expected="the same images under all",
            remedy="Mend or remove the files, or store the activations with ActivationStore.write.",
        )
    per_image = [rows.unflatten(0, (n_read, -1)) for rows, n_read in shown]
    rows = per_image[0] if len(asked) == 1 else torch.cat(per_image, dim=1)
    return InMemory(rows.flatten(0, 1), tokens_per_image=rows.shape[1], origin=origin)
