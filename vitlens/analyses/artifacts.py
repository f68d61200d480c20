"""Registers and artifacts: patches of outlying norm, and the attention that falls on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..errors import AnalysisError
from ..functional.artifacts import artifact_tokens
from ..images import Batch
from ..images.values import is_real
from ..models import ActivationCache, HookedViT
from ..names import pattern_hook, resid_hooks
from ..running import Reduction, table, where_known
from .attention import needs_patterns

_KEYS = {"cls": "cls", "distillation": "distillation", "register": "registers"}
_SAID = {"cls": "the class token", "distillation": "the distillation token"}


@dataclass(frozen=True)
class ArtifactTokens:
    """How many patches are artifacts: tokens whose norm stands far out among those of their image.

    Variable (image, resid_layer): `n_artifact_tokens`. The residual stream is reduced to norms as it streams
    by, and attention stays fused.

    Args:
        norm_threshold: the norm above which a patch is an artifact, the same at every place and for all
            images; None takes `norm_ratio` times the median over the image's patches at that place.
        norm_ratio: how many times the median; see `vitlens.functional.artifact_tokens`.

    Raises:
        AnalysisError: an argument is not above 0.

    Source: Darcet et al. (2024), "Vision transformers need registers", section 2.1.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(model, images, [ArtifactTokens()], progress=False)
        >>> data["n_artifact_tokens"].sizes["resid_layer"]
        13
    """

    norm_threshold: float | None = None
    norm_ratio: float = 4.0

    def __post_init__(self) -> None:
        _check_thresholds(self.norm_threshold, self.norm_ratio)

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream, reduced to the patches' norms."""
        return dict.fromkeys(resid_hooks(model.cfg.n_layers), _patch_norms(model))

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        names = resid_hooks(model.cfg.n_layers)
        norms = torch.stack([cache[name] for name in names], dim=1)
        found = artifact_tokens(norms, self.norm_threshold, norm_ratio=self.norm_ratio)
        counts = where_known(found.sum(-1), norms.isfinite().all(-1))
        words = {"units": "tokens", "long_name": "Artifact tokens"}
        return table({"n_artifact_tokens": (("resid_layer",), counts, words)}, resid_layer=range(len(names)))


@dataclass(frozen=True)
class AttentionShare:
    """On what kind of token attention falls.

    Variables (image, layer, head): `attention_to_artifacts_share`, `attention_to_patches_share` (all other
    patches), and `attention_to_cls_share`, `attention_to_distillation_share`,
    `attention_to_registers_share` where the model has such tokens. Each is the share of the attention of the
    class token and the patches, every query counting alike, that falls on all tokens of the kind together;
    they sum to 1. As a pattern streams by it is reduced to its mean over these queries, which is split by
    kind of key once the artifacts are known.

    Args:
        norm_threshold: as in `ArtifactTokens`.
        norm_ratio: as in `ArtifactTokens`.
        resid_layer: the place at which norms say which patches are artifacts, for all layers; negative
            values count from the last place, which is the default.

    Raises:
        AnalysisError: a threshold is not above 0, or the model has no such place.

    Source: Darcet et al. (2024), "Vision transformers need registers".

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> sorted(vl.run(model, images, [AttentionShare()], progress=False))
        ['attention_to_artifacts_share', 'attention_to_cls_share', 'attention_to_patches_share']
    """

    norm_threshold: float | None = None
    norm_ratio: float = 4.0
    resid_layer: int = -1

    def __post_init__(self) -> None:
        _check_thresholds(self.norm_threshold, self.norm_ratio)

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every attention pattern, reduced to what falls on each key, and the patches' norms at one place."""
        cfg = model.cfg
        kinds = [kind for kind in ("cls", "patch") if kind in cfg.query_kinds]

        def by_key(pattern: Tensor) -> Tensor:
            received = [pattern[:, :, cfg.positions(kind)] for kind in kinds]
            n_queries = sum(queries.shape[2] for queries in received)
            totals = [queries.sum(2, dtype=torch.float32) for queries in received]
            return torch.stack(totals).sum(0) / n_queries

        return {
            **dict.fromkeys(needs_patterns(model, self), by_key),
            self._place(model): _patch_norms(model),
        }

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        cfg = model.cfg
        by_key = torch.stack([cache[pattern_hook(layer)] for layer in range(cfg.n_layers)], dim=1)
        norms = cache[self._place(model)]
        # Which patches are artifacts is not known where a norm is none.
        by_key = by_key.masked_fill(~norms.isfinite().all(-1)[:, None, None, None], torch.nan)
        is_artifact = artifact_tokens(norms, self.norm_threshold, norm_ratio=self.norm_ratio)[:, None, None]
        to_patches = by_key[..., cfg.positions("patch")]
        shares = {
            keys: by_key[..., cfg.positions(kind)].sum(-1)
            for kind, keys in _KEYS.items()
            if kind in cfg.query_kinds
        }
        shares["artifacts"] = (to_patches * is_artifact).sum(-1)
        shares["patches"] = (to_patches * ~is_artifact).sum(-1)
        return table(
            {
                f"attention_to_{keys}_share": (
                    ("layer", "head"),
                    share,
                    {"units": "share", "long_name": f"Attention to {_SAID.get(keys, keys)}"},
                )
                for keys, share in shares.items()
            },
            layer=range(cfg.n_layers),
            head=range(cfg.n_heads),
        )

    def _place(self, model: HookedViT) -> str:
        n_places = model.cfg.n_layers + 1
        if not -n_places <= self.resid_layer < n_places:
            raise AnalysisError(
                f"resid_layer is {self.resid_layer}.",
                expected=f"{-n_places} to {n_places - 1} for this model",
                remedy="0 is what enters block 0; -1 is the last block's output.",
            )
        return resid_hooks(model.cfg.n_layers)[self.resid_layer]


def _patch_norms(model: HookedViT) -> Reduction:
    patches = model.cfg.positions("patch")

    def norms(resid: Tensor) -> Tensor:
        lengths: Tensor = resid[:, patches].float().norm(dim=-1)
        return lengths

    return norms


def _check_thresholds(norm_threshold: float | None, norm_ratio: float) -> None:
    for name, value in (("norm_ratio", norm_ratio), ("norm_threshold", norm_threshold)):
        if value is not None and not is_real(value):
            raise AnalysisError(
                f"{name} is {value!r}.", expected="a number above 0", remedy="Leave it out for the default."
            )
    if norm_ratio <= 0 or (norm_threshold is not None and norm_threshold <= 0):
        raise AnalysisError(
            f"norm_threshold is {norm_threshold} and norm_ratio {norm_ratio}.",
            expected="values above 0",
            remedy="Leave norm_threshold at None for a threshold by image.",
        )
