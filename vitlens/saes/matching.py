"""Which feature of one SAE is which feature of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import SAEError
from ..names import nearest
from ._sae_lens import SAE
from .checks import check_activations, check_batch_size, check_inference_form
from .passes import batches

METHODS = ("mutual",)

N_BLOCK_FEATURES = 1024
"""Features of one SAE that are compared with all of the other's at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class FeatureMatch:
    """The features of two SAEs, a and b, matched.

    A feature is dead when it was active on none of the given activations, or when its decoder row is 0 (it
    writes nothing); all others are live. Only live features are matched.

    Attributes:
        pairs: the matched pairs, by falling decoder cosine: `feature_a`, `feature_b`, `decoder_cosine`,
            `activation_cosine`, `activation_correlation` (Pearson's); the last two over the given tokens, NaN
            without activations, the correlation also where a feature's codes do not vary.
        best_a: for every live feature of a: `feature`, the `nearest` live feature of b by decoder cosine, and
            that `decoder_cosine`; -1 and NaN where b has no live feature.
        best_b: the same for every live feature of b.
        unmatched_a: live features of a that are in no pair.
        unmatched_b: live features of b that are in no pair.
        dead_a: dead features of a.
        dead_b: dead features of b.
        n_a: all features of a.
        n_b: all features of b.
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

    def share_above(self, threshold: float) -> float:
        """Share of a's live features whose partner in b has a decoder cosine above `threshold`.

        A feature without a partner counts as not above; NaN where a has no live feature.
        """
        n_live = self.n_a - len(self.dead_a)
        return float((self.pairs.decoder_cosine > threshold).sum()) / n_live if n_live else float("nan")

    def summary(self) -> pd.Series:
        """Counts, the median of each similarity over the pairs, and shares above 0.5, 0.7 and 0.9."""
        return pd.Series(
            {
                "n_a": self.n_a,
                "n_b": self.n_b,
                "n_dead_a": len(self.dead_a),
                "n_dead_b": len(self.dead_b),
                "n_pairs": len(self.pairs),
                "n_unmatched_a": len(self.unmatched_a),
                "n_unmatched_b": len(self.unmatched_b),
                **{
                    f"median_{name}": self.pairs[name].median()
                    for name in ("decoder_cosine", "activation_cosine", "activation_correlation")
                },
                **{f"share_above_{threshold}": self.share_above(threshold) for threshold in (0.5, 0.7, 0.9)},
            },
            name="value",
        )

    def __repr__(self) -> str:
        return (
            f"FeatureMatch({self.n_a} and {self.n_b} features, {len(self.dead_a)} and {len(self.dead_b)} "
            f"dead: {len(self.pairs)} pairs, median decoder cosine {self.pairs.decoder_cosine.median():.3f})"
        )


@torch.no_grad()
def match(
    sae_a: SAE,
    sae_b: SAE,
    activations: tuple[Tensor, Tensor] | None = None,
    *,
    method: str = "mutual",
    batch_size: int = 1024,
    allow_other_hook: bool = False,
    progress: bool = True,
) -> FeatureMatch:
    """Match the features of two SAEs by the directions that they write.

    Decoder cosines are taken block by block, in float32; the whole matrix is never held.

    Args:
        sae_a: an SAE in its inference form.
        sae_b: another of the same `d_in`; its number of features may differ.
        activations: [token d_in] for each of the two, row t of both being the same token of the same image
            through either checkpoint. They say which features are dead and how alike a pair's codes are;
            without them no feature is known to be dead.
        method: `mutual`: a pair are each other's nearest neighbors by decoder cosine; of equals, the one
            with the lowest index.
        batch_size: tokens encoded at a time.
        allow_other_hook: match SAEs whose metadata names different hooks.
        progress: show a bar for a pass over the tokens that takes more than a second.

    Returns:
        The pairs, every feature's nearest neighbor, and what stayed unmatched.

    Raises:
        SAEError: an SAE is in its training form, the two differ in `d_in` or hook, the activations do not fit
            them or each other, or the method is unknown.

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=64, progress=False)
        >>> sae_a, sae_b = (vl.saes.train(x, seed=seed, **settings) for seed in (0, 1))
        >>> vl.saes.match(sae_a, sae_a).share_above(0.99)
        1.0
        >>> list(vl.saes.match(sae_a, sae_b, activations=(x, x)).pairs)
        ['feature_a', 'feature_b', 'decoder_cosine', 'activation_cosine', 'activation_correlation']
    """
    _check(sae_a, sae_b, activations, method, allow_other_hook)
    check_batch_size(batch_size)
    live_a, live_b = (sae.W_dec.any(dim=1) for sae in (sae_a, sae_b))
    if activations is not None:
        x_a, x_b = activations
        mean_a, active_a = _code_means(sae_a, batches(x_a, batch_size, "Encoding a", progress))
        mean_b, active_b = _code_means(sae_b, batches(x_b, batch_size, "Encoding b", progress))
        live_a, live_b = live_a & active_a, live_b & active_b

    best_a, best_b = _nearest_neighbors(sae_a, live_a, sae_b, live_b)
    mutual = best_a.merge(
        best_b, left_on=["feature", "nearest"], right_on=["nearest", "feature"], suffixes=("_a", "_b")
    ).sort_values("decoder_cosine_a", ascending=False, kind="stable", ignore_index=True)
    features_a, features_b = mutual.feature_a.to_numpy(), mutual.feature_b.to_numpy()
    cosine = correlation = np.full(len(mutual), np.nan)
    if activations is not None:
        streams = batches(x_a, batch_size, "Comparing codes", progress), x_b.split(batch_size)
        cosine, correlation = _code_similarity(
            (sae_a, sae_b), streams, (features_a, features_b), (mean_a, mean_b)
        )
    return FeatureMatch(
        pairs=pd.DataFrame(
            {
                "feature_a": features_a,
                "feature_b": features_b,
                "decoder_cosine": mutual.decoder_cosine_a,
                "activation_cosine": cosine,
                "activation_correlation": correlation,
            }
        ),
        best_a=best_a,
        best_b=best_b,
        unmatched_a=np.setdiff1d(best_a.feature.to_numpy(), features_a),
        unmatched_b=np.setdiff1d(best_b.feature.to_numpy(), features_b),
        dead_a=_indices(~live_a),
        dead_b=_indices(~live_b),
        n_a=sae_a.cfg.d_sae,
        n_b=sae_b.cfg.d_sae,
    )


def _indices(mask: Bool[Tensor, " feature"]) -> Int[np.ndarray, " _"]:
    return np.flatnonzero(mask.cpu().numpy())


def _nearest_neighbors(
    sae_a: SAE, live_a: Bool[Tensor, " d_sae_a"], sae_b: SAE, live_b: Bool[Tensor, " d_sae_b"]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`best_a` and `best_b` of a `FeatureMatch`."""
    directions_a = _directions(sae_a, live_a)
    directions_b = _directions(sae_b, live_b).to(directions_a.device)
    cosine_a, cosine_b = (d.new_full((len(d),), torch.nan) for d in (directions_a, directions_b))
    nearest_a, nearest_b = (torch.full_like(c, -1, dtype=torch.int64) for c in (cosine_a, cosine_b))
    if len(directions_b):
        for start in range(0, len(directions_a), N_BLOCK_FEATURES):
            block = slice(start, start + N_BLOCK_FEATURES)
            cosines = directions_a[block] @ directions_b.T
            cosine_a[block], nearest_a[block] = cosines.max(dim=1)
            highest, row = cosines.max(dim=0)
            closer = ~(highest <= cosine_b)  # true of everything against the NaN that stands there at first
            cosine_b[closer], nearest_b[closer] = highest[closer], row[closer] + start
    features_a, features_b = _indices(live_a), _indices(live_b)
    return (
        _neighbor_frame(features_a, nearest_a, cosine_a, features_b),
        _neighbor_frame(features_b, nearest_b, cosine_b, features_a),
    )


def _neighbor_frame(
    features: Int[np.ndarray, " live"],
    nearest_row: Int[Tensor, " live"],
    cosine: Float[Tensor, " live"],
    other_features: Int[np.ndarray, " _"],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "feature": features,
            "nearest": np.append(other_features, -1)[nearest_row.cpu().numpy()],  # row -1 finds -1
            "decoder_cosine": cosine.clamp(-1, 1).double().cpu().numpy(),
        }
    )


def _directions(sae: SAE, live: Bool[Tensor, " d_sae"]) -> Float[Tensor, "live d_in"]:
    rows = sae.W_dec[live].double()  # a float32 that is not 0 may have a square that is
    directions: Tensor = (rows / rows.norm(dim=1, keepdim=True)).float()
    return directions


def _code_means(sae: SAE, stream: Iterable[Tensor]) -> tuple[Float[Tensor, " d_sae"], Bool[Tensor, " d_sae"]]:
    """Mean code of every feature in float64, and whether it is ever active."""
    total = torch.zeros(sae.cfg.d_sae, dtype=torch.float64, device=sae.device)
    is_active = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=sae.device)
    n_tokens = 0
    for batch in stream:
        codes = sae.encode(batch.to(sae.device))
        total += codes.sum(dim=0, dtype=torch.float64)
        is_active |= codes.any(dim=0)
        n_tokens += len(batch)
    return total / n_tokens, is_active


def _code_similarity(
    saes: tuple[SAE, SAE],
    streams: tuple[Iterable[Tensor], Iterable[Tensor]],
    features: tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]],
    means: tuple[Float[Tensor, " d_sae_a"], Float[Tensor, " d_sae_b"]],
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Cosine and Pearson correlation of each pair's codes over the tokens, summed in float64."""
    device = saes[0].device
    columns = [torch.tensor(each, device=mean.device) for each, mean in zip(features, means, strict=True)]
    mean_a, mean_b = (mean[column].to(device) for mean, column in zip(means, columns, strict=True))
    squares_a, squares_b, products = torch.zeros(3, len(mean_a), dtype=torch.float64, device=device)
    n_tokens = 0
    for both in zip(*streams, strict=True):
        codes_a, codes_b = (
            sae.encode(batch.to(sae.device))[:, column].to(device).double()
            for sae, batch, column in zip(saes, both, columns, strict=True)
        )
        # Deviations from the known means: a code that never varies has exactly none.
        deviations_a, deviations_b = codes_a - mean_a, codes_b - mean_b
        squares_a += deviations_a.square().sum(dim=0)
        squares_b += deviations_b.square().sum(dim=0)
        products += (deviations_a * deviations_b).sum(dim=0)
        n_tokens += len(codes_a)
    correlation = products / (squares_a.sqrt() * squares_b.sqrt())
    norms_a = (squares_a + n_tokens * mean_a.square()).sqrt()
    norms_b = (squares_b + n_tokens * mean_b.square()).sqrt()
    cosine = (products + n_tokens * mean_a * mean_b) / (norms_a * norms_b)
    return cosine.clamp(-1, 1).cpu().numpy(), correlation.clamp(-1, 1).cpu().numpy()


def _check(
    sae_a: SAE, sae_b: SAE, activations: tuple[Tensor, Tensor] | None, method: str, allow_other_hook: bool
) -> None:
    if method not in METHODS:
        raise SAEError(
            f"method is {method!r}.",
            expected=f"one of {', '.join(map(repr, METHODS))}",
            remedy=f"The nearest is {nearest(method, METHODS, n=1)}.",
        )
    check_inference_form(sae_a, "sae_a")
    check_inference_form(sae_b, "sae_b")
    if sae_a.cfg.d_in != sae_b.cfg.d_in:
        raise SAEError(
            f"sae_a has d_in {sae_a.cfg.d_in}, sae_b {sae_b.cfg.d_in}.",
            expected="SAEs of one width",
            remedy="Match SAEs of the same hook of two checkpoints of one architecture.",
        )
    hook_a, hook_b = (sae.cfg.metadata.hook_name for sae in (sae_a, sae_b))
    if None not in (hook_a, hook_b) and hook_a != hook_b and not allow_other_hook:
        raise SAEError(
            f"sae_a was trained on {hook_a!r}, sae_b on {hook_b!r}.",
            expected="SAEs of one hook",
            remedy="Pass allow_other_hook=True if their directions can be compared all the same.",
        )
    if activations is None:
        return
    for sae, each, name in zip((sae_a, sae_b), activations, ("a", "b"), strict=True):
        check_activations(each, f"The activations of {name}", d_in=sae.cfg.d_in)
    if len(activations[0]) != len(activations[1]):
        raise SAEError(
            f"The activations of a have {len(activations[0])} tokens, those of b {len(activations[1])}.",
            expected="the same tokens of the same images through either checkpoint",
            remedy="Take both with the same dataset, condition and tokens.",
        )
