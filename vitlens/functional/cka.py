"""Linear CKA, unbiased, from moments that add up over batches.

With linear kernels, every term of the unbiased estimator is a moment of the rows about their mean, and
moments of two sets of rows can be joined exactly. n × n kernels are never made.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ShapeError
from .representation import varies

Moments: TypeAlias = dict[str, Tensor]
"""Of paired rows x and y, all float64, by name:

    n                      [1]                 rows
    mean_x, mean_y         [*places d]         means; everything below is about them
    xx, xy, yy             [*places d d]       Σ x xᵀ, Σ x yᵀ, Σ y yᵀ
    x_xx, x_yy, y_xx, y_yy [*places d]         Σ x |x|², Σ x |y|², Σ y |x|², Σ y |y|²
    xx_xx, xx_yy, yy_yy    [*places]           Σ |x|² |x|², Σ |x|² |y|², Σ |y|² |y|²
"""

_PAIRS = (("x", "x"), ("x", "y"), ("y", "y"))
_MIN_ROWS = 4


def cka_moments(x: Float[Tensor, "*places image d_x"], y: Float[Tensor, "*places image d_y"]) -> Moments:
    """The moments of paired representations that linear CKA needs.

    Args:
        x: a row an image, at one place or at several at once.
        y: other representations of the same images, of any width.

    Returns:
        Moments about the rows' own mean, float64.

    Raises:
        ShapeError: the two have not the same places and images.

    Example:
        >>> moments = cka_moments(torch.randn(5, 3), torch.randn(5, 2))
        >>> moments["n"], moments["mean_y"].shape, moments["xy"].shape
        (tensor([5.], dtype=torch.float64), torch.Size([2]), torch.Size([3, 2]))
    """
    if x.shape[:-1] != y.shape[:-1]:
        raise ShapeError(
            f"The representations have shapes {tuple(x.shape)} and {tuple(y.shape)}.",
            expected="the same places and images, [..., image, d]",
            remedy="Give a row an image of both, in one order.",
        )
    rows = {"x": x.double(), "y": y.double()}
    means = {side: values.mean(-2) for side, values in rows.items()}
    rows = {side: values - means[side].unsqueeze(-2) for side, values in rows.items()}
    squares = {side: values.square().sum(-1) for side, values in rows.items()}
    moments = {"n": torch.tensor([x.shape[-2]], dtype=torch.float64, device=x.device)}
    moments |= {f"mean_{side}": mean for side, mean in means.items()}
    for a, b in _PAIRS:
        moments[a + b] = rows[a].transpose(-1, -2) @ rows[b]
        moments[f"{a * 2}_{b * 2}"] = (squares[a] * squares[b]).sum(-1)
    for a in "xy":
        for b in "xy":
            moments[f"{a}_{b * 2}"] = torch.einsum("...nd,...n->...d", rows[a], squares[b])
    return moments


def merge_cka_moments(moments: Moments, other: Moments, *, in_place: bool = False) -> Moments:
    """The moments of two disjoint sets of rows together; exact but for rounding, in any order.

    Both are carried over to their common mean and added there, so that nothing large cancels, whatever the
    mean.

    Args:
        moments: of one set.
        other: of another.
        in_place: use the memory of the d × d moments in `moments`, which are lost.

    Returns:
        The moments of the union.

    Source: Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
    variances": the pairwise update, here for mixed moments up to the fourth.

    Example:
        >>> x = torch.arange(12.0).reshape(6, 2).square()
        >>> both = merge_cka_moments(cka_moments(x[:2], x[:2]), cka_moments(x[2:], x[2:]))
        >>> torch.allclose(both["xx"], cka_moments(x, x)["xx"])
        True
    """
    n = moments["n"] + other["n"]
    share = (other["n"] / n).squeeze(-1)
    step = {side: other[f"mean_{side}"] - moments[f"mean_{side}"] for side in "xy"}
    here = _about(moments, {side: share * each for side, each in step.items()})
    there = _about(other, {side: (share - 1) * each for side, each in step.items()})
    joined = {name: here[name] + there[name] for name in here}
    # Both rank-one steps to the common mean in one: the d × d moments are what takes time and memory.
    weight = moments["n"] * share
    for a, b in _PAIRS:
        products = moments[a + b] if in_place else moments[a + b].clone()
        outer = (weight * step[a]).unsqueeze(-1) * step[b].unsqueeze(-2)
        joined[a + b] = products.add_(other[a + b]).add_(outer)
    means = {f"mean_{side}": moments[f"mean_{side}"] + share * step[side] for side in "xy"}
    return {"n": n, **means, **joined}


def cka_from_moments(moments: Moments) -> Float[Tensor, "*places"]:
    """Unbiased linear CKA from moments.

    Args:
        moments: of at least four rows.

    Returns:
        float64. At most 1 but for the estimator's noise, around 0 for independent representations and below
        it as often as above. NaN where a representation does not vary over the rows, or where so few rows
        are given that its estimated self-similarity is not positive.

    Raises:
        ShapeError: there are fewer than four rows.

    Source: as for `linear_cka`.

    Example:
        >>> x = torch.arange(16.0).reshape(8, 2).sin()
        >>> cka_from_moments(cka_moments(x, 3 * x)).round(decimals=6)
        tensor(1., dtype=torch.float64)
    """
    n = int(moments["n"])
    if n < _MIN_ROWS:
        raise ShapeError(
            f"There are {n} rows.",
            expected=f"at least {_MIN_ROWS}: the unbiased estimator has none for fewer",
            remedy="Give more images.",
        )
    squares = {side: _trace(moments[side * 2]) for side in "xy"}
    hsic = {}
    for a, b in _PAIRS:
        # HSIC_1 with 1ᵀK = 0: tr K̃L̃, 1ᵀK̃1 and 1ᵀK̃L̃1, where K̃ is K = X Xᵀ without its diagonal.
        quartic = moments[f"{a * 2}_{b * 2}"]
        trace = moments[a + b].square().sum((-2, -1)) - quartic
        sums = squares[a] * squares[b] / ((n - 1) * (n - 2))
        hsic[a + b] = (trace + sums - 2 * quartic / (n - 2)) / (n * (n - 3))
    defined = (hsic["xx"] > 0) & (hsic["yy"] > 0)
    for side in "xy":
        defined &= varies(squares[side], moments[f"mean_{side}"], n)
    return torch.where(defined, hsic["xy"] / (hsic["xx"] * hsic["yy"]).sqrt(), torch.nan)


def linear_cka(
    x: Float[Tensor, "*places image d_x"], y: Float[Tensor, "*places image d_y"]
) -> Float[Tensor, "*places"]:
    """Unbiased linear centered kernel alignment of two representations of the same images.

    It does not change when a representation is rotated, scaled or shifted.

    Args:
        x: a row an image, at one place or at several at once.
        y: other representations of the same images, of any width.

    Returns:
        float32; as `cka_from_moments` has it.

    Raises:
        ShapeError: the numbers of images differ or are below four.

    Source: Kornblith et al. (2019), "Similarity of neural network representations revisited", section 3; the
    unbiased HSIC of Song et al. (2012), "Feature selection via dependence maximization", as Nguyen et al.
    (2021), "Do wide and deep networks learn the same things?", use it.

    Example:
        >>> x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> linear_cka(x, 3 * x.flip(-1) + 1)
        tensor(1.)
    """
    return cka_from_moments(cka_moments(x, y)).float()


def grouped_jackknife_se(
    estimate: Float[Tensor, "*places"],
    left_out: Float[Tensor, "group ..."],
    sizes: Float[Tensor, " group"],
) -> Float[Tensor, "*places"]:
    """Standard error of a statistic, from its values with each group of rows left out.

    Args:
        estimate: the statistic of all rows.
        left_out: the statistic of all rows but those of one group, for each group.
        sizes: rows in each group; they may differ.

    Returns:
        float64.

    Source: Busing, Meijer & van der Leeden (1999), "Delete-m jackknife for unequal m".

    Example:
        Of a mean, with single rows as groups, this is the usual standard error.

        >>> x = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> left_out = (x.sum() - x) / 3
        >>> grouped_jackknife_se(x.mean(), left_out, torch.ones(4)).float(), x.std() / 2
        (tensor(1.0801), tensor(1.0801))
    """
    inverse = (sizes.double().sum() / sizes.double()).view(-1, *[1] * estimate.ndim)
    pseudo = inverse * estimate.double() - (inverse - 1) * left_out.double()
    center = (pseudo / inverse).sum(0)
    return ((pseudo - center).square() / (inverse - 1)).mean(0).sqrt()


def _about(moments: Moments, shift: dict[str, Tensor]) -> Moments:
    """The moments above the second about a point that lies `shift` from the mean."""
    norms = {side: each.square().sum(-1) for side, each in shift.items()}
    squares = {side: _trace(moments[side * 2]) for side in "xy"}
    n = moments["n"].squeeze(-1)
    along = {}  # Σ a bᵀ times the shift of b
    for a, b in _PAIRS:
        along[a + b] = torch.einsum("...ij,...j->...i", moments[a + b], shift[b])
        along[b + a] = torch.einsum("...ij,...i->...j", moments[a + b], shift[a])
    carried = {}
    for a in "xy":
        for b in "xy":
            beside = (squares[b] + n * norms[b]).unsqueeze(-1) * shift[a]
            carried[f"{a}_{b * 2}"] = moments[f"{a}_{b * 2}"] - 2 * along[a + b] - beside
    for a, b in _PAIRS:
        carried[f"{a * 2}_{b * 2}"] = (
            moments[f"{a * 2}_{b * 2}"]
            - 2 * _dot(shift[a], moments[f"{a}_{b * 2}"])
            - 2 * _dot(shift[b], moments[f"{b}_{a * 2}"])
            + 4 * _dot(shift[a], along[a + b])
            + norms[a] * squares[b]
            + norms[b] * squares[a]
            + n * norms[a] * norms[b]
        )
    return carried


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _trace(products: Tensor) -> Tensor:
    return products.diagonal(dim1=-2, dim2=-1).sum(-1)
