"""How far attention reaches across the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..functional.attention import attention_distance, patch_distances
from ..images import Batch
from ..models import ActivationCache, HookedViT, ViTConfig
from ..names import pattern_hook
from ..running import Reduction, table
from .attention import needs_patterns, patch_grid


@dataclass(frozen=True)
class AttentionDistance:
    """Mean distance between a patch and the patches that it attends to, by head.

    Variables (image, layer, head): `attention_distance_patches` and `attention_distance_pixels`. Distances
    are Euclidean, between centers of patches; each patch query weighs them by its attention to the patches,
    divided by its sum, and all patch queries count alike. Attention to prefix tokens is left out. Attention
    to all patches alike has the mean distance of the grid; attention of each patch to itself has 0.

    Source: Dosovitskiy et al. (2021), "An image is worth 16x16 words", appendix D.7; Raghu et al. (2021), "Do
    vision transformers see like convolutional neural networks?", section 4.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(model, images, [AttentionDistance()], progress=False)
        >>> bool((data["attention_distance_pixels"] == 16 * data["attention_distance_patches"]).all())
        True
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to its distances on each grid that its patches may form."""
        cfg = model.cfg

        def distances(pattern: Tensor) -> Tensor:
            among_patches = pattern[..., cfg.n_prefix_tokens :, cfg.n_prefix_tokens :]
            by_grid = [
                torch.stack(
                    [attention_distance(among_patches, patch_distances(grid, step)) for step in _steps(cfg)],
                    -1,
                )
                for grid in _grids(cfg, among_patches.shape[-1])
            ]
            return torch.stack(by_grid, dim=-1)

        return dict.fromkeys(needs_patterns(model, self), distances)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        cfg = model.cfg
        rows, columns = patch_grid(model, batch)
        which = _grids(cfg, rows * columns).index((rows, columns))
        by_step = torch.stack(
            [cache[pattern_hook(layer)][..., which] for layer in range(cfg.n_layers)], dim=1
        )
        patches, pixels = by_step[..., 0], by_step[..., -1]
        if len(_steps(cfg)) == 1:
            pixels = patches * cfg.patch_size[0]
        return table(
            {
                f"attention_distance_{unit}": (
                    ("layer", "head"),
                    distance,
                    {
                        "units": unit,
                        "long_name": "Attention distance",
                        "description": "Distance from a patch to the patches that its query looks at, "
                        "weighed by its attention to them; mean over patches.",
                    },
                )
                for unit, distance in (("patches", patches), ("pixels", pixels))
            },
            layer=range(cfg.n_layers),
            head=range(cfg.n_heads),
        )


def _grids(cfg: ViTConfig, n_patches: int) -> list[tuple[int, int]]:
    """The grids that so many patches may form; a pattern does not say which, the pixels do afterwards."""
    if cfg.required_image_size is not None and cfg.grid_size is not None:
        return [cfg.grid_size]
    return [(rows, n_patches // rows) for rows in range(1, n_patches + 1) if n_patches % rows == 0]


def _steps(cfg: ViTConfig) -> list[tuple[int, int]]:
    """Height and width of a patch, in patches; and in pixels where that is no multiple of it."""
    height, width = cfg.patch_size
    return [(1, 1)] if height == width else [(1, 1), (height, width)]
