"""The section on SAE features: how many are matched, lost and new, beside what rerunning and chance give."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ..comparison.sae_groups import KIND_WORDS
from .charts.features import ROLE_WORDS, Alikeness, alikenesses
from .tables import frame_table

_NOTE = (
    "Matched: of the reference's live features, those that are each other's nearest with one of the "
    "checkpoint's. Lost: those that are not. Two seeds of one checkpoint lose features as well, and a model "
    "with random weights matches some: read each share between these two."
)
_PAIRS = " Counts are over all pairs of SAEs, one of each checkpoint."
_NEW = " New: live features of the checkpoint's that no feature of the reference's is matched with."


def features_html(features: pd.DataFrame | None, similarity: pd.DataFrame | None = None) -> str:
    """Tables of what became of the reference's features.

    Args:
        features: one row for each live feature of the reference's SAEs in each pair. With a column
            `n_live_b`, the live features of the checkpoint's SAE, what is new is counted too.
        similarity: a table of `similarity_share`, as it is to be shown.

    Returns:
        HTML; empty without any.
    """
    found = alikenesses(features)
    parts = []
    if found:
        rows = pd.DataFrame([_counts(each) for each in found]).dropna(axis=1, how="all")
        if rows["hook"].nunique() == 1:
            rows = rows.drop(columns="hook")
        note = _NOTE + (_NEW if "new" in rows else "")
        if (rows["pairs"] == 1).all():
            rows = rows.drop(columns="pairs")
        else:
            note += _PAIRS
        parts.append(f"<p>{note}</p>\n" + _scrolled(rows, "What became of features"))
    if similarity is not None and len(similarity):
        parts.append(
            "<h3>Similarity between chance and rerunning</h3>\n<p>similarity_share is 0 where two "
            "checkpoints' features are as alike as chance makes them, and 1 where they are as alike as two "
            "seeds of one checkpoint. The sampling unit is the SAE, not the feature.</p>\n"
            + _scrolled(_telling(similarity), "Similarity of SAEs")
        )
    return "\n".join(parts)


def feature_lines(features: pd.DataFrame | None) -> list[str]:
    """Say how many features of each pair of checkpoints are matched, beside the yardsticks; plain text."""
    panels = alikenesses(features)
    several_hooks = len({panel.hook_name for panel in panels}) > 1
    said = []
    for panel in panels:
        pair = panel.curves["checkpoints"]
        beside = [
            f"{words} {panel.curves[role]['mutual'].mean():.0%}"
            for role, words in ROLE_WORDS.items()
            if role in panel.curves
        ]
        cosines = [f"mean cosine {pair['decoder_cosine'].mean():.3f}"] + [
            f"{words} {panel.curves[role]['decoder_cosine'].mean():.3f}"
            for role, words in ROLE_WORDS.items()
            if role in panel.curves
        ]
        place = f" at {panel.hook_name}" if several_hooks else ""
        said.append(
            f"{panel.words}{place}: {pair['mutual'].mean():.0%} of {len(pair):,} features are matched"
            + (f" ({', '.join(beside)})" if beside else "")
            + f"; {', '.join(cosines)}."
        )
    return said


def similarity_lines(similarity: pd.DataFrame | None) -> list[str]:
    """Say how alike dictionaries are between chance (0) and rerunning (1), and the verdict; plain text."""
    if similarity is None or not {"checkpoint", "similarity_share", "verdict"} <= set(similarity):
        return []
    said = []
    for row in similarity.to_dict("records"):
        kind = KIND_WORDS.get(str(row.get("kind")), str(row.get("kind", "")))
        ends = [float(row.get(name, float("nan"))) for name in ("ci_low", "ci_high")]
        interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if all(map(math.isfinite, ends)) else ""
        rule = f" (equivalent from {row['threshold']:g} on)" if "threshold" in row else ""
        statistic = f" by {row['statistic']}".replace("_", " ") if row.get("statistic") else ""
        value = row["similarity_share"]
        known = f" {value:.2f}{interval}" if math.isfinite(value) else f" not known ({row.get('reason', '')})"
        share = f"similarity share{statistic}{known.replace(' ()', '')}"
        said.append(f"{kind}, {row['checkpoint']}: {share}, {row['verdict']}{rule}.")
    return said


def _counts(found: Alikeness) -> dict[str, Any]:
    """One kind and pair: counts and shares; a share of a yardstick where it is there."""
    pair = found.curves["checkpoints"]
    n, n_matched = len(pair), int(pair["mutual"].sum())
    each = pair.groupby(["seed_a", "seed_b"], sort=False)
    row: dict[str, Any] = {
        "SAE": KIND_WORDS.get(found.kind, found.kind),
        "hook": found.hook_name,
        "pair": found.pair_words,
        "pairs": each.ngroups,
        "live": n,
        "matched": n_matched,
        "lost": n - n_matched,
        "new": None,
        "matched (%)": 100 * n_matched / n,
    }
    if "n_live_b" in pair:
        row["new"] = int((each["n_live_b"].first() - each["mutual"].sum()).sum())
    for role, words in (("seeds", "two seeds (%)"), ("unrelated", "chance (%)")):
        if role in found.curves:
            row[words] = 100 * float(found.curves[role]["mutual"].mean())
    row["mean cosine"] = float(pair["decoder_cosine"].mean())
    for role, words in (("seeds", "two seeds' cosine"), ("unrelated", "chance's cosine")):
        if role in found.curves:
            row[words] = float(found.curves[role]["decoder_cosine"].mean())
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in row.items()}


def _telling(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that hold anything; of those that say where, only what differs."""
    same = [
        name
        for name in ("hook_name", "tokens", "statistic", "reference")
        if name in rows and rows[name].nunique() == 1
    ]
    empty = [name for name in rows if rows[name].isna().all() or (rows[name].astype(str) == "").all()]
    return rows.drop(columns=list({*same, *empty}))


def _scrolled(rows: pd.DataFrame, label: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{frame_table(rows)}</div>'
