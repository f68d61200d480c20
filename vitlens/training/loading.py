"""How a step's images are read: a data set that draws at random draws from (seed, step, image) too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from ..errors import DatasetError, VitlensError
from ..images import known
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
        """The items at these places; a `DataLoader` asks so for a batch.

        Of one that cannot be loaded, the error: raised in a worker, it would arrive as another.
        """
        items: list[Any] = []
        with all_kept():
            for place in places:
                name = f"item {place.item} {place.occurrence}"
                seed_all(stream(self.seed, name, "data set", 0, place.step).initial_seed())
                try:
                    items.append(self.dataset[place.item])
                except Exception as error:
                    items.append(_stopped(self.dataset, place, error))
        return items


def _stopped(dataset: Any, place: Place, error: Exception) -> DatasetError:
    """The error that ends a run: without the image its step would be another, and so the run."""
    ids = known(dataset, "image_ids")
    named = f"Image '{ids[place.item]}'" if ids else f"Item {place.item} of the data set"
    why = error.given if isinstance(error, VitlensError) else f"{type(error).__name__}: {error}"
    return DatasetError(
        f"{named}, of step {place.step}, cannot be loaded: {why}".removesuffix(".") + ".",
        expected="images that can all be read, as the steps of a run depend on each of them",
        remedy="Mend it and start again: with output= the run goes on from its last checkpoint. Without the "
        "image it is another run.",
    )
