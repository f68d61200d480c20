"""Carrying a timm module's weights back into Hugging Face's names and shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArchitectureError
from ..hooked_vit import HookedViT
from .fit import check_fit, table_of
from .model_types import get_class
from .relations import move
from .source import import_transformers, recognize


def to_huggingface_state_dict(
    model: HookedViT | nn.Module, like: Any, *, hf_class: str | None = None
) -> dict[str, Tensor]:
    """Carry a timm module's weights back: the state dict of a Hugging Face module of the same shape.

    Args:
        model: a module that `to_timm` made, fine-tuned since or not, bare or wrapped.
        like: the live Hugging Face module that shall take the weights, or its configuration. What timm's
            module has no use for, such as mask tokens, is taken from the live module; with a configuration
            a mask token is zero.
        hf_class: with a configuration that does not say it, Hugging Face's class.

    Returns:
        Every tensor of the module, by its names; `load_state_dict` takes it strictly. The tensors are copies.

    Raises:
        FamilyError: `like` is of a class that cannot be carried.
        ArchitectureError: the configuration does not say its class.
        CheckpointError: the weights do not fit, or Hugging Face's module has no place for one that is not 0.

    Example:
        >>> from vitlens.models.huggingface import to_timm
        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32)
        >>> live = ViTForImageClassification(config)
        >>> carried = to_timm(live)
        >>> live.load_state_dict(to_huggingface_state_dict(carried.module, live))
        <All keys matched successfully>
    """
    module = model.model if isinstance(model, HookedViT) else model
    target = like if isinstance(like, nn.Module) else _on_meta(like, hf_class)
    hf_class, model_type = recognize(target)
    expected = target.state_dict()
    spelled = model_type.spell(list(expected))
    wanted = {spelled[name]: tuple(tensor.shape) for name, tensor in expected.items()}
    state = model_type.after_timm({name: tensor.detach() for name, tensor in module.state_dict().items()})
    pairs = [(relation.timm, relation.hf) for relation in table_of(model_type, module)]
    outcome = move(pairs, state, wanted)
    for name, tensor in expected.items():
        current = spelled[name]
        found = current in outcome.moved and current not in outcome.filled
        if not found and model_type.is_unused(current):
            if not tensor.is_meta:
                outcome.moved[current] = tensor.detach().clone()
            elif "mask_token" in name or not tensor.numel():
                outcome.moved[current] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    surplus = sorted(state.keys() - outcome.used)
    check_fit(outcome, wanted, surplus, f"{type(module).__name__}'s weights", f"Hugging Face's {hf_class}")
    return {name: outcome.moved[spelled[name]] for name in expected}


def _on_meta(config: Any, hf_class: str | None) -> nn.Module:
    """A Hugging Face module of a configuration, without weights: it says its names and shapes itself."""
    hf_class = hf_class or next(iter(getattr(config, "architectures", None) or ()), None)
    if hf_class is None:
        raise ArchitectureError(
            f"This {type(config).__name__} does not say its class.",
            expected="a live Hugging Face module, a configuration with architectures, or hf_class=",
            remedy='Pass the class: hf_class="ViTForImageClassification".',
        )
    get_class(hf_class)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        module: nn.Module = getattr(import_transformers(), hf_class)(config)
    return module
