"""How to build a module again: described from the live module, proven before it is written down.

A description is JSON: `{"kind": "timm", "name": ..., "kwargs": {...}}` for what `timm.create_model` builds,
`{"kind": "class", "name": ..., "kwargs": {...}}` for a class that was called directly, and
`{"kind": "huggingface", ...}` for a module of the shape of a Hugging Face model.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..errors import ArchitectureError, VitlensError
from .building import build_timm
from .config import ViTConfig
from .families import find_family

Description = dict[str, Any]

# Classes that a description may name: a file can never make vitlens call anything else.
_CLASSES: dict[str, type[nn.Module]] = {
    "VisionTransformer": VisionTransformer,
    "VisionTransformerDistilled": VisionTransformerDistilled,
}


_NEVER = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
"""Arguments of timm's that fetch or read files, which what a file says never may."""

_LARGEST = 2**20
"""No number of a description is larger; one that is would ask for memory before anything is compared."""

_DEPTHS = {"depth", "num_hidden_layers"}


def describe(model: nn.Module) -> Description:
    """Describe how to build a module like `model`, weights aside.

    Args:
        model: a live timm module.

    Returns:
        A description from which `build` makes a module with the same submodules and the same names and
        shapes of weights; this has been tried.

    Raises:
        ArchitectureError: no description gives such a module.

    Example:
        >>> import timm
        >>> describe(timm.create_model("deit_tiny_patch16_224", num_classes=10))
        {'kind': 'timm', 'name': 'deit_tiny_patch16_224', 'kwargs': {'num_classes': 10}}
    """
    for candidate in (_from_timm, _from_class):
        description = candidate(model)
        if description is not None and _builds(description, model):
            return description
    raise ArchitectureError(
        f"It cannot be told how this {type(model).__name__} was built.",
        expected="a module from timm.create_model, or a plain VisionTransformer",
        remedy="Pass architecture= and its keyword arguments to vitlens.save.",
    )


def build(description: Description, data_config: dict[str, Any] | None = None) -> nn.Module:
    """Build the module that `description` describes, with fresh weights.

    Args:
        description: what `describe` gave.
        data_config: normalisation and preprocessing to note on the module's `pretrained_cfg`.

    Returns:
        The module.

    Raises:
        ArchitectureError: the description is not one, or names what timm does not have.

    Example:
        >>> built = build({"kind": "timm", "name": "deit_tiny_patch16_224", "kwargs": {"num_classes": 10}})
        >>> built.num_classes
        10
    """
    try:
        kind, name, kwargs = description["kind"], description["name"], dict(description["kwargs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(
            f"{description!r} is no description of an architecture.",
            expected="kind, name and kwargs",
            remedy="Pass architecture= to vitlens.load.",
        ) from error
    if surplus := sorted(_NEVER & kwargs.keys()):
        raise ArchitectureError(
            f"The description of the architecture has the arguments {', '.join(surplus)}.",
            expected="what the shape of a module depends on: nothing that reads or fetches further files",
            remedy="Pass architecture= to vitlens.load.",
        )
    try:
        return _built(kind, name, kwargs, data_config)
    except VitlensError:
        raise
    except Exception as error:  # timm raises whatever another argument leads to
        reason = str(error).strip().splitlines()
        raise ArchitectureError(
            f"The described architecture '{name}' cannot be built ({type(error).__name__}: "
            f"{reason[0] if reason else 'no reason given'}).",
            expected="arguments that timm takes",
            remedy="Pass architecture= to vitlens.load.",
        ) from error


def built_for(
    description: Description, data_config: dict[str, Any] | None, state: Mapping[str, Tensor]
) -> nn.Module:
    """Build the module that `description` describes for weights that are there.

    A few words in a file can describe a module that no memory holds: it is built without memory first.

    Args:
        description: as for `build`.
        data_config: as for `build`.
        state: the weights; one of another size is found before the module is built in earnest.

    Raises:
        ArchitectureError: as for `build`, or the described module is much larger than the weights.
    """
    depth = _deepest(description)
    n_described = None
    if depth <= max(1, len(state)):
        # Not every module can be built so, and the few that cannot are tried in earnest.
        with contextlib.suppress(ArchitectureError), torch.device("meta"):
            module = build(description, data_config)
            n_described = sum(each.numel() for each in module.state_dict().values())
    n_there = sum(each.numel() for each in state.values())
    if depth > max(1, len(state)) or (n_described is not None and n_described > 16 * n_there + 2**20):
        raise ArchitectureError(
            f"The description is of a module of {n_described or 'far too many'} weights, and {n_there} are "
            "there.",
            expected="the architecture that the weights belong to",
            remedy="Pass architecture= to vitlens.load.",
        )
    return build(description, data_config)


def _deepest(value: Any) -> int:
    """The largest number of blocks that a description asks for."""
    if isinstance(value, int) and value > _LARGEST:
        return value
    if not isinstance(value, Mapping):
        return 0
    here = [each for name, each in value.items() if name in _DEPTHS and isinstance(each, int)]
    return max([0, *here, *map(_deepest, value.values())])


def _built(kind: str, name: str, kwargs: dict[str, Any], data_config: Mapping[str, Any] | None) -> nn.Module:
    # A colon says where to fetch from: "hf-hub:somebody/something", "local-dir:/somewhere".
    if kind == "timm" and ":" not in name:
        overlay = {
            key: data_config[key]
            for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")
            if data_config and key in data_config
        }
        return build_timm(name, pretrained_cfg_overlay=overlay or None, **kwargs)
    if kind == "class" and name in _CLASSES:
        return _CLASSES[name](**kwargs)
    if kind == "huggingface":
        from .huggingface import timm_module  # upward in this folder, and wanted by few

        return timm_module(**kwargs)
    raise ArchitectureError(
        f"The architecture is described as {kind} '{name}'.",
        expected=f"a timm name, or a class among {', '.join(_CLASSES)}",
        remedy="Pass architecture= to vitlens.load.",
    )


def _from_timm(model: nn.Module) -> Description | None:
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if not name or not timm.is_model(name):
        return None
    # timm notes what create_model was called with; older releases do not, and the classes are what varies.
    kwargs = dict(getattr(model, "_model_args", {"num_classes": getattr(model, "num_classes", 1000)}))
    return {"kind": "timm", "name": name, "kwargs": kwargs}


def _from_class(model: nn.Module) -> Description | None:
    name = type(model).__name__
    if _CLASSES.get(name) is not type(model) or not isinstance(model, VisionTransformer):
        return None
    vit: Any = model  # its attributes are untyped
    block, embed = vit.blocks[0], vit.patch_embed
    attention, mlp = block.attn, block.mlp
    if not isinstance(embed.proj, nn.Conv2d):
        return None
    kwargs: dict[str, Any] = {
        "img_size": list(embed.img_size) if embed.img_size is not None else None,
        "patch_size": list(embed.patch_size),
        "in_chans": embed.proj.in_channels,
        "num_classes": vit.num_classes,
        "global_pool": vit.global_pool,
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": attention.num_heads,
        "mlp_ratio": mlp.fc1.out_features / vit.embed_dim,
        "qkv_bias": attention.qkv.bias is not None,
        "qk_norm": not isinstance(attention.q_norm, nn.Identity),
        "proj_bias": attention.proj.bias is not None,
        "init_values": getattr(block.ls1, "init_values", None),
        "class_token": vit.cls_token is not None,
        "pos_embed": "none" if vit.pos_embed is None else "learn",
        "no_embed_class": vit.no_embed_class,
        "reg_tokens": vit.num_reg_tokens,
        "pre_norm": not isinstance(vit.norm_pre, nn.Identity),
        "final_norm": not (isinstance(vit.norm, nn.Identity) and isinstance(vit.fc_norm, nn.Identity)),
        "fc_norm": not isinstance(vit.fc_norm, nn.Identity),
        "dynamic_img_size": vit.dynamic_img_size,
        "drop_rate": vit.head_drop.p,
        "pos_drop_rate": vit.pos_drop.p,
        "proj_drop_rate": attention.proj_drop.p,
        "attn_drop_rate": attention.attn_drop.p,
        "drop_path_rate": getattr(vit.blocks[-1].drop_path1, "drop_prob", 0.0),
    }
    if isinstance(model, VisionTransformerDistilled):
        kwargs = {key: value for key, value in kwargs.items() if key not in ("class_token", "reg_tokens")}
    return {"kind": "class", "name": name, "kwargs": kwargs}


def _builds(description: Description, model: nn.Module) -> bool:
    """Whether the description survives JSON and gives a module with the same parts and weights."""
    try:
        copied: Description = json.loads(json.dumps(description))
        with torch.device("meta"):
            built = build(copied)
    except (TypeError, ValueError, AssertionError, RuntimeError):
        return False
    return _parts(built) == _parts(model)


def _parts(model: nn.Module) -> tuple[str, ViTConfig, dict[str, tuple[int, ...]]]:
    # A module's repr names every submodule with its class and settings: dropout rates, epsilons, strides;
    # heads and pooling it leaves out, and the family's configuration has them.
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return repr(model), find_family(model).config(model), shapes


_SIZES = {192: "tiny", 384: "small", 512: "medium", 768: "base", 1024: "large", 1280: "huge"}
_N_TRIED = 60


def likely_architectures(state: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """The timm architectures that a state dict's names and shapes fit best, its head aside.

    Shapes do not tell how a model's images are normalized, so there is one for each way.

    Args:
        state: a state dict with timm's names.

    Returns:
        Names for which at least nine tenths of the tensors fit, all equally well -> the mean that timm
        normalizes its images with. Empty where there is none.

    Example:
        >>> likely_architectures(timm.create_model("deit3_small_patch16_224").state_dict())
        {'deit3_small_patch16_224': (0.485, 0.456, 0.406)}
    """
    patches = state.get("patch_embed.proj.weight")
    if patches is None or patches.ndim != 4:
        return {}
    size = _SIZES.get(patches.shape[0], "")
    # Building each candidate takes a tenth of a second: names that only one module uses save most of them.
    if any("relative_position" in name for name in state):
        modules: tuple[str, ...] = ("beit",)
    elif any(name.endswith((".gamma_1", ".q_bias", ".q_proj.weight")) for name in state):
        modules = ("eva",)
    else:
        modules = ("vision_transformer", "deit", "eva")
    names = [name for module in modules for name in timm.list_models(module=module)]
    fitting = [name for name in names if f"patch{patches.shape[-1]}" in name and size in name]
    wanted = {(name, tuple(tensor.shape)) for name, tensor in state.items() if not name.startswith("head")}
    best: dict[str, tuple[float, ...]] = {}
    best_share = 0.9
    for name in fitting[:_N_TRIED]:
        try:
            with torch.device("meta"):
                built = timm.create_model(name).state_dict()
        except (RuntimeError, AssertionError, TypeError, ValueError):  # not every model can be built so
            continue
        found = {(key, tuple(tensor.shape)) for key, tensor in built.items() if not key.startswith("head")}
        share = len(wanted & found) / len(wanted | found)
        cfg = timm.get_pretrained_cfg(name)
        mean = tuple(cfg.mean) if cfg is not None else ()
        if share > best_share:
            best, best_share = {name: mean}, share
        elif best and share == best_share and mean not in best.values():
            best[name] = mean
    return best
