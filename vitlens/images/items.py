"""What a data set is: items, batches of them, and what each has to be."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..errors import DatasetError, LabelError, PixelError, VitlensError
from .pixels import Fault, pixel_fault


class Item(TypedDict):
    """One image of a data set. Further keys are allowed, and left alone.

    Attributes:
        pixels: in [0, 1], red, green and blue.
        label: the index of its class.
        image_id: its name, found once in the data set. Random streams and tables hang on it.

    Example:
        >>> Item(pixels=torch.zeros(3, 32, 32), label=7, image_id="seven.png")["label"]
        7
    """

    pixels: Float[Tensor, "3 height width"]
    label: int
    image_id: str


ImageDataset: TypeAlias = Dataset[Any] | Iterable[Any]
"""A data set of `Item`s: a torch `Dataset`, an `IterableDataset`, a sequence, or any iterable."""


@dataclass(frozen=True)
class Batch:
    """Some images of a data set, in its order.

    Attributes:
        pixels: in [0, 1].
        labels: the indices of their classes.
        image_ids: their names.

    Example:
        >>> len(Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), ("a", "b")))
        2
    """

    pixels: Float[Tensor, "batch 3 height width"]
    labels: Int64[Tensor, " batch"]
    image_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)


def collate(items: Sequence[Any], n_classes: int | None = None) -> Batch:
    """Make a batch of items, looked at like those of `batches`; for a `DataLoader` of one's own.

    Args:
        items: at least one `Item`. An image may come twice.
        n_classes: the model's number of classes; None leaves labels unchecked.

    Returns:
        The items, in their order.

    Raises:
        DatasetError: an item is no such mapping.
        PixelError: pixels are not float32 in [0, 1], or differ in size.
        LabelError: a label is no whole number, or none of the classes.

    Example:
        >>> items = [{"pixels": torch.zeros(3, 8, 8), "label": i, "image_id": f"image {i}"} for i in range(5)]
        >>> collate(items).labels
        tensor([0, 1, 2, 3, 4])
    """
    if not items:
        raise DatasetError(
            "The batch has no item.", expected="one or more", remedy="Leave out batches without images."
        )
    return stacked(
        [checked_item(item, f"{place} of the batch", n_classes) for place, item in enumerate(items)]
    )


def n_images(dataset: ImageDataset) -> int | None:
    """How many images a data set has, where it says so.

    Args:
        dataset: as for `batches`.

    Returns:
        Its length; None where it has none.

    Example:
        >>> n_images([]), n_images(iter([]))
        (0, None)
    """
    try:
        return len(dataset)  # type: ignore[arg-type]  # that it may have none is the question
    except TypeError:
        return None


def check(dataset: ImageDataset, n_classes: int | None = None) -> None:
    """Look at what a data set knows of itself, before any pixel is loaded.

    Reads the attributes `labels` and `image_ids`, each with a value for every image, through any
    `torch.utils.data.Subset`, and the items of a list or tuple. A data set without them passes, and is
    looked at item by item as it is read.

    Args:
        dataset: as for `batches`.
        n_classes: the model's number of classes; None leaves labels unchecked.

    Raises:
        LabelError: a label is none of the classes.
        DatasetError: the data set is empty, or an image id is found twice.

    Example:
        >>> check([])
        Traceback (most recent call last):
        ...
        vitlens.errors.DatasetError: The data set has no images. ...
    """
    if n_images(dataset) == 0:
        raise empty()
    ids, labels = known(dataset, "image_ids"), known(dataset, "labels")
    seen: set[str] = set()
    for image_id in ids:
        add_id(image_id, seen)
    for position, label in enumerate(labels):
        _checked_label(label, ids[position] if ids else f"number {position}", n_classes)


_KEYS = {"image_ids": "image_id", "labels": "label"}


def known(dataset: Any, name: str) -> list[Any]:
    """What a data set knows of each image without loading it.

    Args:
        dataset: as for `batches`.
        name: an attribute of the data set; `image_ids` and `labels` are looked for in the items of a list or
            tuple, too.

    Returns:
        A value for each image; empty where there is none, or the attribute means something else.

    Example:
        >>> items = [{"pixels": torch.zeros(3, 8, 8), "label": 1, "image_id": "a"}]
        >>> known(items, "image_ids"), known(iter(items), "image_ids")
        (['a'], [])
    """
    if isinstance(dataset, Subset):
        whole = known(dataset.dataset, name)
        return [whole[index] for index in dataset.indices] if whole else []
    if isinstance(dataset, list | tuple):
        key = _KEYS.get(name)
        inside = [item[key] for item in dataset if isinstance(item, Mapping) and key in item]
        return inside if len(inside) == len(dataset) else []
    values = getattr(dataset, name, [])
    return list(values) if hasattr(values, "__len__") and len(values) == n_images(dataset) else []


def stacked(items: Sequence[Item | VitlensError]) -> Batch:
    """A batch of checked items of one size."""
    size: tuple[int, int] | None = None
    good: list[Item] = []
    for item in items:
        if isinstance(item, VitlensError):
            raise item
        check_size(item["pixels"], item["image_id"], size)
        size = (item["pixels"].shape[-2], item["pixels"].shape[-1])
        good.append(item)
    return Batch(
        pixels=torch.stack([item["pixels"] for item in good]),
        labels=torch.tensor([item["label"] for item in good]),
        image_ids=tuple(item["image_id"] for item in good),
    )


def checked_item(
    item: Any, place: str, n_classes: int | None = None, image_size: tuple[int, int] | None = None
) -> Item:
    """What `item` says, if it is an item; `place` names it in errors."""
    try:
        pixels, label, image_id = item["pixels"], item["label"], item["image_id"]
    except (KeyError, TypeError, IndexError) as error:
        keys = (
            f"has the keys {sorted(map(str, item))}"
            if isinstance(item, Mapping)
            else f"is a {type(item).__name__}"
        )
        raise DatasetError(
            f"Item {place} {keys}.",
            expected="a mapping with the keys 'pixels', 'label' and 'image_id'",
            remedy="Wrap the data set in one that returns such items.",
        ) from error
    if not isinstance(image_id, str):
        raise DatasetError(
            f"The image id of item {place} is {image_id!r}.",
            expected="a string",
            remedy="Give a name that stays with the image, such as its path; str(index) will do.",
        )
    fault = pixel_fault(pixels, ("3", "height", "width"))
    if fault is None and pixels.dtype != torch.float32:
        fault = Fault(f"are {pixels.dtype}", "Convert them: pixels.float().")
    if fault is not None:
        raise PixelError(
            f"The pixels of image '{image_id}' {fault.given}.",
            expected="float32 in [0, 1], [3 height width]",
            remedy=fault.remedy,
        )
    check_size(pixels, image_id, image_size)
    return Item(pixels=pixels, label=_checked_label(label, image_id, n_classes), image_id=image_id)


def check_size(pixels: Tensor, image_id: str, image_size: tuple[int, int] | None) -> None:
    """Raise `PixelError` where an image has another size than it shall; None takes any."""
    height, width = pixels.shape[-2:]
    if image_size is not None and (height, width) != tuple(image_size):
        raise PixelError(
            f"Image '{image_id}' has {height} × {width} pixels (height × width).",
            expected=f"{image_size[0]} × {image_size[1]}, the model's size or that of the images before it",
            remedy="Resize and crop every image alike; vitlens.images.folder does it as the model asks.",
        )


def _checked_label(label: Any, image_id: str, n_classes: int | None) -> int:
    try:
        index = operator.index(label)
    except TypeError:
        index = None
    if index is not None and (n_classes is None or 0 <= index < n_classes):
        return index
    raise LabelError(
        f"The label of image '{image_id}' is {label!r}.",
        expected="a whole number" if n_classes is None else f"a whole number from 0 to {n_classes - 1}",
        remedy="Give the index of the class, in the order of the model's outputs.",
    )


def add_id(image_id: str, seen: set[str]) -> None:
    """Raise `DatasetError` for an id that was seen before."""
    if image_id in seen:
        raise DatasetError(
            f"The image id '{image_id}' is found twice.",
            expected="ids that are unique in the data set",
            remedy="Name each image apart: two of one name would share noise, and could not be joined.",
        )
    seen.add(image_id)


def empty() -> DatasetError:
    """The error of a data set without images."""
    return DatasetError(
        "The data set has no images.",
        expected="at least one item",
        remedy="Check how it was made; a generator is used up after one pass.",
    )
