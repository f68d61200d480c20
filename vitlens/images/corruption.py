"""The registry of corruptions, and `corrupt`, the one door through which they are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConditionError
from ..names import nearest
from .blur import defocus_blur, gaussian_blur
from .digital import pixelate
from .noise import gaussian_noise, impulse_noise
from .pixels import check_batch
from .sharpness import sharpen
from .streams import stream
from .tone import contrast

SEVERITIES = range(1, 6)
"""Mildest to strongest."""

_IMAGENET_C = "Hendrycks & Dietterich (2019), Benchmarking neural network robustness, section 3"
_IMAGENET_C_EXTRA = "Hendrycks & Dietterich (2019), the extra corruptions, meant for validation"


@dataclass(frozen=True)
class Corruption:
    """What a corruption is: its operation and its five strengths.

    Attributes:
        name: what it is called in conditions.
        parameters: the operation's parameters at severities 1 to 5.
        parameter_names: what they are called; `_pixels` are lengths, at the image's own size.
        family: corruptions of one family are near-duplicates; "unseen" means another family.
        stochastic: whether it draws from a random stream for each image.
        differentiable: whether gradients of the result with respect to the pixels mean something.
        source: where the definition stands.
        apply: the operation before its last step, clipping: called with [batch 3 height width], for a
            stochastic one with one `torch.Generator` for each image, and with the parameters.

    Example:
        >>> spec = CORRUPTIONS["defocus_blur"]
        >>> dict(zip(spec.parameter_names, spec.parameters[2], strict=True))
        {'radius_pixels': 6, 'alias_sigma_pixels': 0.5}
    """

    name: str
    parameters: tuple[tuple[float, ...], ...]
    parameter_names: tuple[str, ...]
    family: str
    stochastic: bool
    differentiable: bool
    source: str
    apply: Callable[..., Tensor]


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        corruption.name: corruption
        for corruption in (
            Corruption(
                name="gaussian_noise",
                parameters=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
                parameter_names=("sigma",),
                family="noise",
                stochastic=True,
                differentiable=True,
                source=_IMAGENET_C,
                apply=gaussian_noise,
            ),
            Corruption(
                name="impulse_noise",
                parameters=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
                parameter_names=("share",),
                family="noise",
                stochastic=True,
                differentiable=True,
                source=_IMAGENET_C,
                apply=impulse_noise,
            ),
            Corruption(
                name="gaussian_blur",
                parameters=((1.0,), (2.0,), (3.0,), (4.0,), (6.0,)),
                parameter_names=("sigma_pixels",),
                family="blur",
                stochastic=False,
                differentiable=True,
                source=_IMAGENET_C_EXTRA,
                apply=gaussian_blur,
            ),
            Corruption(
                name="defocus_blur",
                parameters=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
                parameter_names=("radius_pixels", "alias_sigma_pixels"),
                family="blur",
                stochastic=False,
                differentiable=True,
                source=_IMAGENET_C,
                apply=defocus_blur,
            ),
            Corruption(
                name="sharpen",
                parameters=((0.7, 1.5), (0.7, 3.0), (0.7, 5.0), (0.7, 9.0), (0.7, 15.0)),
                parameter_names=("sigma_pixels", "amount"),
                family="sharpness",
                stochastic=False,
                differentiable=True,
                source="vitlens: unsharp masking",
                apply=sharpen,
            ),
            Corruption(
                name="contrast",
                parameters=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
                parameter_names=("factor",),
                family="tone",
                stochastic=False,
                differentiable=True,
                source=_IMAGENET_C,
                apply=contrast,
            ),
            Corruption(
                name="pixelate",
                parameters=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
                parameter_names=("scale",),
                family="digital",
                stochastic=False,
                differentiable=False,
                source=_IMAGENET_C,
                apply=pixelate,
            ),
        )
    }
)
"""Every corruption by its name; read-only."""


def find_corruption(name: str) -> Corruption:
    """The corruption called `name`.

    Raises:
        ConditionError: there is none; the nearest names are listed.

    Example:
        >>> find_corruption("gaussian_blur").parameters
        ((1.0,), (2.0,), (3.0,), (4.0,), (6.0,))
    """
    if name in CORRUPTIONS:
        return CORRUPTIONS[name]
    raise ConditionError(
        f"There is no corruption '{name}'.",
        expected=f"a key of vitlens.CORRUPTIONS (nearest: {nearest(name, CORRUPTIONS)})",
        remedy="Correct the name, or give an operation of your own as a condition {'name': callable}.",
    )


def check_severity(name: str, severity: object) -> int:
    """The severity, if it is one.

    Raises:
        ConditionError: it is no whole number from 1 to 5.

    Example:
        >>> check_severity("contrast", 5)
        5
    """
    if isinstance(severity, int) and not isinstance(severity, bool) and severity in SEVERITIES:
        return severity
    raise ConditionError(
        f"The severity of '{name}' is {severity!r}.",
        expected="a whole number from 1 (mildest) to 5",
        remedy=f"See vitlens.CORRUPTIONS['{name}'].parameters for what each means.",
    )


def corrupt(
    pixels: Tensor,
    name: str,
    severity: int = 3,
    *,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    step: int | None = None,
) -> Float[Tensor, "batch 3 height width"]:
    """Apply one corruption to a batch of images.

    An image's result depends on its pixels, its id, the corruption, the severity, the seed and the step
    alone: not on the batch it comes in, but by rounding. Lengths are in pixels at the image's own size, as
    in the definitions, so that a severity is harsher on small images.

    Args:
        pixels: [batch 3 height width], floats in [0, 1], on any device.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        image_ids: one for each image; a corruption that draws at random needs them.
        seed: the study's seed.
        step: the training step, where each step shall draw anew.

    Returns:
        The same shape, dtype and device, in [0, 1].

    Raises:
        PixelError: the pixels are no such batch.
        ConditionError: name or severity is unknown, or the image ids do not fit.

    Source: Hendrycks & Dietterich (2019); `CORRUPTIONS[name].source`.

    Example:
        >>> checkerboard = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(8, 8).expand(1, 3, 16, 16)
        >>> corrupt(checkerboard, "contrast", severity=3)[0, 0, 0, :2]
        tensor([0.4000, 0.6000])
        >>> first = corrupt(checkerboard, "gaussian_noise", image_ids=["a"], seed=1)
        >>> torch.equal(first, corrupt(checkerboard, "gaussian_noise", image_ids=["a"], seed=1))
        True
    """
    corruption = find_corruption(name)
    severity = check_severity(name, severity)
    check_batch(pixels, f"The pixels to be corrupted by '{name}'")
    _check_image_ids(image_ids, len(pixels), corruption)
    streams = (
        [[stream(seed, i, name, severity, step) for i in image_ids or ()]] if corruption.stochastic else []
    )
    precise = pixels if pixels.dtype == torch.float64 else pixels.float()
    # Mixed precision around us would round the blurs to 8 bits or fewer.
    with torch.autocast(pixels.device.type, enabled=False):
        corrupted = corruption.apply(precise, *streams, *corruption.parameters[severity - 1])
    return corrupted.clamp(0, 1).to(pixels.dtype)


def _check_image_ids(image_ids: Sequence[str] | None, n_images: int, corruption: Corruption) -> None:
    if image_ids is None and not corruption.stochastic:
        return
    if image_ids is None:
        given = f"'{corruption.name}' draws at random and no image_ids were given."
    elif isinstance(image_ids, str):
        given = f"image_ids is one string, {image_ids!r}."
    elif len(image_ids) != n_images:
        given = f"{len(image_ids)} image_ids were given for {n_images} images."
    else:
        return
    raise ConditionError(
        given,
        expected="a sequence of strings, one for each image",
        remedy="Give the ids of the data set, so that every checkpoint sees the same pixels.",
    )
