"""The SAEs of several checkpoints, matched in all pairs that differ in seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import NamedTuple

import torch

from ..errors import SAEError
from ._sae_lens import SAE
from .feature_match import FeatureMatch
from .match_checks import check_has_tokens, check_saes, same_tokens, seed_of
from .pairing import Matching, match_sides, side
from .tokens import Activations

UNRELATED = "unrelated"
"""What the random-weight model is called among checkpoints, and the role of its pairs."""

COLUMNS = ("role", "checkpoint_a", "seed_a", "checkpoint_b", "seed_b")


@dataclass(frozen=True, eq=False)
class SeedPair:
    """Two SAEs that differ in seed, matched.

    Attributes:
        role: `checkpoints` (the reference and another), `seeds` (two of one checkpoint), `unrelated` (the
            reference and the random-weight model).
        checkpoint_a: of the first SAE.
        seed_a: of the first SAE.
        checkpoint_b: of the second SAE.
        seed_b: of the second SAE.
        match: of the first with the second.
    """

    role: str
    checkpoint_a: str
    seed_a: int
    checkpoint_b: str
    seed_b: int
    match: FeatureMatch = field(repr=False)

    @property
    def names(self) -> dict[str, str | int]:
        """Role, checkpoints and seeds, for the columns of a table."""
        return {name: getattr(self, name) for name in COLUMNS}


class _Trained(NamedTuple):
    """One SAE of a checkpoint."""

    checkpoint: str
    seed: int
    sae: SAE


@torch.no_grad()
def match_seeds(
    saes: Mapping[str, Sequence[SAE]],
    how: Matching,
    activations: Callable[[str], Activations | None] = lambda checkpoint: None,
    *,
    within: Sequence[str] = (),
    allow_other_hook: bool = False,
) -> list[SeedPair]:
    """Match all SAEs that belong together and differ in seed; see `similarity`.

    Args:
        saes: checkpoint name -> its SAEs, the reference first; `unrelated` is the random-weight model.
        how: what is to be matched.
        activations: gives a checkpoint's, [token d_in], and is asked only for those that are matched; None
            for all where there are none, or for `unrelated` alone.
        within: checkpoints whose own SAEs are matched with each other.
        allow_other_hook: match SAEs whose metadata names different hooks.

    Returns:
        The pairs, those of checkpoints first; empty where none differ in seed.

    Raises:
        SAEError: an SAE does not say its seed, or SAEs and activations do not fit each other.
    """
    check_saes(
        {f"{name}[{i}]": sae for name, each in saes.items() for i, sae in enumerate(each)}, allow_other_hook
    )
    trained = {
        name: [_Trained(name, _said_seed(name, sae), sae) for sae in each] for name, each in saes.items()
    }
    pairs = list(_pairs(trained, within))
    used = {id(item): item for _, *both in pairs for item in both}
    if not used:
        return []
    wanted = dict.fromkeys(item.checkpoint for item in used.values())
    given = {name: its for name in wanted if (its := activations(name)) is not None}
    for name in wanted:
        if given and name not in (*given, UNRELATED):
            raise SAEError(
                f"There are activations of {', '.join(given)}, and none of {name}.",
                expected="activations of every checkpoint, or of none",
                remedy="Take them for the same images and tokens from each.",
            )
        check_has_tokens(how.by, name in given, name)
    tokens = same_tokens(given, next(iter(used.values())).sae.cfg.d_in)
    sides = {
        key: side(item.sae, tokens.get(item.checkpoint), how, f"{item.checkpoint}, seed {item.seed}")
        for key, item in used.items()
    }
    matches = match_sides([(sides[id(a)], sides[id(b)]) for _, a, b in pairs], how)
    return [
        SeedPair(role, a.checkpoint, a.seed, b.checkpoint, b.seed, match)
        for (role, a, b), match in zip(pairs, matches, strict=True)
    ]


def _said_seed(checkpoint: str, sae: SAE) -> int:
    seed = seed_of(sae)
    if seed is None:
        raise SAEError(
            f"An SAE of {checkpoint!r} does not say its seed.",
            expected="the metadata that vitlens.saes.train writes",
            remedy="Set sae.cfg.metadata.seed to the seed that it was trained with.",
        )
    return seed


def _pairs(
    trained: Mapping[str, Sequence[_Trained]], within: Sequence[str]
) -> Iterator[tuple[str, _Trained, _Trained]]:
    reference = next(iter(trained))
    for name, its in trained.items():
        if name != reference:
            role = UNRELATED if name == UNRELATED else "checkpoints"
            yield from ((role, a, b) for a, b in product(trained[reference], its) if a.seed != b.seed)
    for name in within:
        yield from (("seeds", a, b) for a, b in combinations(trained[name], 2) if a.seed != b.seed)
