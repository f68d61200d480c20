"""The pass that fills a gallery: one or two checkpoints on the same pixels, codes reduced as they come."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import ArchitectureError, SAEError
from ..images import Batch, Condition, ImageDataset, OnBadImage, batches, n_images
from ..models import HookedViT, weights_sha256
from ..running.passes import forward, measuring
from ..running.showing import shown
from ._sae_lens import SAE
from .checks import check_batch_size
from .gallery_data import Gallery
from .reading import EVERY_KIND, Place, codes_of, image_blocks
from .top_images import Collector, Layout

CodeReduction = Callable[[int, Tensor], Tensor]
"""(checkpoint's place, codes [image token d_sae]) -> [image ...]."""


@dataclass(frozen=True)
class Side:
    """One checkpoint of a gallery."""

    name: str
    sae: SAE
    model: HookedViT
    place: Place

    @property
    def provenance(self) -> dict[str, Any]:
        """Which model and which SAE, and whether the one was trained on the other."""
        metadata = self.sae.cfg.metadata
        trained_on = metadata.model
        known = {
            "kind": metadata.kind or self.sae.cfg.architecture(),
            "d_in": self.sae.cfg.d_in,
            "d_sae": self.sae.cfg.d_sae,
            "k_per_token": metadata.k_per_token,
            "hook_name": self.place.hook_name,
            "tokens": self.place.tokens,
            "weights_sha256": weights_sha256(self.sae),
            "trained_on": dict(trained_on) if isinstance(trained_on, Mapping) else None,
        }
        return {
            "model": {**self.model.provenance, "weights_sha256": weights_sha256(self.model)},
            "sae": {name: value for name, value in known.items() if value is not None},
        }


@dataclass(frozen=True)
class GalleryPass:
    """One or two checkpoints that see the same images, and how."""

    sides: tuple[Side, ...]
    condition: Condition
    seed: int
    batch_size: int
    on_bad_image: OnBadImage

    def check(self, n_top_images: int, n_middle_images: int) -> None:
        """Refuse what cannot be read or shown.

        Raises:
            SAEError: no top image is asked for, or a negative number of others, or `batch_size` is below 1.
            HookError: a model has no such hook.
            ArchitectureError: a model has no such tokens.
            ConditionError: the condition attacks a checkpoint that is not there, or cannot be attacked.
        """
        if n_top_images < 1 or n_middle_images < 0:
            raise SAEError(
                f"n_top_images is {n_top_images} and n_middle_images is {n_middle_images}.",
                expected="at least 1 top image and no negative number of others",
                remedy="Leave them out for 9 and 3.",
            )
        check_batch_size(self.batch_size)
        self.condition.check({side.name: side.model for side in self.sides})
        for side in self.sides:
            side.place.check(side.model)

    def read(
        self, dataset: ImageDataset, reduce: CodeReduction, what: str, *, progress: bool
    ) -> Iterator[tuple[Batch, Tensor, np.ndarray]]:
        """Batches as the data set gives them, the pixels that were seen, and the reduced codes.

        Yields:
            The batch, pixels [batch 3 height width], and what `reduce` gave, [checkpoint batch ...].
        """
        models = {side.name: side.model for side in self.sides}
        size = self.sides[0].model.cfg.required_image_size
        bar = tqdm(total=n_images(dataset), desc=what, unit="image", disable=not progress)
        with bar, measuring(list(models.values())):
            stream = batches(dataset, self.batch_size, image_size=size, on_bad_image=self.on_bad_image)
            for clean in stream:
                # All sides see the same: what shows each its own pixels is refused where there are two.
                pixels = shown(self.condition, clean, models, seed=self.seed)[self.sides[0].name].pixels
                yield (
                    clean,
                    pixels,
                    np.stack([self._codes(at, pixels, reduce) for at in range(len(self.sides))]),
                )
                bar.update(len(clean))

    def _codes(self, at: int, pixels: Tensor, reduce: CodeReduction) -> np.ndarray:
        side = self.sides[at]

        def reduced(activation: Tensor) -> Tensor:
            x = side.place.select(side.model, activation).float()
            blocks = image_blocks(x, side.sae.cfg.d_sae)
            return torch.cat([reduce(at, codes_of(side.sae, x[block])).cpu() for block in blocks])

        _, (view,) = forward(side.model, pixels, [{side.place.hook_name: reduced}])
        codes: np.ndarray = view[side.place.hook_name].numpy()
        return codes

    def gallery(
        self,
        dataset: ImageDataset,
        features: Sequence[Sequence[int]],
        similarities: Sequence[Mapping[str, float]],
        *,
        n_top_images: int,
        n_middle_images: int,
        class_names: Sequence[str] | None,
        said: str,
        progress: bool,
    ) -> Gallery:
        """The gallery of some features, a sequence for each checkpoint; `said` is how they were chosen."""
        columns = [
            torch.tensor(each, device=side.sae.device)
            for each, side in zip(features, self.sides, strict=True)
        ]
        collector: Collector | None = None
        chosen = self.read(
            dataset, lambda at, codes: codes[..., columns[at]].float(), "Gallery", progress=progress
        )
        for batch, pixels, codes in chosen:
            if collector is None:
                collector = Collector(
                    features,
                    self._layout(codes.shape[2], pixels),
                    n_top=n_top_images,
                    n_middle=n_middle_images,
                    seed=self.seed,
                )
            collector.add(batch, pixels, codes)
        assert collector is not None  # a data set without images was refused while it was read
        return Gallery(
            exhibits=collector.finish(similarities),
            checkpoints=tuple(side.name for side in self.sides),
            prefix_kinds=self._prefix_kinds(),
            n_images=collector.n_images,
            n_top_images=n_top_images,
            n_middle_images=n_middle_images,
            class_names=class_names,
            provenance={
                "features": said,
                "n_images": collector.n_images,
                "condition": self.condition.name,
                "seed": self.seed,
                "checkpoints": {side.name: side.provenance for side in self.sides},
                "versions": {
                    name: importlib.metadata.version(name)
                    for name in ("vitlens", "torch", "timm", "sae-lens")
                },
            },
        )

    def _prefix_kinds(self) -> tuple[str, ...]:
        model, place = self.sides[0].model, self.sides[0].place
        if place.tokens == EVERY_KIND:
            return model.cfg.prefix_kinds
        return tuple(kind for kind in model.cfg.prefix_kinds if kind == place.tokens)

    def _layout(self, n_tokens: int, pixels: Tensor) -> Layout:
        """Which of the tokens that are read stand where.

        Raises:
            ArchitectureError: the patches do not fill the image's grid.
        """
        cfg, read = self.sides[0].model.cfg, self.sides[0].place.tokens
        places = range(n_tokens)
        kinds: dict[str, Sequence[int]] = {read: places}
        if read == EVERY_KIND:
            kinds = {
                kind: places[found] if isinstance(found := cfg.positions(kind), slice) else found
                for kind in cfg.query_kinds
            }
        patches = kinds.get("patch")
        grid = (pixels.shape[-2] // cfg.patch_size[0], pixels.shape[-1] // cfg.patch_size[1])
        if patches is not None and len(patches) != grid[0] * grid[1]:
            raise ArchitectureError(
                f"There are {len(patches)} patch tokens, and the image has {grid[0]} × {grid[1]} patches.",
                expected="a token for each patch of the image, row by row",
                remedy="Choose a hook where no patches are dropped or merged.",
            )
        others = [place for place in places if patches is None or place not in patches]
        return Layout(kinds, patches, others, grid)
