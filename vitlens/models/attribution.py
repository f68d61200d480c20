"""Linear shares of a ViT's residual stream and logits: what heads, neurons and components contribute."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.utilities import Slice

from ..errors import HookError
from .opened.norm import apply_gain, fraction


def head_results(cache: Any, layer: int) -> Float[Tensor, "*batch pos head d_model"]:
    """What each head of a block adds, after LayerScale: cached, or computed from `hook_z`.

    Raises:
        HookError: there is no such sum, or it cannot be told from what is cached.
    """
    name = f"blocks.{layer}.attn.hook_result"
    if name in cache:
        cached: Tensor = cache[name]
        return cached
    attention = cache.model.blocks[layer].attn
    if name not in cache.model.hook_dict:
        raise HookError(
            f"What block {layer}'s attention adds is no sum over heads: a norm stands after them.",
            expected="a model whose heads are added up",
            remedy="Use hook_z, the heads before the norm.",
        )
    native = attention.native
    if not hasattr(attention, "gain") or getattr(native, "gate", None) is not None:
        raise HookError(
            f"The heads' results of block {layer} cannot be told from hook_z alone.",
            expected=f"'{name}' in the cache",
            remedy="Name it in names_filter of run_with_cache.",
        )
    z: Tensor = cache[f"blocks.{layer}.attn.hook_z"]
    # As one product a head: an axis of d_head beside d_model is never held.
    result = torch.stack([z[..., head, :] @ W for head, W in enumerate(attention.W_O)], dim=-2)
    gain = attention.gain()
    return result if gain is None else result * gain


def scaled_neurons(
    cache: Any, layer: int
) -> tuple[Float[Tensor, "*batch pos d_mlp"], Float[Tensor, "d_mlp d_model"]]:
    """A block's neurons, and what each writes to the residual stream, after LayerScale.

    Raises:
        HookError: a norm stands between the neurons and the residual stream.
    """
    block = cache.model.blocks[layer]
    if not hasattr(block, "neuron_weights") or block.neuron_weights() is None:
        raise HookError(
            f"What block {layer}'s MLP adds is no sum over neurons: a norm stands after them, "
            "or several MLPs share it.",
            expected="a plain MLP",
            remedy="Use hook_mlp_out, the sum after the norm.",
        )
    return cache[f"blocks.{layer}.mlp.hook_post"], block.neuron_weights()


def normalize_components(
    cache: Any,
    stack: Float[Tensor, "component *batch_pos d_model"],
    name: str,
    *,
    pos_slice: Any = None,
    batch_slice: Any = None,
    own_scale: bool = False,
) -> Float[Tensor, "component *batch_pos d_model"]:
    """Carry the linear part of the norm `name` to each component.

    Raises:
        HookError: the norm is unknown or comes after pooling, or its `hook_scale` is not cached.
    """
    norm = norm_of(cache.model, name)
    if name == "ln_final" and cache.model.norm_after_pool:
        raise HookError(
            "This model's final norm comes after pooling: it is no function of single tokens.",
            expected="a norm before pooling",
            remedy="Use logit_attrs, which pools first.",
        )
    numerator, scale = fraction(norm, stack)
    if not own_scale:
        scale = cache[f"{name}.hook_scale"]
        scale = Slice.unwrap(pos_slice).apply(scale, dim=-2)
        scale = Slice.unwrap(batch_slice).apply(scale, dim=0) if batch_slice is not None else scale
    return apply_gain(norm, (numerator / scale).to(stack.dtype), with_bias=False)


def linear_logits(
    cache: Any, stack: Float[Tensor, "component batch pos d_model"], *, batch_slice: Any = None
) -> Float[Tensor, "component batch n_classes"]:
    """Each component through the linear part of final norm, pooling and head.

    Raises:
        HookError: the pooling is no sum, or the final norm's scale is not cached.
    """
    model = cache.model
    after = model.norm_after_pool
    has_norm = hasattr(model, "ln_final")
    if has_norm and not after:
        stack = normalize_components(cache, stack, "ln_final", batch_slice=batch_slice)
    pooled = torch.stack([model.family.pool_linear(model.model, component) for component in stack])
    if has_norm and after:
        norm = norm_of(model, "ln_final")
        numerator, _ = fraction(norm, pooled)
        scale = cache["ln_final.hook_scale"]
        scale = Slice.unwrap(batch_slice).apply(scale, dim=0) if batch_slice is not None else scale
        pooled = apply_gain(norm, (numerator / scale).to(stack.dtype), with_bias=False)
    weight, _ = model.family.head(model.model)
    logits: Tensor = pooled.flatten(2) @ weight
    return logits


def logit_constant(model: Any) -> Float[Tensor, " n_classes"]:
    """What no component brings to the logits: the final norm's bias through the head, and the head's bias."""
    weight, bias = model.family.head(model.model)
    constant: Tensor = bias.clone()
    shift = getattr(norm_of(model, "ln_final"), "bias", None) if hasattr(model, "ln_final") else None
    if shift is not None:
        # A constant stays itself under the pooling of tokens or their mean; with two heads both get it.
        constant = constant + shift.repeat(weight.shape[0] // shift.shape[0]) @ weight
    return constant


def norm_of(model: Any, name: str) -> nn.Module:
    """The native norm that a hook name's prefix speaks of.

    Raises:
        HookError: the model has no such norm, or not one whose parts are known.
    """
    if f"{name}.hook_scale" not in model.hook_dict:
        raise HookError(
            f"This model has no norm '{name}' whose scale is known.",
            expected="a LayerNorm or RMS norm there",
            remedy="See model.hook_names for what the model has.",
        )
    opened = model
    for part in name.split("."):
        opened = getattr(opened, part)
    native: nn.Module = opened.native
    return native
