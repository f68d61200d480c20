"""What every opened module has: a live timm module beside it, hook points inside, and timm's own call."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ..hook_point import HookPoint


class Opened(nn.Module):
    """A timm module seen from inside; by itself one without hooks.

    It owns no parameter, and calls the module itself while nobody listens inside, so that what is not looked
    at runs exactly as timm wrote it.

    Args:
        native: the live module. It is referred to, not registered: its parameters belong to its own tree.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__()
        # A tuple hides the module from nn.Module's registration.
        self._native = (native,)

    @property
    def native(self) -> Any:
        """The live timm module; its attributes are untyped."""
        return self._native[0]

    @cached_property
    def points(self) -> tuple[HookPoint, ...]:
        """Every hook point inside."""
        return tuple(module for module in self.modules() if isinstance(module, HookPoint))

    def listens(self) -> bool:
        """Whether anybody listens inside."""
        return any(point.listens() for point in self.points)

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """The module's own result."""
        result: Tensor = self.native(x, **context)
        return result


def native_or(native: Tensor, replaced: Tensor, *, written: bool) -> Tensor:
    """What a hook wrote, else the native values; their gradients then pass through the hook points.

    Args:
        native: computed by timm's own operation.
        replaced: the same, computed through the hook points; equal to rounding unless a hook wrote.
        written: whether one did.
    """
    if written or not replaced.requires_grad:
        return replaced if written else native
    return native.detach() + (replaced - replaced.detach())  # the difference is zero
