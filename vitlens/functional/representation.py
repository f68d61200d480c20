"""Figures of representations: how far two lie apart, and what a linear map reads from one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ShapeError

RIDGES = tuple(10.0**exponent for exponent in range(-6, 3))
"""Penalties that generalized cross-validation chooses from, in units of the mean variance of a feature."""


def cosine(x: Float[Tensor, "*rows d_model"], y: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows"]:
    """Cosine of the angle between two vectors.

    Args:
        x: one vector a row.
        y: the vectors to compare them with.

    Returns:
        Values in [-1, 1], float32; exactly 1 where the vectors are equal, NaN where one of them is zero.

    Raises:
        ShapeError: the shapes differ.

    Example:
        >>> cosine(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.0, 2.0]]))
        tensor([1., 0.])
    """
    _check_same_shape(x, y)
    x, y = x.float(), y.float()
    # One root of the product, not a product of roots: of equal vectors it is their squared norm exactly.
    norms = ((x * x).sum(-1) * (y * y).sum(-1)).sqrt()
    return ((x * y).sum(-1) / norms).clamp(-1, 1)


def relative_distance(
    reference: Float[Tensor, "*rows d_model"], x: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows"]:
    """Euclidean distance of a vector from its reference, in units of the reference's norm.

    Args:
        reference: one vector a row.
        x: the vectors whose distance is asked for.

    Returns:
        Values from 0, float32; NaN or infinite where the reference is zero.

    Raises:
        ShapeError: the shapes differ.

    Example:
        >>> relative_distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]]))
        tensor([0.2000])
    """
    _check_same_shape(reference, x)
    reference, x = reference.float(), x.float()
    distance: Tensor = (x - reference).norm(dim=-1) / reference.norm(dim=-1)
    return distance


def varies(
    squares: Float[Tensor, "*places"], mean: Float[Tensor, "*places d_model"], n_rows: int
) -> Bool[Tensor, "*places"]:
    """Whether rows differ by more than the rounding of a float32.

    The class token before block 0 is the same for every image: what is left after its mean is noise.

    Args:
        squares: squared distances of the rows from their mean, summed over the rows.
        mean: of the rows.
        n_rows: how many there are.

    Returns:
        True where they differ.

    Example:
        >>> varies(torch.tensor([0.0, 2.0]), torch.tensor([[1.0], [1.0]]), n_rows=3)
        tensor([False,  True])
    """
    rounding = torch.finfo(torch.float32).eps ** 2 * mean.double().square().sum(-1)
    return squares.double() > n_rows * rounding


def ridge_regression(
    products: Float[Tensor, "d_model d_model"],
    cross_products: Float[Tensor, "d_model n_targets"],
    target_squares: float,
    n_rows: int,
    ridges: Sequence[float] = RIDGES,
) -> tuple[Float[Tensor, "d_model n_targets"], float]:
    """Linear regression with a quadratic penalty, from sums over centered rows.

    Of several penalties the one with the least generalized cross-validation error is taken, which is
    n |residuals|² / (n - degrees of freedom)², the intercept being one degree.

    Args:
        products: of the features.
        cross_products: of features with targets.
        target_squares: squares of all centered targets, summed.
        n_rows: how many rows were summed.
        ridges: penalties to choose from, in units of the mean variance of a feature.

    Returns:
        The weights, float64, to be applied to centered features, and the penalty that was taken. Without any
        variance in the features the weights are 0 and the penalty is NaN.

    Source: Golub, Heath & Wahba (1979), "Generalized cross-validation as a method for choosing a good ridge
    parameter".

    Example:
        >>> x = torch.tensor([[-1.0, 1.0], [0.0, -2.0], [1.0, 1.0]])
        >>> y = x @ torch.tensor([[2.0], [1.0]])
        >>> weights, _ = ridge_regression(x.T @ x, x.T @ y, float(y.square().sum()), 3, ridges=[0.0])
        >>> weights.T.round(decimals=4)
        tensor([[2., 1.]], dtype=torch.float64)
    """
    variances, directions = torch.linalg.eigh(products.double())
    variances = variances.clamp(min=0)
    scale = float(variances.mean())
    targets = directions.T @ cross_products.double()
    if scale == 0:
        return torch.zeros_like(targets), float("nan")
    explained = targets.square().sum(-1)

    def error(ridge: float) -> float:
        penalized = variances + ridge * scale
        residual = target_squares - float((explained * (2 - variances / penalized) / penalized).sum())
        freedom = n_rows - 1 - float((variances / penalized).sum())
        return n_rows * residual / freedom**2 if freedom > 0 else float("inf")

    ridge = ridges[0] if len(ridges) == 1 else min(ridges, key=error)
    return directions @ (targets / (variances + ridge * scale).unsqueeze(-1)), float(ridge)


def _check_same_shape(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ShapeError(
            f"The vectors have shapes {tuple(x.shape)} and {tuple(y.shape)}.",
            expected="two tensors of one shape",
            remedy="Give the same tokens of the same images, in one order.",
        )
