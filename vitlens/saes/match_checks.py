"""What is asked of SAEs and activations that are to be matched, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SAEError
from ._sae_lens import SAE
from .checks import check_inference_form
from .tokens import Activations, Tokens, as_tokens


def seed_of(sae: SAE) -> int | None:
    """The seed that an SAE's metadata names; None where it does not."""
    seed = getattr(sae.cfg.metadata, "seed", None)
    return None if seed is None else int(seed)


def check_saes(saes: Mapping[str, SAE], allow_other_hook: bool) -> None:
    """Refuse SAEs that cannot all be matched with the first.

    Args:
        saes: what to call each -> the SAE.
        allow_other_hook: let their metadata name different hooks.

    Raises:
        SAEError: an SAE is in its training form, or two differ in `d_in` or hook.
    """
    for what, sae in saes.items():
        check_inference_form(sae, what)
    (first, sae_a), *others = saes.items()
    for what, sae in others:
        if sae.cfg.d_in != sae_a.cfg.d_in:
            raise SAEError(
                f"{first} has d_in {sae_a.cfg.d_in}, {what} {sae.cfg.d_in}.",
                expected="SAEs of one width",
                remedy="Match SAEs of the same hook of two checkpoints of one architecture.",
            )
        hook_a, hook = sae_a.cfg.metadata.hook_name, sae.cfg.metadata.hook_name
        if None not in (hook_a, hook) and hook_a != hook and not allow_other_hook:
            raise SAEError(
                f"{first} was trained on {hook_a!r}, {what} on {hook!r}.",
                expected="SAEs of one hook",
                remedy="Pass allow_other_hook=True if their directions can be compared all the same.",
            )


def same_tokens(activations: Mapping[str, Activations], d_in: int) -> dict[str, Tokens]:
    """Activations whose rows are the same tokens, as far as their numbers can tell.

    Args:
        activations: whose they are -> the activations.
        d_in: their width.

    Raises:
        SAEError: some do not fit, or two differ in their number of tokens.

    Example:
        >>> import torch
        >>> same_tokens({"a": torch.zeros(4, 2), "b": torch.zeros(3, 2)}, d_in=2)
        Traceback (most recent call last):
        vitlens.errors.SAEError: The activations of a have 4 tokens, those of b 3. Expected: ...
    """
    read = {
        name: as_tokens(each, f"The activations of {name}", d_in=d_in) for name, each in activations.items()
    }
    for name, tokens in read.items():
        first, its = next(iter(read.items()))
        if tokens.n_tokens != its.n_tokens:
            raise SAEError(
                f"The activations of {first} have {its.n_tokens} tokens, those of {name} {tokens.n_tokens}.",
                expected="the same tokens of the same images through either checkpoint",
                remedy="Take both with the same dataset, condition and tokens.",
            )
    return read


def check_has_tokens(by: str, has_tokens: bool, what: str) -> None:
    """Refuse to match by activations that were not given.

    Raises:
        SAEError: `by` is activation_correlation, and `what` has no activations.
    """
    if by == "activation_correlation" and not has_tokens:
        raise SAEError(
            f"by is 'activation_correlation', and there are no activations of {what}.",
            expected="activations [token d_in] of the same tokens for every SAE",
            remedy="Pass activations=..., and an unrelated SAE as (sae, activations); or match by "
            "'decoder_cosine'.",
        )
