"""Shares of a score: inner products with a gradient, by token, head and patch, and paths from a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ShapeError


def correct_log_probability(
    logits: Float[Tensor, "batch n_classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Log-probability of the correct class, in nats.

    Args:
        logits: one score a class.
        labels: index of the correct class.

    Returns:
        Values at most 0, float32.

    Example:
        >>> correct_log_probability(torch.zeros(1, 4), torch.tensor([2])).exp()
        tensor([0.2500])
    """
    chosen: Tensor = logits.float().log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return chosen


def gradient_times_activation(
    activation: Float[Tensor, "*batch width"], gradient: Float[Tensor, "*batch width"]
) -> Float[Tensor, "*batch"]:
    """Inner product of an activation, or of a change of it, with a score's gradient there.

    To first order it is what the score gains from the activation: exactly, where the score is linear in it.

    Args:
        activation: at a hook, or a difference of two activations there.
        gradient: of a score with respect to it.

    Returns:
        One value for each vector, in the score's unit, float32.

    Source: Shrikumar et al. (2017), "Learning important features through propagating activation differences":
    gradient × input; as attribution patching, Nanda (2023), "Attribution patching: activation patching at
    industrial scale".

    Example:
        >>> gradient_times_activation(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, -3.0]]))
        tensor([-2.])
    """
    return (activation.float() * gradient.float()).sum(-1)


def head_attribution(
    z: Float[Tensor, "batch pos head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    direction: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch head"]:
    """Direct attribution of a score that is linear in the residual stream to the heads of one block.

    Args:
        z: the heads' outputs.
        W_O: what each writes to the residual stream, LayerScale included.
        direction: the score's gradient with respect to the residual stream.

    Returns:
        Each head's share, summed over positions, in the score's unit, float32.

    Example:
        >>> ones = torch.ones(1, 5, 2, 3)
        >>> head_attribution(ones, torch.ones(2, 3, 4), torch.ones(1, 5, 4))
        tensor([[60., 60.]])
    """
    # The direction is carried back to the heads, so that [batch pos head d_model] is never held.
    read = einsum(direction, W_O, "batch pos d_model, head d_head d_model -> batch pos head d_head")
    return gradient_times_activation(z, read).sum(1)


def sum_by_patch(
    values: Float[Tensor, "batch channel height width"], patch_size: tuple[int, int]
) -> Float[Tensor, "batch patch_row patch_column"]:
    """Sum of what falls into each patch, over its pixels and channels.

    Args:
        values: one for each pixel and channel.
        patch_size: (height, width) in pixels. Patches at the lower and right edge may be cut off.

    Returns:
        As many rows and columns as patches touch the image, float32.

    Raises:
        ShapeError: a patch has no pixel.

    Example:
        >>> sum_by_patch(torch.ones(1, 3, 4, 6), (2, 3))
        tensor([[[18., 18.],
                 [18., 18.]]])
    """
    if min(patch_size) < 1:
        raise ShapeError(
            f"patch_size is {patch_size}.",
            expected="(height, width) of 1 pixel or more",
            remedy="Give model.cfg.patch_size.",
        )
    height, width = patch_size
    by_pixel = values.float().sum(1)
    missing = -by_pixel.shape[-1] % width, -by_pixel.shape[-2] % height
    padded = F.pad(by_pixel, (0, missing[0], 0, missing[1]))
    by_patch: Tensor = padded.unflatten(-1, (-1, width)).unflatten(-3, (-1, height)).sum((-3, -1))
    return by_patch


def integrated_gradients(
    score: Callable[[Float[Tensor, " row *features"], Int[Tensor, " row"]], Float[Tensor, " row"]],
    inputs: Float[Tensor, " image *features"],
    baselines: Float[Tensor, " image *features"],
    *,
    n_steps: int = 32,
    rows_per_pass: int = 16,
) -> Float[Tensor, " image *features"]:
    """Attribution of a score's difference from a baseline to the input's features.

    The gradient is averaged along the straight line from the baseline to the input, a step at a time, at the
    middle of each. Steps are short where the score changes fast: a vision transformer tells much of what it
    will say of an image at a few percent of its contrast, and steps of one length pass over that. Each
    image's score is first looked at in 2 `n_steps` places, closer together near the baseline; half of the
    steps are shared out by how it changes between them, half by the places. Gradients are enabled, and none
    is left on parameters.

    Args:
        score: of rows of inputs, given for each row the image that it belongs to. A row's score shall depend
            on that row alone.
        inputs: where the score is to be explained.
        baselines: where each path starts.
        n_steps: gradients on each path.
        rows_per_pass: points scored at once; bounds memory.

    Returns:
        Attributions; over all features they sum to the difference of the scores, up to the steps' error.

    Raises:
        ShapeError: `n_steps` or `rows_per_pass` is below 1.

    Source: Sundararajan et al. (2017), "Axiomatic attribution for deep networks", section 3.

    Example:
        >>> linear = lambda rows, images: rows @ torch.tensor([3.0, -1.0])
        >>> integrated_gradients(linear, torch.tensor([[2.0, 3.0]]), torch.tensor([[0.0, 1.0]]), n_steps=4)
        tensor([[ 6., -2.]])
    """
    if min(n_steps, rows_per_pass) < 1:
        raise ShapeError(
            f"n_steps is {n_steps} and rows_per_pass is {rows_per_pass}.",
            expected="1 or more of each",
            remedy="32 steps and 16 rows are usual.",
        )
    if inputs.shape != baselines.shape:
        raise ShapeError(
            f"The inputs have shape {tuple(inputs.shape)}, the baselines {tuple(baselines.shape)}.",
            expected="a baseline for each input, of its shape",
            remedy="Expand one baseline: baseline.expand_as(inputs).",
        )
    span = inputs - baselines
    edges = _edges(score, baselines, span, n_steps, rows_per_pass)
    middles, widths = (edges[1:] + edges[:-1]) / 2, edges.diff(dim=0)
    average = torch.zeros_like(span)
    for steps, images in _rows(middles, rows_per_pass):
        with torch.enable_grad():
            points = _points(baselines, span, middles, steps, images).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(score(points, images).sum(), points)
        average.index_add_(0, images, _along(widths[steps, images], span) * gradient)
    return span * average


def _edges(
    score: Callable[[Tensor, Tensor], Tensor],
    baselines: Tensor,
    span: Tensor,
    n_steps: int,
    rows_per_pass: int,
) -> Float[Tensor, "edge image"]:
    """Where each image's steps begin and end, from 0 at the baseline to 1 at the input."""
    n_places = 2 * n_steps
    places = (torch.arange(n_places + 1, device=span.device, dtype=span.dtype) / n_places) ** 3
    shares = places.unsqueeze(1).expand(-1, len(span))
    with torch.no_grad():
        scores = torch.cat(
            [
                score(_points(baselines, span, shares, steps, images), images)
                for steps, images in _rows(shares, rows_per_pass)
            ]
        ).view(shares.shape)
    change = scores.diff(dim=0).abs()
    change = change / change.sum(0).clamp(min=torch.finfo(change.dtype).tiny) + 1 / n_places
    reached = (change.cumsum(0) / change.sum(0)).double().cpu().numpy()
    wanted = np.linspace(0, 1, n_steps + 1)
    by_image = [np.interp(wanted, [0, *column], places.cpu().numpy()) for column in reached.T]
    return torch.from_numpy(np.stack(by_image, axis=1)).to(span)


def _rows(shares: Float[Tensor, "step image"], rows_per_pass: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Steps and images of some points at a time."""
    n_images = shares.shape[1]
    for rows in torch.arange(shares.numel(), device=shares.device).split(rows_per_pass):
        yield rows // n_images, rows % n_images


def _points(baselines: Tensor, span: Tensor, shares: Tensor, steps: Tensor, images: Tensor) -> Tensor:
    return baselines[images] + _along(shares[steps, images], span) * span[images]


def _along(values: Float[Tensor, " row"], like: Tensor) -> Tensor:
    """One value a row, to be multiplied with rows of features."""
    return values.view(-1, *[1] * (like.ndim - 1))
