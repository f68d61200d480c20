"""What `vitlens train-sae` is asked for, as arguments of training, refused before the long work."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SAEError
from ..saes import load
from ..saes.kinds import KINDS
from ..saes.recipe import Recipe
from ..saes.training import planned

_OF_A_KIND = ("k_per_token", "l1_coefficient")


def parsed_options(given: Sequence[str]) -> dict[str, Any]:
    """Name -> value of each `NAME=VALUE`; a value is read as JSON where it is some.

    Raises:
        SAEError: one is something else, or two have one name.

    Example:
        >>> parsed_options(["l0_coefficient=2.0", "jumprelu_sparsity_loss_mode=step"])
        {'l0_coefficient': 2.0, 'jumprelu_sparsity_loss_mode': 'step'}
    """
    found: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not name or not equals or name in found:
            raise SAEError(
                f"--options is given {each!r}" + (f", and '{name}' before." if name in found else "."),
                expected="NAME=VALUE, each name once, such as l0_coefficient=2.0",
                remedy="Name fields of sae-lens's configuration of the kind.",
            )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def check_recipe(settings: Mapping[str, Any], n_images: int, n_tokens_per_image: int) -> Recipe:
    """What the training follows, if the settings go together and there are tokens enough.

    Args:
        settings: arguments of `vitlens.saes.train` that were given.
        n_images: how many there are.
        n_tokens_per_image: tokens of each, those of all conditions together.

    Raises:
        SAEError: a setting is out of range, or the kind has none such, or there are too few tokens.
    """
    recipe = planned(**settings)
    for option in _OF_A_KIND:
        if option in settings and option not in recipe.own_arguments:
            owners = [name for name, each in KINDS.items() if option in each.settings.values()]
            raise SAEError(
                f"--{option.replace('_', '-')} is given with the kind {recipe.kind}.",
                expected=f"it with the kind {' or '.join(owners)}",
                remedy="Name that --kind, or leave the option out.",
            )
    n_tokens = n_images * n_tokens_per_image
    n_held_images = math.ceil(recipe.n_holdout(n_tokens) / n_tokens_per_image)
    recipe.n_steps(n_tokens - n_held_images * n_tokens_per_image)
    return recipe


def scale_of(base: Path, hook_name: str, tokens: str, d_in: int, seed: int) -> float:
    """The factor of the base's SAE, for one of a tuned checkpoint; a shared seed is said on standard error.

    Args:
        base: the folder of the base's.
        hook_name: where the other will read.
        tokens: which tokens it will read.
        d_in: how wide they are.
        seed: of the other.

    Raises:
        SAEError: the base's reads another place, or does not say its factor.
        CheckpointError: there is none.
    """
    sae = load(base)
    said = sae.cfg.metadata
    if said.activation_scale is None:
        raise SAEError(
            f"--scale-of {base} does not say by which factor its activations were multiplied.",
            expected="a sparse autoencoder that vitlens trained",
            remedy="Train the base's with vitlens train-sae first, and name its folder.",
        )
    if (said.hook_name, said.tokens, sae.cfg.d_in) != (hook_name, tokens, d_in):
        raise SAEError(
            f"--scale-of {base} reads {said.tokens} tokens of '{said.hook_name}' ({sae.cfg.d_in} wide).",
            expected=f"a sparse autoencoder of {tokens} tokens of '{hook_name}' ({d_in} wide)",
            remedy="Name the base's of the same place: each place has a factor of its own.",
        )
    if said.seed == seed:
        sys.stderr.write(
            f"vitlens train-sae: {base} has the seed {seed} too, and two that start alike look alike. Give "
            "this one another --seed if the two are to be matched.\n"
        )
    return float(said.activation_scale)
