"""Two checkpoints in weight space: how far apart they lie, and what lies on the line between them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from timm.layers import DropPath
from torch import Tensor, nn

from ..errors import AnalysisError, ArchitectureError, HookError
from ..images import ImageDataset
from ..models import HookedViT
from ..models.opened.norm import OpenedNorm, open_norm
from ..names import some
from ..running import run
from ..running.analysis import AnyAnalysis
from ..running.checkpoints import as_models
from .prediction import Prediction

_MATRICES = ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_gate", "W_out")
_BIASES = ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out")
_PARTS = ("embedding", "blocks", "norm", "head", "all")
_SILENT = (nn.Identity, nn.Dropout, DropPath)


def weight_distance(reference: HookedViT, model: HookedViT) -> xr.Dataset:
    """Relative Frobenius distance of a checkpoint's weights from the reference's: ‖W - W₀‖ / ‖W₀‖.

    Args:
        reference: the checkpoint whose weights are W₀.
        model: a checkpoint of the same architecture.

    Returns:
        `weight_distance` (layer, matrix), by block and kind of matrix or bias, those that every block has,
        with TransformerLens's names, heads together; and `weight_distance_of_part` (part), which sorts every
        parameter into one of `embedding` (whatever comes before the blocks), `blocks` (matrices, biases,
        LayerScale), `norm` (all norms, inside blocks and out) and `head` (whatever comes after the blocks),
        with `all` parameters together. A part that the model has not is left out. Where the reference is zero
        there is no relative distance: NaN, or infinite where the checkpoint is not.

    Raises:
        ArchitectureError: the two have not the same parameters, by name and shape.

    Example:
        >>> import timm, vitlens as vl
        >>> vit = {"img_size": 32, "depth": 2, "num_classes": 10}
        >>> base, tuned = (vl.HookedViT(timm.create_model("vit_tiny_patch16_224", **vit)) for _ in range(2))
        >>> distance = weight_distance(base, tuned)
        >>> distance["weight_distance"].sel(matrix=["W_Q", "W_out"]).shape
        (2, 2)
        >>> float(weight_distance(base, base)["weight_distance_of_part"].sel(part="all"))
        0.0
    """
    as_models({"reference": reference, "model": model})
    _check_same_parameters(reference, model, "parameters", "named_parameters")
    matrices = {}
    for name in (*_MATRICES, *_BIASES):
        try:
            pair = reference.stacked(name).detach(), model.stacked(name).detach()
        except HookError:  # no such matrix in every block
            continue
        matrices[name] = [_relative([(old, new)]) for old, new in zip(*pair, strict=True)]
    theirs = dict(model.model.named_parameters())
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {part: [] for part in _PARTS}
    for name, part in _parts(reference).items():
        pair = reference.model.get_parameter(name).detach(), theirs[name].detach()
        pairs[part].append(pair)
        pairs["all"].append(pair)
    parts = {part: _relative(each) for part, each in pairs.items() if each}
    note = {"units": "reference norms", "long_name": "Distance of the weights from the reference's"}
    return xr.Dataset(
        {
            "weight_distance": (("layer", "matrix"), np.array(list(matrices.values())).T, note),
            "weight_distance_of_part": ("part", np.array(list(parts.values())), note),
        },
        coords={"layer": range(reference.cfg.n_layers), "matrix": list(matrices), "part": list(parts)},
    )


def interpolate(
    base: HookedViT,
    tuned: HookedViT,
    dataset: ImageDataset,
    *,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    analyses: Sequence[AnyAnalysis] = (Prediction(),),
    **kwargs: Any,
) -> xr.Dataset:
    """Measure the models on the straight line between two checkpoints: (1 - alpha) base + alpha tuned.

    Where the accuracy stays up all along, the two lie in one basin: fine-tuning moved the model without
    leaving it. All models see each image once, together, under the same corruption; at 0 and 1 they are the
    checkpoints themselves, and every other one takes the memory of a checkpoint. Analyses that need a
    reference have the first alpha's model.

    Args:
        base: the model at alpha 0; left as it was.
        tuned: the model at alpha 1, of the same architecture; left as it was.
        dataset: items as in `run`.
        alphas: where on the line; values outside [0, 1] go beyond a checkpoint.
        analyses: what to measure.
        **kwargs: handed to `run`: `conditions`, `batch_size`, `seed`, `progress`, ...

    Returns:
        What `run` gives, a row an image, with the dim `alpha` in place of `checkpoint`.

    Raises:
        ArchitectureError: the two differ in architecture, in a buffer of whole numbers, or in normalization.
        AnalysisError: an alpha is not a finite number, or is given twice.

    Source: Wortsman et al. (2022), "Robust fine-tuning of zero-shot models"; Frankle et al. (2020), "Linear
    mode connectivity and the lottery ticket hypothesis".

    Example:
        >>> import timm, vitlens as vl
        >>> vit = {"img_size": 32, "depth": 1, "num_classes": 10}
        >>> base, tuned = (vl.HookedViT(timm.create_model("vit_tiny_patch16_224", **vit)) for _ in range(2))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = interpolate(base, tuned, images, alphas=(0, 0.5, 1), progress=False)
        >>> data["rank"].dims, data["alpha"].values
        (('alpha', 'condition', 'image'), array([0. , 0.5, 1. ]))
    """
    if not all(isinstance(alpha, int | float) for alpha in alphas):
        raise AnalysisError(
            f"alphas is {alphas!r}.",
            expected="a list of numbers",
            remedy="Pass alphas=(0, 0.25, 0.5, 0.75, 1), say.",
        )
    points = [float(alpha) for alpha in alphas]
    if not points or not all(map(math.isfinite, points)) or len(set(points)) < len(points):
        raise AnalysisError(
            f"alphas is {tuple(alphas)}.",
            expected="finite numbers, each once",
            remedy="Pass alphas=(0, 0.25, 0.5, 0.75, 1), say.",
        )
    _check_line(base, tuned)
    models = {str(alpha): _between(base, tuned, alpha) for alpha in points}
    data = run(models, dataset, analyses, **kwargs)
    return data.rename(checkpoint="alpha").assign_coords(alpha=points)


def _between(base: HookedViT, tuned: HookedViT, alpha: float) -> HookedViT:
    if alpha in (0.0, 1.0):
        return tuned if alpha else base
    module = copy.deepcopy(base.model)
    theirs = dict(_tensors(tuned.model))
    with torch.no_grad():
        for name, tensor in _tensors(module):
            if tensor.is_floating_point():
                tensor.copy_(_lerp(tensor, theirs[name].to(tensor.device), alpha))
    return HookedViT(module, data_config=base.data_config)


def _lerp(ours: Tensor, theirs: Tensor, alpha: float) -> Tensor:
    precision = torch.promote_types(ours.dtype, torch.float32)
    ours, theirs = ours.to(precision), theirs.to(precision)
    # What both have is kept as it is, infinite entries of masks included.
    return torch.where(ours == theirs, ours, torch.lerp(ours, theirs, alpha))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


# ---------------------------------------------------------------------- what has to agree


def _check_line(base: HookedViT, tuned: HookedViT) -> None:
    """Refuse two models with no model between them."""
    _check_same_parameters(base, tuned, "parameters", "named_parameters")
    _check_same_parameters(base, tuned, "buffers", "named_buffers")
    complaints = [
        f"{name} {ours} and {theirs}" for name, (ours, theirs) in base.cfg.differences(tuned.cfg).items()
    ]
    layers = _layers(tuned)
    complaints += [
        f"{name} {ours} and {layers[name]}"
        for name, ours in _layers(base).items()
        if layers.get(name, ours) != ours
    ]
    complaints += [
        f"{name} {tuple(base.data_config[name])} and {tuple(tuned.data_config[name])}"
        for name in ("mean", "std")
        if tuple(base.data_config[name]) != tuple(tuned.data_config[name])
    ]
    buffers = dict(tuned.model.named_buffers())
    complaints += [
        f"buffer {name}"
        for name, buffer in base.model.named_buffers()
        if not buffer.is_floating_point() and not torch.equal(buffer.cpu(), buffers[name].cpu())
    ]
    if complaints:
        raise _different(some("differences", complaints))


def _layers(model: HookedViT) -> dict[str, str]:
    """The innermost modules with their settings, but for what does nothing in evaluation mode."""
    return {
        name: repr(module)
        for name, module in model.model.named_modules()
        if next(module.children(), None) is None and not isinstance(module, _SILENT)
    }


def _check_same_parameters(reference: HookedViT, model: HookedViT, what: str, method: str) -> None:
    ours, theirs = (
        {name: tuple(tensor.shape) for name, tensor in getattr(each.model, method)()}
        for each in (reference, model)
    )
    complaints = [
        *some("only in the first", sorted(ours.keys() - theirs.keys())),
        *some("only in the second", sorted(theirs.keys() - ours.keys())),
        *some(
            "of another shape",
            [
                f"{name} {ours[name]} and {theirs[name]}"
                for name in sorted(ours.keys() & theirs.keys())
                if ours[name] != theirs[name]
            ],
        ),
    ]
    if complaints:
        raise _different([f"of their {what}, {complaints[0]}", *complaints[1:]])


def _different(complaints: list[str]) -> ArchitectureError:
    return ArchitectureError(
        f"The models differ: {'; '.join(complaints)}.",
        expected="two checkpoints of one architecture and one normalization",
        remedy="Load both with the same architecture and arguments.",
    )


# ---------------------------------------------------------------------- distances


def _relative(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """‖W - W₀‖ / ‖W₀‖ of all pairs (W₀, W) as one vector."""
    moved = sum(float((new.cpu().double() - old.cpu().double()).square().sum()) for old, new in pairs)
    size = sum(float(old.cpu().double().square().sum()) for old, _ in pairs)
    if size == 0:
        return math.inf if moved else math.nan
    return math.sqrt(moved / size)


def _parts(model: HookedViT) -> dict[str, str]:
    """The part of each parameter, by name."""
    opened: Any = model.blocks
    blocks = {id(parameter) for block in opened for parameter in block.native.parameters()}
    norms = {
        id(parameter)
        for module in model.model.modules()
        if isinstance(open_norm(module), OpenedNorm)
        for parameter in module.parameters()
    }
    parts, part = {}, "embedding"
    # Modules are registered in the order in which they are run, a model's own parameters before them.
    for name, parameter in model.model.named_parameters():
        if id(parameter) in blocks:
            part = "head"
        inside = "blocks" if id(parameter) in blocks else part
        parts[name] = "norm" if id(parameter) in norms else inside
    return parts
