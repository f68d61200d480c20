"""What worker processes load, which end when the reading ends, however it does."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterator
from typing import Any

from torch.utils.data import DataLoader


def from_workers(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """What a loader gives; its workers start now, and end when this is closed, used up or ended by an error.

    A loader's own iterator lives as long as anything refers to it, its workers with it: the traceback of an
    error does, which a notebook keeps until the next one.

    Args:
        loader: a loader whose workers are not persistent.

    Example:
        >>> given = from_workers(DataLoader([0, 1, 2]))
        >>> next(given)
        tensor([0])
        >>> given.close()
    """
    return _given(iter(loader))


def _given(iterator: Iterator[Any]) -> Generator[Any, None, None]:
    try:
        yield from iterator
    except GeneratorExit:
        raise
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # the loader's own frames refer to it, too
        raise
    finally:
        del iterator
