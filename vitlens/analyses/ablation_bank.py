"""What an ablation puts in place of activations: banks of means or of other images, one a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AnalysisError
from ..images import ImageDataset, batches, n_images, parse_condition
from ..images.streams import stream
from ..models import HookedViT, weights_sha256
from ..running.passes import forward, measuring
from ..running.showing import shown


@dataclass(frozen=True, eq=False)
class AblationBank:
    """What takes the place of one checkpoint's activations.

    Attributes:
        weights_sha256: of the checkpoint.
        activations: hook -> [source pos ...]: the mean over a data set, as one source, or each of several
            images' own.
        source_ids: the ids of those images; empty for a mean.
        sha256: of all of it.
    """

    weights_sha256: str
    activations: Mapping[str, Tensor]
    source_ids: tuple[str, ...]
    sha256: str

    def __repr__(self) -> str:
        return f"AblationBank(sha256={self.sha256[:16]!r})"

    def sources(self, image_ids: Sequence[str], seed: int) -> Tensor:
        """Which source stands in for each image: a draw by (seed, image id), never the image itself."""
        if not self.source_ids:
            return torch.zeros(len(image_ids), dtype=torch.int64)
        chosen = []
        for image_id in image_ids:
            others = [place for place, source in enumerate(self.source_ids) if source != image_id]
            draw = torch.randint(len(others), (1,), generator=stream(seed, image_id, "resample_ablation", 0))
            chosen.append(others[int(draw)])
        return torch.tensor(chosen)


def read_activations(
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    parts: Sequence[str],
    reduce: Callable[[Tensor], Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    *,
    condition: Any,
    batch_size: int,
    seed: int,
    progress: bool,
) -> tuple[tuple[str, ...], dict[str, dict[str, Tensor]]]:
    """What banks are made of, from one pass over the images for all checkpoints.

    Args:
        models: checkpoint name -> model.
        dataset: items as in `run`, read once.
        parts: hooks inside each block.
        reduce: applied to each activation as it streams by.
        combine: joins what is left of the batches so far with that of the next.
        condition: what is done to the images first.
        batch_size: images in a forward pass.
        seed: of the condition.
        progress: show a bar.

    Returns:
        The images' ids, and checkpoint -> hook -> what came of its activations.

    Raises:
        AnalysisError: there is no checkpoint.
    """
    if not models:
        raise AnalysisError(
            "Ablation is given no checkpoint.", expected="a model, or name -> model", remedy="Give one."
        )
    asked = parse_condition(condition)
    asked.check(models)
    size = next(iter(models.values())).cfg.required_image_size
    gathered: dict[str, dict[str, Tensor]] = {name: {} for name in models}
    ids: list[str] = []
    bar = tqdm(total=n_images(dataset), desc="ablation", unit="image", disable=not progress)
    with bar, measuring(list(models.values())):
        for clean in batches(dataset, batch_size, image_size=size):
            seen = shown(asked, clean, models, seed=seed)
            ids += clean.image_ids
            for name, model in models.items():
                layers = range(model.cfg.n_layers)
                wanted = {f"blocks.{layer}.{part}": reduce for layer in layers for part in parts}
                _, (view,) = forward(model, seen[name].pixels, [wanted])
                for hook, value in view.items():
                    known = gathered[name].get(hook)
                    gathered[name][hook] = value if known is None else combine(known, value)
            bar.update(len(clean))
    return tuple(ids), gathered


def make_bank(
    model: HookedViT, activations: Mapping[str, Tensor], source_ids: tuple[str, ...] = ()
) -> AblationBank:
    """The bank of one checkpoint, on the CPU.

    Args:
        model: the checkpoint.
        activations: hook -> [source pos ...].
        source_ids: the images that they are from; empty for a mean.
    """
    weights = known_sha256(model)
    digest = hashlib.sha256(repr((weights, source_ids)).encode())
    held = {hook: values.float().cpu().contiguous() for hook, values in activations.items()}
    for hook, values in held.items():
        digest.update(hook.encode())
        digest.update(values.numpy().data)
    return AblationBank(weights, held, source_ids, digest.hexdigest())


_SHA256: WeakKeyDictionary[HookedViT, tuple[object, str]] = WeakKeyDictionary()
"""Hashes of models' weights, with the state of the weights that they were taken of."""


def known_sha256(model: HookedViT) -> str:
    """`weights_sha256`, taken once while the weights stay as they are."""
    # Writing to a tensor raises its version, and replacing it changes its place.
    state = tuple(
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for tensor in model.model.state_dict().values()
    )
    known = _SHA256.get(model)
    if known is None or known[0] != state:
        known = _SHA256[model] = (state, weights_sha256(model))
    return known[1]
