"""The MLPs: plain and gated, packed or with separate branches."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

from ..hook_point import HookPoint
from .base import Opened

MLPS: tuple[type[nn.Module], ...] = (Mlp, GluMlp, SwiGLU)
"""The MLPs that can be opened, by exact class."""


class OpenedMlp(Opened):
    """An MLP with `hook_pre` before and `hook_post` after its activation function.

    A gated MLP multiplies two branches: `hook_pre` is the one that goes through the activation function,
    `hook_pre_linear` the other, `hook_post` their product.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        self.hook_pre = HookPoint()
        if not isinstance(native, Mlp):
            self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"], **context: Any) -> Tensor:
        """What the MLP computes, before LayerScale and drop path."""
        mlp = self.native
        if not self.listens():
            whole: Tensor = mlp(x)
            return whole
        hidden = mlp.norm(mlp.drop1(self.hook_post.fire(self._hidden(x))))
        out: Tensor = mlp.drop2(mlp.fc2(hidden))
        return out

    def _hidden(self, x: Tensor) -> Tensor:
        mlp = self.native
        if isinstance(mlp, Mlp):
            return self._activated(mlp.fc1(x))
        if isinstance(mlp, SwiGLU):
            gate, linear = mlp.fc1_g(x), mlp.fc1_x(x)
        else:
            gate, linear = mlp.fc1(x).chunk(2, dim=-1)
            gate, linear = (linear, gate) if mlp.gate_last else (gate, linear)
        # timm multiplies in either order; the product is the same.
        activated = self._activated(gate)
        return activated * self.hook_pre_linear.fire(linear)

    def _activated(self, pre: Tensor) -> Tensor:
        pre = self.hook_pre.fire(pre)
        if self.hook_pre.guard.holds(pre) and getattr(self.native.act, "inplace", False):
            pre = pre.clone()
        activated: Tensor = self.native.act(pre)
        return activated

    # ------------------------------------------------------------------ weights

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """Input weights, a view of the live parameter; in a gated MLP those of the linear branch."""
        weight: Tensor = self._input("weight", gate=False)
        return weight.t()

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"] | None:
        """Weights of the branch through the activation function; None in a plain MLP."""
        return None if isinstance(self.native, Mlp) else self._input("weight", gate=True).t()

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """Output weights before LayerScale, a view of the live parameter."""
        weight: Tensor = self.native.fc2.weight
        return weight.t()

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"] | None:
        """Input bias; None without one."""
        bias: Tensor | None = self._input("bias", gate=False)
        return bias

    @property
    def b_out(self) -> Float[Tensor, " d_model"] | None:
        """Output bias before LayerScale; None without one."""
        bias: Tensor | None = self.native.fc2.bias
        return bias

    def _input(self, name: str, *, gate: bool) -> Any:
        """A tensor, or None for a bias that is not there."""
        mlp = self.native
        if isinstance(mlp, SwiGLU):
            apart: Tensor = getattr(mlp.fc1_g if gate else mlp.fc1_x, name)
            return apart
        packed: Tensor = getattr(mlp.fc1, name)
        if isinstance(mlp, Mlp) or packed is None:
            return packed
        return packed.chunk(2, dim=0)[int(gate == mlp.gate_last)]
