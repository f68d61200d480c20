"""The corruptions of vitlens: the nineteen of ImageNet-C with their five strengths, and `sharpen`."""

from __future__ import annotations

from .blur import defocus_blur, gaussian_blur
from .digital import pixelate
from .elastic import elastic
from .fog import fog
from .frost import needs_photographs
from .glass import glass_blur
from .jpeg import jpeg
from .motion import motion_blur
from .noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from .sharpness import sharpen
from .snow import snow
from .spatter import spatter
from .spec import Corruption
from .tone import brightness, contrast, saturate
from .zoom import zoom_blur

_SOURCE = "Hendrycks & Dietterich (2019), Benchmarking neural network robustness: ImageNet-C"
_SOURCE_EXTRA = "Hendrycks & Dietterich (2019), the extra corruptions, meant for validation"

IMAGENET_C = (
    Corruption(
        name="gaussian_noise",
        parameters=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        parameter_names=("sigma",),
        family="noise",
        stochastic=True,
        source=_SOURCE,
        apply=gaussian_noise,
    ),
    Corruption(
        name="shot_noise",
        parameters=((60.0,), (25.0,), (12.0,), (5.0,), (3.0,)),
        parameter_names=("photons",),
        family="noise",
        stochastic=True,
        differentiable=False,
        source=_SOURCE,
        apply=shot_noise,
    ),
    Corruption(
        name="impulse_noise",
        parameters=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
        parameter_names=("share",),
        family="noise",
        stochastic=True,
        source=_SOURCE,
        apply=impulse_noise,
    ),
    Corruption(
        name="defocus_blur",
        parameters=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        parameter_names=("radius_pixels", "alias_sigma_pixels"),
        family="blur",
        source=_SOURCE,
        apply=defocus_blur,
    ),
    Corruption(
        name="glass_blur",
        parameters=((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        parameter_names=("sigma_pixels", "max_delta_pixels", "n_iterations"),
        family="blur",
        stochastic=True,
        source=_SOURCE,
        apply=glass_blur,
    ),
    Corruption(
        name="motion_blur",
        parameters=((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
        parameter_names=("radius_pixels", "sigma_pixels"),
        family="blur",
        stochastic=True,
        source=_SOURCE,
        apply=motion_blur,
    ),
    Corruption(
        name="zoom_blur",
        parameters=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        parameter_names=("zoom_end", "zoom_step"),
        family="blur",
        source=_SOURCE,
        apply=zoom_blur,
    ),
    Corruption(
        name="snow",
        parameters=(
            (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
        ),
        parameter_names=("mean", "sigma", "zoom", "threshold", "radius_pixels", "blur_sigma_pixels", "mix"),
        family="weather",
        stochastic=True,
        source=_SOURCE,
        apply=snow,
    ),
    Corruption(
        name="frost",
        parameters=((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        parameter_names=("image_share", "frost_share"),
        family="weather",
        stochastic=True,
        needs_assets=True,
        source=_SOURCE,
        apply=needs_photographs,
    ),
    Corruption(
        name="fog",
        parameters=((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
        parameter_names=("amount", "decay"),
        family="weather",
        stochastic=True,
        source=_SOURCE,
        apply=fog,
    ),
    Corruption(
        name="brightness",
        parameters=((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        parameter_names=("shift",),
        family="tone",
        source=_SOURCE,
        apply=brightness,
    ),
    Corruption(
        name="contrast",
        parameters=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        parameter_names=("factor",),
        family="tone",
        source=_SOURCE,
        apply=contrast,
    ),
    Corruption(
        name="elastic",
        parameters=tuple(
            (244 * alpha, 244 * sigma, 244 * affine)
            for alpha, sigma, affine in (
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
        parameter_names=("alpha_pixels", "sigma_pixels", "affine_pixels"),
        family="geometry",
        stochastic=True,
        source=_SOURCE,
        apply=elastic,
    ),
    Corruption(
        name="pixelate",
        parameters=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        parameter_names=("scale",),
        family="digital",
        differentiable=False,
        source=_SOURCE,
        apply=pixelate,
    ),
    Corruption(
        name="jpeg",
        parameters=((25,), (18,), (15,), (10,), (7,)),
        parameter_names=("quality",),
        family="digital",
        differentiable=False,
        source=_SOURCE,
        apply=jpeg,
    ),
)
"""The fifteen that mCE is a mean over."""

IMAGENET_C_EXTRA = (
    Corruption(
        name="speckle_noise",
        parameters=((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
        parameter_names=("sigma",),
        family="noise",
        stochastic=True,
        source=_SOURCE_EXTRA,
        apply=speckle_noise,
    ),
    Corruption(
        name="gaussian_blur",
        parameters=((1.0,), (2.0,), (3.0,), (4.0,), (6.0,)),
        parameter_names=("sigma_pixels",),
        family="blur",
        source=_SOURCE_EXTRA,
        apply=gaussian_blur,
    ),
    Corruption(
        name="spatter",
        parameters=(
            (0.65, 0.3, 4.0, 0.69, 0.6, 0),
            (0.65, 0.3, 3.0, 0.68, 0.6, 0),
            (0.65, 0.3, 2.0, 0.68, 0.5, 0),
            (0.65, 0.3, 1.0, 0.65, 1.5, 1),
            (0.67, 0.4, 1.0, 0.65, 1.5, 1),
        ),
        parameter_names=("mean", "sigma", "blur_sigma_pixels", "threshold", "strength", "mud"),
        family="weather",
        stochastic=True,
        source=_SOURCE_EXTRA,
        apply=spatter,
    ),
    Corruption(
        name="saturate",
        parameters=((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
        parameter_names=("factor", "shift"),
        family="tone",
        source=_SOURCE_EXTRA,
        apply=saturate,
    ),
)
"""The four that were kept for validation."""

OWN = (
    Corruption(
        name="sharpen",
        parameters=((0.7, 1.5), (0.7, 3.0), (0.7, 5.0), (0.7, 9.0), (0.7, 15.0)),
        parameter_names=("sigma_pixels", "amount"),
        family="sharpness",
        source="vitlens: unsharp masking",
        apply=sharpen,
    ),
)
"""vitlens's own."""
