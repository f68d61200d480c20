"""The features of two checkpoints' sparse autoencoders, matched, beside what chance and rerun would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from ..errors import ComparisonError
from ..images import ImageDataset, OnBadImage
from ..models import HookedViT
from ..running import activations
from .feature_galleries import feature_galleries
from .sae_groups import UNRELATED, sae_groups

SIMILAR = 0.9
"""The share of rerunning's likeness above which two checkpoints' dictionaries count as equivalent."""

COLUMNS = (
    "kind",
    "hook_name",
    "role",
    "checkpoint_a",
    "checkpoint_b",
    "seed_a",
    "seed_b",
    "feature",
    "nearest",
    "decoder_cosine",
    "mutual",
    "activation_correlation",
    "n_live_b",
)

SIMILARITY_COLUMNS = (
    "kind",
    "hook_name",
    "tokens",
    "statistic",
    "reference",
    "checkpoint",
    "pair",
    "seed_to_seed",
    "unrelated",
    "similarity_share",
    "ci_low",
    "ci_high",
    "threshold",
    "verdict",
    "n_seeds",
    "n_unrelated",
    "reason",
)


def compare_features(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, Sequence[Any]],
    dataset: ImageDataset,
    *,
    unrelated_model: HookedViT | None = None,
    class_names: Sequence[str] | None = None,
    n_gallery_features: int = 0,
    batch_size: int = 32,
    level: float = 0.95,
    threshold: float = SIMILAR,
    seed: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Match every checkpoint's features with the reference's, and say how alike the dictionaries are.

    Everything is matched once. Both tables stand between two nulls: SAEs of the reference that differ in
    their seed, which is what rerunning gives, and those of a model with random weights, which is what chance
    gives.

    Roles: `checkpoints` (the reference against another checkpoint; a pair never shares a seed, since a
    shared initialisation inflates matches), `seeds` (two seeds of the reference: what rerunning gives),
    `unrelated` (the reference against a model with random weights: what chance gives).

    Args:
        models: checkpoint name -> model; the first is the reference.
        saes: checkpoint name -> its SAEs, from `vitlens.saes.train`; the key `"unrelated"` may be there
            besides.
        dataset: clean images on which the features' activations are compared. One that can be read only once
            is not read: SAEs are compared by their decoders alone, and no feature is shown.
        unrelated_model: the random model behind `saes["unrelated"]`; without it those are compared by
            their decoders alone.
        class_names: names of the classes, by index, for the galleries.
        n_gallery_features: features in each gallery, see `feature_galleries`; 0 for none.
        batch_size: images in a forward pass.
        level: of the intervals of `similarity_share`, over seeds.
        threshold: the share of rerunning's likeness above which dictionaries count as equivalent, chosen
            before the data are seen.
        seed: by which features and images are drawn for the galleries.
        on_bad_image: as in `vitlens.run`, of the images that are shown. Where features are matched, all have
            to be readable: rows of two checkpoints have to be of the same images.
        progress: show bars.

    Returns:
        A row for each live feature of the reference's SAEs in each pair, with `n_live_b`, the live features
        of the pair's other SAE (those that are not matched are `n_live_b` less the `mutual` ones); a row for
        each kind of SAE, hook and checkpoint with `similarity_share` and a verdict, see `similarity_verdict`;
        and galleries by their headings.

    Raises:
        ComparisonError, SAEError, HookError, AnalysisError, ArchitectureError: as `sae_groups`; or `level`
            or `threshold` is out of range.
    """
    from ..saes.pairing import Matching  # sae-lens takes seconds to import, and is wanted only here
    from ..saes.seed_pairs import match_seeds

    for name, value, least in (("level", level, 0.5), ("threshold", threshold, 0.0)):
        if not least < value < 1:
            raise ComparisonError(
                f"{name} is {value}.",
                expected=f"a value between {least:g} and 1",
                remedy="Leave it out for the usual value.",
            )
    reference = next(iter(models))
    known = {**models, **({UNRELATED: unrelated_model} if unrelated_model is not None else {})}
    if isinstance(dataset, Iterator):
        known, n_gallery_features = {}, 0
    cache: dict[tuple[str, str, str], Tensor] = {}

    def taken(checkpoint: str, hook_name: str, tokens: str) -> Tensor:
        key = (checkpoint, hook_name, tokens)
        if key not in cache:
            cache[key] = activations(
                known[checkpoint],
                dataset,
                hook_name,
                tokens=tokens,
                batch_size=batch_size,
                on_bad_image="raise",
                progress=progress,
            )
        return cache[key]

    tables, similarities = [], []
    galleries: dict[str, Any] = {}
    for group, members in sae_groups(models, saes, unrelated_model).items():
        kind, hook_name, tokens = group

        def of(checkpoint: str, hook_name: str = hook_name, tokens: str = tokens) -> Tensor | None:
            return taken(checkpoint, hook_name, tokens) if checkpoint in known else None

        pairs = match_seeds(members, Matching(progress=progress), of, within=(reference,))
        tables += [_table(pair).assign(kind=kind, hook_name=hook_name) for pair in pairs]
        found = _similarity(pairs, members, level)
        similarities.append(found.assign(kind=kind, hook_name=hook_name, tokens=tokens))
        if n_gallery_features:
            galleries |= feature_galleries(
                group,
                members,
                pairs,
                models,
                dataset,
                n_features=n_gallery_features,
                class_names=class_names,
                batch_size=batch_size,
                seed=seed,
                on_bad_image=on_bad_image,
                progress=progress,
            )
    similarity = pd.concat(similarities, ignore_index=True).assign(threshold=threshold)
    similarity["verdict"] = [
        similarity_verdict(low, high, threshold)
        for low, high in zip(similarity["ci_low"], similarity["ci_high"], strict=True)
    ]
    similarity = similarity[list(SIMILARITY_COLUMNS)]
    similarity.attrs["level"] = level
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)], similarity, galleries


def similarity_verdict(ci_low: float, ci_high: float, threshold: float = SIMILAR) -> str:
    """What the interval of a similarity share says of two checkpoints' dictionaries.

    The verdicts are those of any other row of a comparison. 1 is what training the same SAE again gives, so
    it stands for no difference, and 1 - `threshold` is the margin. A checkpoint whose dictionaries are more
    alike than rerunning's is equivalent as well.

    Args:
        ci_low: lower bound of the share's interval; NaN without one.
        ci_high: upper bound.
        threshold: the share that still counts as none lost.

    Returns:
        `"equivalent"` where the whole interval lies above `threshold`; otherwise `"changed"` where it lies
        below 1: the checkpoints differ by more than their seeds do; otherwise, and without an interval,
        `"undecided"`.

    Example:
        >>> similarity_verdict(0.93, 1.02), similarity_verdict(0.6, 0.95), similarity_verdict(0.6, 1.1)
        ('equivalent', 'changed', 'undecided')
    """
    if ci_low > threshold:
        return "equivalent"
    return "changed" if ci_high < 1 else "undecided"


def _similarity(pairs: Sequence[Any], members: Mapping[str, Sequence[Any]], level: float) -> pd.DataFrame:
    """The primary statistic's rows of `vitlens.saes.similarity`, from pairs that are matched already."""
    from ..saes.similarity import Similarity

    seeds = {
        name: tuple(int(sae.cfg.metadata.seed) for sae in its)
        for name, its in members.items()
        if its or name == UNRELATED
    }
    if not any(pair.role == "checkpoints" for pair in pairs):
        return pd.DataFrame(columns=list(SIMILARITY_COLUMNS))
    # A seed that a checkpoint has twice belongs to SAEs of two recipes, whose pairs cannot be told apart.
    doubled = {name for name, its in seeds.items() if len(set(its)) < len(its)}
    found = Similarity(tuple(pairs), seeds, level, n_left_out=0)
    rows = found.summary()
    rows = rows[rows["statistic"] == found.primary].copy()
    rows["n_seeds"] = rows[["n_seeds_reference", "n_seeds_checkpoint"]].min(axis=1)
    for place, row in rows.iterrows():
        both = [name for name in (row["reference"], row["checkpoint"], UNRELATED) if name in doubled]
        if both:
            rows.loc[place, ["similarity_share", "ci_low", "ci_high"]] = float("nan")
            rows.loc[place, "reason"] = f"two SAEs of {both[0]} share a seed"
    return rows


def _table(pair: Any) -> pd.DataFrame:
    table: pd.DataFrame = pair.match.by_feature().drop(columns="decoder_cosine")
    return table.rename(columns={"nearest_decoder_cosine": "decoder_cosine"}).assign(
        mutual=table["partner"] >= 0, n_live_b=len(pair.match.best_b), **pair.names
    )
