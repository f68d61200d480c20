"""SAEs made ready for matching, and any number of pairs of them matched in one pass over their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import SAEError
from ..names import nearest
from ._sae_lens import SAE
from .checks import check_batch_size
from .code_statistics import PairedCodes, Standardized, code_means, correlation_blocks, standardized
from .feature_match import FeatureMatch
from .hungarian import assignment
from .nearest import Blocks, Neighbors, neighbors
from .passes import batches
from .tokens import Tokens

METHODS = ("mutual", "hungarian")
LIKENESSES = ("decoder_cosine", "activation_correlation")


@dataclass(frozen=True)
class Matching:
    """How features are matched; see `match`.

    Raises:
        SAEError: a setting is unknown or out of range.
    """

    method: str = "mutual"
    by: str = "decoder_cosine"
    n_candidates: int = 32
    batch_size: int = 1024
    progress: bool = True

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, METHODS), ("by", self.by, LIKENESSES)):
            if value not in known:
                raise SAEError(
                    f"{name} is {value!r}.",
                    expected=f"one of {', '.join(map(repr, known))}",
                    remedy=f"The nearest is {nearest(value, known, n=1)}.",
                )
        if self.n_candidates < 1:
            raise SAEError(
                f"n_candidates is {self.n_candidates}.",
                expected="at least 1 neighbor of each feature",
                remedy="Pass n_candidates=32.",
            )
        check_batch_size(self.batch_size)


@dataclass(frozen=True, eq=False)
class Side:
    """An SAE as one side of a match.

    Attributes:
        sae: in its inference form.
        live: which features are.
        directions: decoder rows of the live features, of norm 1.
        tokens: what its codes are compared over; None if they are not.
        mean: mean code of every feature over them.
        codes: codes of the live features over them; None unless features are matched by these.
    """

    sae: SAE
    live: Bool[Tensor, " d_sae"]
    directions: Float[Tensor, "live d_in"]
    tokens: Tokens | None
    mean: Float[Tensor, " d_sae"] | None
    codes: Standardized | None

    @property
    def features(self) -> Int[np.ndarray, " live"]:
        """Indices of the live features."""
        return _indices(self.live)


def side(sae: SAE, tokens: Tokens | None, how: Matching, what: str = "an SAE") -> Side:
    """Make an SAE ready: which features are live, where they write, how they are used.

    Args:
        sae: in its inference form.
        tokens: its activations, already checked.
        how: what is to be matched.
        what: what the bar calls it.
    """
    live = sae.W_dec.any(dim=1)
    mean = codes = None
    if tokens is not None:
        stream = batches(tokens, how.batch_size, f"Encoding {what}", how.progress)
        by_codes = how.by == "activation_correlation"
        found = code_means(sae, stream, keep_codes=by_codes)
        mean, live = found.mean, live & found.is_active
        if found.codes is not None:
            codes = standardized(found.codes[:, _indices(live)], mean[live])
    rows = sae.W_dec[live].double()  # a float32 that is not 0 may have a square that is
    directions = (rows / rows.norm(dim=1, keepdim=True)).float()
    return Side(sae, live, directions, tokens, mean, codes)


def shuffled(of: Side, how: Matching, seed: int) -> Side:
    """The same dictionary with none of its features left; see `match` for what is shuffled.

    Args:
        of: whose features are shuffled.
        how: what is to be matched.
        seed: of the shuffles.
    """
    rng = np.random.default_rng([seed, 3])
    if how.by == "activation_correlation" and of.codes is not None:
        columns = of.codes.columns[rng.permutation(of.codes.columns.shape[0])]
        return replace(of, tokens=None, codes=replace(of.codes, columns=columns))
    directions = of.directions.double()
    axes = torch.linalg.eigh(directions.T @ directions).eigenvectors
    coordinates = directions @ axes
    orders = rng.permuted(np.tile(np.arange(len(coordinates))[:, None], len(axes)), axis=0)
    rows = coordinates.gather(0, torch.from_numpy(orders).to(coordinates.device)) @ axes.T
    norms = rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return replace(of, tokens=None, directions=(rows / norms).float())


def match_sides(pairs: Sequence[tuple[Side, Side]], how: Matching) -> list[FeatureMatch]:
    """Match the features of each pair of SAEs, and compare the codes of all that were matched in one pass.

    Args:
        pairs: two SAEs each; the tokens of all those that have any stand in the same order.
        how: what is to be matched.
    """
    found = [_paired(a, b, how) for a, b in pairs]
    likenesses = _likenesses(pairs, found, how)
    return [
        _feature_match(a, b, paired, likeness, how)
        for (a, b), paired, likeness in zip(pairs, found, likenesses, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Paired:
    """Neighbors, and the rows of the live features that were paired, by falling similarity."""

    neighbors: Neighbors
    rows_a: Int[np.ndarray, " pair"]
    rows_b: Int[np.ndarray, " pair"]
    similarity: Float[np.ndarray, " pair"]


def _paired(a: Side, b: Side, how: Matching) -> _Paired:
    n_a, n_b = len(a.directions), len(b.directions)
    by_assignment = how.method == "hungarian"
    found = neighbors(
        _blocks(a, b), n_a, n_b, n_candidates=how.n_candidates if by_assignment else 0, progress=how.progress
    )
    if by_assignment:
        chosen = assignment(found.rows, found.columns, found.similarities, n_a, n_b)
        rows_a, rows_b = found.rows[chosen], found.columns[chosen]
        similarity = found.similarities[chosen].clip(-1, 1)
    else:
        back = np.append(found.nearest_b, -2)[found.nearest_a]  # whoever has no neighbor finds -2
        rows_a = np.flatnonzero(back == np.arange(n_a))
        rows_b, similarity = found.nearest_a[rows_a], found.similarity_a[rows_a]
    falling = np.argsort(-similarity, kind="stable")
    return _Paired(found, rows_a[falling], rows_b[falling], similarity[falling])


def _blocks(a: Side, b: Side) -> Blocks:
    if a.codes is not None and b.codes is not None:
        return correlation_blocks(a.codes, b.codes)
    directions_b = b.directions.to(a.directions.device).T
    return lambda rows: a.directions[rows] @ directions_b


def _likenesses(
    pairs: Sequence[tuple[Side, Side]], found: Sequence[_Paired], how: Matching
) -> list[tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]]:
    """Cosine and correlation of the codes of each pair's pairs; NaN where one of the two has no tokens."""
    sums: dict[int, PairedCodes] = {}
    columns: dict[int, tuple[Tensor, Tensor]] = {}
    for number, ((a, b), paired) in enumerate(zip(pairs, found, strict=True)):
        if a.mean is None or b.mean is None or a.tokens is None or b.tokens is None:
            continue
        features = a.features[paired.rows_a], b.features[paired.rows_b]
        at_a, at_b = (
            torch.from_numpy(each).to(mean.device)
            for each, mean in zip(features, (a.mean, b.mean), strict=True)
        )
        columns[number] = at_a, at_b
        sums[number] = PairedCodes((a.mean[at_a], b.mean[at_b].to(a.mean.device)))

    sides = {id(each): each for number in sums for each in pairs[number]}
    sources = {id(each.tokens): each.tokens for each in sides.values() if each.tokens is not None}
    streams = [
        batches(tokens, how.batch_size, "Comparing codes", how.progress and not number)
        for number, tokens in enumerate(sources.values())
    ]
    for read in zip(*streams, strict=True):
        x = dict(zip(sources, read, strict=True))
        codes = {key: each.sae.encode(x[id(each.tokens)].to(each.sae.device)) for key, each in sides.items()}
        for number, total in sums.items():
            a, b = pairs[number]
            at_a, at_b = columns[number]
            total.add(codes[id(a)][:, at_a], codes[id(b)][:, at_b].to(a.sae.device))
    unknown = [np.full(len(paired.rows_a), np.nan) for paired in found]
    return [
        sums[number].likeness() if number in sums else (unknown[number], unknown[number])
        for number in range(len(pairs))
    ]


def _feature_match(
    a: Side,
    b: Side,
    paired: _Paired,
    likeness: tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]],
    how: Matching,
) -> FeatureMatch:
    features_a, features_b = a.features[paired.rows_a], b.features[paired.rows_b]
    rows_a, rows_b = torch.from_numpy(paired.rows_a), torch.from_numpy(paired.rows_b)
    decoder_cosine = (
        (a.directions.cpu()[rows_a] * b.directions.cpu()[rows_b]).double().sum(dim=1).clamp(-1, 1)
    )
    columns = {
        "decoder_cosine": decoder_cosine.numpy(),
        "activation_cosine": likeness[0],
        "activation_correlation": likeness[1],
        how.by: paired.similarity,  # the very number that they were matched by
    }
    found = paired.neighbors
    return FeatureMatch(
        pairs=pd.DataFrame({"feature_a": features_a, "feature_b": features_b, **columns}),
        best_a=_neighbor_frame(a, found.nearest_a, found.similarity_a, b, how.by),
        best_b=_neighbor_frame(b, found.nearest_b, found.similarity_b, a, how.by),
        unmatched_a=np.setdiff1d(a.features, features_a),
        unmatched_b=np.setdiff1d(b.features, features_b),
        dead_a=_indices(~a.live),
        dead_b=_indices(~b.live),
        n_a=a.sae.cfg.d_sae,
        n_b=b.sae.cfg.d_sae,
        method=how.method,
        by=how.by,
    )


def _neighbor_frame(
    of: Side, row: Int[np.ndarray, " live"], similarity: Float[np.ndarray, " live"], other: Side, by: str
) -> pd.DataFrame:
    nearest_feature = np.append(other.features, -1)[row]  # row -1 finds -1
    return pd.DataFrame({"feature": of.features, "nearest": nearest_feature, by: similarity})


def _indices(mask: Bool[Tensor, " feature"]) -> Int[np.ndarray, " _"]:
    return np.flatnonzero(mask.cpu().numpy())
