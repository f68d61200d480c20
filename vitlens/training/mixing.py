"""The batch of a step: which images, and what is done to each, from (seed, step) alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..images import Batch, Condition
from ..images.streams import stream


class StepOrder:
    """Which items make up each step: epochs of fresh permutations, cut into batches across their ends.

    Args:
        n_items: size of the data set.
        batch_size: items a step.
        first_step: the step to begin with.
        steps: the step to end before.
        seed: of the permutations.
    """

    def __init__(self, n_items: int, batch_size: int, first_step: int, steps: int, seed: int) -> None:
        self._n_items = n_items
        self._batch_size = batch_size
        self._steps = range(first_step, steps)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in self._steps:
            indices = []
            for position in range(step * self._batch_size, (step + 1) * self._batch_size):
                if position // self._n_items != epoch:
                    epoch = position // self._n_items
                    generator = stream(self._seed, f"epoch {epoch}", "order", 0)
                    order = torch.randperm(self._n_items, generator=generator)
                indices.append(int(order[position % self._n_items]))
            yield indices


def mixed(
    batch: Batch, choices: Sequence[tuple[Condition, ...]], *, p_clean: float, seed: int, step: int
) -> Tensor:
    """The pixels of a step: each image clean with probability `p_clean`, else through a drawn condition.

    Args:
        batch: the clean images.
        choices: the entries to draw from; within an entry, its conditions (severities) are drawn evenly.
        p_clean: probability that an image stays clean.
        seed: of the draws and of the corruptions.
        step: the step, part of both streams, so that an image is corrupted anew each time.

    Returns:
        [batch 3 height width] in [0, 1].
    """
    generator = stream(seed, f"step {step}", "mix", 0)
    draws = torch.rand(len(batch), 3, generator=generator).tolist()
    groups: dict[Condition, list[int]] = {}
    for index, (clean, entry, severity) in enumerate(draws):
        if clean >= p_clean:
            conditions = choices[int(entry * len(choices))]
            groups.setdefault(conditions[int(severity * len(conditions))], []).append(index)
    pixels = batch.pixels.clone()
    for condition, indices in groups.items():
        ids = _apart([batch.image_ids[index] for index in indices])
        pixels[indices] = condition.apply(batch.pixels[indices], ids, seed=seed, step=step)
    return pixels


def _apart(image_ids: Sequence[str]) -> list[str]:
    """The ids, an image's second and further times in a step marked: each time has noise of its own."""
    seen: Counter[str] = Counter()
    apart = []
    for image_id in image_ids:
        seen[image_id] += 1
        apart.append(image_id if seen[image_id] == 1 else f"{image_id}\n{seen[image_id]}")
    return apart
