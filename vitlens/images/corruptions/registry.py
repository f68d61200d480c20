"""The registry of corruptions: those of vitlens, and one's own."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ...errors import ConditionError
from ...names import nearest
from .catalogue import IMAGENET_C, IMAGENET_C_EXTRA, OWN
from .groups import GROUP_NAMES
from .spec import Corruption

_BUILT_IN = {spec.name: spec for spec in (*IMAGENET_C, *IMAGENET_C_EXTRA, *OWN)}
_REGISTERED = dict(_BUILT_IN)

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(_REGISTERED)
"""Every corruption by its name; `register_corruption` adds to it."""

_RESERVED = frozenset({"clean", "fgsm", "pgd", "fourier", *GROUP_NAMES})
"""What a condition's string may begin with besides corruptions."""


def register_corruption(corruption: Corruption, *, replace: bool = False) -> None:
    """Make a corruption known by its name, in `corrupt` and in conditions.

    Register it in every process that is to use it.

    Args:
        corruption: the spec. What `frost(folder)` gives takes the place of the built-in one, which lacks its
            photographs.
        replace: whether it may take the place of another one of your own, or of other photographs.

    Raises:
        ConditionError: the name is taken.

    Example:
        >>> import torch
        >>> from vitlens.images import Corruption, corrupt
        >>> def darken(pixels, factor):
        ...     return pixels * factor
        >>> register_corruption(
        ...     Corruption("darken", ((0.9,), (0.8,), (0.7,), (0.6,), (0.5,)), ("factor",), "tone", darken),
        ...     replace=True,
        ... )
        >>> corrupt(torch.ones(1, 3, 8, 8), "darken", severity=5).unique()
        tensor([0.5000])
    """
    if not isinstance(corruption, Corruption):
        raise ConditionError(
            f"The corruption is a {type(corruption).__name__}.",
            expected="a vitlens.images.Corruption",
            remedy="See the example of register_corruption.",
        )
    name = corruption.name
    built_in = _BUILT_IN.get(name)
    # Frost is vitlens's own operation with the user's photographs; nothing else goes by its name.
    is_completed = built_in is not None and built_in.needs_assets and corruption.assets is not None
    if name in _RESERVED or (built_in is not None and not is_completed):
        raise ConditionError(
            f"'{name}' is a name of vitlens.",
            expected="a name that no corruption, group or attack of vitlens has",
            remedy="Rename yours; results under one name shall mean one thing.",
        )
    known = _REGISTERED.get(name)
    if known is not None and known.is_ready and not replace and known.assets != corruption.assets:
        raise ConditionError(
            f"'{name}' is registered already, with other files.",
            expected="a new name, or the same files",
            remedy="Give replace=True to put these in their place.",
        )
    if built_in is None and known is not None and not replace:
        raise ConditionError(
            f"A corruption '{name}' is registered already.",
            expected="a new name",
            remedy="Rename yours, or give replace=True to put it in the other's place.",
        )
    _REGISTERED[name] = corruption


def find_corruption(name: str) -> Corruption:
    """The corruption called `name`.

    Raises:
        ConditionError: there is none; the nearest names are listed.

    Example:
        >>> find_corruption("gaussian_blur").parameters
        ((1.0,), (2.0,), (3.0,), (4.0,), (6.0,))
    """
    if name in CORRUPTIONS:
        return CORRUPTIONS[name]
    if name in GROUP_NAMES or re.split("[@:]", name)[0] in {*CORRUPTIONS, *_RESERVED}:
        raise ConditionError(
            f"'{name}' is no corruption, but the name of a group or a condition.",
            expected=f"a key of vitlens.CORRUPTIONS (nearest: {nearest(name, CORRUPTIONS)})",
            remedy="Give vitlens.corrupt name and severity apart; groups and conditions go to vitlens.run.",
        )
    raise ConditionError(
        f"There is no corruption '{name}'.",
        expected="a key of vitlens.CORRUPTIONS, or in a condition a group or an attack "
        f"(nearest: {nearest(name, [*CORRUPTIONS, *_RESERVED])})",
        remedy="Correct the name, register it with vitlens.register_corruption, or give an operation of "
        "your own as a condition {'name': callable}.",
    )


def ready_corruption(name: str) -> Corruption:
    """The corruption called `name`, with all it needs.

    Raises:
        ConditionError: there is none, or its files are missing.

    Example:
        >>> ready_corruption("fog").stochastic
        True
    """
    corruption = find_corruption(name)
    if corruption.is_ready:
        return corruption
    if name not in _BUILT_IN:
        raise ConditionError(
            f"'{name}' needs files, and its `assets` is None.",
            expected="a spec whose `assets` is the SHA-256 of the files that its operation holds",
            remedy="Register it again with replace=True, once the files are read.",
        )
    raise ConditionError(
        f"'{name}' needs photographs, and vitlens ships none.",
        expected="a folder of them, registered once",
        remedy=f"Write vitlens.register_corruption(vitlens.images.{name}(FOLDER)) first.",
    )


def is_own(corruption: Corruption) -> bool:
    """Whether a corruption is the user's, not one of vitlens."""
    return corruption.name not in _BUILT_IN


def own_operation(corruption: Corruption) -> str:
    """What tells a user's operation from another of the same name: a hash of its source, if there is one."""
    return source_sha256(corruption.apply) if is_own(corruption) else ""


def source_sha256(operation: Callable[..., object]) -> str:
    """What tells a callable from another of the same name: a hash of its source, or else its own name.

    What it refers to, such as a number in a variable, is not in its source.
    """
    try:
        source = inspect.getsource(operation)
    except (OSError, TypeError):
        return str(getattr(operation, "__qualname__", type(operation).__qualname__))
    return hashlib.sha256(source.encode()).hexdigest()[:16]
