"""What is refused before an attack's first forward pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import ConditionError, LabelError, PixelError
from ..pixels import check_batch
from .spec import Attack


def check_pixels(pixels: Tensor, attack: Attack) -> None:
    """Refuse what is no batch of images that the attack can move.

    Raises:
        PixelError: not floats in [0, 1], or of too little precision for steps so small.
        ConditionError: every image lies in the ball.
    """
    check_batch(pixels, "The pixels to be attacked")
    if pixels.dtype not in (torch.float32, torch.float64):
        raise PixelError(
            f"The pixels to be attacked are {pixels.dtype}.",
            expected="float32 or float64",
            remedy="Attack pixels.float(): in half precision rounding is about as long as a step.",
        )
    farthest = math.sqrt(math.prod(pixels.shape[1:]))
    if attack.norm == "l2" and attack.eps_pixel > farthest:
        raise ConditionError(
            f"eps_pixel is {attack.eps_pixel:g}, and no two images of this size are further apart than "
            f"{farthest:.4g}.",
            expected=f"an L2 length from 0 to {farthest:.4g}, for pixels in [0, 1]",
            remedy="Divide by 255 if it is meant for pixels up to 255.",
        )


def check_classes(classes: object, what: str, n_images: int, n_classes: int) -> None:
    """Refuse labels or targets that are not one of the model's classes for each image.

    Raises:
        LabelError: they are something else.
    """
    if not isinstance(classes, Tensor):
        given = f"{what} are a {type(classes).__name__}."
    elif classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        given = f"{what} are {classes.dtype}."
    elif tuple(classes.shape) != (n_images,):
        given = f"{what} have shape {list(classes.shape)}, for {n_images} images."
    elif n_images and not 0 <= int(classes.min()) <= int(classes.max()) < n_classes:
        given = f"{what} go from {int(classes.min())} to {int(classes.max())}."
    else:
        return
    raise LabelError(
        given,
        expected=f"a tensor of whole numbers from 0 to {n_classes - 1}, [batch]",
        remedy="Give the index of a class for each image, in the order of the model's outputs.",
    )
