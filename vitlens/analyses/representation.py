"""Residual streams of two checkpoints on the same pixels: norms, cosines and distances, place by place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..errors import AnalysisError, HookError
from ..functional.representation import cosine, relative_distance
from ..images import Batch
from ..models import HookedViT
from ..names import resid_hooks
from ..running.analysis import Pass, Reduction
from ..running.table import table


@dataclass(frozen=True)
class Representation:
    """How far a checkpoint's residual stream lies from the reference's, token by token, averaged over tokens.

    Variables (image, resid_layer): `resid_norm`, the Euclidean norm of the checkpoint's own tokens;
    `resid_cosine` and `resid_relative_distance` (in units of the reference's norm) of each token with the
    reference's token at the same position, exactly 1 and 0 for the reference itself. A token that is zero has
    no direction: NaN.

    The tokens to average over are an argument, and not a dim, so that the variables have one number for a
    place; run it once for each kind that is asked for. Both checkpoints' streams are kept until they can be
    compared: with all tokens or the patches that is 4 (n_layers + 1) n_pos d_model bytes an image and
    checkpoint, 8 MB for ViT-B at 224 pixels; with the class token alone, 1 / n_pos of that.

    Args:
        tokens: `all`, or one kind of token: `cls`, `patch`, `register`, `distillation`.

    Example:
        >>> import timm, vitlens as vl
        >>> def vit():
        ...     return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
        >>> models = {"base": vl.HookedViT(vit()), "tuned": vl.HookedViT(vit())}
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(models, images, [Representation(tokens="patch")], progress=False)
        >>> data["resid_cosine"].dims
        ('checkpoint', 'condition', 'image', 'resid_layer')
        >>> bool((data["resid_cosine"].sel(checkpoint="base") == 1).all())
        True
    """

    tokens: str = "all"

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream, with the tokens that are compared."""
        check_tokens(model, self.tokens, "Representation")
        positions = model.cfg.positions(self.tokens)

        def select(resid: Tensor) -> Tensor:
            return resid[:, positions].clone()

        return dict.fromkeys(resid_hooks(model.cfg.n_layers), None if self.tokens == "all" else select)

    def compare(self, reference: Pass, checkpoint: Pass, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        check_places(reference, checkpoint, "Representation")
        norms, cosines, distances = [], [], []
        for name in resid_hooks(reference.model.cfg.n_layers):
            ours, theirs = checkpoint.cache[name], reference.cache[name].to(checkpoint.cache[name].device)
            if ours.shape != theirs.shape:
                raise AnalysisError(
                    f"Representation compares token by token; at '{name}' the reference has "
                    f"{list(theirs.shape)} and the checkpoint {list(ours.shape)}.",
                    expected="the same tokens and width in both",
                    remedy="Compare models of different shapes with CKA.",
                )
            norms.append(ours.float().norm(dim=-1).mean(-1))
            cosines.append(cosine(theirs, ours).mean(-1))
            distances.append(relative_distance(theirs, ours).mean(-1))
        by_place = ("resid_layer",)
        return table(
            {
                "resid_norm": (
                    by_place,
                    torch.stack(norms, dim=1),
                    {
                        "units": "",
                        "long_name": "Norm of the residual stream",
                        "description": "Euclidean length of a token's residual stream; mean over the "
                        "tokens taken.",
                    },
                ),
                "resid_cosine": (
                    by_place,
                    torch.stack(cosines, dim=1),
                    {
                        "units": "",
                        "long_name": "Cosine with the reference's residual stream",
                        "description": "Cosine of the angle between a token's residual stream and the same "
                        "token's in the reference, 1 where they point the same way; mean over the tokens "
                        "taken.",
                    },
                ),
                "resid_relative_distance": (
                    by_place,
                    torch.stack(distances, dim=1),
                    {
                        "units": "reference norms",
                        "long_name": "Distance from the reference's residual stream",
                        "description": "Euclidean distance between a token's residual stream and the same "
                        "token's in the reference, divided by the length of the reference's; mean over "
                        "the tokens taken.",
                    },
                ),
            },
            resid_layer=range(len(norms)),
        )


def check_tokens(model: HookedViT, tokens: str, who: str, *further: str) -> None:
    """Refuse a kind of token that the model has not.

    Raises:
        AnalysisError: `tokens` is neither `all` nor one of the model's kinds, nor one of `further`.
    """
    known = (*further, "all", *model.cfg.query_kinds)
    if tokens not in known:
        raise AnalysisError(
            f"{who} is asked for tokens '{tokens}', which this model has not.",
            expected=f"one of {', '.join(known)}",
            remedy="Choose tokens that all the models have.",
        )


def check_places(reference: Pass, checkpoint: Pass, who: str) -> None:
    """Refuse two models that have not the same number of places on the residual stream.

    Raises:
        AnalysisError: their numbers of blocks differ.
    """
    depths = [side.model.cfg.n_layers for side in (reference, checkpoint)]
    if depths[0] != depths[1]:
        raise AnalysisError(
            f"{who} pairs places on the residual stream; the reference has {depths[0]} blocks "
            f"and the checkpoint {depths[1]}.",
            expected="models of one depth",
            remedy="Compare checkpoints of one architecture.",
        )


def row_of(model: HookedViT, tokens: str, who: str) -> Callable[[Tensor], Tensor]:
    """The reduction of a residual stream to one row an image.

    Args:
        model: whose residual stream it is.
        tokens: `pooled`, what the model's own pooling hands to its head, before any norm (of two heads both
            tokens, side by side); or the mean over `all` tokens or those of one kind.
        who: the name of the analysis that asks, for its errors.

    Returns:
        [batch pos d_model] -> [batch d_row] float32, in storage of its own.

    Raises:
        AnalysisError: the model has no such tokens, or its pooling is no sum over tokens.
    """
    check_tokens(model, tokens, who, "pooled")
    if tokens != "pooled":
        positions = model.cfg.positions(tokens)
        return lambda resid: resid[:, positions].float().mean(1)

    def pooled(resid: Tensor) -> Tensor:
        return model.family.pool_linear(model.model, resid.float()).flatten(1).clone()

    try:
        pooled(torch.zeros(1, model.cfg.n_prefix_tokens + 1, model.cfg.d_model))
    except HookError as error:
        raise AnalysisError(
            f"{who} is asked for what the head reads of the residual stream. {error.given}",
            expected="pooling by the class token or the mean",
            remedy='Pass tokens="patch" or another kind of token that the model has.',
        ) from error
    return pooled
