"""The study's causal sweep: which part of a fine-tuned model carries its robustness into the control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from study_claims import SEEN, TUNED
from study_verdicts import part_verdict

import vitlens as vl

COMPONENTS = ("resid", "attn", "mlp", "feature", "classifier")
N_RESAMPLES = 10_000
"""More than usual: simultaneous intervals lie far out in the tails."""


def sweep(
    models: Mapping[str, vl.HookedViT], images: Any, groups: Mapping[str, list[str]], folder: Path, **how: Any
) -> pd.DataFrame:
    """The share of the gap to the control that each part closes, on corruptions trained on.

    Args:
        models: checkpoint name -> model, `control` among them.
        images: to measure on.
        groups: of conditions; the first of each that a model was trained on is taken.
        folder: of the rows; what was measured is not measured again.
        **how: `batch_size`, `num_workers` and `seed`, as for `vl.run`.

    Returns:
        The rows of `vl.gap_closed` for log-probability, and `verdict`, empty where the component is no single
        part: the stream has all that came before it. Intervals of single parts are simultaneous over one
        model's, those of others are at 95 %.
    """
    tables = []
    for name in TUNED:
        conditions = [
            groups[group][0] for checkpoint, group in SEEN if checkpoint == name and group in groups
        ]
        if not conditions:
            continue
        data = vl.run(
            {"control": models["control"], name: models[name]},
            images,
            [vl.Transplant(components=COMPONENTS)],
            conditions=conditions,
            output=folder / name,
            **how,
        )
        wanted = {"n_resamples": N_RESAMPLES, "seed": how.get("seed", 0)}
        plain = vl.gap_closed(data, **wanted)
        is_part = plain["component"].str.contains("attn_out|mlp_out")
        n_parts = int((is_part & (plain["metric"] == "log_probability")).sum()) // len(conditions)
        strict = vl.gap_closed(data, level=1 - 0.05 / n_parts, **wanted)
        found = plain.where(~is_part, strict)
        found["verdict"] = [
            part_verdict(row.ci_low, row.ci_high) if of_part else ""
            for row, of_part in zip(found.itertuples(), is_part, strict=True)
        ]
        tables.append(found[found["metric"] == "log_probability"])
    return pd.concat(tables, ignore_index=True).astype({"n": int})
