"""How an SAE is trained: the settings, what they may be, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SAEError
from ..images.values import is_real
from ..names import nearest
from .checks import check_batch_size
from .kinds import KINDS, check_options
from .threshold import check_k

N_EPOCHS = 10
N_STEPS = 1000
MAX_EPOCHS = 100
MAX_LEARNING_RATE = 1e-2
MAX_HOLDOUT_TOKENS = 32_768
MAX_DEAD_WINDOW_TOKENS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """Settings of one training: arguments of `vitlens.saes.train`, which describes them.

    What is None follows from the number of tokens, by the methods.
    """

    kind: str
    d_sae: int
    k_per_token: int
    l1_coefficient: float
    n_tokens: int | None
    batch_size: int
    learning_rate: float | None
    activation_scale: float | None
    seed: int
    n_holdout_tokens: int | None
    dead_window_tokens: int | None
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SAEError(
                f"kind is {self.kind!r}.",
                expected=f"one of {', '.join(map(repr, KINDS))}",
                remedy=f"The nearest is {nearest(self.kind, KINDS, n=1)}.",
            )
        check_batch_size(self.batch_size)
        self._check("d_sae", 1, math.inf, "Try 8 times the width of the hook.")
        if "k_per_token" in self.own_arguments:
            check_k(self.k_per_token, self.d_sae)
        self._check("l1_coefficient", 0, math.inf, "Raise it for sparser codes, lower it for a lower FVU.")
        too_few = f"Leave it out for the default, or lower batch_size ({self.batch_size})."
        self._check("n_tokens", self.batch_size, math.inf, too_few)
        self._check("learning_rate", 0, math.inf, "Leave it out for the default.", above=True)
        self._check("activation_scale", 0, math.inf, "Leave it out to fit it to the source.", above=True)
        self._check("seed", 0, 2**63, "Pass seed=0.")
        self._check("n_holdout_tokens", 2, math.inf, "Leave it out for a tenth of the tokens.")
        self._check("dead_window_tokens", 1, math.inf, "Leave it out for one epoch.")
        object.__setattr__(self, "options", check_options(self.kind, self.options))

    @property
    def own_arguments(self) -> set[str]:
        """Of the arguments that only some kinds have, those of this one."""
        return set(KINDS[self.kind].settings.values())

    def described(self) -> dict[str, Any]:
        """The settings that this kind has, JSON-able."""
        of_some = {argument for kind in KINDS.values() for argument in kind.settings.values()}
        return {
            name: value for name, value in asdict(self).items() if name not in of_some - self.own_arguments
        }

    def _check(self, name: str, low: int, end: float, remedy: str, above: bool = False) -> None:
        value = getattr(self, name)
        if value is not None and not is_real(value):
            raise SAEError(f"{name} is {value!r}.", expected="a number", remedy=remedy)
        if value is not None and not (low <= value < end and not (above and value == low)):
            bound = f"above {low}" if above else f"{low} or more"
            raise SAEError(f"{name} is {value}.", expected=f"a finite number, {bound}", remedy=remedy)

    def n_holdout(self, n_source_tokens: int) -> int:
        """Tokens that are held out of a source.

        Raises:
            SAEError: what is left does not fill a batch.
        """
        n_holdout = self.n_holdout_tokens
        if n_holdout is None:
            n_holdout = max(2, min(n_source_tokens // 10, MAX_HOLDOUT_TOKENS))
        if n_source_tokens - n_holdout < self.batch_size:
            raise SAEError(
                f"The source has {n_source_tokens} tokens, of which {n_holdout} are held out.",
                expected=f"at least one batch ({self.batch_size} tokens) to train on",
                remedy="Give more images, or lower batch_size.",
            )
        return n_holdout

    def n_steps(self, n_train_tokens: int) -> int:
        """Whole batches in `n_tokens`; by default ten epochs, more where that is less than 1,000 steps.

        Raises:
            SAEError: it is more than 100 epochs, or an epoch less than a batch.
        """
        if n_train_tokens < self.batch_size:
            raise SAEError(
                f"Of the source's images, those not held out have {n_train_tokens} tokens.",
                expected=f"at least one batch ({self.batch_size} tokens) to train on",
                remedy="Give more images, or lower batch_size.",
            )
        most = MAX_EPOCHS * n_train_tokens
        if self.n_tokens is None:
            return min(max(N_EPOCHS * n_train_tokens, N_STEPS * self.batch_size), most) // self.batch_size
        if self.n_tokens > most:
            raise SAEError(
                f"n_tokens is {self.n_tokens}: {self.n_tokens / n_train_tokens:.0f} epochs of the "
                f"{n_train_tokens} tokens that are left to train on.",
                expected=f"at most {MAX_EPOCHS} epochs",
                remedy="Give more images, or lower n_tokens.",
            )
        return self.n_tokens // self.batch_size

    def dead_window(self, n_train_tokens: int) -> int:
        """Tokens without firing after which a feature counts as dead."""
        return self.dead_window_tokens or min(n_train_tokens, MAX_DEAD_WINDOW_TOKENS)

    def peak_learning_rate(self) -> float:
        """`learning_rate`, or the default for this width."""
        return self.learning_rate or min(MAX_LEARNING_RATE, 1.6e-3 * math.sqrt(2**14 / self.d_sae))
