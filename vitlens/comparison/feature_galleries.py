"""Galleries for a comparison: some features that two checkpoints share, some that are lost, some new."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from ..images import ImageDataset, OnBadImage
from ..models import HookedViT
from .sae_groups import Group

N_TOP_IMAGES = 4
"""Images with the largest codes that a comparison shows of a feature, for each checkpoint."""

N_MIDDLE_IMAGES = 2
"""Images from the middle half besides, which flatter less."""

LIKENESS = "decoder_cosine"

Features = Int[np.ndarray, " feature"]


def feature_galleries(
    group: Group,
    members: Mapping[str, Sequence[Any]],
    pairs: Sequence[Any],
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    *,
    n_features: int,
    class_names: Sequence[str] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> dict[str, Any]:
    """Show features of the first pair of SAEs of the reference and each other checkpoint.

    The features of a gallery are drawn, one from each of `n_features` equal parts of their order by decoder
    cosine (of the lost and the new: to the nearest feature of the other checkpoint). So neither the most nor
    the least alike stand for the rest.

    Args:
        group: what the SAEs have in common.
        members: checkpoint name -> its SAEs.
        pairs: `vitlens.saes.seed_pairs.SeedPair`s of these SAEs, those of one checkpoint in their order.
        models: checkpoint name -> model; the first is the reference.
        dataset: clean images, read once for each gallery.
        n_features: in each gallery; all where there are fewer.
        class_names: names of the classes, by index.
        batch_size: images in a forward pass.
        seed: of the draws.
        on_bad_image: as in `vitlens.run`.
        progress: show bars.

    Returns:
        Heading -> `vitlens.saes.Gallery`: for each checkpoint the matched pairs, the lost features on the
        reference and the new ones on the checkpoint, as far as there are any.
    """
    from ..saes.gallery import gallery, pair_gallery  # sae-lens takes seconds to import

    reference = next(iter(models))
    how: dict[str, Any] = {
        "n_top_images": N_TOP_IMAGES,
        "n_middle_images": N_MIDDLE_IMAGES,
        "class_names": class_names,
        "batch_size": batch_size,
        "seed": seed,
        "on_bad_image": on_bad_image,
        "progress": progress,
    }

    def alone(checkpoint: str, sae: Any, best: pd.DataFrame, features: Features, what: str) -> Any:
        among = best[best["feature"].isin(features)].sort_values(LIKENESS, ascending=False, kind="stable")
        rows = among.iloc[drawn(len(among), n_features, seed)]
        shown = gallery(sae, models[checkpoint], dataset, rows["feature"].tolist(), **how)
        return dataclasses.replace(
            shown,
            checkpoints=(checkpoint,),
            exhibits=tuple(
                dataclasses.replace(exhibit, similarity={f"nearest_{LIKENESS}": float(value)})
                for exhibit, value in zip(shown.exhibits, rows[LIKENESS], strict=True)
            ),
            provenance={
                **shown.provenance,
                "features": _said(len(rows), len(among), what),
                "checkpoints": {checkpoint: shown.provenance["checkpoints"]["model"]},
            },
        )

    firsts: dict[str, Any] = {}
    for pair in pairs:
        if pair.role == "checkpoints":
            firsts.setdefault(pair.checkpoint_b, pair)
    found: dict[str, Any] = {}
    for checkpoint, pair in firsts.items():
        match, place = pair.match, group.words
        saes = {
            reference: _of_seed(members[reference], pair.seed_a),
            checkpoint: _of_seed(members[checkpoint], pair.seed_b),
        }
        if len(match.pairs):
            rows = match.pairs.iloc[drawn(len(match.pairs), n_features, seed)]
            both = {name: models[name] for name in saes}
            shown = pair_gallery(saes, both, dataset, pairs=rows, **how)
            said = {"features": _said(len(rows), len(match.pairs), "matched pairs")}
            found[f"{place}: features that {reference} and {checkpoint} share"] = dataclasses.replace(
                shown, provenance={**shown.provenance, **said}
            )
        if len(match.unmatched_a):
            found[f"{place}: features of {reference} that {checkpoint} has lost"] = alone(
                reference, saes[reference], match.best_a, match.unmatched_a, "lost features"
            )
        if len(match.unmatched_b):
            found[f"{place}: features that are new in {checkpoint}"] = alone(
                checkpoint, saes[checkpoint], match.best_b, match.unmatched_b, "new features"
            )
    return found


def drawn(n: int, n_drawn: int, seed: int) -> list[int]:
    """Places in an order, one drawn from each of `n_drawn` parts that are as equal as can be.

    Example:
        >>> [place // 10 for place in drawn(40, 4, seed=0)], drawn(2, 4, seed=0)
        ([0, 1, 2, 3], [0, 1])
    """
    n_parts = min(n, n_drawn)
    ends = np.arange(n_parts + 1) * n // max(n_parts, 1)
    places: list[int] = np.random.default_rng([seed, 4]).integers(ends[:-1], ends[1:]).tolist()
    return places


def _of_seed(saes: Sequence[Any], seed: int) -> Any:
    return next(sae for sae in saes if int(sae.cfg.metadata.seed) == seed)


def _said(n: int, n_all: int, what: str) -> str:
    return f"{n:,} of {n_all:,} {what}, drawn from all over their order by decoder cosine"
