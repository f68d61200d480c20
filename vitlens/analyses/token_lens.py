"""The logit lens by token: what the head would say of each patch's residual stream alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..names import resid_hooks
from ..running import Reduction, table, where_known
from .attention import on_grid
from .prediction import needs_classes

N_CHUNK_LOGITS = 4_000_000
"""Logits that are held at a time: 16 MB in float32, whatever the number of classes."""


@dataclass(frozen=True)
class TokenLens:
    """The model's own readout of every patch's residual stream, as if all tokens said the same.

    Variables (image, resid_layer, patch_row, patch_column): `token_lens_predicted` and
    `token_lens_probability` (of the correct class). Each patch is read out as a stream in which every token
    is that patch, so that a class token, a mean over patches and attention pooling all hand on the patch
    itself. The whole residual stream of a batch is held while it is read, and a patch costs as much as an
    image under `LogitLens`: name few images.

    Args:
        image_ids: only these images, as `named_image`; None takes all.

    Source: Vilas et al. (2023), "Analyzing Vision Transformers for image classification in class embedding
    space".

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(model, images, [TokenLens()], progress=False)
        >>> data["token_lens_probability"].shape
        (1, 4, 13, 2, 2)
    """

    image_ids: tuple[str, ...] | None = None

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream, whole: which class to look at is known only afterwards."""
        needs_classes(model, self)
        return dict.fromkeys(resid_hooks(model.cfg.n_layers))

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        said = [_token_lens(model, cache[name], batch.labels) for name in resid_hooks(model.cfg.n_layers)]
        predicted, probability = (torch.stack(values, dim=1) for values in zip(*said, strict=True))
        predicted = where_known(predicted, probability.isfinite())
        probability = on_grid(model, batch, probability)
        by_patch = ("resid_layer", "patch_row", "patch_column")
        return table(
            {
                "token_lens_predicted": (
                    by_patch,
                    predicted.view(probability.shape),
                    {"units": "class", "long_name": "Class predicted by the logit lens of each patch"},
                ),
                "token_lens_probability": (
                    by_patch,
                    probability,
                    {
                        "units": "probability",
                        "long_name": "Probability of the correct class by the logit lens of each patch",
                    },
                ),
            },
            resid_layer=range(model.cfg.n_layers + 1),
            patch_row=range(probability.shape[-2]),
            patch_column=range(probability.shape[-1]),
        )


def token_logits(
    model: HookedViT, tokens: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token n_classes"]:
    """What the model's readout says of single tokens: of streams in which every token is the same.

    Args:
        model: a model with a classifier.
        tokens: at any place on the residual stream.

    Returns:
        Logits, float32.

    Example:
        >>> import timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=10))
        >>> token_logits(model, torch.zeros(5, 192)).shape
        torch.Size([5, 10])
    """
    # Whatever the pooling, it reads prefix tokens, patches, or both.
    n_pos = model.cfg.n_prefix_tokens + 1
    return model.readout(tokens.unsqueeze(1).expand(-1, n_pos, -1)).float()


def _token_lens(
    model: HookedViT, resid: Float[Tensor, "batch pos d_model"], labels: Int[Tensor, " batch"]
) -> tuple[Int[Tensor, "batch patch"], Float[Tensor, "batch patch"]]:
    """Predicted class and probability of the label, by patch."""
    patches = resid[:, model.cfg.n_prefix_tokens :]
    n_chunk_tokens = max(1, N_CHUNK_LOGITS // model.cfg.n_classes)
    tokens = patches.flatten(0, 1).split(n_chunk_tokens)
    of_tokens = labels.repeat_interleave(patches.shape[1]).unsqueeze(1).split(n_chunk_tokens)
    predicted, probability = [], []
    for chunk, label in zip(tokens, of_tokens, strict=True):
        logits = token_logits(model, chunk)
        predicted.append(logits.argmax(-1))
        probability.append(logits.softmax(-1).gather(1, label))
    shape = patches.shape[:2]
    return torch.cat(predicted).view(shape), torch.cat(probability).view(shape)
