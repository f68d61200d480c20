"""The tuned lens: the logit lens behind an affine translator for each place, trained per checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import AnalysisError, CheckpointError
from ..files import check_version, sort_metadata, whole
from ..images import Batch, ImageDataset, n_images, parse_conditions
from ..models import ActivationCache, HookedViT, weights_sha256
from ..running import Reduction, table
from .logit_lens import first_correct, lens_variables, places
from .prediction import needs_classes
from .tuned_lens_training import Recipe, fit_translators, translated_readout

FORMAT_VERSION = "1"


@dataclass(frozen=True, eq=False, repr=False)
class Translators:
    """The affine translators of one checkpoint: at each place, a stream h is read as h + weight · h + bias.

    Attributes:
        weight: for every `resid_layer` but the last.
        bias: likewise.
        model_sha256: `weights_sha256` of the model that they were trained on.
        cfg: that model's configuration, as JSON has it.
        recipe: how they were trained, as JSON has it.
    """

    weight: Float[Tensor, "place d_model d_model"]
    bias: Float[Tensor, "place d_model"]
    model_sha256: str
    cfg: Mapping[str, Any]
    recipe: Mapping[str, Any]

    @cached_property
    def sha256(self) -> str:
        """A hash of the translators and of the model that they belong to."""
        digest = hashlib.sha256(self.model_sha256.encode())
        for tensor in (self.weight, self.bias):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"Translators({self.sha256[:16]} of model {self.model_sha256[:16]})"


@dataclass(frozen=True, eq=False, repr=False)
class TunedLens:
    """The model's readout of translated residual streams; what a stream says once its basis is corrected.

    Variables as for `LogitLens`: (image, resid_layer) `tuned_lens_predicted`, `tuned_lens_probability` (of
    the correct class), `tuned_lens_rank` (0 = top), `tuned_lens_entropy_nats`, `tuned_lens_kl_nats` (of the
    output from the lens); (image) `tuned_first_correct_layer` (a `resid_layer`; NaN: never). The last place
    has no translator: it is the output.

    Translators belong to the weights that they were trained on, and no other model is read with them. A lens
    holds those of one checkpoint or of several, and each model finds its own by its weights.

    Where all images share a stream, as the class token does before block 0, a translator can learn only how
    often the model says each class: it suits images like those that it was trained on.

    Args:
        translators: from `train`, `load` or `join`.

    Raises:
        AnalysisError: two sets of translators are for one checkpoint.

    Source: Belrose et al. (2023), "Eliciting latent predictions from transformers with the tuned lens" (arXiv
    2303.08112), section 3.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(
        ...     timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=10)
        ... )
        >>> lens = TunedLens.train(model, vl.images.digits("train"), n_steps=2, progress=False)
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> vl.run(model, images, [lens], progress=False)["tuned_lens_kl_nats"].shape
        (1, 4, 3)
    """

    translators: tuple[Translators, ...] = ()

    def __post_init__(self) -> None:
        models = [each.model_sha256 for each in self.translators]
        twice = next((model for model in models if models.count(model) > 1), None)
        if twice is not None:
            raise AnalysisError(
                f"A TunedLens is given two different sets of translators for the model {twice[:16]}.",
                expected="one for each checkpoint",
                remedy="Leave one of them out.",
            )

    def __repr__(self) -> str:
        return f"TunedLens({', '.join(sorted(map(repr, self.translators)))})"

    # ------------------------------------------------------------------ the analysis

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place but the last, reduced to the head's logits behind the translator of these weights.

        Raises:
            AnalysisError: the model has no classifier, or the lens was not trained on its weights.
        """
        needs_classes(model, self)
        mine = self._translators_of(model)
        weight, bias = mine.weight.to(model.device), mine.bias.to(model.device)
        return {
            name: partial(translated_readout, model, weight=weight[place], bias=bias[place])
            for place, name in enumerate(places(model))
        }

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        lens = torch.stack([*(cache[name] for name in places(model)), logits.float()], dim=1)
        by_place = lens_variables(lens, batch.labels, "tuned_lens", "the tuned lens")
        first = first_correct(by_place["tuned_lens_rank"][1], "the tuned lens")
        return table(
            {**by_place, "tuned_first_correct_layer": first}, resid_layer=range(model.cfg.n_layers + 1)
        )

    def _translators_of(self, model: HookedViT) -> Translators:
        wanted = weights_sha256(model)
        for translators in self.translators:
            if translators.model_sha256 == wanted:
                return translators
        trained = ", ".join(each.model_sha256[:16] for each in self.translators) or "none"
        raise AnalysisError(
            f"TunedLens has no translators for a model with these weights ({wanted[:16]}); "
            f"it was trained on: {trained}.",
            expected="a model with exactly the weights that the lens was trained on",
            remedy="Train one with TunedLens.train, for several checkpoints at once with "
            '{"base": model, "tuned": other}, or put trained ones together with TunedLens.join.',
        )

    # ------------------------------------------------------------------ making one

    @classmethod
    def train(
        cls,
        model: HookedViT | Mapping[str, HookedViT],
        dataset: ImageDataset,
        *,
        conditions: Sequence[Any] = ("clean",),
        n_steps: int = 250,
        batch_size: int = 32,
        learning_rate: float | None = None,
        weight_decay: float = 5.0,
        seed: int = 0,
        progress: bool = True,
    ) -> TunedLens:
        """Train a translator for every place but the last, to minimize KL(output ‖ lens).

        Give images like those that will be measured, and none of those: a translator also learns how often
        the model says each class.

        Args:
            model: the model, or checkpoint name -> model; left as it is. Of several, each gets translators of
                its own, trained on the same images in the same order.
            dataset: items as for `run`, by index. Labels play no part.
            conditions: under which the images are shown; each image once under each, in an epoch.
            n_steps: steps of AdamW, with a rate that falls to zero in a straight line.
            batch_size: images a step.
            learning_rate: at the first step; by default 0.8 / d_model, with which a first step moves a
                stream by about as much in models of any width.
            weight_decay: toward the plain lens, as a share of the learning rate.
            seed: of the order of the images, and of the corruptions.
            progress: show a bar.

        Returns:
            The lens, for these weights.

        Raises:
            AnalysisError: a model has no classifier, a setting makes no sense, or training diverged.
            ConditionError, DatasetError, PixelError: what is asked for or given cannot be used.

        Example:
            See the class.
        """
        models = {"model": model} if isinstance(model, HookedViT) else dict(model)
        asked = parse_conditions(conditions)
        recipe = Recipe(n_steps, batch_size, learning_rate, weight_decay, seed)
        for each in models.values():
            needs_classes(each, cls())
        made: dict[str, Translators] = {}
        for name, each in models.items():
            key = weights_sha256(each)
            if key in made:
                continue
            what = "tuned lens" if isinstance(model, HookedViT) else f"tuned lens of {name}"
            weight, bias = fit_translators(each, dataset, asked, recipe, what=what, progress=progress)
            told = {
                **asdict(recipe),
                "learning_rate": recipe.first_rate(each),
                "conditions": [condition.name for condition in asked],
                "n_images": n_images(dataset),
            }
            # As JSON gives it back, so that a loaded lens equals the saved one.
            cfg = json.loads(json.dumps(asdict(each.cfg)))
            made[key] = Translators(weight, bias, key, cfg, told)
        return cls(tuple(made.values()))

    @classmethod
    def join(cls, *lenses: TunedLens) -> TunedLens:
        """One lens for all the checkpoints that the given lenses were trained on, for a comparison.

        Args:
            *lenses: each trained on other checkpoints. Where two hold the same translators, one is kept.

        Returns:
            The lens. It needs no names: each model finds its translators by its weights.

        Raises:
            AnalysisError: two lenses have different translators for one checkpoint.

        Example:
            >>> TunedLens.join(TunedLens(), TunedLens())
            TunedLens()
        """
        every = {each.sha256: each for lens in lenses for each in lens.translators}
        return cls(tuple(every.values()))

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the lens to one safetensors file, with what it was trained on and how.

        Args:
            path: where to write; made whole or not at all.

        Returns:
            The path.
        """
        tensors, described = {}, {}
        for each in self.translators:
            tensors[f"{each.model_sha256}.weight"] = each.weight.contiguous()
            tensors[f"{each.model_sha256}.bias"] = each.bias.contiguous()
            described[each.model_sha256] = {"sha256": each.sha256, "cfg": each.cfg, "recipe": each.recipe}
        with whole(path) as temporary:
            save_file(
                tensors,
                temporary,
                metadata={"vitlens_tuned_lens": FORMAT_VERSION, "translators": json.dumps(described)},
            )
            sort_metadata(temporary)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TunedLens:
        """Read a lens that `save` wrote.

        Args:
            path: the file.

        Returns:
            The lens, equal to the saved one.

        Raises:
            CheckpointError: the file is missing, damaged or no tuned lens.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                check_version(metadata.get("vitlens_tuned_lens"), FORMAT_VERSION, path)
                described = json.loads(metadata["translators"])
                loaded = [
                    Translators(
                        # Copies lie where memory is aligned: elsewhere products may round otherwise.
                        file.get_tensor(f"{model}.weight").clone(),
                        file.get_tensor(f"{model}.bias").clone(),
                        model,
                        about["cfg"],
                        about["recipe"],
                    )
                    for model, about in described.items()
                ]
                damaged = [each for each in loaded if each.sha256 != described[each.model_sha256]["sha256"]]
            if damaged:
                raise ValueError(f"{damaged[0]} is not what was saved")
        except CheckpointError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{os.fspath(path)} cannot be read as a tuned lens ({type(error).__name__}: {error}).",
                expected="a file that TunedLens.save wrote",
                remedy="Check the path, or train the lens anew.",
            ) from error
        return cls(tuple(loaded))
