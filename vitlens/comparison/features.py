"""The features of two checkpoints' sparse autoencoders, matched, beside what chance and rerun would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    from ..saes.pairing import Matching  # sae-lens takes seconds to import, and is wanted only here
    from ..saes.seed_pairs import match_seeds

    reference = next(iter(models))
    known = {**models, **({UNRELATED: unrelated_model} if unrelated_model is not None else {})}
    cache: dict[tuple[str, str, str], Tensor] = {}

    def taken(checkpoint: str, hook_name: str, tokens: str) -> Tensor:
        key = (checkpoint, hook_name, tokens)
        if key not in cache:
            cache[key] = activations(
                known[checkpoint], dataset, hook_name, tokens=tokens, batch_size=batch_size, progress=progress
            )
        return cache[key]

    tables = []
    for (kind, hook_name, tokens), members in _groups(models, saes).items():

        def of(checkpoint: str, hook_name: str = hook_name, tokens: str = tokens) -> Tensor | None:
            return taken(checkpoint, hook_name, tokens) if checkpoint in known else None

        pairs = match_seeds(members, Matching(progress=progress), of, within=(reference,))
        tables += [_table(pair).assign(kind=kind, hook_name=hook_name) for pair in pairs]
    if not tables:
        raise ComparisonError(
            f"Among the SAEs of {', '.join(saes)} there is no pair to match.",
            expected=f"SAEs of '{reference}' and of another checkpoint, of one kind, at one hook, "
            "with different seeds",
            remedy="Train them with vitlens.saes.train(..., seed=...), a seed of its own for each.",
        )
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def _table(pair: Any) -> pd.DataFrame:
    table: pd.DataFrame = pair.match.by_feature().drop(columns="decoder_cosine")
    return table.rename(columns={"nearest_decoder_cosine": "decoder_cosine"}).assign(
        mutual=table["partner"] >= 0, **pair.names
    )


def _groups(
    models: Mapping[str, HookedViT], saes: Mapping[str, Sequence[Any]]
) -> dict[tuple[str, str, str], dict[str, list[Any]]]:
    """Kind, hook and tokens -> the SAEs of each checkpoint that can be compared, the reference first."""
    strangers = [name for name in saes if name not in models and name != UNRELATED]
    if strangers:
        raise ComparisonError(
            f"There are SAEs for '{strangers[0]}', which is no checkpoint of this comparison.",
            expected=f"one of {', '.join((*models, UNRELATED))}",
            remedy="Name the SAEs after the checkpoints.",
        )
    groups: dict[tuple[str, str, str], dict[str, list[Any]]] = {}
    for checkpoint in (*models, UNRELATED):
        for sae in saes.get(checkpoint, ()):
            said = {
                name: getattr(sae.cfg.metadata, name, None)
                for name in ("kind", "hook_name", "tokens", "seed")
            }
            if missing := [name for name, value in said.items() if value is None]:
                raise ComparisonError(
                    f"An SAE of '{checkpoint}' does not say its {', '.join(missing)}.",
                    expected="the metadata that vitlens.saes.train writes when it is given "
                    "(model, dataset, hook_name)",
                    remedy="Train it that way, or set the fields of sae.cfg.metadata.",
                )
            key = str(said["kind"]), str(said["hook_name"]), str(said["tokens"])
            groups.setdefault(key, {name: [] for name in (*models, UNRELATED)})[checkpoint].append(sae)
    return groups
