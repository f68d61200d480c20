"""What matched, lost and new features do to the correct class, in each of two checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int

from ..errors import SAEError
from ..images import ImageDataset, n_images
from ..models import HookedViT
from ..running import run, same_architecture
from ._sae_lens import SAE
from .causal_analyses import QUANTITIES, FeatureEffect
from .codes import FeatureUse
from .feature_match import FeatureMatch
from .intervals import ESTIMATES, Resamples
from .like_frequency import drawn_alike
from .reading import Place, one_place


class _Cell(NamedTuple):
    """One group's features as one SAE has them, ablated in one checkpoint."""

    group: str
    sae: str
    checkpoint: str


_COLUMNS = (
    "metric",
    "condition",
    *_Cell._fields,
    *(f"reference_{name}" for name in _Cell._fields),
    *ESTIMATES,
    "n",
    "n_features",
)


@dataclass(frozen=True, eq=False, repr=False)
class FeatureEffects:
    """What features of several groups do to the correct class.

    Attributes:
        table: means over images, and differences between them: `metric`, `condition`, `group`, `sae`,
            `checkpoint`, `reference_group`, `reference_sae`, `reference_checkpoint`, `value`, `ci_low`,
            `ci_high`, `n` (images), `n_features` (of each group). Without a reference, the value is the
            metric of that SAE's features of the group, ablated in that checkpoint. With one, it is its
            difference, less that of the reference.
        features: the features that were drawn, a row each: `group`, `sae`, `feature`, and `n_active_tokens`,
            in the SAE's own checkpoint, under the first condition. The matched features of the two SAEs stand
            in the same order, pair by pair.
        rows: per image and feature: the variables of `FeatureEffect`, named after each SAE, with dims
            (checkpoint, condition, image, `<sae>_feature`).

    Example:
        See `feature_effects`, which makes them.
    """

    table: pd.DataFrame
    features: pd.DataFrame
    rows: xr.Dataset

    def __repr__(self) -> str:
        groups = ", ".join(self.features["group"].unique())
        n_features, n = self.table.loc[0, ["n_features", "n"]]
        return f"FeatureEffects({n_features} features each of {groups}; {n} images)"


def feature_effects(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, SAE],
    match: FeatureMatch,
    dataset: ImageDataset,
    *,
    conditions: Sequence[Any] = ("clean",),
    n_features_per_group: int = 32,
    hook_name: str | None = None,
    tokens: str | None = None,
    batch_size: int = 32,
    rows_per_pass: int = 64,
    seed: int = 0,
    n_resamples: int = 2000,
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> FeatureEffects:
    """Ablate features that matched, that were lost and that are new, in both checkpoints, and compare.

    Groups are the match's: `matched`, pairs, each SAE with its own feature of the pair; `lost`, live features
    of the first SAE that are in no pair; `new`, live features of the second that are in none. A feature is
    live if it is active on the data set under the first condition, in its SAE's own checkpoint, and not dead
    by the match. Since rare features do less, the groups are drawn alike in frequency: of each group the same
    number from every octave of the number of tokens on which a feature is active (1, 2 to 3, 4 to 7, ...); of
    a pair, the geometric mean of its two. A group without live features is left out.

    Every drawn feature is then ablated by itself, in both checkpoints: on the other one's activations its SAE
    is applied as it is. Metrics, each a mean over the group's features and then over images, 0 where a
    feature is not active: `logit_change` and `probability_change` of the correct class, negative where
    features speak for it, and `absolute_logit_change` and `absolute_probability_change`, in which features
    that speak for it and against it do not cancel. Differences are taken between groups in one checkpoint,
    between the checkpoints for one group, and between the two sides of the pairs, each in its own checkpoint.

    Intervals are 95 % bootstrap intervals that resample images, the same draws for all, so that differences
    are paired. They speak of the features that were drawn: another seed draws others.

    Args:
        models: the two checkpoints by name, of one architecture.
        saes: the SAE that was trained on each, by the same names; the first is the match's a, the second its
            b.
        match: from `vitlens.saes.match` of the two.
        dataset: items as in `vitlens.run`, with a length: it is read once for each SAE and once more.
        conditions: as in `vitlens.run`.
        n_features_per_group: how many features to draw of each group, at most.
        hook_name: as in `evaluate`.
        tokens: as in `evaluate`.
        batch_size: images in a forward pass.
        rows_per_pass: ablations in a forward pass.
        seed: of the draw, the corruptions and the resampling.
        n_resamples: bootstrap resamples.
        output: a folder for the rows, as in `vitlens.run`.
        progress: show bars.

    Returns:
        The table, the features that were drawn, and the rows.

    Raises:
        SAEError: there are not two checkpoints of the same names, the match is of other SAEs, the data set
            cannot be read again, the groups share no octave of frequency, or as in `FeatureEffect`.
        ArchitectureError: the checkpoints are of different architectures.
        HookError, ConditionError, DatasetError, LabelError, PixelError: as in `vitlens.run`.

    Example:
        >>> import timm, vitlens as vl
        >>> small = dict(img_size=32, num_classes=10, depth=2)
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> models, saes = {}, {}
        >>> for seed, name in enumerate(["base", "tuned"]):
        ...     timm_model = timm.create_model("vit_tiny_patch16_224", **small)
        ...     models[name] = vl.HookedViT(vl.testing.randomize(timm_model, seed))
        ...     source = (models[name], images, "blocks.0.hook_resid_post")
        ...     settings = dict(d_sae=64, k_per_token=8, batch_size=8, n_tokens=80, progress=False)
        ...     saes[name] = vl.saes.train(source, **settings)
        >>> match = vl.saes.match(*saes.values(), progress=False)
        >>> effects = feature_effects(models, saes, match, images, n_features_per_group=2, progress=False)
        >>> effects
        FeatureEffects(2 features each of matched, lost, new; 12 images)
        >>> of_lost = "metric == 'logit_change' and reference_group == '' and group == 'lost'"
        >>> effects.table.query(of_lost)[["sae", "checkpoint"]].values.tolist()
        [['base', 'base'], ['base', 'tuned']]
    """
    resamples = Resamples(n_resamples, seed)
    _check(models, saes, match, dataset, n_features_per_group)
    place = one_place(saes, hook_name, tokens)

    def effect(name: str, features: Sequence[int]) -> FeatureEffect:
        # Where it reads has been asked, and warned of, already.
        return FeatureEffect(
            saes[name], place.hook_name, place.tokens, name, False,
            features=features, rows_per_pass=rows_per_pass,
        )  # fmt: skip

    for name, model in models.items():
        effect(name, [0]).hooks(model)  # what cannot be ablated is refused before the first pass
    shared: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "progress": progress}
    n_active = {
        name: _n_active_tokens(models[name], sae, place, dataset, conditions=conditions[:1], **shared)
        for name, sae in saes.items()
    }
    features = _drawn(match, n_active, n_features_per_group, seed)
    rows = run(
        models,
        dataset,
        [
            effect(name, each.tolist())
            for name in saes
            if len(each := features.loc[features["sae"] == name, "feature"])
        ],
        conditions=conditions,
        output=output,
        **shared,
    )
    table = pd.DataFrame(_estimated(rows, features, list(models), resamples))
    n_features = int(features.groupby(["group", "sae"]).size().iloc[0])  # as many of each
    table = table.assign(n=rows.sizes["image"], n_features=n_features)[list(_COLUMNS)]
    return FeatureEffects(table, features, rows)


def _check(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, SAE],
    match: FeatureMatch,
    dataset: ImageDataset,
    n_features_per_group: int,
) -> None:
    if len(saes) != 2 or set(saes) != set(models):
        raise SAEError(
            f"The models are {list(models)}, the SAEs are of {list(saes)}.",
            expected="two checkpoints, the same names in both",
            remedy='Pass {"base": base, "tuned": tuned} and {"base": sae_a, "tuned": sae_b}.',
        )
    same_architecture(models)
    sizes = tuple(sae.cfg.d_sae for sae in saes.values())
    if sizes != (match.n_a, match.n_b):
        raise SAEError(
            f"The match is of {match.n_a} and {match.n_b} features, the SAEs have {sizes[0]} and {sizes[1]}.",
            expected="the match of these two SAEs, in this order",
            remedy="Pass vitlens.saes.match(sae_a, sae_b), with saes={first: sae_a, second: sae_b}.",
        )
    if n_features_per_group < 1:
        raise SAEError(
            f"n_features_per_group is {n_features_per_group}.",
            expected="1 or more",
            remedy="Leave it out for 32.",
        )
    if n_images(dataset) is None:
        raise SAEError(
            f"The data set is a {type(dataset).__name__} of no known length.",
            expected="a data set that can be read several times",
            remedy="Put the items into a list.",
        )


def _n_active_tokens(
    model: HookedViT, sae: SAE, place: Place, dataset: ImageDataset, **shared: Any
) -> Int[np.ndarray, " d_sae"]:
    """On how many tokens of the data set each feature is active."""
    use = FeatureUse(sae, place.hook_name, place.tokens, warns=False)
    counts = run(model, dataset, [use], **shared)["sae_n_active_tokens"].isel(condition=0)
    return np.asarray(counts.sel(token_kind=place.kinds(model)[-1]).values)


def _drawn(
    match: FeatureMatch, n_active: Mapping[str, Int[np.ndarray, " d_sae"]], n_per_group: int, seed: int
) -> pd.DataFrame:
    """The features to ablate, a row each."""
    (a, in_a), (b, in_b) = n_active.items()
    pairs = match.pairs[["feature_a", "feature_b"]].to_numpy(np.int64)
    frequencies = {
        "matched": np.sqrt(in_a[pairs[:, 0]].astype(np.float64) * in_b[pairs[:, 1]]),
        "lost": in_a[match.unmatched_a].astype(np.float64),
        "new": in_b[match.unmatched_b].astype(np.float64),
    }
    drawn = drawn_alike(frequencies, n_per_group, seed)
    chosen = {
        ("matched", a): pairs[drawn["matched"], 0],
        ("lost", a): match.unmatched_a[drawn["lost"]],
        ("matched", b): pairs[drawn["matched"], 1],
        ("new", b): match.unmatched_b[drawn["new"]],
    }
    return pd.concat(
        pd.DataFrame({"group": group, "sae": sae, "feature": each, "n_active_tokens": n_active[sae][each]})
        for (group, sae), each in chosen.items()
    ).reset_index(drop=True)


def _estimated(
    rows: xr.Dataset, features: pd.DataFrame, checkpoints: Sequence[str], resamples: Resamples
) -> Iterator[dict[str, Any]]:
    """Each metric of each cell, then its differences from other cells, a row a condition."""
    by_group = features.groupby(["group", "sae"], sort=False)["feature"]
    drawn = {(str(group), str(sae)): each.tolist() for (group, sae), each in by_group}
    pairs = list(_pairs([_Cell(*own, checkpoint) for own in drawn for checkpoint in checkpoints]))
    for quantity, absolute in product(QUANTITIES, (False, True)):
        means = {}
        for own, each in drawn.items():
            changes = rows[f"{own[1]}_ablated_{quantity}_change"].astype(np.float64)
            of_group = changes.sel({changes.dims[-1]: each})
            mean = (abs(of_group) if absolute else of_group).mean(str(changes.dims[-1]))
            for checkpoint in checkpoints:
                of_checkpoint = mean.sel(checkpoint=checkpoint).transpose("image", "condition")
                means[_Cell(*own, checkpoint)] = of_checkpoint.values
        metric = f"absolute_{quantity}_change" if absolute else f"{quantity}_change"
        for cell, reference in pairs:
            values = means[cell] if reference is None else means[cell] - means[reference]
            estimates = resamples.of(values)
            named = cell._asdict()
            for name in _Cell._fields:
                named[f"reference_{name}"] = "" if reference is None else getattr(reference, name)
            for at, condition in enumerate(rows["condition"].values.tolist()):
                figures = dict(zip(ESTIMATES, estimates[:, at].tolist(), strict=True))
                yield {"metric": metric, "condition": condition} | named | figures


def _pairs(cells: Sequence[_Cell]) -> Iterator[tuple[_Cell, _Cell | None]]:
    """What is estimated: each cell, and the differences that `feature_effects` speaks of."""
    for cell in cells:
        yield cell, None
    for reference, cell in permutations(cells, 2):
        of_one_sae = reference.group == "matched" and cell.group != "matched" and cell.sae == reference.sae
        of_two = (reference.group, cell.group) == ("lost", "new")
        if cell.checkpoint == reference.checkpoint and (of_one_sae or of_two):
            yield cell, reference
    for reference, cell in combinations(cells, 2):
        at_home = all(each.group == "matched" and each.sae == each.checkpoint for each in (reference, cell))
        if cell[:2] == reference[:2] or at_home:
            yield cell, reference
