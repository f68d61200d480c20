"""Ablation: what the model says with one head, one attention or one MLP taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import Subset

from ..errors import AnalysisError, DatasetError
from ..functional.attribution import correct_log_probability
from ..images import Batch, ImageDataset, n_images
from ..models import ActivationCache, HookedViT
from ..running import Reduction, table
from .ablation_bank import AblationBank, known_sha256, make_bank, read_activations
from .interventions import block_by_block, check_kinds, logits_with
from .prediction import is_correct, needs_classes

_KINDS = ("zero", "mean", "resample")
_COMPONENTS = ("head", "attn", "mlp")
_HOOKS = {"head": "attn.hook_z", "attn": "attn.hook_z", "mlp": "hook_mlp_out"}
_PREFIX = {"head": "ablated", "attn": "ablated_attention", "mlp": "ablated_mlp"}
_SAID = {"head": "one head", "attn": "all heads of one block", "mlp": "the MLP of one block"}


@dataclass(frozen=True)
class Ablation:
    """How the answer changes when one head, one attention layer or one MLP is taken out.

    Variables, for the components asked for: `ablated_log_probability_change` (image, layer, head), the
    log-probability of the correct class without the head less that with it, in nats (negative where the head
    helps), and `ablated_correct`, whether the prediction is then correct; the same (image, layer) as
    `ablated_attention_log_probability_change` and `ablated_attention_correct`, for all heads of a block at
    once (its output bias stays), and as `ablated_mlp_log_probability_change` and `ablated_mlp_correct`.

    What is taken out is replaced by zeros; by its mean over a data set, at each position (`Ablation.mean`);
    or by what it is on another image, drawn for each image (`Ablation.resample`). Zeros, and less so means,
    are activations that the model never sees; another image's are ones that it does.

    Cost: the blocks before an ablation are not run again. For n layers and h heads that is (n + 1) / 2
    forward passes each for `attn` and `mlp`, h times as many for `head`, and one beside: 34 a batch for
    DeiT-tiny. One kind of ablation in one run: the variables of two would have the same names.

    Args:
        kind: `zero`, `mean` or `resample`.
        components: of `head`, `attn`, `mlp`.
        banks: what takes their place, for each checkpoint its own, told apart by their weights; from
            `Ablation.mean` or `Ablation.resample`.
        seed: of the draw of other images.

    Raises:
        AnalysisError: `kind` or a component is none, or there are banks where there should be none.

    Source: Michel et al. (2019), "Are sixteen heads really better than one?", section 3; mean ablation, Wang
    et al. (2023), "Interpretability in the wild"; resampling, Chan et al. (2022), "Causal scrubbing".

    Example:
        >>> import timm, vitlens as vl
        >>> timm_model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> model = vl.HookedViT(timm_model)
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> mean = Ablation.mean(model, images, progress=False)
        >>> data = vl.run(model, images, [mean], progress=False)
        >>> data["ablated_log_probability_change"].dims
        ('condition', 'image', 'layer', 'head')
    """

    kind: str = "zero"
    components: tuple[str, ...] = _COMPONENTS
    banks: tuple[AblationBank, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self.components, _COMPONENTS, "Ablation")
        if self.kind not in _KINDS or (self.kind == "zero") != (not self.banks):
            raise AnalysisError(
                f"The kind of Ablation is {self.kind!r}, with {len(self.banks)} banks.",
                expected="'zero' without banks, or 'mean' or 'resample' with one for each checkpoint",
                remedy="Use Ablation(), Ablation.mean(model, dataset) or Ablation.resample(model, dataset).",
            )

    @classmethod
    def mean(
        cls,
        models: HookedViT | Mapping[str, HookedViT],
        dataset: ImageDataset,
        *,
        components: tuple[str, ...] = _COMPONENTS,
        condition: Any = "clean",
        batch_size: int = 32,
        seed: int = 0,
        progress: bool = True,
    ) -> Ablation:
        """Ablation by the mean activation over a data set, at each position.

        Args:
            models: the model, or each checkpoint of a comparison.
            dataset: items as in `run`, read once.
            components: what shall be ablated.
            condition: what is done to the images first.
            batch_size: images in a forward pass.
            seed: of the condition.
            progress: show a bar.

        Returns:
            The analysis, with a bank for each checkpoint.

        Raises:
            AnalysisError, ConditionError, DatasetError, PixelError: what is asked for or given cannot be
                used.
        """
        check_kinds(components, _COMPONENTS, "Ablation")
        models = {"model": models} if isinstance(models, HookedViT) else models
        ids, sums = read_activations(
            models,
            dataset,
            _hooks(components),
            lambda activation: activation.double().sum(0, keepdim=True),
            torch.add,
            condition=condition,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        banks = (
            make_bank(model, {hook: total / len(ids) for hook, total in sums[name].items()})
            for name, model in models.items()
        )
        return cls("mean", components, tuple(banks))

    @classmethod
    def resample(
        cls,
        models: HookedViT | Mapping[str, HookedViT],
        dataset: ImageDataset,
        *,
        n_source: int = 16,
        components: tuple[str, ...] = _COMPONENTS,
        condition: Any = "clean",
        batch_size: int = 32,
        seed: int = 0,
        progress: bool = True,
    ) -> Ablation:
        """Ablation by the activations of other images.

        A bank of `n_source` images is drawn from the data set and its activations are held, two residual
        streams a layer and image: 1.2 MB a layer and image for ViT-B at 224. Each image then gets one source
        for all its ablations, drawn by (seed, image id); it is never itself.

        Args:
            models: the model, or each checkpoint of a comparison.
            dataset: items as in `run`, with a length.
            n_source: images in the bank.
            components: what shall be ablated.
            condition: what is done to the images first.
            batch_size: images in a forward pass.
            seed: of the draws and of the condition.
            progress: show a bar.

        Returns:
            The analysis, with a bank for each checkpoint.

        Raises:
            AnalysisError, ConditionError, DatasetError, PixelError: what is asked for or given cannot be
                used.
        """
        check_kinds(components, _COMPONENTS, "Ablation")
        n = n_images(dataset)
        if n is None or not hasattr(dataset, "__getitem__") or not 2 <= n_source <= n:
            raise DatasetError(
                f"{n_source} of {'an unknown number of' if n is None else n} images are to be the source.",
                expected="2 or more images, of a data set with __getitem__ and __len__ that has as many",
                remedy="Set n_source=, or give a list of items.",
            )
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        chosen: Any = Subset(dataset, sorted(order[:n_source].tolist()))  # type: ignore[arg-type]
        models = {"model": models} if isinstance(models, HookedViT) else models
        ids, whole = read_activations(
            models,
            chosen,
            _hooks(components),
            lambda activation: activation.float().cpu().clone(),
            lambda known, more: torch.cat([known, more]),
            condition=condition,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        banks = (make_bank(model, whole[name], ids) for name, model in models.items())
        return cls("resample", components, tuple(banks), seed)

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """None: blocks are walked one at a time."""
        needs_classes(model, self)
        self._bank(model)
        return {}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        bank = self._bank(model)
        sources = None if bank is None else bank.sources(batch.image_ids, self.seed)
        images = model.normalize(batch.pixels)
        intact = correct_log_probability(logits, batch.labels)
        changes: dict[str, list[Tensor]] = {kind: [] for kind in self.components}
        correct: dict[str, list[Tensor]] = {kind: [] for kind in self.components}
        for block in block_by_block(model, images):
            for kind in self.components:
                by = torch.zeros(())
                if bank is not None and sources is not None:
                    by = bank.activations[f"blocks.{block.layer}.{_HOOKS[kind]}"][sources]
                by = by.to(model.device)
                for heads in [[head] for head in range(model.cfg.n_heads)] if kind == "head" else [None]:
                    ablated = logits_with(model, images, block, _HOOKS[kind], by, heads)
                    changes[kind].append(correct_log_probability(ablated, batch.labels) - intact)
                    correct[kind].append(is_correct(ablated, batch.labels))
        return self._table(model, changes, correct)

    def _table(
        self, model: HookedViT, changes: Mapping[str, list[Tensor]], correct: Mapping[str, list[Tensor]]
    ) -> xr.Dataset:
        variables: dict[str, tuple[Any, ...]] = {}
        coords: dict[str, Sequence[int]] = {"layer": range(model.cfg.n_layers)}
        by = {"zero": "zeros", "mean": "its mean", "resample": "that of another image"}[self.kind]
        for kind in self.components:
            dims, shape = ["layer"], [model.cfg.n_layers]
            if kind == "head":
                dims, shape = ["layer", "head"], [model.cfg.n_layers, model.cfg.n_heads]
                coords["head"] = range(model.cfg.n_heads)
            replaced = f"{_SAID[kind]} replaced by {by}"
            variables[f"{_PREFIX[kind]}_log_probability_change"] = (
                dims,
                torch.stack(changes[kind], dim=1).unflatten(1, shape),
                {"units": "nats", "long_name": f"Change of the correct class's log-probability, {replaced}"},
            )
            variables[f"{_PREFIX[kind]}_correct"] = (
                dims,
                torch.stack(correct[kind], dim=1).unflatten(1, shape),
                {"units": "share", "long_name": f"Correct prediction, {replaced}"},
            )
        return table(variables, **coords)

    def _bank(self, model: HookedViT) -> AblationBank | None:
        """The bank of this checkpoint; None where zeros are put in."""
        if self.kind == "zero":
            return None
        digest = known_sha256(model)
        for bank in self.banks:
            if bank.weights_sha256 == digest:
                return bank
        raise AnalysisError(
            f"Ablation has banks of {len(self.banks)} checkpoints, none of this one (weights {digest[:8]}).",
            expected="a bank made from the very weights that are run",
            remedy=f"Give all checkpoints: Ablation.{self.kind}({{'base': base, 'tuned': tuned}}, dataset).",
        )


def _hooks(components: Sequence[str]) -> list[str]:
    # Heads and whole attentions are read at one hook.
    return list(dict.fromkeys(_HOOKS[kind] for kind in components))
