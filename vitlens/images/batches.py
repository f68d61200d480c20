"""How a data set is read: once, in order, every item looked at as it comes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import DatasetError, VitlensError
from ..signals import not_in_workers
from .bad_images import BadImage, OnBadImage, Policy, warn_of
from .items import Batch, ImageDataset, Item, add_id, check_size, checked_item, empty, stacked
from .workers import from_workers


def batches(
    dataset: ImageDataset,
    batch_size: int = 32,
    *,
    n_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    num_workers: int = 0,
    on_bad_image: OnBadImage = "skip",
) -> Iterator[Batch]:
    """Read a data set once, in its order.

    Args:
        dataset: items `{"pixels": [3 height width] float32 in [0, 1], "label": int, "image_id": str}`.
        batch_size: images in a batch; the last may have fewer.
        n_classes: the model's number of classes; None leaves labels unchecked.
        image_size: the model's (height, width) in pixels; None takes that of the first image.
        num_workers: processes that load items; 0 loads them here. An iterable cannot be shared out.
        on_bad_image: what becomes of an image whose loading fails: `"skip"` leaves it out, its batch being
            so much smaller, and warns at the end, naming it; `"raise"` stops. It stops in any case where none
            of the first images can be loaded, or more than a tenth of 50 or more; and at an iterable's first,
            which says nothing of what would come after it. An item that was loaded and is malformed always
            stops.

    Returns:
        The batches. Reading raises; so does the call itself where it can.

    Raises:
        DatasetError: items cannot be loaded, one is no such mapping, an id is found twice, or there is no
            item at all.
        PixelError: pixels are not float32 in [0, 1], or differ in size.
        LabelError: a label is none of the classes.

    Example:
        >>> items = [{"pixels": torch.zeros(3, 8, 8), "label": i, "image_id": f"image {i}"} for i in range(5)]
        >>> [len(batch) for batch in batches(items, batch_size=2, n_classes=5)]
        [2, 2, 1]
    """
    policy = Policy(on_bad_image)
    items = _Items(dataset, n_classes, image_size)
    return _warned(_read(items, batch_size, num_workers, lambda number: True, policy))


class Numbered(NamedTuple):
    """What was read of one batch.

    Attributes:
        number: of the batch, from 0.
        batch: its images; None where none of them could be loaded.
        bad_images: those that could not be: image id, or position where ids are not known -> reason.
    """

    number: int
    batch: Batch | None
    bad_images: Mapping[str, str]


def numbered_batches(
    dataset: ImageDataset,
    batch_size: int = 32,
    *,
    wanted: Callable[[int], bool] = lambda number: True,
    n_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    num_workers: int = 0,
    on_bad_image: OnBadImage = "skip",
    n_read: int = 0,
    n_bad: int = 0,
) -> Generator[Numbered, None, None]:
    """Some batches of a data set with their numbers, each the same whichever others are read.

    Args:
        dataset: as for `batches`.
        batch_size: as for `batches`.
        wanted: batch number, from 0 -> whether to read it. Of a data set with `__getitem__` and `__len__`
            the others' items are not loaded; an iterable is drawn from, and what is not wanted dropped.
        n_classes: as for `batches`.
        image_size: as for `batches`.
        num_workers: as for `batches`.
        on_bad_image: as for `batches`, but what is left out is handed on with its batch, without a warning.
        n_read: images of this data set that the same work has read before, bad ones included.
        n_bad: of these, those that could not be loaded.

    Returns:
        (number, batch, bad images) in their order.

    Raises:
        DatasetError, PixelError, LabelError: as for `batches`, of the batches that are read.

    Example:
        >>> items = [{"pixels": torch.zeros(3, 8, 8), "label": i, "image_id": f"image {i}"} for i in range(5)]
        >>> [(number, len(batch)) for number, batch, _ in numbered_batches(items, 2, wanted=lambda n: n != 1)]
        [(0, 2), (2, 1)]
    """
    policy = Policy(on_bad_image, n_read, n_bad)
    return _read(_Items(dataset, n_classes, image_size), batch_size, num_workers, wanted, policy)


def _warned(read: Iterator[Numbered]) -> Iterator[Batch]:
    found: dict[str, str] = {}
    n_good = 0
    for _, batch, bad in read:
        found |= bad
        if batch is not None:
            n_good += len(batch)
            yield batch
    warn_of(found, n_good)


def _is_map_style(dataset: object) -> bool:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


class _Items(Dataset[Item | BadImage | VitlensError]):
    """The checked items of a data set. What goes wrong is a value, to come home from a worker."""

    def __init__(self, dataset: Any, n_classes: int | None, image_size: tuple[int, int] | None) -> None:
        self.dataset = dataset
        self._n_classes = n_classes
        self._image_size = image_size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Item | BadImage | VitlensError:
        return self._item(position, lambda: self.dataset[position])

    def chunks(
        self, batch_size: int, wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, list[Item | BadImage | VitlensError]]]:
        """The items of each wanted batch with its number."""
        if _is_map_style(self.dataset):
            for number, positions in _places(len(self), batch_size, wanted):
                yield number, [self[position] for position in positions]
            return
        iterator = iter(self.dataset)
        for number in itertools.count():
            positions = range(number * batch_size, (number + 1) * batch_size)
            chunk: list[Item | BadImage | VitlensError] = []
            try:
                for position in positions:
                    if wanted(number):
                        chunk.append(self._item(position, iterator.__next__))
                    else:
                        _loaded(f"{position} of the data set", iterator.__next__)
            except StopIteration:
                if chunk:
                    yield number, chunk
                return
            if chunk:
                yield number, chunk

    def _item(self, position: int, load: Callable[[], Any]) -> Item | BadImage | VitlensError:
        place = f"{position} of the data set"
        try:
            item = _loaded(place, load)
        except VitlensError as error:
            # An iterable that has failed may have ended, or not: what would be left out is not known.
            return BadImage(position, error) if _is_map_style(self.dataset) else error
        try:
            return checked_item(item, place, self._n_classes, self._image_size)
        except VitlensError as error:
            return error


def _loaded(place: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (VitlensError, StopIteration):
        raise
    except Exception as error:
        raise DatasetError(
            f"Item {place} cannot be loaded ({type(error).__name__}: {error}).",
            expected="an item for every position",
            remedy="Load it by hand to see where it fails, or leave it out.",
        ) from error


def _read(
    items: _Items, batch_size: int, num_workers: int, wanted: Callable[[int], bool], policy: Policy
) -> Generator[Numbered, None, None]:
    """Batches from here or from workers; what can be checked before reading is checked in the call."""
    dataset = items.dataset
    if batch_size < 1 or num_workers < 0:
        raise DatasetError(
            f"batch_size is {batch_size} and num_workers is {num_workers}.",
            expected="a batch_size of 1 or more and a num_workers of 0 or more",
            remedy="Give batch_size=32 and num_workers=0, say.",
        )
    if not (hasattr(dataset, "__iter__") or hasattr(dataset, "__getitem__")):
        raise DatasetError(
            f"The data set is a {type(dataset).__name__}.",
            expected="a torch Dataset, a sequence or an iterable of items",
            remedy="See vitlens.images.digits and vitlens.images.folder for two that are ready.",
        )
    if num_workers and not _is_map_style(dataset):
        raise DatasetError(
            f"num_workers is {num_workers}, and the data set is an iterable ({type(dataset).__name__}).",
            expected="num_workers=0, or a data set with __getitem__ and __len__",
            remedy="Set num_workers=0: shared among workers, an iterable would lose its order.",
        )
    return _reading(items, batch_size, num_workers, wanted, policy)


def _reading(
    items: _Items, batch_size: int, num_workers: int, wanted: Callable[[int], bool], policy: Policy
) -> Generator[Numbered, None, None]:
    """The reading itself, and what only shows across batches."""
    loaded: Generator[tuple[int, _Chunk | VitlensError], None, None]
    if num_workers:
        places = list(_places(len(items), batch_size, wanted))
        loader = DataLoader(
            items,
            batch_sampler=[list(positions) for _, positions in places],
            num_workers=num_workers,
            prefetch_factor=4,
            collate_fn=_gathered,
            worker_init_fn=not_in_workers,
            generator=torch.Generator().manual_seed(0),  # its own: DataLoader would draw from torch's
        )
        numbers = [number for number, _ in places]
        loaded = (each for each in zip(numbers, from_workers(loader), strict=True))
    else:
        loaded = ((number, _gathered(chunk)) for number, chunk in items.chunks(batch_size, wanted))
    seen: set[str] = set()
    size: tuple[int, int] | None = None
    with contextlib.closing(loaded):
        for number, chunk in loaded:
            if isinstance(chunk, VitlensError):
                raise chunk
            batch, n_read = chunk.batch, len(chunk.bad)
            if batch is not None:
                n_read += len(batch)
            bad = policy.named(items.dataset, chunk.bad, n_read)
            if batch is not None:
                check_size(batch.pixels, batch.image_ids[0], size)
                size = (batch.pixels.shape[-2], batch.pixels.shape[-1])
                for image_id in batch.image_ids:
                    add_id(image_id, seen)
            yield Numbered(number, batch, bad)
    policy.end()
    if not seen and wanted(0):
        raise empty()


def _places(n_items: int, batch_size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, range]]:
    """The number of each wanted batch, and where its items stand."""
    for number, start in enumerate(range(0, n_items, batch_size)):
        if wanted(number):
            yield number, range(start, min(start + batch_size, n_items))


class _Chunk(NamedTuple):
    batch: Batch | None
    bad: list[BadImage]


def _gathered(items: Sequence[Item | BadImage | VitlensError]) -> _Chunk | VitlensError:
    # Stacked where they were loaded: a tensor for each image would cost a worker a file handle apiece.
    bad = [item for item in items if isinstance(item, BadImage)]
    good = [item for item in items if not isinstance(item, BadImage)]
    try:
        return _Chunk(stacked(good) if good else None, bad)
    except VitlensError as error:
        return error
