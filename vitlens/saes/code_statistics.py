"""Means, likeness and correlations of SAEs' codes over tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array, vstack
from torch import Tensor

from ._sae_lens import SAE


@dataclass(frozen=True, eq=False)
class CodeMeans:
    """What one pass over the tokens says of each feature of an SAE.

    Attributes:
        mean: mean code, in float64.
        is_active: whether it is active on any token.
        codes: the codes themselves, of active features alone; None unless they were to be kept.
    """

    mean: Float[Tensor, " d_sae"]
    is_active: Bool[Tensor, " d_sae"]
    codes: csr_array | None


def code_means(sae: SAE, stream: Iterable[Tensor], *, keep_codes: bool = False) -> CodeMeans:
    """Encode the tokens once.

    Args:
        sae: in its inference form.
        stream: batches [token d_in].
        keep_codes: keep the codes: 8 bytes for each active code of each token.
    """
    total = torch.zeros(sae.cfg.d_sae, dtype=torch.float64, device=sae.device)
    is_active = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=sae.device)
    n_tokens = 0
    kept = []
    for batch in stream:
        codes = sae.encode(batch.to(sae.device))
        total += codes.sum(dim=0, dtype=torch.float64)
        is_active |= codes.any(dim=0)
        n_tokens += len(batch)
        if keep_codes:
            kept.append(csr_array(codes.float().cpu().numpy()))
    return CodeMeans(total / n_tokens, is_active, vstack(kept, format="csr") if kept else None)


@dataclass(frozen=True, eq=False)
class Standardized:
    """Codes as deviations of norm 1 over the tokens, kept sparse: columns − 1 · centerᵀ / √n_tokens.

    Attributes:
        columns: [token feature], the codes over the norms of their deviations.
        center: √n_tokens · mean over the norms of deviations.
        varies: whether a feature's code varies over the tokens at all; the others are columns of 0.
    """

    columns: csr_array
    center: Float[np.ndarray, " feature"]
    varies: Bool[np.ndarray, " feature"]


def standardized(codes: csr_array, mean: Float[Tensor, " feature"]) -> Standardized:
    """Scale codes so that products of two columns, less those of their centers, are Pearson's correlations.

    Args:
        codes: [token feature].
        mean: of each feature's code, in float64.
    """
    n_tokens, n_features = codes.shape
    center = mean.cpu().numpy()
    # Deviations from the known means: a code that never varies has exactly none.
    squares = np.bincount(codes.indices, (codes.data - center[codes.indices]) ** 2, minlength=n_features)
    n_active = np.bincount(codes.indices, minlength=n_features)
    squares += (n_tokens - n_active) * center**2
    varies = squares > 0
    scale = np.divide(1, np.sqrt(squares), where=varies, out=np.zeros(n_features))
    data = codes.data * scale[codes.indices]
    columns = csr_array((data, codes.indices, codes.indptr), shape=codes.shape)
    return Standardized(columns, np.sqrt(n_tokens) * center * scale, varies)


def correlation_blocks(a: Standardized, b: Standardized) -> Callable[[slice], Tensor]:
    """Rows of the matrix of Pearson correlations of a's features with b's over the same tokens.

    Returns:
        A function of a slice of a's features that gives float64 [rows b]; −inf where a code does not vary.
    """
    features_a = a.columns.T.tocsr()
    center_a, center_b = torch.from_numpy(a.center), torch.from_numpy(b.center)
    still_a, still_b = torch.from_numpy(~a.varies), torch.from_numpy(~b.varies)

    def block(rows: slice) -> Tensor:
        correlations = torch.from_numpy((features_a[rows] @ b.columns).toarray())
        correlations.addr_(center_a[rows], center_b, alpha=-1)
        correlations[still_a[rows]] = -torch.inf
        correlations[:, still_b] = -torch.inf
        return correlations

    return block


class PairedCodes:
    """Sums over the tokens for pairs of features of two SAEs.

    Args:
        means: of each pair's two codes, in float64.
    """

    def __init__(self, means: tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]) -> None:
        self._means = means
        self._squares_a, self._squares_b, self._products = torch.zeros(
            3, len(means[0]), dtype=torch.float64, device=means[0].device
        )
        self._n_tokens = 0

    def add(self, codes_a: Float[Tensor, "token pair"], codes_b: Float[Tensor, "token pair"]) -> None:
        """Add some tokens."""
        # Deviations from the known means: a code that never varies has exactly none.
        deviations_a, deviations_b = codes_a.double() - self._means[0], codes_b.double() - self._means[1]
        self._squares_a += deviations_a.square().sum(dim=0)
        self._squares_b += deviations_b.square().sum(dim=0)
        self._products += (deviations_a * deviations_b).sum(dim=0)
        self._n_tokens += len(codes_a)

    def likeness(self) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
        """Cosine and Pearson correlation of each pair's codes; NaN where a code does not vary."""
        mean_a, mean_b = self._means
        correlation = self._products / (self._squares_a.sqrt() * self._squares_b.sqrt())
        norms_a = (self._squares_a + self._n_tokens * mean_a.square()).sqrt()
        norms_b = (self._squares_b + self._n_tokens * mean_b.square()).sqrt()
        cosine = (self._products + self._n_tokens * mean_a * mean_b) / (norms_a * norms_b)
        return cosine.clamp(-1, 1).cpu().numpy(), correlation.clamp(-1, 1).cpu().numpy()
