"""Which feature of one SAE is which feature of another, and how alike that makes them beside their nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from ..errors import SAEError
from ..names import nearest
from ._sae_lens import SAE
from .feature_match import NULL_ROLES, FeatureMatch
from .match_checks import check_has_tokens, check_saes, same_tokens, seed_of
from .pairing import Matching, match_sides, shuffled, side
from .tokens import Activations

NULLS = ("seed", "unrelated")

Null: TypeAlias = SAE | tuple[SAE, Activations]
"""An SAE, alone or with the activations that it reads."""


@torch.no_grad()
def match(
    sae_a: SAE,
    sae_b: SAE,
    activations: tuple[Activations, Activations] | None = None,
    *,
    method: str = "mutual",
    by: str = "decoder_cosine",
    nulls: Mapping[str, Sequence[Null]] | None = None,
    n_candidates: int = 32,
    batch_size: int = 1024,
    seed: int = 0,
    allow_other_hook: bool = False,
    progress: bool = True,
) -> FeatureMatch:
    """Match the features of two SAEs, and place their likeness between what chance and rerunning give.

    Likenesses are taken block by block; the whole matrix is never held. A likeness means nothing by itself:
    `nulls` are matched the same way, and the result carries them (`FeatureMatch.yardstick`). For an interval,
    which needs several seeds of both checkpoints, see `similarity`.

    - `nulls["seed"]`, SAEs of a's checkpoint that differ from `sae_a` in seed: how alike two dictionaries of
      the same activations are. They read a's activations.
    - `nulls["unrelated"]`, SAEs of a model with random weights, trained in the same way: how alike
      dictionaries are that share the method and the images, and nothing that was learnt. Each alone, and
      then compared by its decoder with all features taken for live, or as (sae, activations).
    - `shuffled`, made from b whenever nulls are asked for. Matched by decoder cosine: each coordinate of b's
      directions along their principal axes is shuffled over b's features, which keeps the mean and covariance
      of the dictionary and how heavy its tails are along those axes, but no feature. (To shuffle whole rows
      would change nothing: a match knows no order.) By activation correlation: b's tokens are shuffled,
      which keeps how each feature is used, but not when. It shows how alike the best of many are by chance.
      The lower end of `similarity_share` is `unrelated`, never this: a trained dictionary has structure that
      a shuffle destroys, whatever the model has learnt.

    Args:
        sae_a: an SAE in its inference form.
        sae_b: another of the same `d_in`; its number of features may differ.
        activations: [token d_in], or a store's hook, for each of the two, row t of both being the same token
            of the same image through either checkpoint. They say which features are dead and how alike a
            pair's codes are; without them no feature is known to be dead.
        method: `mutual`: a pair are each other's nearest neighbors; of equals, the one with the lowest index.
            `hungarian`: the one-to-one assignment with the greatest total likeness, of pairs whose likeness
            is above 0, among the candidates.
        by: `decoder_cosine`, or `activation_correlation` (Pearson's, of the codes over the given tokens; the
            active codes of both SAEs are held, 12 to 16 bytes each).
        nulls: role to SAEs, as above; none may share `sae_a`'s seed, and nor may `sae_b`, since a shared
            initialization inflates matches.
        n_candidates: of `hungarian`: each feature's nearest features of the other SAE, so many from either
            side, are its candidates. 32 lost at most 0.03 % of the total of a full assignment between 2,048
            and 2,048 features in five cases (nothing to 0.02 % for random and for noisy copies, 0.006 % where
            directions crowd), 8 at most 0.2 %, 1 up to 22 %.
        batch_size: tokens encoded at a time.
        seed: of the shuffles.
        allow_other_hook: match SAEs whose metadata names different hooks.
        progress: show a bar for what takes more than a second.

    Returns:
        The pairs, every feature's nearest neighbor, what stayed unmatched, and the nulls.

    Raises:
        SAEError: an SAE is in its training form, two differ in `d_in` or hook or share a seed where they must
            not, the activations do not fit them or each other, or a setting is unknown.

    Source: for the mean over nearest neighbors, Sharkey, Braun and Millidge (2022), "Taking features out of
    superposition with sparse autoencoders"; for the assignment between seeds, Paulo and Belrose (2025),
    "Sparse autoencoders trained on the same data learn different features" (arXiv 2501.16615).

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=64, n_tokens=640, progress=False)
        >>> sae_a, sae_b = (vl.saes.train(x, seed=seed, **settings) for seed in (0, 1))
        >>> vl.saes.match(sae_a, sae_a).share_above(0.99)
        1.0
        >>> found = vl.saes.match(sae_a, sae_b, (x, x), method="hungarian", nulls={})
        >>> list(found.pairs)
        ['feature_a', 'feature_b', 'decoder_cosine', 'activation_cosine', 'activation_correlation']
        >>> list(found.yardstick())
        ['pair', 'seed', 'unrelated', 'shuffled', 'similarity_share', 'reason']
    """
    how = Matching(method, by, n_candidates, batch_size, progress)
    if nulls is not None and not isinstance(nulls, Mapping):
        raise SAEError(
            f"nulls is a {type(nulls).__name__}.",
            expected='a mapping of "seed" and "unrelated" to SAEs, or None',
            remedy='Write nulls={"seed": [...], "unrelated": [...]}.',
        )
    others = _named_nulls(nulls or {})
    check_saes({"sae_a": sae_a, "sae_b": sae_b, **{each.what: each.sae for each in others}}, allow_other_hook)
    if nulls is not None:
        _check_seeds(sae_a, {"sae_b": sae_b, **{each.what: each.sae for each in others}})
    own = {} if activations is None else dict(zip("ab", activations, strict=True))
    own |= {each.what: each.activations for each in others if each.activations is not None}
    tokens = same_tokens(own, sae_a.cfg.d_in)
    for what in ("a", "b", *(each.what for each in others if each.role == "unrelated")):
        check_has_tokens(by, what in tokens, what)

    a, b = side(sae_a, tokens.get("a"), how, "a"), side(sae_b, tokens.get("b"), how, "b")
    sides = [
        side(each.sae, tokens.get("a" if each.role == "seed" else each.what), how, each.what)
        for each in others
    ]
    roles = [each.role for each in others]
    if nulls is not None:
        roles.append("shuffled")
        sides.append(shuffled(b, how, seed))
    found, *matches = match_sides([(a, each) for each in (b, *sides)], how)
    by_role: dict[str, list[FeatureMatch]] = {} if nulls is None else {role: [] for role in NULL_ROLES}
    for role, its in zip(roles, matches, strict=True):
        by_role[role].append(its)
    return replace(found, nulls=by_role)


@dataclass(frozen=True, eq=False)
class _Null:
    role: str
    what: str
    sae: SAE
    activations: Activations | None


def _named_nulls(nulls: Mapping[str, Sequence[Null]]) -> list[_Null]:
    named = []
    for role, each in nulls.items():
        if role not in NULLS:
            raise SAEError(
                f"nulls has {role!r}.",
                expected=f"no other keys than {', '.join(map(repr, NULLS))}",
                remedy=f"The nearest is {nearest(role, NULLS, n=1)}.",
            )
        for number, null in enumerate(each):
            what = f"nulls[{role!r}][{number}]"
            sae, activations = null if isinstance(null, tuple) else (null, None)
            if role == "seed" and activations is not None:
                raise SAEError(
                    f"{what} comes with activations.",
                    expected="an SAE of a's checkpoint alone: it reads a's activations",
                    remedy="Pass the SAE without them.",
                )
            named.append(_Null(role, what, sae, activations))
    return named


def _check_seeds(sae_a: SAE, others: Mapping[str, SAE]) -> None:
    seed = seed_of(sae_a)
    for what, sae in others.items():
        if seed is not None and seed_of(sae) == seed:
            raise SAEError(
                f"sae_a and {what} were both trained with seed {seed}.",
                expected="SAEs that differ in seed: a shared initialization inflates matches",
                remedy="Train one of them with another seed; without nulls any two can be matched.",
            )
