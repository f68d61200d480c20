"""Which of two checkpoints a crosscoder's latents belong to, and which only look so."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import SAEError

DEAD = "dead"


def only(checkpoint: str) -> str:
    """What a latent of one checkpoint alone is called."""
    return f"{checkpoint} only"


def kinds_of(
    latents: pd.DataFrame, checkpoints: tuple[str, str], low: float, high: float, shared_within: float
) -> pd.Series:
    """What each latent belongs to, by its relative norm.

    Args:
        latents: with `relative_norm` and `n_active`.
        checkpoints: whose decoder norm is relative to both comes second.
        low: up to here a latent is the first checkpoint's only.
        high: from here it is the second's only.
        shared_within: as near to 0.5 it is shared.

    Raises:
        SAEError: the bounds overlap or are outside 0 to 1.

    Example:
        >>> latents = pd.DataFrame({"relative_norm": [0.02, 0.3, 0.5, 0.5], "n_active": [3, 3, 3, 0]})
        >>> kinds_of(latents, ("base", "tuned"), 0.1, 0.9, 0.1).tolist()
        ['base only', 'between', 'shared', 'dead']
    """
    if not 0 <= low < 0.5 - shared_within <= 0.5 + shared_within < high <= 1:
        raise SAEError(
            f"low is {low}, shared_within {shared_within} and high {high}.",
            expected="0 <= low < 0.5 - shared_within <= 0.5 + shared_within < high <= 1",
            remedy="Leave them out for 0.1, 0.1 and 0.9.",
        )
    relative = latents["relative_norm"]
    first, second = checkpoints
    is_kind = {
        DEAD: (latents["n_active"] == 0) | relative.isna(),
        only(first): relative <= low,
        only(second): relative >= high,
        "shared": (relative - 0.5).abs() <= shared_within,
    }
    kinds = np.select(list(is_kind.values()), list(is_kind), default="between")
    return pd.Series(kinds, index=latents.index, name="kind", dtype=str)


def artifacts_of(latents: pd.DataFrame, max_nu_error: float, max_nu_reconstruction: float) -> pd.Series:
    """What a latent of one checkpoint alone is, if the other has its feature all the same.

    Args:
        latents: with `kind`, `nu_error` and `nu_reconstruction`.
        max_nu_error: above it, a latent of one checkpoint alone is `shrunken`.
        max_nu_reconstruction: above it, it is `decoupled`.

    Returns:
        `shrunken`, `decoupled`, `both` or empty.

    Example:
        >>> kinds = ["base only", "shared"]
        >>> latents = pd.DataFrame({"kind": kinds, "nu_error": 0.9, "nu_reconstruction": 0.1})
        >>> artifacts_of(latents, max_nu_error=0.2, max_nu_reconstruction=0.5).tolist()
        ['shrunken', '']
    """
    is_shared = ~latents["kind"].str.endswith(only(""))
    shrunken = latents["nu_error"] > max_nu_error
    decoupled = latents["nu_reconstruction"] > max_nu_reconstruction
    named = np.select(
        [is_shared, shrunken & decoupled, shrunken, decoupled],
        ["", "both", "shrunken", "decoupled"],
        default="",
    )
    return pd.Series(named, index=latents.index, name="artifact", dtype=str)


def summary_of(latents: pd.DataFrame, checkpoints: tuple[str, str]) -> pd.DataFrame:
    """How many latents are of each kind.

    Args:
        latents: with `kind`, `total_code`, `decoder_cosine` and `artifact`.
        checkpoints: their names.

    Returns:
        By `kind`: `n`, `share` (of the live latents), `share_of_code` (of the sum of all codes),
        `median_decoder_cosine`, `n_artifacts`.
    """
    order = ["shared", *map(only, checkpoints), "between", DEAD]
    by_kind = latents.assign(
        kind=pd.Categorical(latents["kind"], order), n_artifacts=latents["artifact"] != ""
    ).groupby("kind", observed=False)
    n = by_kind.size()
    is_live = n.index != DEAD
    return pd.DataFrame(
        {
            "n": n,
            "share": (n / n[is_live].sum()).where(is_live),
            "share_of_code": by_kind["total_code"].sum() / latents["total_code"].sum(),
            "median_decoder_cosine": by_kind["decoder_cosine"].median().where(is_live),
            "n_artifacts": by_kind["n_artifacts"].sum(),
        }
    )
