"""Checkpoints as a command names them: `FILE` or `NAME=FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import ArchitectureError, ComparisonError
from ..models import HookedViT, load
from .options import positive


def named(base: str, tuned: Sequence[str]) -> dict[str, Path]:
    """Name -> file of each checkpoint, the reference first.

    Without names of their own they are called `base` and `tuned`, `tuned_2`, ...

    Raises:
        ComparisonError: two have one name.

    Example:
        >>> {name: str(path) for name, path in named("a.pth", ["b.pth", "blur=c.pth"]).items()}
        {'base': 'a.pth', 'tuned': 'b.pth', 'blur': 'c.pth'}
    """
    usual = ["base", *("tuned" if place == 1 else f"tuned_{place}" for place in range(1, len(tuned) + 1))]
    return _by_name((base, *tuned), usual)


def named_as_typed(given: Sequence[str]) -> dict[str, Path]:
    """Name -> file of each checkpoint; without a name of its own it is called as its file is.

    Raises:
        ComparisonError: two have one name.

    Example:
        >>> {name: str(path) for name, path in named_as_typed(["run/a.pth", "blur=c.pth"]).items()}
        {'run/a.pth': 'run/a.pth', 'blur': 'c.pth'}
    """
    return _by_name(given, [str(_split(each)[1]) for each in given])


def _by_name(given: Sequence[str], usual: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for each, otherwise in zip(given, usual, strict=True):
        name, path = _split(each)
        if (name or otherwise) in found:
            raise ComparisonError(
                f"Two checkpoints are called '{name or otherwise}'.",
                expected="a name of its own for each",
                remedy="Write NAME=FILE.",
            )
        found[name or otherwise] = path
    return found


def _split(given: str) -> tuple[str, Path]:
    """Name and file; a file whose own name has an equals sign is one, where it is there."""
    if Path(given).exists():
        return "", Path(given)
    name, _, path = given.rpartition("=") if given.count("=") == 1 else given.partition("=")
    return ("", Path(given)) if not path else (name, Path(path))


def add_architecture(add: Callable[..., Any], whose: str = "bare state dicts") -> None:
    """The options that say what bare state dicts do not.

    Args:
        add: a parser's `add_argument`, or a group's.
        whose: of whom the help speaks.
    """
    add("--architecture", metavar="NAME", help=f"timm's name, for {whose}")
    add("--num-classes", type=positive, metavar="N", help=f"classes of {whose}, if not timm's default")
    add("--image-size", type=positive, metavar="PIXELS", help=f"of {whose}, if not timm's default")


def sizes_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """What timm is to build an architecture with, besides its name.

    Raises:
        ArchitectureError: something is given, and the architecture that it belongs to is not.
    """
    given = {"num_classes": chosen.num_classes, "img_size": chosen.image_size}
    for name, option in zip(given, ("--num-classes", "--image-size"), strict=True):
        if given[name] is not None and chosen.architecture is None:
            raise ArchitectureError(
                f"{option} is given without --architecture.",
                expected="it with the architecture of a bare state dict",
                remedy=f"Name timm's --architecture, or leave {option} out: a file of vitlens knows both.",
            )
    return {name: size for name, size in given.items() if size is not None}


def loaded(path: Path, architecture: str | None, sizes: Mapping[str, Any], device: torch.device) -> HookedViT:
    """A checkpoint; a file that says its own architecture needs none said.

    Raises:
        ArchitectureError, CheckpointError: as `vitlens.load`.
    """
    if architecture is None:
        return load(path, device=device)
    try:
        return load(path, device=device)
    except ArchitectureError:
        return load(path, architecture, device=device, **sizes)


def device(name: str | None) -> torch.device:
    """Where to compute: what was named, else a GPU where there is one.

    Raises:
        ComparisonError: there is no such device.
    """
    try:
        chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ComparisonError(
            f"--device is {name} ({str(error).splitlines()[0]}).",
            expected="a device that is there, such as cpu, cuda or cuda:1",
            remedy="Leave it out for a GPU where there is one, else the CPU.",
        ) from error
    return chosen
