"""Loading a state dict into a module, or saying what does not fit and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ..errors import CheckpointError
from ..names import some
from .architecture import likely_architectures
from .checkpoint_files import damaged


def fit(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict, or say what does not fit.

    Args:
        module: whose tensors are replaced.
        state: name -> tensor.
        path: the file that it is from, for the words.

    Raises:
        CheckpointError: names or shapes differ, or a tensor cannot be copied.

    Example:
        >>> fit(nn.Linear(2, 1), nn.Linear(2, 1).state_dict(), Path("weights.pth"))
    """
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    surplus = sorted(state.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape)
    complaints = [
        *some("missing", missing),
        *some("not in the architecture", surplus),
        *some(
            "of another shape",
            [f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}" for name in other],
        ),
    ]
    if complaints:
        raise CheckpointError(
            f"The weights in {path} do not fit {type(module).__name__}: {'; '.join(complaints)}.",
            expected=f"its {len(wanted)} tensors, by name and shape",
            remedy=_remedy(module, state, other, names_fit=not (missing or surplus)),
        )
    try:
        module.load_state_dict(state)
    except Exception as error:  # sparse, complex or without values
        raise damaged(path, error) from error


def _remedy(module: nn.Module, state: Mapping[str, Tensor], other: Sequence[str], names_fit: bool) -> str:
    """What to do about weights that do not fit.

    Args:
        module: what they were to fit.
        state: the weights.
        other: the names whose shapes differ.
        names_fit: whether both have the same names.
    """
    head = [name for name in other if name.startswith("head")]
    arguments = [f"num_classes={state[head[0]].shape[0]}"] if head and state[head[0]].ndim else []
    image_size = _image_size(module, state) if "pos_embed" in other else None
    if image_size is not None:
        arguments.insert(0, f"img_size={image_size}")
    if names_fit and arguments and not set(other) - {*head, "pos_embed"}:
        what = " and ".join(
            [f"its images are of {image_size}×{image_size} pixels"] * (image_size is not None)
            + [f"its head has {state[name].shape[0]} classes" for name in head[:1]]
        )
        return f"{what[0].upper()}{what[1:]}: pass {', '.join(arguments)}."
    if any(".encoder.layer." in f".{name}" for name in state):
        return "These are Hugging Face's names: use HookedViT.from_huggingface on the model's folder."
    prefixed = _prefix(module, state)
    if prefixed:
        return f"All but the prefix '{prefixed}' fits: save the state dict anew without it in front of names."
    likely = likely_architectures(state)
    if getattr(module, "pretrained_cfg", {}).get("architecture") in likely:
        return "Pass what the model was built with besides its name, such as img_size, depth or num_classes."
    if len(likely) > 1:
        norms = " or ".join(f"'{name}' (mean {', '.join(map(str, mean))})" for name, mean in likely.items())
        return f"Its weights look like those of {norms}: take the one whose images it was trained on."
    return next(
        (f"Its weights look like those of '{name}'." for name in likely),
        "Name the architecture that the weights belong to.",
    )


def _image_size(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The size of image that positional embeddings are for; None where they make no square."""
    patches, here = getattr(module, "patch_embed", None), getattr(module, "pos_embed", None)
    there = state["pos_embed"]
    if patches is None or here is None or there.ndim != 3 or there.shape[2:] != here.shape[2:]:
        return None
    n_patches = there.shape[1] - (here.shape[1] - patches.num_patches)
    side = math.isqrt(max(0, n_patches))
    return side * patches.patch_size[0] if side and side**2 == n_patches else None


def _prefix(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What stands in front of every name of the module's in `state`; empty where nothing does."""
    wanted = module.state_dict()
    last = next(reversed(wanted))
    found = next((name.removesuffix(last) for name in state if name.endswith(f".{last}")), "")
    return found if all(f"{found}{name}" in state for name in wanted) else ""
