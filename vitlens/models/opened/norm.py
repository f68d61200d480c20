"""The norms: LayerNorm, RMS norm and timm's SimpleNorm, with their scale and normalized values."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import LayerNorm, LayerNormFp32, RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32
from torch import Tensor, nn

from ..hook_point import HookPoint
from .base import Opened, native_or

# By exact class: a subclass may compute something else. `affine=False` variants are covered, grouped are not.
_CENTERED = (nn.LayerNorm, LayerNorm, LayerNormFp32)
_ROOT_MEAN_SQUARE = (nn.RMSNorm, RmsNorm, RmsNormFp32)
_STANDARD_DEVIATION = (SimpleNorm, SimpleNormFp32)


def open_norm(native: nn.Module) -> Opened:
    """The opened form of a norm; one without hooks for anything that is no norm we know, such as Identity."""
    known = (*_CENTERED, *_ROOT_MEAN_SQUARE, *_STANDARD_DEVIATION)
    return OpenedNorm(native) if type(native) in known else Opened(native)


class OpenedNorm(Opened):
    """A norm with `hook_scale` and `hook_normalized`, both before gain and bias.

    Reading leaves the native operation in place; it is replaced only by what a hook wrote.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "*rows d_model"], **context: Any) -> Float[Tensor, "*rows d_model"]:
        """Normalize each row of `x`."""
        norm = self.native
        native: Tensor = norm(x)
        if not self.listens():
            return native
        normalized, written = self.normalize(x)
        return native_or(native, apply_gain(norm, normalized), written=written)

    def normalize(self, x: Tensor) -> tuple[Tensor, bool]:
        """Normalized rows before gain and bias, after both hooks, and whether one of them wrote."""
        norm = self.native
        if isinstance(norm, _CENTERED) and x.dtype == torch.float32 and not self.hook_scale.has_any_hook():
            # LayerNorm's own kernel reads the rows once; its scale is only to look at.
            normalized, _, inverse = torch.native_layer_norm(x, norm.normalized_shape, None, None, norm.eps)
            if self.hook_scale.listens():
                self.hook_scale.fire(inverse.reciprocal())
            return self.hook_normalized.fire_and_tell(normalized)
        numerator, scale = fraction(norm, x)
        scale, scale_written = self.hook_scale.fire_and_tell(scale)
        normalized, normalized_written = self.hook_normalized.fire_and_tell((numerator / scale).to(x.dtype))
        return normalized, scale_written or normalized_written


def fraction(
    norm: nn.Module, x: Float[Tensor, "*rows d_model"]
) -> tuple[Float[Tensor, "*rows d_model"], Float[Tensor, "*rows 1"]]:
    """What a norm divides, and by what, in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    eps = getattr(norm, "eps", None)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    if isinstance(norm, _CENTERED):
        wide = wide - wide.mean(-1, keepdim=True)
    if isinstance(norm, _STANDARD_DEVIATION):
        return wide, (wide.var(-1, keepdim=True) + eps).sqrt()
    return wide, (wide.square().mean(-1, keepdim=True) + eps).sqrt()


def apply_gain(norm: nn.Module, normalized: Tensor, *, with_bias: bool = True) -> Tensor:
    """Gain and bias of a norm, where it has them."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None) if with_bias else None
    scaled = normalized if weight is None else normalized * weight
    return scaled if bias is None else scaled + bias
