"""What a run starts from: a copy of the model, with the head and the drop path asked for, and its data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sized
from typing import Any

import torch
from timm.layers import DropPath
from torch import nn
from torch.utils.data import IterableDataset, Subset

from ..errors import ArchitectureError, TrainingError
from ..images import check
from ..images.streams import stream
from ..models import HookedViT, build, describe
from .config import FinetuneConfig

_HEAD_STD = 0.02  # timm's, for the heads of Vision Transformers


def starting_model(model: HookedViT, config: FinetuneConfig, *, to_save: bool = False) -> HookedViT:
    """A copy of `model` to train: with a new head and another drop path rate where the recipe says so.

    A new head's weights are drawn from a normal distribution of standard deviation 0.02, cut at two of
    them, from the seed; its biases are 0.

    Args:
        model: where to start; it is left as it is.
        config: the recipe.
        to_save: whether the result shall be written to a file.

    Raises:
        ArchitectureError: it could not be built again from its file.
        TrainingError: the model has no place for drop path.

    Example:
        >>> import timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> starting_model(model, FinetuneConfig(p_clean=1, new_head=3)).cfg.n_classes, model.cfg.n_classes
        (3, 10)
    """
    module = copy.deepcopy(model.model)
    # Said of the model as it is: drop path, which only training has, is no part of what it is.
    description = model.description or _described(model, to_save or config.new_head is not None)
    if config.new_head is not None:
        description = _reset_head(module, description, config.new_head, config.seed)
    if config.drop_path_rate is not None:
        _set_drop_path(module, model.cfg.n_layers, config.drop_path_rate)
    tuned = HookedViT(module, data_config=model.data_config, provenance=dict(model.provenance))
    tuned.description = description
    return tuned


def check_data(dataset: Any, model: HookedViT, config: FinetuneConfig, name: str = "data set") -> int:
    """Refuse, before the run, data that do not fit the model; their number of images.

    Raises:
        TrainingError: the data have no length, or another number of classes than the model.
        LabelError: a label is none of the classes.
        DatasetError: an image id comes twice.
    """
    by_index = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not by_index or isinstance(dataset, IterableDataset) or len(dataset) == 0:
        raise TrainingError(
            f"The {name} is a {type(dataset).__name__} without items by index.",
            expected="a sequence or a map-style torch Dataset with at least one item",
            remedy="Put the items into a list, or give the Dataset __len__ and __getitem__.",
        )
    n_classes = config.new_head or model.cfg.n_classes
    there = _n_classes(dataset)
    if config.new_head is None and (not n_classes or there not in (None, n_classes)):
        has = f"{n_classes:,} classes" if n_classes else "no classifier"
        raise TrainingError(
            f"The {name} has {there if there is not None else 'labels, but an unknown number of'} classes, "
            f"the model has {has}.",
            expected="a model whose classifier has the classes of the data",
            remedy="Give the indices of the model's classes as labels; or, to train a new head in the place "
            f"of its own, say FinetuneConfig(new_head={there or 'the number of classes'}).",
        )
    check(dataset, n_classes)
    return len(dataset)


def _n_classes(dataset: Any) -> int | None:
    """How many classes the data are of, where they say so."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    for name in ("class_names", "classes"):  # a folder's `classes` are only those that it has images of
        said = getattr(dataset, name, None)
        if isinstance(said, Sized) and not isinstance(said, str):
            return len(said)
    return None


def _described(model: HookedViT, is_needed: bool) -> dict[str, Any] | None:
    try:
        return describe(model.model)
    except ArchitectureError as error:
        if not is_needed:
            return None
        raise ArchitectureError(
            error.given,
            expected=error.expected,
            remedy="Say how in model.description, as vitlens.load does: the result of a run has to be built "
            "again from its file.",
        ) from error


def _reset_head(
    module: nn.Module, description: Mapping[str, Any] | None, n_classes: int, seed: int
) -> dict[str, Any]:
    """Give the module a new head; its new description."""
    vit: Any = module
    with torch.random.fork_rng(devices=[]):  # timm draws its own start, which is not kept
        vit.reset_classifier(n_classes)
    heads = vit.get_classifier()
    generator = stream(seed, "head", "start", 0)
    for head in heads if isinstance(heads, tuple | list) else (heads,):
        for linear in (each for each in head.modules() if isinstance(each, nn.Linear)):
            drawn = torch.empty(linear.weight.shape)
            nn.init.trunc_normal_(
                drawn, std=_HEAD_STD, a=-2 * _HEAD_STD, b=2 * _HEAD_STD, generator=generator
            )
            with torch.no_grad():
                linear.weight.copy_(drawn)
                if linear.bias is not None:
                    linear.bias.zero_()
    assert description is not None
    changed = _with_classes(description, n_classes)
    with torch.device("meta"):
        built = build(changed)
    shapes = [{name: each.shape for name, each in m.state_dict().items()} for m in (built, module)]
    if shapes[0] != shapes[1]:
        raise ArchitectureError(
            f"It cannot be told how this {type(module).__name__} would be built with {n_classes} classes.",
            expected="a module from timm.create_model, or a plain VisionTransformer",
            remedy="Give the model its new head before the run: timm.create_model(..., num_classes=...).",
        )
    return changed


def _with_classes(description: Mapping[str, Any], n_classes: int) -> dict[str, Any]:
    kwargs = dict(description["kwargs"])
    if description["kind"] == "huggingface":
        kwargs["settings"] = {**kwargs["settings"], "n_classes": n_classes}
    else:
        kwargs["num_classes"] = n_classes
    return {**description, "kwargs": kwargs}


def _set_drop_path(module: nn.Module, n_layers: int, rate: float) -> None:
    places = 0
    for layer, block in enumerate(module.get_submodule("blocks").children()):
        block_rate = rate * layer / max(1, n_layers - 1)
        for parent in list(block.modules()):
            for name, _ in list(parent.named_children()):
                if name.startswith("drop_path"):
                    places += 1
                    setattr(parent, name, DropPath(block_rate) if block_rate > 0 else nn.Identity())
    if not places:
        raise TrainingError(
            f"drop_path_rate is {rate}, and this {type(module).__name__} has no place for it.",
            expected="a model whose blocks have drop path",
            remedy="Leave drop_path_rate out.",
        )
