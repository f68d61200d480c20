"""What an attack is: a frozen spec, checked when it is made, and how a condition's string gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import ConditionError
from ...models import HookedViT
from ...names import nearest
from ..options import Options
from ..values import is_real, is_whole
from .balls import BALLS
from .objectives import AttackObjective

EPS_PIXEL = 4 / 255
"""ε where none is given."""

STEPS = 10
"""Steps of PGD where none are given."""


@dataclass(frozen=True)
class Attack:
    """An attack as a condition: what `pgd` or `fgsm` is to be called with.

    Attributes:
        method: `"pgd"` or `"fgsm"`; the latter is one step of length ε in L∞, from the image itself.
        eps_pixel: the radius of the ball, for pixels in [0, 1].
        alpha_pixel: the length of a step; None for 2.5 · ε / steps.
        steps: how many, for each restart.
        norm: `"linf"` or `"l2"`.
        restarts: how often to begin anew.
        random_start: whether to begin at a point drawn from the ball.
        on: the checkpoint that is attacked; all checkpoints then see its pixels. None attacks each by itself.
        objective: what to raise; None for the cross-entropy of the correct class.

    Raises:
        ConditionError: a value makes no sense.

    Example:
        >>> import vitlens as vl
        >>> vl.images.parse_condition("pgd:eps=8/255,steps=20").corruption.step_pixel * 255
        1.0
        >>> inside = Attack(objective=vl.images.ActivationChange("blocks.9.hook_resid_post"))
        >>> vl.images.parse_condition({"residual attack": inside}).shares_pixels
        False
    """

    OPTIONS: ClassVar[dict[str, tuple[str, ...]]] = {
        "fgsm": ("eps", "on"),
        "pgd": ("eps", "alpha", "steps", "norm", "restarts", "random_start", "on"),
    }
    """Method -> the options that it has in a condition's string."""

    method: str = "pgd"
    eps_pixel: float = EPS_PIXEL
    alpha_pixel: float | None = None
    steps: int = STEPS
    norm: str = "linf"
    restarts: int = 1
    random_start: bool = True
    on: str | None = None
    objective: AttackObjective | None = None

    @classmethod
    def fgsm(
        cls,
        eps_pixel: float = EPS_PIXEL,
        *,
        on: str | None = None,
        objective: AttackObjective | None = None,
    ) -> Attack:
        """The fast gradient sign method: one step of length ε.

        Args:
            eps_pixel: how far each pixel and channel is moved, for pixels in [0, 1].
            on: the checkpoint to attack, as in `Attack`.
            objective: what to raise, as in `Attack`.

        Returns:
            The attack.
        """
        return cls("fgsm", eps_pixel, steps=1, random_start=False, on=on, objective=objective)

    @classmethod
    def from_options(cls, method: str, options: Options) -> Attack:
        """The attack that a condition's string names.

        Args:
            method: what stands before the colon, `pgd` or `fgsm`.
            options: what stands after it.

        Returns:
            The attack.

        Raises:
            ConditionError: a value makes no sense.
        """
        eps_pixel, on = options.number("eps", EPS_PIXEL), options.text("on")
        if method == "fgsm":
            return cls.fgsm(eps_pixel, on=on)
        starts = {"yes": True, "no": False, None: True}
        start = options.text("random_start")
        if start not in starts:
            raise options.wrong(f"has random_start={start}", "yes or no", "Correct the value.")
        alpha = options.number("alpha", 0.0) if options.text("alpha") is not None else None
        return cls(
            method,
            eps_pixel,
            alpha,
            options.whole("steps", STEPS),
            options.text("norm") or "linf",
            options.whole("restarts", 1),
            starts[start],
            on,
        )

    def __post_init__(self) -> None:
        if self.method not in self.OPTIONS:
            raise ConditionError(
                f"The attack's method is {self.method!r}.",
                expected="'pgd' or 'fgsm'",
                remedy="Give another attack as a WhiteBox.",
            )
        one_step = (self.alpha_pixel, self.steps, self.norm, self.restarts, self.random_start)
        if self.method == "fgsm" and one_step != (None, 1, "linf", 1, False):
            raise ConditionError(
                f"FGSM is given (alpha_pixel, steps, norm, restarts, random_start) = {one_step}.",
                expected="one L∞ step of length ε from the image itself",
                remedy="Use Attack.fgsm(eps_pixel), or the method 'pgd'.",
            )
        if self.norm not in list(BALLS):
            raise ConditionError(
                f"The norm of the attack is {self.norm!r}.",
                expected=f"'linf' or 'l2' (nearest: {nearest(str(self.norm), BALLS)})",
                remedy="Correct the name.",
            )
        self._check_eps()
        alpha = self.alpha_pixel
        if alpha is not None and (not is_real(alpha) or not 0 < alpha < float("inf")):
            raise ConditionError(
                f"alpha_pixel is {alpha!r}.",
                expected="a length above 0, for pixels in [0, 1]",
                remedy="Leave it out for 2.5 · eps_pixel / steps.",
            )
        for name in ("steps", "restarts"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise ConditionError(
                    f"{name} is {value!r}.", expected="a whole number from 1", remedy=f"Give {name}=10, say."
                )
        if self.random_start not in (True, False) or is_real(self.random_start):
            raise ConditionError(
                f"random_start is {self.random_start!r}.", expected="True or False", remedy="Leave it out."
            )
        objective: object = self.objective
        if isinstance(objective, type) or not (objective is None or isinstance(objective, AttackObjective)):
            raise ConditionError(
                f"The objective is {objective!r}.",
                expected="None, or an object as vitlens.images.AttackObjective describes",
                remedy='Write vitlens.images.ActivationChange("blocks.9.hook_resid_post"), say.',
            )

    def _check_eps(self) -> None:
        eps = self.eps_pixel
        is_number = is_real(eps)
        if is_number and (0 <= eps <= 1 or (self.norm == "l2" and 1 < eps < float("inf"))):
            return
        raise ConditionError(
            f"eps_pixel is {eps!r}.",
            expected="a number from 0 to 1, for pixels in [0, 1]"
            if self.norm == "linf"
            else "a length of 0 or more, for pixels in [0, 1]",
            remedy=f"Did you mean {eps:g}/255?"
            if is_number and 1 < eps <= 255
            else "Give eps_pixel=4/255, say.",
        )

    @property
    def step_pixel(self) -> float:
        """How long a step is."""
        if self.method == "fgsm":
            return self.eps_pixel
        return 2.5 * self.eps_pixel / self.steps if self.alpha_pixel is None else self.alpha_pixel

    def check(self, model: HookedViT) -> None:
        """Refuse a `model` that cannot be attacked so.

        Raises:
            ConditionError: it has no classifier, and there is no objective that looks elsewhere.
            HookError: it lacks a hook that the objective names.
        """
        if self.objective is not None:
            model.check_hook_names(self.objective.hook_names)
        elif model.cfg.n_classes < 2 or not model.cfg.has_classifier:
            raise ConditionError(
                "The attack raises the cross-entropy of the correct class, and this model has no classifier.",
                expected="a model with at least two classes, or an objective",
                remedy="Aim inside: objective=vitlens.images.ActivationChange(hook_name).",
            )
