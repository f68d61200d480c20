"""Carrying weights over to timm's module of the same shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .fit import check_fit, table_of
from .model_types import get_class
from .relations import move
from .source import open_source, recognize, settings_of


@dataclass(frozen=True)
class Carried:
    """A timm module with Hugging Face's weights.

    Args:
        module: timm's module; its parameters are its own.
        data_config: what is known of the preprocessing, as timm says it.
        provenance: where the weights come from; JSON-able.
        description: how to build the module again: the arguments of `timm_module`.
    """

    module: nn.Module
    data_config: dict[str, Any]
    provenance: dict[str, Any]
    description: dict[str, Any]


def to_timm(
    source: str | os.PathLike[str] | nn.Module, *, revision: str | None = None, **timm_kwargs: Any
) -> Carried:
    """Carry the weights of a Hugging Face vision transformer over to timm's module of the same shape.

    In evaluation mode the module computes what Hugging Face's does: the logits of a classifier, the
    embedding of `CLIPVisionModelWithProjection`, the pooled feature of the others. Of a `ViTModel` or
    `DeiTModel` that is the normed class token; their pooler, a linear layer and a tanh after it, has no place
    in timm. Neither have mask tokens. Dropout and stochastic depth belong to a training recipe and are not
    carried: pass timm's, such as `drop_path_rate`.

    Args:
        source: an id on the hub, a folder that `save_pretrained` wrote, or a live transformers module. Ids
            and folders are loaded by transformers, in float32 and evaluation mode; only an id is fetched. A
            live module keeps its precision, device and mode, and needs nothing to be installed.
        revision: of an id, the branch, tag or commit.
        **timm_kwargs: handed to timm's class, such as `dynamic_img_size`.

    Returns:
        The module, its preprocessing, its provenance, and how to build it again.

    Raises:
        FamilyError: the class cannot be carried.
        ArchitectureError: timm has no module that computes the same.
        CheckpointError: nothing to load, or the weights do not fit.
    """
    opened = open_source(source, revision)
    hf_class, model_type = recognize(opened.module)
    settings = settings_of(opened.module, hf_class)
    module = timm_module(hf_class, settings, **timm_kwargs)

    first = next(opened.module.parameters())
    module = module.to(device=first.device, dtype=first.dtype).train(opened.module.training)
    given = {name: tensor.detach() for name, tensor in opened.module.state_dict().items()}
    spelled = model_type.spell(list(given))
    state = model_type.before_timm({spelled[name]: tensor for name, tensor in given.items()})
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    pairs = [(relation.hf, relation.timm) for relation in table_of(model_type, module)]
    outcome = move(pairs, state, wanted)
    surplus = [
        name
        for name, current in spelled.items()
        if current not in outcome.used and not model_type.is_unused(current)
    ]
    check_fit(
        outcome, wanted, surplus, f"{hf_class}'s weights", f"timm's {type(module).__name__} of its shape"
    )
    module.load_state_dict(outcome.moved)

    unused = sorted(name for name, current in spelled.items() if current not in outcome.used)
    vit: Any = module
    return Carried(
        module=module,
        data_config={
            "input_size": (vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size),
            **opened.data_config,
        },
        provenance={
            "huggingface": opened.origin or hf_class,
            "class": hf_class,
            "revision": opened.revision,
            "unused": unused,
        },
        description={"hf_class": hf_class, "settings": dict(settings), **timm_kwargs},
    )


def timm_module(hf_class: str, settings: Mapping[str, Any], **timm_kwargs: Any) -> nn.Module:
    """Build timm's module of the shape of a Hugging Face model, with fresh weights.

    Args:
        hf_class: Hugging Face's class, such as `"ViTForImageClassification"`.
        settings: the plain values of its configuration, and `n_classes`.
        **timm_kwargs: handed to timm's class.

    Raises:
        FamilyError: the class cannot be carried.
        ArchitectureError: timm has no module that computes the same.
    """
    with torch.random.fork_rng(devices=[]):
        return get_class(hf_class).build(hf_class, settings, timm_kwargs)
