"""The hook point: TransformerLens's, with read-only observers and a guard for what was observed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint as LensHookPoint

from ..errors import HookError

Observer = Callable[[Tensor], None]
"""Reads an activation; what it returns is ignored."""


class Guard:
    """Remembers which storages have been handed to observers while a forward pass runs."""

    def __init__(self) -> None:
        self.active = False
        self.storages: set[int] = set()

    def holds(self, activation: Tensor) -> bool:
        """Whether an observer keeps the storage of `activation`."""
        return bool(self.storages) and activation.untyped_storage().data_ptr() in self.storages

    def clear(self) -> None:
        """Forget everything: the pass is over."""
        self.active = False
        self.storages.clear()


class HookPoint(LensHookPoint):  # type: ignore[misc]  # untyped there
    """A named place where an activation can be read and replaced.

    Hooks are TransformerLens's and may write. Observers only read, run after the hooks, and cost nothing
    where there are none.

    Example:
        >>> point, seen = HookPoint(), []
        >>> point.observers.append(seen.append)
        >>> _ = point.fire(torch.zeros(2))
        >>> seen
        [tensor([0., 0.])]
    """

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[Observer] = []
        self.guard = Guard()

    def listens(self) -> bool:
        """Whether any hook or observer is set here."""
        return bool(self.observers) or self.has_any_hook()

    def has_any_hook(self) -> bool:
        """Whether a hook is set here, by TransformerLens's methods or by torch's own."""
        return bool(
            self._forward_hooks or self._backward_hooks or self._forward_pre_hooks or self._backward_pre_hooks
        )

    def fire(self, activation: Tensor) -> Tensor:
        """Show `activation` to hooks and observers.

        Args:
            activation: what the model computed.

        Returns:
            What takes its place.

        Raises:
            HookError: a hook returned something of another shape.
        """
        if self.has_any_hook():
            return self.fire_and_tell(activation)[0]
        for observer in self.observers:
            observer(activation)
        return activation

    def fire_and_tell(self, activation: Tensor) -> tuple[Tensor, bool]:
        """Like `fire`, and say whether a hook wrote.

        Args:
            activation: what the model computed.

        Returns:
            What takes its place, and whether a hook returned another tensor or changed this one in place.

        Raises:
            HookError: a hook returned something of another shape.
        """
        written = False
        if self.has_any_hook():
            shown = activation.clone() if self.guard.holds(activation) else activation
            before = _Stamp(shown)
            answer = self(shown)
            if not isinstance(answer, Tensor) or answer.shape != shown.shape:
                given = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                raise HookError(
                    f"A hook at '{self.name}' returned {given}.",
                    expected=f"a tensor of shape {tuple(shown.shape)}, or None to leave it as it is",
                    remedy="Return the activation with its shape kept.",
                )
            written = answer is not shown or before.changed()
            activation = answer if written else activation
        for observer in self.observers:
            observer(activation)
        return activation, written


class _Stamp:
    """Tells whether a tensor was changed in place since the stamp was made."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        # Inference tensors carry no version counter, so their values have to be compared.
        self._copy = tensor.clone() if tensor.is_inference() else None
        self._version = None if tensor.is_inference() else tensor._version

    def changed(self) -> bool:
        if self._copy is None:
            return self._tensor._version != self._version
        return not torch.equal(self._tensor.nan_to_num(), self._copy.nan_to_num())
