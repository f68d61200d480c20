"""Where an SAE reads a model, and its codes of the activations there, a few images at a time."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ..models import HookedViT
from ._sae_lens import SAE
from .checks import check_inference_form

N_BLOCK_CODES = 2**24
"""Codes (tokens times features) that are alive at a time: 64 MB in float32."""

_IN_A_BLOCK = re.compile(r"blocks\.(\d+)\.")

EVERY_KIND = "all"
"""The label under which tokens of several kinds stand together."""


@dataclass(frozen=True)
class Place:
    """The tokens of one hook that an SAE reads.

    Attributes:
        hook_name: a hook whose activation is [batch pos d_in].
        tokens: `patch`, `cls`, `register`, `distillation` or `all`.
        d_in: how wide the SAE is.
    """

    hook_name: str
    tokens: str
    d_in: int

    @property
    def layer(self) -> int | None:
        """The block that the hook is in; None outside the blocks."""
        inside = _IN_A_BLOCK.match(self.hook_name)
        return int(inside[1]) if inside else None

    def check(self, model: HookedViT) -> None:
        """Refuse a model that has no such place.

        Raises:
            HookError: the model has no such hook.
            ArchitectureError: the model has no such tokens.
        """
        model.check_hook_names([self.hook_name])
        model.cfg.positions(self.tokens)

    def kinds(self, model: HookedViT) -> tuple[str, ...]:
        """The kinds of token that are read here, and `all` where there are several."""
        kinds = model.cfg.query_kinds if self.tokens == EVERY_KIND else (self.tokens,)
        return kinds if len(kinds) == 1 else (*kinds, EVERY_KIND)

    def within(self, model: HookedViT, kind: str) -> slice | list[int]:
        """Where the tokens of one kind stand among those that are read."""
        return model.cfg.positions(kind) if self.tokens == EVERY_KIND else slice(None)

    def select(self, model: HookedViT, activation: Tensor) -> Float[Tensor, "batch token d_in"]:
        """The tokens that are read.

        Raises:
            SAEError: the activation has other axes, or another width than the SAE.
        """
        if activation.ndim != 3 or activation.shape[-1] != self.d_in:
            raise SAEError(
                f"The activation at '{self.hook_name}' is {tuple(activation.shape)}, the SAE's d_in is "
                f"{self.d_in}.",
                expected=f"an activation of [batch, pos, {self.d_in}]",
                remedy="Use the SAE at the hook that sae.cfg.metadata.hook_name names.",
            )
        return activation[:, model.cfg.positions(self.tokens)]


def place_of(
    sae: SAE,
    hook_name: str | None = None,
    tokens: str | None = None,
    *,
    what: str = "The SAE",
    stacklevel: int | None = 3,
) -> Place:
    """Where an SAE is read: as its metadata says, unless told otherwise.

    Args:
        sae: in its inference form.
        hook_name: a hook other than its metadata's; a warning names both.
        tokens: tokens other than its metadata's.
        what: what to call it at the start of a message.
        stacklevel: whom the warning points at, 3 being the caller of who calls this; None for no warning.

    Raises:
        SAEError: the SAE is in its training form, or neither its metadata nor an argument says where.
    """
    check_inference_form(sae, what)
    trained_on = sae.cfg.metadata.hook_name
    tokens = tokens or sae.cfg.metadata.tokens
    if stacklevel is not None and hook_name and trained_on and hook_name != trained_on:
        warnings.warn(
            f"{what} was trained on '{trained_on}' and is used at '{hook_name}'.",
            UserWarning,
            stacklevel=stacklevel,
        )
    hook_name = hook_name or trained_on
    if not hook_name or not tokens:
        missing = "hook_name" if not hook_name else "tokens"
        raise SAEError(
            f"The metadata of {what[0].lower()}{what[1:]} does not say which {missing} it reads.",
            expected="metadata with hook_name and tokens, as vitlens.saes.train writes them",
            remedy=f"Pass {missing}=.",
        )
    return Place(hook_name, tokens, sae.cfg.d_in)


def one_place(saes: Mapping[str, SAE], hook_name: str | None, tokens: str | None) -> Place:
    """Where several SAEs are read, which has to be the same for all.

    Args:
        saes: name -> SAE.
        hook_name: as in `place_of`.
        tokens: as in `place_of`.

    Raises:
        SAEError: there is no SAE, or two are read at different places.
    """
    places = {
        name: place_of(sae, hook_name, tokens, what=f"The SAE '{name}'", stacklevel=4)
        for name, sae in saes.items()
    }
    if not places:
        raise SAEError(
            "There is no SAE.", expected="one or more", remedy='Pass {"base": sae, "tuned": other}.'
        )
    (first, place), *others = places.items()
    for name, other in others:
        if other != place:
            raise SAEError(
                f"The SAE '{first}' reads {place.tokens} tokens of '{place.hook_name}' ({place.d_in} wide), "
                f"'{name}' {other.tokens} tokens of '{other.hook_name}' ({other.d_in} wide).",
                expected="SAEs that read one place",
                remedy="Compare those of one hook and one kind of token.",
            )
    return place


def image_blocks(x: Float[Tensor, "batch token d_in"], d_sae: int) -> Iterator[slice]:
    """Images of a batch, so many at a time that their codes stay below `N_BLOCK_CODES`."""
    n_images = max(1, N_BLOCK_CODES // (x.shape[1] * d_sae))
    for start in range(0, len(x), n_images):
        yield slice(start, start + n_images)


@contextlib.contextmanager
def own_precision(sae: SAE) -> Iterator[None]:
    """No gradients, and the SAE's own precision where its model is run in a mixed one."""
    with torch.no_grad(), torch.autocast(sae.device.type, enabled=False):
        yield


def codes_of(sae: SAE, x: Float[Tensor, "image token d_in"]) -> Float[Tensor, "image token d_sae"]:
    """The codes of some images' tokens, on the SAE's device."""
    with own_precision(sae):
        codes: Tensor = sae.encode(x.to(sae.device))
    return codes


def reconstruction(sae: SAE, x: Float[Tensor, "batch token d_in"]) -> Float[Tensor, "batch token d_in"]:
    """What an SAE makes of a batch's tokens, on its own device."""
    with own_precision(sae):
        made = [sae.decode(codes_of(sae, x[block])) for block in image_blocks(x, sae.cfg.d_sae)]
    return torch.cat(made)
