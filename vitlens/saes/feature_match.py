"""What matching two SAEs found: pairs, nearest neighbors, and where they lie between their nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Int

from .yardstick import Share, similarity_share

THRESHOLDS = (0.5, 0.7, 0.9)
LIKENESSES = ("decoder_cosine", "activation_cosine", "activation_correlation")
NULL_ROLES = ("seed", "unrelated", "shuffled")


@dataclass(frozen=True, eq=False, repr=False)
class FeatureMatch:
    """The features of two SAEs, a and b, matched.

    A feature is dead when it was active on none of the given activations, or when its decoder row is 0 (it
    writes nothing); all others are live. Only live features are matched.

    Attributes:
        pairs: the matched pairs, falling by what they were matched by: `feature_a`, `feature_b`,
            `decoder_cosine`, `activation_cosine`, `activation_correlation` (Pearson's); the last two over the
            given tokens, NaN without activations, the correlation also where a feature's codes do not vary.
        best_a: for every live feature of a: `feature`, the `nearest` live feature of b, and how near it is,
            in a column named as `by` says; -1 and NaN where b has none to compare with.
        best_b: the same for every live feature of b.
        unmatched_a: live features of a that are in no pair.
        unmatched_b: live features of b that are in no pair.
        dead_a: dead features of a.
        dead_b: dead features of b.
        n_a: all features of a.
        n_b: all features of b.
        method: `mutual` or `hungarian`.
        by: `decoder_cosine` or `activation_correlation`.
        nulls: role to matches, each made as this one was: `seed` (a with an SAE of its checkpoint that
            differs in seed: as alike as rerunning gives), `unrelated` (a with an SAE of a random-weight
            model: as alike as chance gives), `shuffled` (a with b, after a shuffle that leaves no feature of
            b as it is; see `match`). Empty if none were asked for.

    Example:
        See `match`, which makes one.
    """

    pairs: pd.DataFrame
    best_a: pd.DataFrame
    best_b: pd.DataFrame
    unmatched_a: Int[np.ndarray, " unmatched_a"]
    unmatched_b: Int[np.ndarray, " unmatched_b"]
    dead_a: Int[np.ndarray, " dead_a"]
    dead_b: Int[np.ndarray, " dead_b"]
    n_a: int
    n_b: int
    method: str = "mutual"
    by: str = "decoder_cosine"
    nulls: Mapping[str, Sequence[FeatureMatch]] = field(default_factory=dict)

    @property
    def primary(self) -> str:
        """Name of the statistic that `similarity_share` is of: `mean_matched_` and what was matched by."""
        return f"mean_matched_{self.by}"

    @property
    def similarity_share(self) -> float:
        """Where the pair lies between its nulls by the primary statistic: 0 unrelated, 1 seed to seed.

        NaN where that means nothing; `yardstick` says why. For an interval, see `similarity`.
        """
        return self._share(self.primary).value

    def share_above(self, threshold: float) -> float:
        """Share of a's live features whose likeness to their partner in b is above `threshold`.

        The likeness is what was matched by. A feature without a partner counts as not above; NaN where a has
        no live feature.
        """
        n_live = len(self.best_a)
        return float((self.pairs[self.by] > threshold).sum()) / n_live if n_live else float("nan")

    def shares_above(self, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
        """`share_above` of the pair and the mean over each null's matches, a row for each of `thresholds`."""
        roles: dict[str, Sequence[FeatureMatch]] = {"pair": [self], **self.nulls}
        return pd.DataFrame(
            {
                role: [np.mean([each.share_above(at) for each in matches]) for at in thresholds]
                for role, matches in roles.items()
                if matches
            },
            index=pd.Index(thresholds, name="threshold"),
        )

    def statistics(self) -> pd.Series:
        """How alike the two dictionaries are as a whole, in several ways; swapping a and b changes none.

        `mean_matched_<by>`, the primary one: over all live features of both, the likeness to the partner, 0
        for those without. `mean_nearest_<by>`: the likeness to the nearest, whether or not it is mutual.
        `share_matched_above_<t>`: share of all live features whose partner is more alike than t. And
        `mean_matched_` of the other likenesses, NaN where they are unknown.
        """
        n_live = len(self.best_a) + len(self.best_b)
        over = n_live if n_live else float("nan")
        nearest = np.concatenate([self.best_a[self.by], self.best_b[self.by]])
        others = [name for name in LIKENESSES if name != self.by]
        return pd.Series(
            {
                self.primary: 2 * self.pairs[self.by].sum() / over,
                f"mean_nearest_{self.by}": np.nansum(nearest) / over,
                **{
                    f"share_matched_above_{at}": 2 * (self.pairs[self.by] > at).sum() / over
                    for at in THRESHOLDS
                },
                **{f"mean_matched_{name}": 2 * self.pairs[name].sum(min_count=1) / over for name in others},
            },
            name="value",
            dtype=float,
        )

    def yardstick(self) -> pd.DataFrame:
        """Each statistic of the pair beside its nulls, the primary one first.

        Returns:
            A row for each of `statistics`, with `pair`; `seed`, `unrelated` and `shuffled`, the mean over the
            matches of that null (NaN without any); `similarity_share` = (pair − unrelated) / (seed −
            unrelated); and the `reason` where that is NaN.
        """
        statistics = self.statistics()
        table = pd.DataFrame({"pair": statistics})
        for role in NULL_ROLES:
            values = [each.statistics() for each in self.nulls.get(role, ())]
            table[role] = pd.DataFrame(values).mean() if values else float("nan")
        shares = [self._share(name) for name in statistics.index]
        table["similarity_share"] = [share.value for share in shares]
        table["reason"] = [share.reason for share in shares]
        return table.rename_axis("statistic")

    def by_feature(self) -> pd.DataFrame:
        """Every live feature of a: `feature`, `nearest`, `nearest_<by>`, `partner` and the pair's likenesses.

        `partner` is -1, and its likenesses are NaN, where a feature has none.
        """
        partners = self.pairs.rename(columns={"feature_a": "feature", "feature_b": "partner"})
        nearest = self.best_a.rename(columns={self.by: f"nearest_{self.by}"})
        table = nearest.merge(partners, on="feature", how="left")
        return table.assign(partner=table["partner"].fillna(-1).astype(np.int64))

    def distributions(self) -> pd.DataFrame:
        """`by_feature` of the pair and of each null's matches, with `role` and the number of the `match`."""
        roles: dict[str, Sequence[FeatureMatch]] = {"pair": [self], **self.nulls}
        tables = [
            each.by_feature().assign(role=role, match=number)
            for role, matches in roles.items()
            for number, each in enumerate(matches)
        ]
        return pd.concat(tables, ignore_index=True)

    def summary(self) -> pd.Series:
        """Counts, the median of each likeness over the pairs, and shares above 0.5, 0.7 and 0.9."""
        return pd.Series(
            {
                "n_a": self.n_a,
                "n_b": self.n_b,
                "n_dead_a": len(self.dead_a),
                "n_dead_b": len(self.dead_b),
                "n_pairs": len(self.pairs),
                "n_unmatched_a": len(self.unmatched_a),
                "n_unmatched_b": len(self.unmatched_b),
                **{f"median_{name}": self.pairs[name].median() for name in LIKENESSES},
                **{f"share_above_{threshold}": self.share_above(threshold) for threshold in THRESHOLDS},
            },
            name="value",
        )

    def __repr__(self) -> str:
        placed = f", similarity share {self.similarity_share:.3f}" if self.nulls else ", without a null"
        return (
            f"FeatureMatch({self.n_a} and {self.n_b} features, {len(self.dead_a)} and {len(self.dead_b)} "
            f"dead: {len(self.pairs)} pairs, median {self.by.replace('_', ' ')} "
            f"{self.pairs[self.by].median():.3f}{placed})"
        )

    def _share(self, statistic: str) -> Share:
        ends = (
            np.array([each.statistics()[statistic] for each in self.nulls.get(role, ())], dtype=float)
            for role in ("seed", "unrelated")
        )
        return similarity_share(np.array([self.statistics()[statistic]]), *ends)
