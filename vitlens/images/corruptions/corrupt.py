"""`corrupt`: the one door through which corruptions are applied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..image_ids import check_image_ids
from ..pixels import check_batch, check_returned
from ..streams import stream
from .jpeg import check_quality, jpeg
from .registry import is_own, ready_corruption
from .spec import check_severity


def corrupt(
    pixels: Tensor,
    name: str,
    severity: int = 3,
    *,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    step: int | None = None,
    jpeg_quality: int | None = None,
) -> Float[Tensor, "batch 3 height width"]:
    """Apply one corruption to a batch of images.

    An image's result depends on its pixels, its id, the corruption, the severity, the seed and the step
    alone: not on the batch it comes in, but by rounding. Lengths are in pixels at the image's own size, as
    in the definitions, so that a severity is harsher on small images.

    Args:
        pixels: [batch 3 height width], floats in [0, 1], on any device.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        image_ids: one for each image, no two alike; a corruption that draws at random needs them.
        seed: the study's seed.
        step: the training step, where each step shall draw anew.
        jpeg_quality: 1 to 95: stores the corrupted image as JPEG and reads it again. The files of ImageNet-C
            are stored with quality 85, which softens its noises: a score may be called ImageNet-C's only with
            this, on its validation images cropped to 224 × 224 pixels. None stores nothing.

    Returns:
        The same shape, dtype and device, in [0, 1].

    Raises:
        PixelError: the pixels are no such batch.
        ConditionError: name or severity is unknown, the image ids do not fit, two images of one id would
            share their noise, or the corruption's files are missing.

    Source: Hendrycks & Dietterich (2019); `CORRUPTIONS[name].source`.

    Example:
        >>> checkerboard = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(8, 8).expand(1, 3, 16, 16)
        >>> corrupt(checkerboard, "contrast", severity=3)[0, 0, 0, :2]
        tensor([0.4000, 0.6000])
        >>> first = corrupt(checkerboard, "gaussian_noise", image_ids=["a"], seed=1)
        >>> torch.equal(first, corrupt(checkerboard, "gaussian_noise", image_ids=["a"], seed=1))
        True
    """
    corruption = ready_corruption(name)
    severity = check_severity(name, severity)
    if jpeg_quality is not None:
        jpeg_quality = check_quality(jpeg_quality)
    check_batch(pixels, f"The pixels to be corrupted by '{name}'")
    ids = check_image_ids(image_ids, len(pixels), name, draws=corruption.stochastic)
    if len(pixels) == 0:
        return pixels.clone()
    streams = [[stream(seed, i, name, severity, step) for i in ids]] if corruption.stochastic else []
    precise = pixels if pixels.dtype == torch.float64 else pixels.float()
    # A user's operation may write in place, and must not reach the clean images.
    given = precise.clone() if is_own(corruption) else precise
    # Mixed precision around us would round the blurs to 8 bits or fewer.
    with torch.autocast(pixels.device.type, enabled=False):
        corrupted = corruption.apply(given, *streams, *corruption.parameters[severity - 1])
        if is_own(corruption):
            clipped = corrupted.clamp(0, 1) if isinstance(corrupted, Tensor) else corrupted
            remedy = "Correct its operation; what leaves [0, 1] is clipped."
            corrupted = check_returned(clipped, precise, f"the corruption '{name}'", remedy)
        elif corrupted.requires_grad:
            corrupted = corrupted.clamp(0, 1)
        else:
            # vitlens's operations return tensors of their own: no second one of that size.
            corrupted = corrupted.clamp_(0, 1)
        if jpeg_quality is not None:
            corrupted = jpeg(corrupted, jpeg_quality)
    return corrupted.to(pixels.dtype)
