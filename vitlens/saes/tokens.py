"""Where an SAE's activations come from: a tensor, or anything else that can be read in order and shuffled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import SAEError

_N_BLOCK_TOKENS, _N_BLOCK_NUMBERS = 2**16, 2**23


def block_size(d_in: int) -> int:
    """Rows that are converted to another precision at a time: a pass never holds more than 64 MiB in float64.

    Example:
        >>> block_size(64), block_size(768)
        (65536, 10922)
    """
    return max(1, min(_N_BLOCK_TOKENS, _N_BLOCK_NUMBERS // d_in))


@runtime_checkable
class Tokens(Protocol):
    """Activations at one hook, a row a token, to be read as often as wanted.

    A tensor becomes one by `as_tokens`; an `ActivationStore` gives one for each of its hooks.

    Example:
        See `InMemory` and `StoredTokens`, which are two.
    """

    @property
    def n_tokens(self) -> int:
        """How many rows there are."""
        ...

    @property
    def d_in(self) -> int:
        """How wide a row is."""
        ...

    @property
    def device(self) -> torch.device:
        """Where rows arrive."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """What is known of where they come from, JSON-able: `hook_name`, `tokens`, `model`, ..."""
        ...

    def n_not_finite(self) -> int:
        """Rows that hold NaN or infinity."""
        ...

    def in_order(self, batch_size: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """One pass in a fixed order, in batches of `batch_size`; the last may be smaller."""
        ...

    def shuffled(
        self, batch_size: int, *, seed: int, start_batch: int = 0
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Whole batches without end, cut from shuffled epochs laid end to end.

        Batch number i is the same whatever `start_batch` was, and what comes before it is not read.

        Args:
            batch_size: rows in a batch.
            seed: of the shuffling.
            start_batch: the number of the first batch that is given.

        Returns:
            The batches.
        """
        ...

    def split(self, n_holdout_tokens: int, *, seed: int) -> tuple[Tokens, Tokens]:
        """The tokens to train on, and at least `n_holdout_tokens` others, of other images where known.

        Args:
            n_holdout_tokens: how many to hold out.
            seed: of the draw.

        Returns:
            Those to train on, and those held out.
        """
        ...


class InMemory:
    """The rows of a tensor as `Tokens`.

    Args:
        activations: [token d_in]; not copied.
        tokens_per_image: rows that belong to one image and stand together; they are held out together.
        origin: what is known of where they come from.

    Raises:
        SAEError: `activations` is no tensor of two axes.

    Example:
        >>> tokens = InMemory(torch.arange(12.0).reshape(6, 2))
        >>> tokens.n_tokens, tokens.d_in, next(tokens.shuffled(4, seed=0)).shape
        (6, 2, torch.Size([4, 2]))
    """

    def __init__(
        self,
        activations: Float[Tensor, "token d_in"],
        *,
        tokens_per_image: int = 1,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(activations, Tensor) or activations.ndim != 2:
            found = (
                tuple(activations.shape) if isinstance(activations, Tensor) else type(activations).__name__
            )
            raise SAEError(
                f"The activations are {found}.",
                expected="a tensor [token, d_in]",
                remedy="Flatten the axes before the last: activations.flatten(0, -2).",
            )
        self._activations = activations.detach()
        self._tokens_per_image = tokens_per_image
        self._origin = dict(origin or {})
        self._rows: Int[np.ndarray, " token"] | None = None

    @property
    def n_tokens(self) -> int:
        """How many rows there are."""
        return len(self._activations) if self._rows is None else len(self._rows)

    @property
    def d_in(self) -> int:
        """How wide a row is."""
        return self._activations.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self._activations.device

    @property
    def origin(self) -> Mapping[str, Any]:
        """As given."""
        return self._origin

    def n_not_finite(self) -> int:
        """Rows that hold NaN or infinity."""
        blocks = self.in_order(block_size(self.d_in))
        return sum(int((~block.isfinite()).any(dim=1).count_nonzero()) for block in blocks)

    def in_order(self, batch_size: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """The rows as they stand."""
        for start in range(0, self.n_tokens, batch_size):
            if self._rows is None:
                yield self._activations[start : start + batch_size]
            else:
                yield self._taken(self._rows[start : start + batch_size])

    def shuffled(
        self, batch_size: int, *, seed: int, start_batch: int = 0
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Whole batches without end, cut from shuffled epochs laid end to end."""
        first = start_batch * batch_size
        epoch, skipped = divmod(first, self.n_tokens)
        stream = np.empty(0, dtype=np.int64)
        while True:
            while len(stream) < batch_size:
                rows = np.random.default_rng([seed, epoch]).permutation(self.n_tokens)
                stream = np.concatenate([stream, rows[skipped:]])
                epoch, skipped = epoch + 1, 0
            chosen, stream = stream[:batch_size], stream[batch_size:]
            yield self._taken(chosen if self._rows is None else self._rows[chosen])

    def split(self, n_holdout_tokens: int, *, seed: int) -> tuple[InMemory, InMemory]:
        """The tokens to train on, and those of enough other images."""
        rows = np.arange(self.n_tokens) if self._rows is None else self._rows
        images = rows // self._tokens_per_image
        order = np.random.default_rng([seed, 2**32]).permutation(np.unique(images))
        held = order[: math.ceil(n_holdout_tokens / self._tokens_per_image)]
        is_held = np.isin(images, held)
        return self._of(rows[~is_held]), self._of(rows[is_held])

    def _of(self, rows: Int[np.ndarray, " token"]) -> InMemory:
        part = InMemory(self._activations, tokens_per_image=self._tokens_per_image, origin=self._origin)
        part._rows = rows
        return part

    def _taken(self, rows: Int[np.ndarray, " token"]) -> Float[Tensor, "token d_in"]:
        return self._activations[torch.from_numpy(rows).to(self.device)]


Activations: TypeAlias = Tensor | Tokens
"""What is read row by row: a tensor [token d_in], or `Tokens` such as a store's hook."""


def as_tokens(activations: Activations, what: str, d_in: int | None = None) -> Tokens:
    """Finite rows of activations, `d_in` wide.

    Args:
        activations: a tensor [token d_in], or `Tokens`.
        what: what to call them at the start of a message.
        d_in: the width they must have; None for any.

    Raises:
        SAEError: neither of the two, another number of axes, no tokens, another dtype or width, NaN or
            infinity.

    Example:
        >>> as_tokens(torch.zeros(5, 8), "The activations", d_in=4)
        Traceback (most recent call last):
        vitlens.errors.SAEError: The activations are 8 wide, the SAE's d_in is 4. Expected: ...
    """
    if isinstance(activations, Tensor):
        if activations.ndim != 2 or 0 in activations.shape or not activations.is_floating_point():
            raise SAEError(
                f"{what} have shape {list(activations.shape)} and dtype {activations.dtype}.",
                expected="floating-point activations [token d_in] with at least one token",
                remedy="Flatten images and positions into one axis of tokens.",
            )
        tokens: Tokens = InMemory(activations)
    elif isinstance(activations, Tokens):
        tokens = activations
    else:
        raise SAEError(
            f"{what} are a {type(activations).__name__}.",
            expected="a tensor [token d_in], or a hook of a store: store[hook_name]",
            remedy="Take them with vitlens.activations, or store them with "
            "vitlens.saes.ActivationStore.write.",
        )
    if d_in is not None and tokens.d_in != d_in:
        raise SAEError(
            f"{what} are {tokens.d_in} wide, the SAE's d_in is {d_in}.",
            expected="activations from the hook that the SAE was trained on",
            remedy="Take them at the hook that sae.cfg.metadata.hook_name names.",
        )
    if n_bad := tokens.n_not_finite():
        raise SAEError(
            f"{what} hold NaN or infinity in {n_bad} of {tokens.n_tokens} tokens.",
            expected="finite numbers",
            remedy="Look for overflow in the model (half precision?) or for damaged images.",
        )
    return tokens
