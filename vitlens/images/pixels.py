"""What makes a tensor an image, or a batch of images, with values in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConditionError, PixelError

BATCH_AXES = ("batch", "3", "height", "width")

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in luma (Rec. 601)."""


class Fault(NamedTuple):
    """What keeps a tensor from being images: `given` reads on from "The pixels ..."."""

    given: str
    remedy: str


def pixel_fault(pixels: object, axes: tuple[str, ...]) -> Fault | None:
    """The first thing that keeps `pixels` from being float images in [0, 1].

    Args:
        pixels: anything.
        axes: the names of the axes; the last three are `3`, height and width.

    Returns:
        What is wrong, and what to do; None where nothing is. An empty batch is a batch.

    Example:
        >>> pixel_fault(torch.zeros(3, 8, 8), ("3", "height", "width")) is None
        True
        >>> pixel_fault(torch.full((3, 8, 8), 255.0), ("3", "height", "width")).given
        'go from 255 to 255'
    """
    layout = f"[{' '.join(axes)}]"
    if not isinstance(pixels, Tensor):
        return Fault(f"are a {type(pixels).__name__}, not a tensor", f"Give a torch tensor {layout}.")
    if pixels.ndim != len(axes) or pixels.shape[-3] != 3 or 0 in pixels.shape[-2:]:
        return Fault(f"have shape {list(pixels.shape)}", f"Bring them to {layout}, with three channels.")
    if not pixels.is_floating_point():
        return Fault(f"are {pixels.dtype}", "Convert them: bytes become pixels.float() / 255.")
    if pixels.numel() == 0:
        return None
    # One pass: NaN survives aminmax, and fails both comparisons.
    low, high = torch.stack(pixels.detach().aminmax()).tolist()
    if low >= 0 and high <= 1:
        return None
    if low != low:
        return Fault("hold NaN", "Find out where it comes from: a division by 0, or a damaged file.")
    return Fault(
        f"go from {low:.6g} to {high:.6g}",
        "Undo any normalization and clip rounding errors with pixels.clamp(0, 1); the model normalizes.",
    )


def check_batch(pixels: object, subject: str) -> None:
    """Raise `PixelError` where `pixels` are no batch of images.

    Args:
        pixels: anything.
        subject: how the message begins, such as "The pixels to be corrupted".

    Raises:
        PixelError: they are not floats in [0, 1], [batch 3 height width].

    Example:
        >>> check_batch(torch.zeros(1, 3, 8, 8), "The pixels")
    """
    fault = pixel_fault(pixels, BATCH_AXES)
    if fault is not None:
        raise PixelError(
            f"{subject} {fault.given}.",
            expected=f"floats in [0, 1], [{' '.join(BATCH_AXES)}]",
            remedy=fault.remedy,
        )


def check_returned(changed: object, pixels: Tensor, who: str, remedy: str) -> Tensor:
    """What a user's operation returned, if it is `pixels` after an operation on them.

    Args:
        changed: what it returned.
        pixels: what it was given, [batch 3 height width].
        who: the operation, for the message.
        remedy: what to do.

    Raises:
        ConditionError: it is no batch of images in [0, 1] of the same shape and dtype.

    Example:
        >>> check_returned(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), "condition 'mine'", "").mean()
        tensor(1.)
    """
    fault = pixel_fault(changed, BATCH_AXES)
    given = None if fault is None else fault.given
    if isinstance(changed, Tensor) and given is None:
        if (changed.shape, changed.dtype) == (pixels.shape, pixels.dtype):
            return changed
        given = f"have shape {list(changed.shape)} and are {changed.dtype}"
    raise ConditionError(
        f"The pixels that {who} returned {given}.",
        expected=f"{pixels.dtype} in [0, 1] of shape {list(pixels.shape)}",
        remedy=remedy,
    )
