"""The words: axis names, hook names, places on the residual stream, nearest spellings.

Axes are spelt the same everywhere: in jaxtyping annotations, in xarray's dims and in the docs. Hook names
are TransformerLens's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

AXES = (
    "checkpoint",
    "condition",
    "image",
    "batch",
    "pos",
    "patch",
    "layer",
    "resid_layer",
    "head",
    "query",
    "key",
    "query_kind",
    "d_model",
    "d_head",
    "d_mlp",
    "n_classes",
    "d_sae",
)
"""Every axis name. `pos` counts prefix tokens (class, distillation, registers); `patch` does not."""


def resid_hook(resid_layer: int, n_layers: int) -> str:
    """Name of the hook at one place on the residual stream.

    Args:
        resid_layer: 0 is what enters block 0, `l` the output of block `l - 1`, `n_layers` the last output.
        n_layers: number of blocks.

    Returns:
        `hook_resid_pre` of the block that reads the place; after the last block, its `hook_resid_post`.

    Raises:
        IndexError: `resid_layer` is outside 0 to `n_layers`.

    Example:
        >>> resid_hook(0, 12), resid_hook(12, 12)
        ('blocks.0.hook_resid_pre', 'blocks.11.hook_resid_post')
    """
    if not 0 <= resid_layer <= n_layers:
        raise IndexError(f"resid_layer {resid_layer} is outside 0 to {n_layers}")
    if resid_layer == n_layers:
        return f"blocks.{n_layers - 1}.hook_resid_post"
    return f"blocks.{resid_layer}.hook_resid_pre"


def resid_hooks(n_layers: int) -> list[str]:
    """Names of the hooks at all places on the residual stream, by `resid_layer`.

    Args:
        n_layers: number of blocks.

    Returns:
        `n_layers + 1` names.

    Example:
        >>> resid_hooks(2)
        ['blocks.0.hook_resid_pre', 'blocks.1.hook_resid_pre', 'blocks.1.hook_resid_post']
    """
    return [resid_hook(resid_layer, n_layers) for resid_layer in range(n_layers + 1)]


def pattern_hook(layer: int) -> str:
    """Name of the hook at the attention pattern of one block.

    Args:
        layer: the block, from 0.

    Returns:
        The name.

    Example:
        >>> pattern_hook(3)
        'blocks.3.attn.hook_pattern'
    """
    return f"blocks.{layer}.attn.hook_pattern"


def some(what: str, names: Sequence[str], n_shown: int = 3) -> list[str]:
    """How many names there are of a kind, and the first of them, for an error message.

    Args:
        what: of what kind they are.
        names: the names.
        n_shown: how many to show.

    Returns:
        One phrase; none without any name.

    Example:
        >>> some("missing", ["a", "b", "c", "d"])
        ['4 missing (a, b, c and 1 more)']
    """
    if not names:
        return []
    more = f" and {len(names) - n_shown} more" if len(names) > n_shown else ""
    return [f"{len(names)} {what} ({', '.join(names[:n_shown])}{more})"]


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> str:
    """The `n` candidates spelt most like `name`, quoted and joined for an error message.

    Those that begin with it come first, the shortest before the others.

    Args:
        name: as it was spelt.
        candidates: what it could have meant.
        n: how many to name, at most.

    Returns:
        Their names, for the sentence of an error.

    Example:
        >>> nearest("gausian_blur", ["contrast", "gaussian_blur"])
        "'gaussian_blur'"
        >>> nearest("top1", ["stop", "top1_accuracy"])
        "'top1_accuracy', 'stop'"
    """
    names = sorted(set(candidates))
    begun = sorted((candidate for candidate in names if name and candidate.startswith(name)), key=len)
    close = [*dict.fromkeys([*begun, *difflib.get_close_matches(name, names, n=n, cutoff=0.5)])]
    return ", ".join(repr(candidate) for candidate in (close or names)[:n])
