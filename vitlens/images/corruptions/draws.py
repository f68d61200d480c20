"""Random numbers for a batch: one tensor per image, each drawn from that image's own generator.

Drawing is most of what noise costs. It cannot be vectorized across images, since each has a stream of its
own, but it can be done for several images at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SMALLEST_FOR_THREADS = 16_384
"""Numbers per image below which a thread costs more than it gives."""


def normal(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Float[Tensor, "batch ..."]:
    """Standard normal numbers, on the CPU, whatever the device and dtype of the pixels they are for.

    Args:
        shape: of what one image draws.
        generators: one random stream for each image.

    Returns:
        float32; each image's numbers depend on its generator and on `shape` alone.

    Example:
        >>> one, two = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        >>> both = normal((2, 3), [one, two])
        >>> torch.equal(both[1:], normal((2, 3), [torch.Generator().manual_seed(2)]))
        True
    """
    return _filled(shape, generators, lambda row, generator: row.normal_(generator=generator))


def uniform(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Float[Tensor, "batch ..."]:
    """Numbers from [0, 1), on the CPU, whatever the device and dtype of the pixels they are for.

    Args:
        shape: of what one image draws.
        generators: one random stream for each image.

    Returns:
        float32, multiples of 2⁻²⁴; each image's numbers depend on its generator and on `shape` alone.

    Example:
        >>> drawn = uniform((1000,), [torch.Generator().manual_seed(0)])
        >>> drawn.shape, bool(((drawn >= 0) & (drawn < 1)).all())
        (torch.Size([1, 1000]), True)
    """
    return _filled(shape, generators, lambda row, generator: row.uniform_(generator=generator))


def in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_threads: int | None = None
) -> list[_Result]:
    """What `function` makes of each item, in their order.

    Worth it for single-threaded work that lets go of Python's lock, such as drawing and JPEG. Elementwise
    operations of torch use the threads by themselves.

    Args:
        function: called once for each item.
        items: what to call it with.
        n_threads: None takes `torch.get_num_threads()`, which is 1 in the workers of a data loader.

    Returns:
        One result for each item, whatever the number of threads.

    Example:
        >>> in_threads(abs, [-1, 2, -3], n_threads=2)
        [1, 2, 3]
    """
    todo = list(items)
    n_threads = min(n_threads or torch.get_num_threads(), len(todo))
    if n_threads < 2:
        return [function(item) for item in todo]
    # A pool that outlived the call would hang in processes that are forked later.
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, todo))


def _filled(
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    fill: Callable[[Tensor, torch.Generator], Tensor],
) -> Tensor:
    drawn = torch.empty((len(generators), *shape), dtype=torch.float32)
    few = drawn[:1].numel() < _SMALLEST_FOR_THREADS
    in_threads(lambda pair: fill(*pair), zip(drawn, generators, strict=True), 1 if few else None)
    return drawn
