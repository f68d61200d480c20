"""How alike an SAE's codes are: of one image in two checkpoints, and of an image and its corrupted self."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SAEError
from ..images import Condition, ImageDataset, batches, check, n_images, parse_conditions
from ..models import HookedViT
from ..running import measuring, same_architecture
from ..running.showing import shown
from ._sae_lens import SAE
from .code_overlap import VARIABLES, similarity_of_codes
from .feature_match import FeatureMatch
from .reading import Place, codes_of, image_blocks, one_place

MATCHED = "matched"
"""The dictionary in which each checkpoint has its own SAE, and only features that are in a pair count."""


@dataclass(frozen=True)
class _Comparison:
    """Two activations of one image: of two checkpoints, or of one checkpoint on clean and shown pixels."""

    kind: str
    checkpoint_a: str
    checkpoint_b: str

    @property
    def label(self) -> str:
        if self.kind == "checkpoints":
            return f"{self.checkpoint_a} to {self.checkpoint_b}"
        return f"{self.checkpoint_b}, clean to shown"


def code_similarity(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, SAE],
    dataset: ImageDataset,
    *,
    conditions: Sequence[Any] = ("clean",),
    matches: FeatureMatch | Mapping[str, FeatureMatch] | None = None,
    hook_name: str | None = None,
    tokens: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Compare SAE codes per image between checkpoints, and between clean and corrupted pixels.

    There is one forward pass per batch, condition and checkpoint, up to the block that the SAEs read; of a
    batch, the activations there are held for all conditions and checkpoints, and codes for a few images.

    Cosines weigh features by their codes, so SAEs are best compared with decoder rows of one norm, as
    `vitlens.saes.train` makes them.

    Args:
        models: checkpoint name -> model, of one architecture; each is compared with the first.
        saes: dictionary name -> SAE; all read the same place, and each codes every checkpoint.
        dataset: items as in `vitlens.run`, read once.
        conditions: as in `vitlens.run`, with the same pixels for all checkpoints. `clean` is put in front,
            asked for or not; an attack names the checkpoint that is attacked: `pgd:on=base`.
        matches: the match of the first checkpoint's SAE (a) with another's (b), for each other checkpoint,
            or the one match where there are two. It adds the dictionary `matched`: each checkpoint under its
            own SAE, `saes[checkpoint]`, its codes of paired features side by side; features without a
            partner are left out. Against its own clean codes, the first checkpoint has the features that
            are paired in every match.
        hook_name: where to read; by default what `sae.cfg.metadata` says. Another one gives a warning.
        tokens: `patch`, `cls`, `register`, `distillation` or `all`; by default as the metadata says.
        batch_size: images in a forward pass.
        seed: of the corruptions.
        progress: show a bar.

    Returns:
        A table with dims (condition, comparison, dictionary, image) and the variables

        * `code_cosine_token`: the mean over tokens of the cosine of a token's two codes. A token with no
          active feature on either side is left out; one with none on one side counts 0;
        * `code_cosine_image`: the cosine of the two means over the image's tokens;
        * `code_jaccard_token`: the mean over the same tokens of the features active on both sides as a share
          of those active on either;
        * `code_jaccard_image`: the same for features active on any of the image's tokens;
        * `code_n_compared_tokens`: tokens that were not left out; without any, the others are NaN.

        Along `comparison` stand each checkpoint after the first against it (`base to tuned`), and each
        checkpoint against itself on clean pixels (`tuned, clean to shown`), with the coordinates
        `comparison_kind` (`checkpoints`, `conditions`), `checkpoint_a` and `checkpoint_b`.

    Raises:
        SAEError: an SAE is in its training form, does not fit the hook or reads another place than the
            others; a match does not fit the SAEs; or a condition looks inside the model.
        ArchitectureError: the checkpoints are of different architectures.
        HookError: the models have no such hook.
        ConditionError, DatasetError, LabelError, PixelError: as in `vitlens.run`.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> models = {"base": model, "tuned": model}
        >>> data = code_similarity(models, {"base": sae}, images, conditions=["contrast@3"], progress=False)
        >>> dict(data.sizes)
        {'condition': 2, 'comparison': 3, 'dictionary': 1, 'image': 12}
        >>> data["comparison"].values.tolist()
        ['base to tuned', 'base, clean to shown', 'tuned, clean to shown']
    """
    same_architecture(models)
    place = one_place(saes, hook_name, tokens)
    first, *others = models.values()
    for model in (first, *others):
        place.check(model)
    comparisons = _comparisons(list(models))
    columns = _matched_columns(comparisons, saes, matches)
    asked = _conditions(conditions, models)
    check(dataset)
    dictionaries = [*saes, *([MATCHED] if columns else [])]
    ids: list[str] = []
    values: list[np.ndarray] = []
    n = n_images(dataset)
    bar = tqdm(
        total=None if n is None else n * len(asked),
        desc="Comparing codes",
        unit="image",
        disable=not progress,
    )
    with bar, measuring(list(models.values())):
        for clean in batches(dataset, batch_size, image_size=first.cfg.required_image_size):
            ids += clean.image_ids
            read: dict[tuple[str, str], Tensor] = {}
            for condition in asked:
                seen = shown(condition, clean, models, seed=seed)
                for name, model in models.items():
                    read[condition.name, name] = _tokens(model, seen[name].pixels, place)
                bar.update(len(clean))
            values.append(_compared(read, saes, columns, [each.name for each in asked], comparisons))
    measured = np.concatenate(values, axis=3)
    dims = ("condition", "comparison", "dictionary", "image")
    return xr.Dataset(
        {
            name: (dims, measured[..., part], {"units": units, "long_name": long_name})
            for part, (name, (units, long_name)) in enumerate(VARIABLES.items())
        },
        coords={
            "condition": [condition.name for condition in asked],
            "comparison": [each.label for each in comparisons],
            "dictionary": dictionaries,
            "image": ids,
            "comparison_kind": ("comparison", [each.kind for each in comparisons]),
            "checkpoint_a": ("comparison", [each.checkpoint_a for each in comparisons]),
            "checkpoint_b": ("comparison", [each.checkpoint_b for each in comparisons]),
        },
    )


def _compared(
    read: Mapping[tuple[str, str], Tensor],
    saes: Mapping[str, SAE],
    columns: Mapping[_Comparison, tuple[Tensor, Tensor]],
    conditions: Sequence[str],
    comparisons: Sequence[_Comparison],
) -> Float[np.ndarray, "condition comparison dictionary image 5"]:
    """The values of a batch, from its activations by condition, clean first, and checkpoint."""
    x = next(iter(read.values()))
    checkpoints = list(dict.fromkeys(checkpoint for _, checkpoint in read))
    # The codes of the clean and the shown images, of all checkpoints under all SAEs, are alive together.
    d_alive = 2 * len(checkpoints) * sum(sae.cfg.d_sae for sae in saes.values())
    n_dictionaries = len(saes) + bool(columns)
    values = np.empty((len(conditions), len(comparisons), n_dictionaries, len(x), len(VARIABLES)))
    for block in image_blocks(x, d_alive):
        clean: dict[tuple[str, str], Tensor] = {}
        for row, condition in enumerate(conditions):
            shown = {
                (name, checkpoint): codes_of(sae, read[condition, checkpoint][block])
                for name, sae in saes.items()
                for checkpoint in checkpoints
            }
            clean = clean or shown
            for column, each in enumerate(comparisons):
                a, b = each.checkpoint_a, each.checkpoint_b
                before = shown if each.kind == "checkpoints" else clean
                pairs = [(before[name, a], shown[name, b]) for name in saes]
                if columns:
                    of_a, of_b = columns[each]
                    own_a, own_b = before[a, a], shown[b, b]
                    pairs.append((own_a[..., of_a.to(own_a.device)], own_b[..., of_b.to(own_b.device)]))
                for depth, (codes_a, codes_b) in enumerate(pairs):
                    alike = similarity_of_codes(codes_a, codes_b.to(codes_a.device))
                    values[row, column, depth, block] = alike.cpu().numpy()
    return values


def _comparisons(checkpoints: Sequence[str]) -> list[_Comparison]:
    first, *others = checkpoints
    return [
        *(_Comparison("checkpoints", first, other) for other in others),
        *(_Comparison("conditions", each, each) for each in checkpoints),
    ]


def _conditions(specs: Sequence[Any], models: Mapping[str, HookedViT]) -> list[Condition]:
    """The conditions, clean images first."""
    asked = parse_conditions(specs)
    apart = next((condition for condition in asked if not condition.shares_pixels), None)
    if apart is not None:
        raise SAEError(
            f"The condition '{apart.name}' looks inside the model: each checkpoint would see its own pixels.",
            expected="conditions under which all checkpoints see the same pixels",
            remedy=f"Attack one checkpoint and show its pixels to all: 'pgd:on={next(iter(models))}'.",
        )
    for condition in asked:
        condition.check(models)
    clean = parse_conditions(["clean"])
    return [*clean, *(condition for condition in asked if condition.name != "clean")]


def _tokens(model: HookedViT, pixels: Tensor, place: Place) -> Float[Tensor, "batch token d_in"]:
    """What the SAEs read of one batch; no block after theirs is run."""
    seen: list[Tensor] = []
    stop = None if place.layer is None else place.layer + 1
    with model.observing({place.hook_name: lambda activation: seen.append(place.select(model, activation))}):
        model(model.normalize(pixels.to(model.device)), stop_at_layer=stop)
    return seen[0].clone()


def _matched_columns(
    comparisons: Sequence[_Comparison],
    saes: Mapping[str, SAE],
    matches: FeatureMatch | Mapping[str, FeatureMatch] | None,
) -> dict[_Comparison, tuple[Tensor, Tensor]]:
    """The features of either side of each comparison that stand side by side; nothing without matches."""
    if matches is None:
        return {}
    if MATCHED in saes:
        raise SAEError(
            f"There is an SAE named '{MATCHED}'.",
            expected=f"any other name, since '{MATCHED}' is the dictionary that matches= makes",
            remedy="Rename it.",
        )
    others = [each.checkpoint_b for each in comparisons if each.kind == "checkpoints"]
    if isinstance(matches, FeatureMatch):
        matches = dict.fromkeys(others[:1], matches)
    if not others or set(matches) != set(others):
        raise SAEError(
            f"There are matches of the first checkpoint with {sorted(matches)}, and others are {others}.",
            expected="one match for each checkpoint after the first",
            remedy='Pass matches={"tuned": vitlens.saes.match(base_sae, tuned_sae)}.',
        )
    first = comparisons[0].checkpoint_a
    found: dict[_Comparison, tuple[Tensor, Tensor]] = {}
    paired: dict[str, list[np.ndarray]] = {name: [] for name in (first, *others)}
    for each in comparisons:
        if each.kind == "checkpoints":
            match = matches[each.checkpoint_b]
            n_features = [
                saes[name].cfg.d_sae if name in saes else None for name in (first, each.checkpoint_b)
            ]
            if n_features != [match.n_a, match.n_b]:
                raise SAEError(
                    f"The match of '{first}' with '{each.checkpoint_b}' has {match.n_a} and {match.n_b} "
                    f"features, their SAEs have {n_features[0]} and {n_features[1]}.",
                    expected="a match of saes of those names",
                    remedy="Name each checkpoint's SAE after it, and match those.",
                )
            of_a, of_b = match.pairs["feature_a"].to_numpy(), match.pairs["feature_b"].to_numpy()
            found[each] = (torch.tensor(of_a), torch.tensor(of_b))
            paired[first].append(of_a)
            paired[each.checkpoint_b].append(of_b)
    for each in comparisons:
        if each.kind == "conditions":
            common = torch.tensor(reduce(np.intersect1d, paired[each.checkpoint_a]))
            found[each] = (common, common)
    return found
