"""Some images of a data set, spread evenly over it."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Subset

from ..errors import DatasetError
from .items import n_images
from .values import is_whole


def spread(dataset: Any, n: int) -> Subset[Any]:
    """`n` images spread evenly over a data set, the first and the last among them.

    Of a folder, whose classes stand one after the other, these are images of about all classes.

    Args:
        dataset: items as in `vitlens.run`, with a length, to be read at any place.
        n: how many; all of them where there are no more.

    Returns:
        The images in their order, each once. `image_ids` and `labels` of the data set are still known.

    Raises:
        DatasetError: `n` is no whole number of 0 or more, or the data set is read from front to back alone.

    Example:
        >>> list(spread(["a", "b", "c", "d", "e"], 3))
        ['a', 'c', 'e']
    """
    if not is_whole(n) or n < 0:
        raise DatasetError(
            f"n is {n!r}.", expected="a whole number of images, 0 or more", remedy="Leave spread out for all."
        )
    total = n_images(dataset)
    if total is None or not hasattr(dataset, "__getitem__"):
        raise DatasetError(
            f"The data set is a {type(dataset).__name__}, which cannot be read at any place.",
            expected="a data set with a length and with items by number",
            remedy="Put its items into a list.",
        )
    if n >= total:
        return Subset(dataset, range(total))
    return Subset(dataset, [round(place * (total - 1) / max(n - 1, 1)) for place in range(n)])
