"""Direct logit attribution: what each part of the residual stream adds to the correct class's logit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..errors import AnalysisError, HookError
from ..functional.attribution import gradient_times_activation, head_attribution
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..models.attribution import norm_of
from ..running import Reduction, table
from .prediction import needs_classes


@dataclass(frozen=True)
class LogitAttribution:
    """The correct class's logit as a sum over the parts of the model, read off at the last residual stream.

    Variable (image, component): `attribution`, in units of the logit. The components sum to the logit:

    * `embed` and `pos_embed`; in a model with a norm before block 0 `embed_norm`, which is both;
    * of each block `L3H0`, ... by head, `3_attn_bias`, what else its attention adds (the output bias), and
      `3_mlp_out`; where heads are not summed, because a norm mixes them, `3_attn_out` in their place;
    * `constant`: the biases of the final norm and of the classifier, which no component brings.

    The final norm's scale is held at what it was: a component's share is what it writes along the direction
    that the classifier reads, not what would happen without it. Models that pool by attention or by a maximum
    are refused: there the logit is no sum.

    Memory: of each activation only the tokens before the patches are kept, where the class token is read, or
    the pooled value, where the final norm comes after pooling. A model that norms every token and then
    averages them reads all: three residual streams a layer. Heads behind a gate cost one [batch pos head
    d_model] while they stream by.

    Source: Elhage et al. (2021), "A mathematical framework for transformer circuits"; for the final norm,
    nostalgebraist (2020), "interpreting GPT: the logit lens".

    Example:
        >>> import timm, vitlens as vl
        >>> timm_model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> model = vl.HookedViT(timm_model)
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = vl.run(model, images, [LogitAttribution()], progress=False)
        >>> data["component"].values[:6].tolist()
        ['embed', 'pos_embed', 'L0H0', 'L0H1', 'L0H2', '0_attn_bias']
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The outputs of embeddings, heads, attention and MLPs, and the final norm's scale."""
        needs_classes(model, self)
        try:
            tokens = torch.zeros(1, model.cfg.n_prefix_tokens + 1, model.cfg.d_model, device=model.device)
            model.family.pool_linear(model.model, tokens)
            model.family.head(model.model)
            if hasattr(model, "ln_final"):
                norm_of(model, "ln_final")
        except HookError as error:
            raise AnalysisError(
                f"LogitAttribution cannot run on this model. {error.given}",
                expected=error.expected,
                remedy="Leave it out for this architecture.",
            ) from error
        read = _reading(model)
        wanted: dict[str, Reduction] = dict.fromkeys(
            [*_embeddings(model), *_outputs(model), *_heads(model)], read
        )
        if hasattr(model, "ln_final"):
            wanted["ln_final.hook_scale"] = None if model.norm_after_pool else read
        return wanted

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        parts = dict(_parts(model, cache, _direction(cache, batch.labels)))
        parts["constant"] = cache.logit_constant(batch.labels)
        attributes = {"units": "logit", "long_name": "Direct attribution of the correct class's logit"}
        return table(
            {"attribution": (("component",), torch.stack([*parts.values()], dim=1), attributes)},
            component=list(parts),
        )


def _direction(cache: ActivationCache, labels: Tensor) -> Float[Tensor, "batch pos d_model"]:
    """The gradient of the correct class's logit at the last residual stream, its norm's scale held."""
    stream = cache["mlp_out", 0]
    with torch.enable_grad():
        probe = torch.zeros_like(stream).requires_grad_()
        score = cache.logit_attrs(probe.unsqueeze(0), labels).sum()
    (direction,) = torch.autograd.grad(score, probe)
    return direction


def _parts(model: HookedViT, cache: ActivationCache, direction: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each component's label and share [batch], in the order of the sum."""

    def share(name: str) -> Tensor:
        return gradient_times_activation(cache[name], direction).sum(1)

    for name in _embeddings(model):
        yield name.removeprefix("hook_"), share(name)
    for layer in range(model.cfg.n_layers):
        attended = share(f"blocks.{layer}.hook_attn_out")
        heads = _heads_hook(model, layer)
        if heads is None:
            yield f"{layer}_attn_out", attended
        else:
            by_head = _by_head(model, layer, cache[heads], direction)
            yield from ((f"L{layer}H{head}", value) for head, value in enumerate(by_head.unbind(1)))
            yield f"{layer}_attn_bias", attended - by_head.sum(1)
        yield f"{layer}_mlp_out", share(f"blocks.{layer}.hook_mlp_out")


def _by_head(model: HookedViT, layer: int, heads: Tensor, direction: Tensor) -> Float[Tensor, "batch head"]:
    """From `hook_z` by the output weights, or from `hook_result` as it is."""
    if (_heads_hook(model, layer) or "").endswith("hook_result"):
        return gradient_times_activation(heads, direction.unsqueeze(2).expand_as(heads)).sum(1)
    attention: Any = model.blocks[layer].attn
    gain = attention.gain()
    return head_attribution(heads, attention.W_O if gain is None else attention.W_O * gain, direction)


def _reading(model: HookedViT) -> Reduction:
    """What the head needs of [batch pos ...]; what is left can be pooled like the whole."""
    n_prefix = model.cfg.n_prefix_tokens
    if model.cfg.pool == "token":
        # Cloned: a view would keep all tokens alive.
        return lambda tokens: tokens[:, :n_prefix].clone()
    if not model.norm_after_pool:
        return None

    def pooled(tokens: Tensor) -> Tensor:
        flat = model.family.pool_linear(model.model, tokens.flatten(2))
        # Tokens that are all the pooled one pool to it; as views of it they take no memory.
        shape = tokens.shape[2:]
        same: Tensor = flat.unflatten(-1, shape).unsqueeze(1).expand(-1, n_prefix + 1, *shape)
        return same

    return pooled


def _embeddings(model: HookedViT) -> list[str]:
    if "hook_embed_norm" in model.hook_dict:
        return ["hook_embed_norm"]
    return [name for name in ("hook_embed", "hook_pos_embed") if name in model.hook_dict]


def _outputs(model: HookedViT) -> list[str]:
    return [
        f"blocks.{layer}.hook_{part}"
        for layer in range(model.cfg.n_layers)
        for part in ("attn_out", "mlp_out")
    ]


def _heads(model: HookedViT) -> list[str]:
    names = (_heads_hook(model, layer) for layer in range(model.cfg.n_layers))
    return [name for name in names if name is not None]


def _heads_hook(model: HookedViT, layer: int) -> str | None:
    """Where a block's heads can be told apart: `hook_z`, or `hook_result` behind a gate; None if nowhere."""
    attention: Any = model.blocks[layer].attn
    prefix = f"blocks.{layer}.attn"
    if f"{prefix}.hook_result" not in model.hook_dict:
        return None
    is_plain = hasattr(attention, "gain") and getattr(attention.native, "gate", None) is None
    return f"{prefix}.hook_z" if is_plain else f"{prefix}.hook_result"
