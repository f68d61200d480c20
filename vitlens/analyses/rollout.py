"""Attention rollout: which patches the answer draws on, through all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import xarray as xr
from torch import Tensor

from ..errors import AnalysisError
from ..functional.rollout import (
    HeadFusion,
    attention_relevance,
    attention_rollout,
    discard_smallest,
    fuse_heads,
    gradient_rollout,
)
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..names import pattern_hook
from ..running import Reduction, table
from .attention import needs_patterns, on_grid, reader_kind
from .prediction import needs_classes


@dataclass(frozen=True)
class AttentionRollout:
    """Attention followed from the class token through all layers to the patches that came in.

    Variable (image, patch_row, patch_column): `attention_rollout`. Without a class token it starts from the
    mean of the patches. What is missing to a sum of 1 came from the prefix tokens. Of each layer one map an
    image is kept, for all heads.

    Args:
        image_ids: only these images, as `named_image`; None takes all.
        head_fusion: how the heads of a layer become one map: `mean`, `max` or `min`.
        discard_ratio: after fusion, the smallest of each image's weights in each layer are set to zero: this
            share, in [0, 1), of all weights but those on the class token, whose column is left whole. Rows
            are divided by their sum afterwards.

    Raises:
        AnalysisError: an argument is out of range.

    Source: Abnar & Zuidema (2020), "Quantifying attention flow in transformers", section 3; its average over
    heads and 0.5 A + 0.5 I. Other fusions and discarding are later custom.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(2)]
        >>> data = vl.run(model, images, [AttentionRollout()], progress=False)
        >>> data["attention_rollout"].sizes["patch_row"]
        2
    """

    image_ids: tuple[str, ...] | None = None
    head_fusion: HeadFusion = "mean"
    discard_ratio: float = 0.0

    def __post_init__(self) -> None:
        if self.head_fusion not in get_args(HeadFusion) or not 0 <= self.discard_ratio < 1:
            raise AnalysisError(
                f"head_fusion is {self.head_fusion!r} and discard_ratio {self.discard_ratio}.",
                expected=f"a fusion of {', '.join(get_args(HeadFusion))}, and a ratio in [0, 1)",
                remedy="The paper's are 'mean' and 0.",
            )

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to one map for all heads."""
        class_token = [at for at, kind in enumerate(model.cfg.prefix_kinds) if kind == "cls"]

        def fused(pattern: Tensor) -> Tensor:
            one = fuse_heads(pattern, self.head_fusion)
            return discard_smallest(one, self.discard_ratio, class_token) if self.discard_ratio else one

        return dict.fromkeys(needs_patterns(model, self), fused)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        layers = [cache[pattern_hook(layer)] for layer in range(model.cfg.n_layers)]
        rolled = attention_rollout(layers, _reader(model, layers))
        words = {"units": "share", "long_name": "Attention rollout"}
        return _picture("attention_rollout", rolled, words, model, batch)


@dataclass(frozen=True)
class GradientRollout:
    """Relevance of each patch to the correct class: attention weighted by its gradient, through all layers.

    Variable (image, patch_row, patch_column): `gradient_rollout`, 0 or more, in no unit that two models
    share: compare where it lies, not how large it is. It is the class token's row of R; without a class
    token the mean of the patches' rows of R - I. All layers' patterns and gradients are alive at once: give
    it few images.

    Args:
        image_ids: only these images, as `named_image`; None takes all.

    Source: Chefer et al. (2021), "Generic attention-model explainability for interpreting bi-modal and
    encoder-decoder transformers": the rule for self-attention.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> only = (images[2]["image_id"],)
        >>> data = vl.run(model, images, [GradientRollout(image_ids=only)], progress=False)
        >>> data["gradient_rollout"].dims
        ('condition', 'named_image', 'patch_row', 'patch_column')
    """

    image_ids: tuple[str, ...] | None = None

    def gradient_hooks(self, model: HookedViT) -> Sequence[str]:
        """Every attention pattern."""
        needs_classes(model, self)
        return needs_patterns(model, self)

    def attribute(
        self, model: HookedViT, cache: ActivationCache, gradients: ActivationCache, batch: Batch
    ) -> xr.Dataset:
        """Values of one batch."""
        names = [pattern_hook(layer) for layer in range(model.cfg.n_layers)]
        layers = [attention_relevance(cache[name], gradients[name]) for name in names]
        rolled = gradient_rollout(layers, _reader(model, layers))
        words = {"units": "1", "long_name": "Relevance to the correct class"}
        return _picture("gradient_rollout", rolled, words, model, batch)


def _reader(model: HookedViT, layers: Sequence[Tensor]) -> Tensor:
    """What the head reads, as weights on the tokens [1 pos]: the class token, or the mean of the patches."""
    reader = torch.zeros(1, layers[0].shape[-1])
    reader[:, model.cfg.positions(reader_kind(model))] = 1
    return reader / reader.sum()


def _picture(
    name: str, rolled: Tensor, words: Mapping[str, str], model: HookedViT, batch: Batch
) -> xr.Dataset:
    picture = on_grid(model, batch, rolled[:, 0, model.cfg.positions("patch")])
    return table(
        {name: (("patch_row", "patch_column"), picture, words)},
        patch_row=range(picture.shape[1]),
        patch_column=range(picture.shape[2]),
    )
