"""The features of two checkpoints' sparse autoencoders, matched, beside what chance and rerun would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import pandas as pd
from torch import Tensor

from ..errors import ComparisonError
from ..images import ImageDataset
from ..models import HookedViT
from ..running import activations

UNRELATED = "unrelated"
"""Key under which `compare` takes the SAEs of a model with random weights: the null's lower end."""

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
)


@dataclass(frozen=True)
class _Trained:
    """One SAE, with what its metadata says."""

    checkpoint: str
    sae: Any
    kind: str
    hook_name: str
    tokens: str
    seed: int


def match_features(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, Sequence[Any]],
    dataset: ImageDataset,
    *,
    unrelated_model: HookedViT | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> pd.DataFrame:
    """Match every checkpoint's features with the reference's, and add the two ends of the null.

    Roles: `checkpoints` (the reference against another checkpoint; a pair never shares a seed, since a
    shared initialisation inflates matches), `seeds` (two seeds of the reference: what rerunning gives),
    `unrelated` (the reference against a model with random weights: what chance gives).

    Args:
        models: checkpoint name -> model; the first is the reference.
        saes: checkpoint name -> its SAEs, from `vitlens.saes.train`; the key `"unrelated"` may be there
            besides.
        dataset: clean images on which the features' activations are compared.
        unrelated_model: the random model behind `saes["unrelated"]`; without it those are compared by
            their decoders alone.
        batch_size: images in a forward pass.
        progress: show bars.

    Returns:
        A row for each live feature of the reference's SAEs in each pair.

    Raises:
        ComparisonError: an SAE belongs to no checkpoint, or no pair can be made.
    """
    from ..saes import match  # sae-lens takes seconds to import, and is wanted only here

    reference = next(iter(models))
    trained = _read(models, saes)
    known = {**models, **({UNRELATED: unrelated_model} if unrelated_model is not None else {})}
    cache: dict[tuple[str, str, str], Tensor] = {}

    def rows_of(item: _Trained) -> Tensor:
        key = (item.checkpoint, item.hook_name, item.tokens)
        if key not in cache:
            cache[key] = activations(
                known[item.checkpoint],
                dataset,
                item.hook_name,
                tokens=item.tokens,
                batch_size=batch_size,
                progress=progress,
            )
        return cache[key]

    tables = []
    for role, a, b in _pairs(trained, reference):
        pair = (rows_of(a), rows_of(b)) if b.checkpoint in known else None
        found = match(a.sae, b.sae, activations=pair)
        correlation = found.pairs.set_index("feature_a")["activation_correlation"]
        table = found.best_a.copy()
        table["mutual"] = table["feature"].isin(correlation.index)
        table["activation_correlation"] = table["feature"].map(correlation)
        tables.append(
            table.assign(
                kind=a.kind,
                hook_name=a.hook_name,
                role=role,
                checkpoint_a=a.checkpoint,
                checkpoint_b=b.checkpoint,
                seed_a=a.seed,
                seed_b=b.seed,
            )
        )
    if not tables:
        raise ComparisonError(
            f"Among the SAEs of {', '.join(saes)} there is no pair to match.",
            expected=f"SAEs of '{reference}' and of another checkpoint, of one kind, at one hook, "
            "with different seeds",
            remedy="Train them with vitlens.saes.train(..., seed=...), a seed of its own for each.",
        )
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def _read(models: Mapping[str, HookedViT], saes: Mapping[str, Sequence[Any]]) -> list[_Trained]:
    strangers = [name for name in saes if name not in models and name != UNRELATED]
    if strangers:
        raise ComparisonError(
            f"There are SAEs for '{strangers[0]}', which is no checkpoint of this comparison.",
            expected=f"one of {', '.join((*models, UNRELATED))}",
            remedy="Name the SAEs after the checkpoints.",
        )
    trained = []
    for checkpoint, each in saes.items():
        for sae in each:
            metadata = sae.cfg.metadata
            said = {name: getattr(metadata, name, None) for name in ("kind", "hook_name", "tokens", "seed")}
            missing = [name for name, value in said.items() if value is None]
            if missing:
                raise ComparisonError(
                    f"An SAE of '{checkpoint}' does not say its {', '.join(missing)}.",
                    expected="the metadata that vitlens.saes.train writes when it is given "
                    "(model, dataset, hook_name)",
                    remedy="Train it that way, or set the fields of sae.cfg.metadata.",
                )
            trained.append(_Trained(checkpoint, sae, **said))  # type: ignore[arg-type]
    return trained


def _pairs(trained: list[_Trained], reference: str) -> list[tuple[str, _Trained, _Trained]]:
    base = [item for item in trained if item.checkpoint == reference]
    others = [item for item in trained if item.checkpoint != reference]

    def alike(a: _Trained, b: _Trained) -> bool:
        return (a.kind, a.hook_name, a.tokens) == (b.kind, b.hook_name, b.tokens) and a.seed != b.seed

    pairs = [("seeds", a, b) for a, b in combinations(base, 2) if alike(a, b)]
    pairs += [
        (UNRELATED if b.checkpoint == UNRELATED else "checkpoints", a, b)
        for a, b in product(base, others)
        if alike(a, b)
    ]
    return pairs
