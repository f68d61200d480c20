"""Where attention goes: the entropy of each head, and maps of it over the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..errors import AnalysisError
from ..functional.attention import attention_entropy
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..models.opened.attention import OpenedDifferentialAttention
from ..names import pattern_hook
from ..running import Reduction, table


@dataclass(frozen=True)
class AttentionEntropy:
    """Entropy of each head's attention, averaged over the queries of each kind.

    Variable (image, layer, head, query_kind): `attention_entropy_nats`, in [0, log(n_pos)]; normalized, it
    is `attention_entropy_share`, in [0, 1], since another unit is another variable. `query_kind` lists the
    kinds of token that the model has: `cls`, `distillation`, `register`, `patch`. The entropy is taken as
    the pattern streams by: no more than one layer's pattern is alive.

    Args:
        normalized: divide by log(n_pos), the entropy of attention to all tokens alike: for models or images
            that differ in their number of tokens.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(model, images, [AttentionEntropy()], progress=False)
        >>> data["attention_entropy_nats"].dims
        ('condition', 'image', 'layer', 'head', 'query_kind')
    """

    normalized: bool = False

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to its entropy."""
        return dict.fromkeys(needs_patterns(model, self), attention_entropy)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        kinds = model.cfg.query_kinds
        layers = [cache[pattern_hook(layer)] for layer in range(model.cfg.n_layers)]
        by_kind = [
            torch.stack([entropy[..., model.cfg.positions(kind)].mean(-1) for kind in kinds], dim=-1)
            for entropy in layers
        ]
        entropy = torch.stack(by_kind, dim=1)
        name, words = "attention_entropy_nats", {"units": "nats", "long_name": "Attention entropy"}
        if self.normalized:
            entropy = entropy / math.log(layers[0].shape[-1])
            name = "attention_entropy_share"
            words = {"units": "share", "long_name": "Attention entropy, of the largest possible"}
        return table(
            {name: (("layer", "head", "query_kind"), entropy, words)},
            layer=range(model.cfg.n_layers),
            head=range(model.cfg.n_heads),
            query_kind=kinds,
        )


@dataclass(frozen=True)
class AttentionMap:
    """Attention of the class token to each patch, as a picture; without a class token, the patches' mean.

    Variable (image, layer, head, patch_row, patch_column): `attention_map`. What is missing to a sum of 1
    goes to the prefix tokens. This is [n_layers n_heads n_patches] numbers an image: give it few images.

    Args:
        image_ids: only these images, as `named_image`; None takes all.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(2)]
        >>> data = vl.run(model, images, [AttentionMap()], progress=False)
        >>> data["attention_map"].shape
        (1, 2, 12, 3, 2, 2)
    """

    image_ids: tuple[str, ...] | None = None

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to the rows that are shown."""
        queries = model.cfg.positions(reader_kind(model))
        patches = model.cfg.positions("patch")

        def rows(pattern: Tensor) -> Tensor:
            return pattern[:, :, queries].mean(2)[..., patches]

        return dict.fromkeys(needs_patterns(model, self), rows)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        rows = torch.stack([cache[pattern_hook(layer)] for layer in range(model.cfg.n_layers)], dim=1)
        maps = on_grid(model, batch, rows)
        reader = "class token" if reader_kind(model) == "cls" else "mean patch"
        words = {"units": "share", "long_name": f"Attention of the {reader}"}
        return table(
            {"attention_map": (("layer", "head", "patch_row", "patch_column"), maps, words)},
            layer=range(model.cfg.n_layers),
            head=range(model.cfg.n_heads),
            patch_row=range(maps.shape[-2]),
            patch_column=range(maps.shape[-1]),
        )


def reader_kind(model: HookedViT) -> str:
    """Whose attention stands for the image: the class token's, or without one the patches'."""
    return "cls" if "cls" in model.cfg.query_kinds else "patch"


def needs_patterns(model: HookedViT, who: object) -> list[str]:
    """The hooks of all attention patterns, one map a head.

    Raises:
        AnalysisError: the model has two maps a head.
    """
    for layer, block in enumerate(model.blocks):
        if isinstance(block.attn, OpenedDifferentialAttention):
            raise AnalysisError(
                f"{type(who).__name__} needs one attention pattern a head; block {layer} has differential "
                f"attention, whose heads subtract one map from another.",
                expected="heads whose weights are 0 or more and sum to 1",
                remedy="Take the maps 2h and 2h + 1 of head h from run_with_cache, and a function of "
                "vitlens.functional on each.",
            )
    return [pattern_hook(layer) for layer in range(model.cfg.n_layers)]


def patch_grid(model: HookedViT, batch: Batch) -> tuple[int, int]:
    """Rows and columns of the patches of images of this size."""
    if model.cfg.required_image_size is not None and model.cfg.grid_size is not None:
        return model.cfg.grid_size
    # A model of any size fills up what is left over at the edges, or refuses it.
    (height, width), (patch_height, patch_width) = batch.pixels.shape[-2:], model.cfg.patch_size
    return -(-height // patch_height), -(-width // patch_width)


def on_grid(
    model: HookedViT, batch: Batch, values: Float[Tensor, "*axes patch"]
) -> Float[Tensor, "*axes patch_row patch_column"]:
    """Values of patches as a picture.

    Raises:
        AnalysisError: they are not as many as patches of the model's size in images of this size.
    """
    grid = patch_grid(model, batch)
    if values.shape[-1] != grid[0] * grid[1]:
        raise AnalysisError(
            f"The model makes {values.shape[-1]} patches of {tuple(batch.pixels.shape[-2:])} pixels.",
            expected=f"{grid[0]} × {grid[1]} patches of {model.cfg.patch_size} pixels",
            remedy="Leave out what is drawn or measured on the grid of patches.",
        )
    picture: Tensor = values.unflatten(-1, grid)
    return picture
