"""How alike checkpoints' dictionaries are, over all pairs of seeds, between rerunning and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..errors import SAEError
from ._sae_lens import SAE
from .match_checks import seed_of
from .pairing import Matching
from .seed_pairs import COLUMNS, UNRELATED, SeedPair, match_seeds
from .tokens import Activations
from .yardstick import finite_mean, seed_interval


@dataclass(frozen=True, eq=False, repr=False)
class Similarity:
    """How alike the SAEs of checkpoints are, between seed-to-seed and unrelated.

    Attributes:
        pairs: every pair of SAEs that was matched.
        seeds: checkpoint -> seeds of its SAEs, the reference first, `unrelated` last.
        level: nominal level of the intervals.
        n_left_out: pairs of checkpoints' SAEs that were not matched since they share a seed.

    Example:
        See `similarity`, which makes one.
    """

    pairs: tuple[SeedPair, ...]
    seeds: Mapping[str, tuple[int, ...]]
    level: float
    n_left_out: int

    @property
    def primary(self) -> str:
        """Name of the statistic to report: `mean_matched_` and what was matched by."""
        return self.pairs[0].match.primary

    def table(self) -> pd.DataFrame:
        """A row for each pair of SAEs.

        Returns:
            `role`, `checkpoint_a`, `seed_a`, `checkpoint_b`, `seed_b`, and each of `FeatureMatch.statistics`.
        """
        return pd.DataFrame([{**pair.names, **pair.match.statistics()} for pair in self.pairs])

    def summary(self) -> pd.DataFrame:
        """A row for each statistic of each checkpoint against the reference, the primary statistic first.

        Returns:
            `statistic`, `reference`, `checkpoint`; the means over pairs of SAEs `pair`, `seed_to_seed` (of
            the reference), `seed_to_seed_checkpoint` (of the other, for comparison) and `unrelated`;
            `similarity_share` = (pair − unrelated) / (seed_to_seed − unrelated), with its interval `ci_low`
            and `ci_high` over seeds (see `yardstick.seed_interval`); `n_pairs`, the pairs of checkpoints'
            SAEs that were matched, `n_seeds_reference`, `n_seeds_checkpoint`, `n_unrelated`; and the
            `reason` why there is no share or no interval.
        """
        reference, *others = (name for name in self.seeds if name != UNRELATED)
        table = self.table()
        statistics = [name for name in table.columns if name not in COLUMNS]
        rows = []
        for checkpoint, statistic in product(others, statistics):
            pair, seeds, own, unrelated = (
                self._matrix(table, statistic, (role, a, b))
                for role, a, b in (
                    ("checkpoints", reference, checkpoint),
                    ("seeds", reference, reference),
                    ("seeds", checkpoint, checkpoint),
                    (UNRELATED, reference, UNRELATED),
                )
            )
            share = seed_interval(pair, seeds, unrelated, self.level)
            rows.append(
                {
                    "statistic": statistic,
                    "reference": reference,
                    "checkpoint": checkpoint,
                    "pair": finite_mean(pair),
                    "seed_to_seed": finite_mean(seeds),
                    "seed_to_seed_checkpoint": finite_mean(own),
                    "unrelated": finite_mean(unrelated),
                    "similarity_share": share.value,
                    "ci_low": share.ci_low,
                    "ci_high": share.ci_high,
                    "n_pairs": int(np.isfinite(pair).sum()),
                    "n_seeds_reference": pair.shape[0],
                    "n_seeds_checkpoint": pair.shape[1],
                    "n_unrelated": unrelated.shape[1],
                    "reason": share.reason,
                }
            )
        return pd.DataFrame(rows)

    def distributions(self) -> pd.DataFrame:
        """`FeatureMatch.by_feature` of every pair of SAEs, with the columns that name the pair."""
        return pd.concat(
            [pair.match.by_feature().assign(**pair.names) for pair in self.pairs], ignore_index=True
        )

    def __repr__(self) -> str:
        rows = self.summary()
        lines = [
            f"{row.reference} → {row.checkpoint} {row.similarity_share:.3f} "
            f"[{row.ci_low:.3f}, {row.ci_high:.3f}]" + f" ({row.reason})" * bool(row.reason)
            for row in rows[rows["statistic"] == self.primary].itertuples()
        ]
        return f"Similarity({self.primary}, share between unrelated and seed to seed: {'; '.join(lines)})"

    def _matrix(
        self, table: pd.DataFrame, statistic: str, which: tuple[str, str, str]
    ) -> Float[np.ndarray, "a b"]:
        """The statistic of each SAE of a with each of b; NaN where the two were not matched."""
        role, a, b = which
        seeds_a, seeds_b = self.seeds[a], self.seeds[b]
        values = np.full((len(seeds_a), len(seeds_b)), np.nan)
        rows = table[(table["role"] == role) & (table["checkpoint_a"] == a) & (table["checkpoint_b"] == b)]
        for seed_a, seed_b, value in zip(rows["seed_a"], rows["seed_b"], rows[statistic], strict=True):
            values[seeds_a.index(seed_a), seeds_b.index(seed_b)] = value
        return values


def similarity(
    saes: Mapping[str, Sequence[SAE]],
    *,
    unrelated: Sequence[SAE] = (),
    activations: Mapping[str, Activations] | None = None,
    method: str = "mutual",
    by: str = "decoder_cosine",
    n_candidates: int = 32,
    batch_size: int = 1024,
    level: float = 0.95,
    allow_other_hook: bool = False,
    progress: bool = True,
) -> Similarity:
    """Match every SAE of a reference with every SAE of other checkpoints, and place them between two nulls.

    The pairs: the reference's SAEs with each other checkpoint's, but for two that share a seed, whose shared
    initialization would inflate the match; two seeds of one checkpoint; the reference's with those of a model
    with random weights. `Similarity.summary` says where the checkpoints lie between the other two, with an
    interval that takes the SAEs, not their features, as the sampling units: for that train at least three
    seeds of each checkpoint, best with seeds of their own, and two of the random model.

    Args:
        saes: checkpoint name -> SAEs in their inference form, of one kind at one hook, each with the seed
            that `vitlens.saes.train` writes into its metadata, all of one checkpoint different. The first
            checkpoint is the reference.
        unrelated: SAEs of a model with random weights, trained in the same way.
        activations: checkpoint name -> [token d_in], or a store's hook, the rows being the same tokens of the
            same images everywhere; the key `unrelated` may be there besides, and the unrelated SAEs are
            compared by their decoders alone if it is not.
        method: `mutual` or `hungarian`; see `match`.
        by: `decoder_cosine` or `activation_correlation`; see `match`.
        n_candidates: of `hungarian`; see `match`.
        batch_size: tokens encoded at a time.
        level: nominal level of the intervals.
        allow_other_hook: match SAEs whose metadata names different hooks.
        progress: show bars for what takes more than a second.

    Returns:
        All matches, with a table of them, a summary, and the distributions for a figure.

    Raises:
        SAEError: an SAE does not say its seed or shares it with another of its checkpoint, no two checkpoints
            have SAEs that differ in seed, or as `match`.

    Example:
        >>> import torch, vitlens as vl
        >>> from vitlens.saes.similarity import similarity
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=64, n_tokens=640, progress=False)
        >>> saes = [vl.saes.train(x, seed=seed, **settings) for seed in range(3)]
        >>> found = similarity({"base": saes[:2], "tuned": saes[2:]})
        >>> found.table()[["role", "seed_a", "seed_b"]].values.tolist()
        [['checkpoints', 0, 2], ['checkpoints', 1, 2], ['seeds', 0, 1]]
        >>> found.summary().loc[0, "reason"]
        'no unrelated similarity'
    """
    how = Matching(method, by, n_candidates, batch_size, progress)
    if not 0 < level < 1:
        raise SAEError(
            f"level is {level}.", expected="a confidence level between 0 and 1", remedy="Pass level=0.95."
        )
    _check_names(saes, unrelated)
    every = {**saes, UNRELATED: unrelated}
    given = activations or {}
    pairs = match_seeds(every, how, given.get, within=tuple(saes), allow_other_hook=allow_other_hook)
    seeds = {name: tuple(sae.cfg.metadata.seed for sae in each) for name, each in every.items()}
    reference, *others = saes
    n_left_out = sum(a == b for name in others for a, b in product(seeds[reference], seeds[name]))
    return Similarity(pairs=tuple(pairs), seeds=seeds, level=level, n_left_out=n_left_out)


def _check_names(saes: Mapping[str, Sequence[SAE]], unrelated: Sequence[SAE]) -> None:
    """Refuse, before any work, SAEs among which a comparison of two checkpoints cannot be made."""
    names = [name for name, each in saes.items() if each]
    if len(names) < 2 or names != list(saes) or UNRELATED in saes:
        raise SAEError(
            f"saes has SAEs of {', '.join(names) or 'no checkpoint'}.",
            expected=f"SAEs of two checkpoints or more, none of them called {UNRELATED!r}",
            remedy='Pass {"base": [...], "tuned": [...]}, and unrelated=[...] beside them.',
        )
    seeds = {
        name: [seed for sae in each if (seed := seed_of(sae)) is not None]
        for name, each in {**saes, UNRELATED: unrelated}.items()
    }
    for name, its in seeds.items():
        if len(set(its)) < len(its):
            raise SAEError(
                f"The SAEs of {name!r} have seeds {', '.join(map(str, its))}.",
                expected="a seed of its own for each SAE of a checkpoint",
                remedy="Train them with vitlens.saes.train(..., seed=...), each with another.",
            )
    reference, *others = saes
    for name in others:
        if set(seeds[reference]) == set(seeds[name]) and len(seeds[name]) == 1:
            raise SAEError(
                f"The SAEs of {reference!r} and {name!r} all have seed {seeds[name][0]}.",
                expected="SAEs of two checkpoints that differ in seed: a shared initialization inflates "
                "matches",
                remedy="Train one of them with another seed.",
            )
