"""The activations at one hook over a data set, token by token."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AnalysisError
from ..images import ImageDataset, OnBadImage, batches, n_images, parse_condition
from ..models import HookedViT
from .finiteness import NotFinite, Saying
from .passes import forward, measuring
from .showing import shown


def activations(
    model: HookedViT,
    dataset: ImageDataset,
    hook_name: str,
    *,
    tokens: str = "patch",
    condition: Any = "clean",
    batch_size: int = 32,
    seed: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> Float[Tensor, "token d_in"]:
    """Collect the activations of one hook, a row a token, in memory.

    Args:
        model: the model; it is run in evaluation mode and left as it was.
        dataset: items as in `run`.
        hook_name: a hook whose activation is [batch pos d_in].
        tokens: which tokens: `patch`, `cls`, `register`, `distillation` or `all`.
        condition: what is done to the images first, as in `run`.
        batch_size: images in a forward pass.
        seed: of the corruption.
        on_bad_image: as in `run`; an image that is left out has no rows, and a warning names it.
        progress: show a bar.

    Returns:
        float32 rows on the CPU, image by image in the order of the data set, tokens in the order of `pos`. A
        warning says so once where some are NaN or infinite, as after an overflow in half precision.

    Raises:
        HookError: the model has no such hook.
        AnalysisError: its activation is not [batch pos d_in].
        ArchitectureError: the model has no such tokens.
        ConditionError, DatasetError, LabelError, PixelError: as in `run`.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(3)]
        >>> activations(model, images, "blocks.9.hook_resid_post", progress=False).shape
        torch.Size([12, 192])
    """
    rows, _ = taken(
        model,
        dataset,
        hook_name,
        tokens=tokens,
        condition=condition,
        batch_size=batch_size,
        seed=seed,
        on_bad_image=on_bad_image,
        progress=progress,
    )
    return rows


def taken(
    model: HookedViT,
    dataset: ImageDataset,
    hook_name: str,
    *,
    tokens: str,
    condition: Any,
    batch_size: int,
    seed: int,
    on_bad_image: OnBadImage,
    progress: bool,
) -> tuple[Float[Tensor, "token d_in"], int]:
    """What `activations` gives, and of how many images it is."""
    if not isinstance(model, HookedViT):
        raise AnalysisError(
            f"The model is a {type(model).__name__}.",
            expected="a HookedViT",
            remedy="Wrap a module of timm: vitlens.HookedViT(module).",
        )
    model.check_hook_names([hook_name])
    positions = model.cfg.positions(tokens)
    asked, models = parse_condition(condition), {"model": model}
    asked.check(models)
    rows: list[Tensor] = []
    n = 0
    not_finite, saying = NotFinite(), Saying([model], None)

    def select(activation: Tensor) -> Tensor:
        if activation.ndim != 3:
            raise AnalysisError(
                f"'{hook_name}' is {tuple(activation.shape)}.",
                expected="an activation of [batch, pos, d_in]",
                remedy="Choose a hook of the residual stream, of an output or of the MLP.",
            )
        return activation[:, positions].flatten(0, 1).float().cpu()

    bar = tqdm(total=n_images(dataset), desc=hook_name, unit="image", disable=not progress)
    with bar, measuring([model]):
        size = model.cfg.required_image_size
        for clean in batches(dataset, batch_size, image_size=size, on_bad_image=on_bad_image):
            seen = shown(asked, clean, models, seed=seed)["model"]
            notice = not_finite.notices("model", asked.name, seen.image_ids)
            _, (view,) = forward(
                model, seen.pixels, [{hook_name: select}], notice=notice, names=["activations"]
            )
            saying.say(not_finite.records(), stacklevel=2)
            rows.append(view[hook_name].clone())
            n += len(clean)
            bar.update(len(clean))
    # Leaving inference mode: rows shall be usable where gradients are wanted.
    return torch.cat(rows).clone(), n
