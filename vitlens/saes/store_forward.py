"""Taking activations for a store: a forward pass up to the last hook, straight into given memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ..models import HookedViT
from ..running import measuring


class Taking:
    """What is taken from each image: some positions at some hooks.

    Args:
        model: one of the models, all of one architecture.
        hook_names: hooks whose activation is [batch pos d_in].
        tokens: `patch`, `cls`, `register`, `distillation` or `all`.
        image_size: (height, width) of the images in pixels.

    Attributes:
        widths: hook name -> d_in.
        positions: where the tokens stand on the `pos` axis.
        position_kinds: the kind of token at each.

    Raises:
        HookError: the model has no such hook.
        ArchitectureError: the model has no such tokens.
        SAEError: an activation is not [batch pos d_in].
    """

    def __init__(
        self, model: HookedViT, hook_names: Sequence[str], tokens: str, image_size: tuple[int, int]
    ) -> None:
        model.check_hook_names(hook_names)
        self._chosen = chosen = model.cfg.positions(tokens)
        self._n_blocks = _n_blocks(hook_names)
        # The residual stream says how many positions there are; hooks that have others are of no use.
        reference = "blocks.0.hook_resid_pre"
        shapes: dict[str, torch.Size] = {}

        def keep(hook_name: str, activation: Tensor) -> None:
            shapes[hook_name] = activation.shape

        blank = torch.zeros(2, model.cfg.n_channels, *image_size, device=model.device)
        names = dict.fromkeys([*hook_names, reference])
        with measuring([model]), model.observing({name: partial(keep, name) for name in names}):
            model(model.normalize(blank), stop_at_layer=self._n_blocks and max(1, self._n_blocks))
        for name in hook_names:
            if len(shapes[name]) != 3 or shapes[name][:2] != shapes[reference][:2]:
                raise SAEError(
                    f"'{name}' is {tuple(shapes[name])} for {len(blank)} images.",
                    expected=f"[batch, pos, d_in], {tuple(shapes[reference][:2])} at the front",
                    remedy="Choose a hook of the residual stream, of an output or of the MLP.",
                )
        every = range(shapes[reference][1])
        self.widths = {name: shapes[name][2] for name in hook_names}
        self.positions = list(every[chosen] if isinstance(chosen, slice) else chosen)
        kinds = (*model.cfg.prefix_kinds, "patch")
        self.position_kinds = [kinds[min(position, len(kinds) - 1)] for position in self.positions]

    def take(
        self,
        model: HookedViT,
        pixels: Float[Tensor, "batch 3 height width"],
        into: Mapping[str, Float[Tensor, "batch positions d_in"]],
    ) -> None:
        """Fill `into`, hook name -> activations; blocks after the last hook are left out."""

        def keep(hook_name: str, activation: Tensor) -> None:
            into[hook_name].copy_(activation[:, self._chosen])

        with model.observing({name: partial(keep, name) for name in into}):
            model(model.normalize(pixels.to(model.device)), stop_at_layer=self._n_blocks)


def _n_blocks(hook_names: Sequence[str]) -> int | None:
    """How many blocks have to run; None for the whole model."""
    found = [re.match(r"blocks\.(\d+)\.", name) for name in hook_names]
    layers = [int(each[1]) for each in found if each]
    return 1 + max(layers) if len(layers) == len(found) else None
