"""How a step's images are read: a data set that draws at random draws from (seed, step, image) too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from ..images.streams import stream
from .generators import all_kept, seed_all
from .mixing import Place


@dataclass(frozen=True)
class SeededItems(Dataset[Any]):
    """A data set as a run reads it: what an item draws depends on its place in the run alone.

    For each item, torch's generator of the CPU, numpy's and Python's are seeded, and afterwards they stand
    where they stood. So a random crop inside the data set is the same in whichever process, worker or part
    of a step it is made, and again after a kill; and it leaves dropout alone. A generator that the data set
    holds itself is its own.

    Attributes:
        dataset: the data set, by index.
        seed: of the draws.

    Example:
        >>> import torch
        >>> class Drawing(Dataset):
        ...     def __getitem__(self, index):
        ...         return torch.rand(1).item()
        >>> places = [Place(step=0, item=5, occurrence=0), Place(step=1, item=5, occurrence=0)]
        >>> items = SeededItems(Drawing(), seed=0)
        >>> first, second = items.__getitems__(places)
        >>> first == items.__getitems__(places[:1])[0], first == second
        (True, False)
    """

    dataset: Any
    seed: int

    def __getitems__(self, places: Sequence[Place]) -> list[Any]:
        """The items at these places; a `DataLoader` asks so for a batch."""
        items = []
        with all_kept():
            for place in places:
                name = f"item {place.item} {place.occurrence}"
                seed_all(stream(self.seed, name, "data set", 0, place.step).initial_seed())
                items.append(self.dataset[place.item])
        return items
