"""Features as causes: hooks that take an SAE's features out of a forward pass, or steer it by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ..models import HookedViT
from ._sae_lens import SAE
from .reading import Place, codes_of, image_blocks, own_precision, place_of

NamedHook: TypeAlias = tuple[str, Callable[[Tensor, Any], Tensor]]
"""A hook's name and what is called there: an entry of `fwd_hooks`."""

_SCALED_AT_RUN_TIME = ("constant_norm_rescale", "layer_norm")


def ablation_hook(
    sae: SAE,
    model: HookedViT,
    features: Iterable[int],
    *,
    means: Float[Tensor, " feature"] | None = None,
    hook_name: str | None = None,
    tokens: str | None = None,
) -> NamedHook:
    """Take features out of an activation: their codes become 0, or their means.

    What the features add to the reconstruction is subtracted from the activation itself. The SAE's error, all
    it leaves out, stays: where none of the features is active, the pass is the model's own to the last bit.
    With all features ablated, the decoder's bias and the error are left. To a backward pass the codes are
    constants.

    Args:
        sae: in its inference form.
        model: the model that the hook will be used on.
        features: which; each once.
        means: the codes to put in place of theirs, at all tokens that the SAE reads, instead of 0.
        hook_name: where; by default what `sae.cfg.metadata` says. Another one gives a warning.
        tokens: `patch`, `cls`, `register`, `distillation` or `all`; by default as the metadata says.

    Returns:
        An entry of `fwd_hooks`, for `model.run_with_hooks` and `model.hooks`. Of several at one place, each
        reads what the one before has left.

    Raises:
        SAEError: the SAE is in its training form, scales activations at run time or is of another width than
            the hook, it is not known where it reads, or a feature is none of its features or is named twice.
        HookError: the model has no such hook.
        ArchitectureError: the model has no such tokens.

    Source: keeping the error, Marks et al. (2024), "Sparse feature circuits".

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> x = model.normalize(images[0]["pixels"][None])
        >>> model.run_with_hooks(x, fwd_hooks=[ablation_hook(sae, model, [3, 7])]).shape
        torch.Size([1, 10])
    """
    place = _place(sae, model, hook_name, tokens)
    chosen = checked_features(features, sae)
    if means is not None and means.shape != (len(chosen),):
        raise SAEError(
            f"means has shape {tuple(means.shape)}, for {len(chosen)} features.",
            expected="one mean code a feature, in their order",
            remedy="Pass sae.encode(activations).mean(0)[features].",
        )

    def change(codes: Tensor) -> Tensor:
        return -codes if means is None else means.to(codes) - codes

    return _adding(sae, model, place, chosen, change)


def steering_hook(
    sae: SAE,
    model: HookedViT,
    features: Iterable[int],
    *,
    scale: float | None = None,
    value: float | None = None,
    strength: float | None = None,
    positions: Sequence[int] | None = None,
    hook_name: str | None = None,
    tokens: str | None = None,
) -> NamedHook:
    """Steer a model by features: scale their codes, set them, or add their directions to the activation.

    As with `ablation_hook`, only what the features add is changed, and the SAE's error stays.

    Args:
        sae: in its inference form.
        model: the model that the hook will be used on.
        features: which; each once.
        scale: what their codes are multiplied by. It leaves tokens alone on which they are not active.
        value: what their codes are set to, active or not.
        strength: length, in the activation's units, of what is added along each one's decoder direction,
            whatever its code is.
        positions: where on the model's `pos` axis; by default at all tokens that the SAE reads.
        hook_name: as in `ablation_hook`.
        tokens: as in `ablation_hook`.

    Returns:
        As `ablation_hook`.

    Raises:
        SAEError: not one of `scale`, `value` and `strength` is given, or a feature's direction is 0; in a
            pass, the SAE does not read one of the positions; else as `ablation_hook`.
        HookError: the model has no such hook.
        ArchitectureError: the model has no such tokens.

    Source: setting codes, Templeton et al. (2024), "Scaling monosemanticity"; adding directions, Turner et
    al. (2023), "Activation addition".

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> x = model.normalize(images[0]["pixels"][None])
        >>> with model.hooks(fwd_hooks=[steering_hook(sae, model, [3], strength=4.0)]):
        ...     model(x).shape
        torch.Size([1, 10])
    """
    place = _place(sae, model, hook_name, tokens)
    chosen = checked_features(features, sae)
    given = [how for how in (scale, value, strength) if how is not None]
    if len(given) != 1:
        raise SAEError(
            f"{len(given)} of scale, value and strength are given.",
            expected="one of them",
            remedy="Pass scale=2.0 to double the codes, value= to set them, or strength= to add directions.",
        )
    pushed = None if strength is None else strength / _lengths(sae, chosen)

    def change(codes: Tensor) -> Tensor:
        if pushed is not None:
            return pushed.expand_as(codes)
        return value - codes if value is not None else (given[0] - 1) * codes

    return _adding(sae, model, place, chosen, change, positions)


def checked_features(features: Iterable[int], sae: SAE) -> list[int]:
    """The features as plain numbers.

    Raises:
        SAEError: there is none, one is none of the SAE's, or one is named twice.
    """
    chosen = [int(feature) for feature in features]
    wrong = [feature for feature in chosen if not 0 <= feature < sae.cfg.d_sae]
    wrong += [feature for place, feature in enumerate(chosen) if feature in chosen[:place]]
    if wrong or not chosen:
        said = f"features has {wrong[0]}" if wrong else "There are no features"
        raise SAEError(
            f"{said}{' twice' if wrong and wrong[0] in range(sae.cfg.d_sae) else ''}.",
            expected=f"one or more of 0 to {sae.cfg.d_sae - 1}, each once",
            remedy="See the features of a match, or those that are active in vitlens.saes.evaluate.",
        )
    return chosen


def check_adds_up(sae: SAE) -> None:
    """Refuse an SAE in which a feature's part in the reconstruction is not its code times a row.

    Raises:
        SAEError: the SAE scales activations at run time, or writes to another width than it reads.
    """
    scaling = sae.cfg.normalize_activations
    if scaling in _SCALED_AT_RUN_TIME or sae.W_dec.shape != (sae.cfg.d_sae, sae.cfg.d_in):
        raise SAEError(
            f"The SAE has normalize_activations '{scaling}' and a decoder of {tuple(sae.W_dec.shape)}.",
            expected=f"an SAE that adds codes times rows of {sae.cfg.d_in} to its bias, at one scale",
            remedy="Train it with vitlens.saes.train, whose activation_scale is one factor for all tokens.",
        )


def decoder_rows(sae: SAE, features: Sequence[int]) -> Float[Tensor, "feature d_in"]:
    """What a code of 1 adds to the reconstruction, for each of some features."""
    rows: Tensor = sae.W_dec.detach()[list(features)]
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        # Codes of such a TopK are those of an SAE with rows of length 1.
        rows = rows / rows.norm(dim=1, keepdim=True)
    return rows


def feature_codes(
    sae: SAE, x: Float[Tensor, "batch token d_in"], features: Sequence[int]
) -> Float[Tensor, "batch token feature"]:
    """The codes of some features, on the SAE's device; no more than a block of all of them is alive."""
    index = list(features)
    return torch.cat([codes_of(sae, x[block])[..., index] for block in image_blocks(x, sae.cfg.d_sae)])


def _place(sae: SAE, model: HookedViT, hook_name: str | None, tokens: str | None) -> Place:
    place = place_of(sae, hook_name, tokens, stacklevel=4)
    place.check(model)
    check_adds_up(sae)
    return place


def _lengths(sae: SAE, features: Sequence[int]) -> Float[Tensor, " feature"]:
    lengths: Tensor = decoder_rows(sae, features).norm(dim=1)
    silent = [feature for feature, length in zip(features, lengths.tolist(), strict=True) if not length > 0]
    if silent:
        raise SAEError(
            f"The decoder row of feature {silent[0]} is 0.",
            expected="features with a direction",
            remedy="Leave it out: it writes nothing.",
        )
    return lengths


def _adding(
    sae: SAE,
    model: HookedViT,
    place: Place,
    features: Sequence[int],
    change: Callable[[Tensor], Tensor],
    positions: Sequence[int] | None = None,
) -> NamedHook:
    """A hook that adds what a change of codes [batch token feature] writes."""

    def add(activation: Tensor, hook: Any) -> Tensor:
        x = place.select(model, activation.detach())
        codes_change = change(feature_codes(sae, x, features))
        if positions is not None:
            read = torch.arange(activation.shape[1])[model.cfg.positions(place.tokens)].tolist()
            codes_change = codes_change * _are_chosen(read, positions, place).to(codes_change)[:, None]
        with own_precision(sae):
            added = codes_change @ decoder_rows(sae, features)
        changed = activation.clone()
        changed[:, model.cfg.positions(place.tokens)] += added.to(activation)
        return changed

    return place.hook_name, add


def _are_chosen(read: Sequence[int], positions: Sequence[int], place: Place) -> Tensor:
    """Which of the tokens that are read stand at the positions."""
    missing = [position for position in positions if position not in read]
    if missing:
        raise SAEError(
            f"positions has {missing[0]}, where there is no token that the SAE reads ({place.tokens}).",
            expected=f"positions from {read[0]} to {read[-1]}",
            remedy="Positions count prefix tokens: the first patch stands at model.cfg.n_prefix_tokens.",
        )
    return torch.tensor([position in positions for position in read])
