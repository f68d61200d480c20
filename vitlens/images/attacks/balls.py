"""The pixels an attack may reach: a ball around each image, inside [0, 1], and how to move in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Ball(Protocol):
    """What is at most `eps_pixel` from each image, inside [0, 1]."""

    def __init__(self, center: Tensor, eps_pixel: float) -> None: ...

    def start(self, generators: Sequence[torch.Generator]) -> Tensor:
        """A point drawn evenly from each image's ball, then clipped to [0, 1]."""

    def step(self, pixels: Tensor, gradient: Tensor, alpha_pixel: float) -> Tensor:
        """The point `alpha_pixel` further along the gradient's steepest direction, brought back inside."""

    @staticmethod
    def norm(difference: Tensor) -> Tensor:
        """How long a perturbation is, in this ball's norm: [batch]."""


class LinfBall:
    """At most `eps_pixel` in every pixel and channel.

    `adv - x`, computed in the precision of the pixels, is never more than `eps_pixel`, not by an ulp.

    Example:
        >>> ball = LinfBall(torch.full((1, 3, 1, 1), 0.5), 0.25)
        >>> ball.step(ball.center, torch.tensor([-3.0, 0.0, 9.0]).view(1, 3, 1, 1), 1.0).flatten()
        tensor([0.2500, 0.5000, 0.7500])
    """

    def __init__(self, center: Float[Tensor, "batch 3 height width"], eps_pixel: float) -> None:
        self.center = center
        eps = torch.tensor(eps_pixel, dtype=center.dtype, device=center.device)
        if eps.item() > eps_pixel:
            eps = eps.nextafter(torch.zeros_like(eps))
        self.eps = eps
        high, low = center + eps, center - eps
        # A sum that was rounded outward lies beyond the ball.
        self.high = torch.where(high - center > eps, high.nextafter(center), high).clamp(max=1)
        self.low = torch.where(center - low > eps, low.nextafter(center), low).clamp(min=0)

    def start(self, generators: Sequence[torch.Generator]) -> Float[Tensor, "batch 3 height width"]:
        """Each pixel and channel drawn evenly."""
        shape = self.center.shape[1:]
        drawn = torch.stack([torch.rand(shape, generator=each) for each in generators])
        return self._inside(self.center + self.eps * (2 * drawn.to(self.center) - 1))

    def step(
        self, pixels: Tensor, gradient: Tensor, alpha_pixel: float
    ) -> Float[Tensor, "batch 3 height width"]:
        """Every pixel moves by `alpha_pixel` the way its gradient points, but where that is 0."""
        return self._inside(pixels + alpha_pixel * gradient.sign())

    @staticmethod
    def norm(difference: Tensor) -> Float[Tensor, " batch"]:
        """The largest change of a pixel and channel."""
        return difference.abs().flatten(1).amax(dim=1)

    def _inside(self, pixels: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(pixels, self.low), self.high)


class L2Ball:
    """At most `eps_pixel` in root of the summed squares, to rounding.

    Clipping to [0, 1] comes last: it brings every pixel nearer to the image, and so leaves the ball never.

    Example:
        >>> ball = L2Ball(torch.full((1, 3, 1, 1), 0.5), 0.25)
        >>> moved = ball.step(ball.center, torch.tensor([-3.0, 0.0, 4.0]).view(1, 3, 1, 1), 1.0)
        >>> moved.flatten()
        tensor([0.3500, 0.5000, 0.7000])
    """

    def __init__(self, center: Float[Tensor, "batch 3 height width"], eps_pixel: float) -> None:
        self.center, self.eps_pixel = center, eps_pixel

    def start(self, generators: Sequence[torch.Generator]) -> Float[Tensor, "batch 3 height width"]:
        """A direction drawn evenly, and a length so that volumes are."""
        shape = self.center.shape[1:]
        drawn = []
        for generator in generators:
            direction = torch.randn(shape, generator=generator)
            length = torch.rand((), generator=generator) ** (1 / math.prod(shape))
            drawn.append(direction * (length * self.eps_pixel / direction.norm()))
        return self._inside(self.center + torch.stack(drawn).to(self.center))

    def step(
        self, pixels: Tensor, gradient: Tensor, alpha_pixel: float
    ) -> Float[Tensor, "batch 3 height width"]:
        """The image moves by `alpha_pixel` along its gradient, but where that is 0."""
        # Scaled by its largest first: squares of small gradients underflow.
        largest = gradient.abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1)
        scaled = torch.where(largest > 0, gradient / largest, 0)
        length = self.norm(scaled).view(-1, 1, 1, 1)
        return self._inside(pixels + alpha_pixel * torch.where(length > 0, scaled / length, 0))

    @staticmethod
    def norm(difference: Tensor) -> Float[Tensor, " batch"]:
        """The root of the summed squares."""
        length: Tensor = torch.linalg.vector_norm(difference.flatten(1), dim=1)
        return length

    def _inside(self, pixels: Tensor) -> Tensor:
        change = pixels - self.center
        length = self.norm(change).view(-1, 1, 1, 1)
        scale = torch.where(length > self.eps_pixel, self.eps_pixel / length, 1)
        return (self.center + change * scale).clamp(0, 1)


BALLS: Mapping[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball}
"""The norms in which an attack can be bounded."""
