"""Where attention goes: the entropy of each head, and maps of it over the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..errors import AnalysisError
from ..functional import attention_entropy
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..names import pattern_hook
from ..running import Reduction, table


@dataclass(frozen=True)
class AttentionEntropy:
    """Entropy of each head's attention, averaged over the queries of each kind.

    Variable (image, layer, head, query_kind): `attention_entropy_nats`, in [0, log(n_pos)]. `query_kind`
    lists the kinds of token that the model has: `cls`, `distillation`, `register`, `patch`. The entropy is
    taken as the pattern streams by: no more than one layer's pattern is alive.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(model, images, [AttentionEntropy()], progress=False)
        >>> data["attention_entropy_nats"].dims
        ('condition', 'image', 'layer', 'head', 'query_kind')
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to its entropy."""
        return {pattern_hook(layer): attention_entropy for layer in range(model.cfg.n_layers)}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        kinds = model.cfg.query_kinds
        layers = [cache[pattern_hook(layer)] for layer in range(model.cfg.n_layers)]
        by_kind = [
            torch.stack([entropy[..., model.cfg.positions(kind)].mean(-1) for kind in kinds], dim=-1)
            for entropy in layers
        ]
        return table(
            {"attention_entropy_nats": (("layer", "head", "query_kind"), torch.stack(by_kind, dim=1))},
            layer=range(model.cfg.n_layers),
            head=range(model.cfg.n_heads),
            query_kind=kinds,
        )


@dataclass(frozen=True)
class AttentionMap:
    """Attention of the class token to each patch, as a picture; without a class token, the patches' mean.

    Variable (image, layer, head, patch_row, patch_column): `attention_map`. What is missing to a sum of 1
    goes to the prefix tokens. This is [n_layers n_heads n_patches] numbers an image: give it few images.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(2)]
        >>> data = vl.run(model, images, [AttentionMap()], progress=False)
        >>> data["attention_map"].shape
        (1, 2, 12, 3, 2, 2)
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to the rows that are shown."""
        if model.cfg.grid_size is None:
            raise AnalysisError(
                "AttentionMap needs to know the grid of patches; this model takes images of any size.",
                expected="a model with an image size",
                remedy="Build the model with img_size=.",
            )
        kind = "cls" if "cls" in model.cfg.query_kinds else "patch"
        queries = model.cfg.positions(kind)
        patches = model.cfg.positions("patch")

        def rows(pattern: Tensor) -> Tensor:
            return pattern[:, :, queries].mean(2)[..., patches]

        return {pattern_hook(layer): rows for layer in range(model.cfg.n_layers)}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        grid = model.cfg.grid_size
        assert grid is not None  # hooks() refused such a model
        rows = torch.stack([cache[pattern_hook(layer)] for layer in range(model.cfg.n_layers)], dim=1)
        return table(
            {"attention_map": (("layer", "head", "patch_row", "patch_column"), rows.unflatten(-1, grid))},
            layer=range(model.cfg.n_layers),
            head=range(model.cfg.n_heads),
        )
