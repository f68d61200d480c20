"""The rule from estimates to a verdict, and the rows of the tables that it is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from study_claims import CLAIMS, HALF, TUNED, Says

Verdict = Literal["holds", "fails", "undecided"]


def judge(says: Says, estimates: Sequence[tuple[str, float]]) -> Verdict:
    """A claim's verdict, from the verdict and the difference of each of its rows.

    Args:
        says: how the differences shall be.
        estimates: each row's verdict (`changed`, `equivalent` or `undecided`) and its difference.

    Returns:
        `holds` where every row agrees, `fails` where any row disagrees, `undecided` otherwise. A row agrees
        with `higher` or `lower` if it changed that way, and disagrees if it changed the other way or is
        equivalent to none; with `same` it agrees if it is equivalent, and disagrees if it changed.

    Example:
        >>> judge("higher", [("changed", 0.1), ("changed", 0.2)])
        'holds'
        >>> judge("higher", [("changed", 0.1), ("undecided", 0.0)])
        'undecided'
    """
    outcomes = [outcome(says, verdict, difference) for verdict, difference in estimates]
    if "fails" in outcomes:
        return "fails"
    return "holds" if outcomes and set(outcomes) == {"holds"} else "undecided"


def outcome(says: Says, verdict: str, difference: float) -> Verdict:
    """What one row says of a claim: `holds` if it agrees, `fails` if it disagrees.

    Example:
        >>> outcome("higher", "equivalent", 0.001), outcome("same", "equivalent", 0.001)
        ('fails', 'holds')
    """
    if verdict not in ("changed", "equivalent"):
        return "undecided"
    if says == "same":
        return "holds" if verdict == "equivalent" else "fails"
    agrees = verdict == "changed" and (difference > 0) == (says == "higher")
    return "holds" if agrees else "fails"


def part_verdict(ci_low: float, ci_high: float) -> str:
    """What the interval of the share of a gap that one part closes says: `changed` if it lies above half.

    Example:
        >>> part_verdict(0.6, 0.9), part_verdict(-0.1, 0.4), part_verdict(0.3, 0.6)
        ('changed', 'equivalent', 'undecided')
    """
    if ci_low > HALF:
        return "changed"
    return "equivalent" if ci_high < HALF else "undecided"


def claim_rows(groups: pd.DataFrame, similarity: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """Every row that decides a claim, with the file and the line that it came from.

    Args:
        groups: from `study_table.table`.
        similarity: from `study_saes.similarity`.
        parts: from `study_parts.sweep`.

    Returns:
        Columns claim, checkpoint, condition, metric, estimate, ci_low, ci_high, p_adjusted, verdict, then the
        same against the base where there is such a row (`base_estimate`, ...), n, file and line: of the CSV
        file that holds the row, counted from 1 with its header.
    """
    found = []
    for claim in CLAIMS:
        if claim.name == "features":
            own = similarity[(similarity["reference"] == "control") & similarity["checkpoint"].isin(TUNED)]
            found += [_feature_row(similarity, row) for row in own.itertuples()]
        elif claim.name == "parts":
            found += [_part_row(row) for row in parts[parts["verdict"] != ""].itertuples()]
        else:
            found += [_group_row(claim.name, groups, *keys) for keys in claim.rows]
    return pd.DataFrame([row for row in found if row])


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Each claim's verdict against the control, and what it would be against the base alone."""
    found = []
    for claim in CLAIMS:
        its = rows[rows["claim"] == claim.name]
        known = its[its["base_verdict"].notna()]
        against_base = list(zip(known["base_verdict"], known["base_estimate"], strict=True))
        found.append(
            {
                "claim": claim.name,
                "says": claim.says,
                "verdict": judge(claim.says, list(zip(its["verdict"], its["estimate"], strict=True))),
                "against_base": judge(claim.says, against_base) if against_base else "",
                "n_rows": len(its),
            }
        )
    return pd.DataFrame(found)


def _group_row(
    claim: str, groups: pd.DataFrame, metric: str, checkpoint: str, condition: str
) -> dict[str, Any]:
    """One row of the groups' table; nothing where no condition of the group was measured."""
    is_it = (
        (groups["metric"] == metric)
        & (groups["checkpoint"] == checkpoint)
        & (groups["condition"] == condition)
    )
    if not is_it.any():
        return {}
    row = groups[is_it].iloc[0]
    return {
        "claim": claim,
        "checkpoint": checkpoint,
        "condition": condition,
        "metric": metric,
        "estimate": row["difference_from_control"],
        "ci_low": row["from_control_low"],
        "ci_high": row["from_control_high"],
        "p_adjusted": row["from_control_p"],
        "verdict": row["from_control_verdict"],
        "base_estimate": row["difference_from_base"],
        "base_ci_low": row["from_base_low"],
        "base_ci_high": row["from_base_high"],
        "base_verdict": row["from_base_verdict"],
        "n": row["n_images"],
        "file": "groups.csv",
        "line": int(groups.index[is_it][0]) + 2,
    }


def _feature_row(similarity: pd.DataFrame, row: Any) -> dict[str, Any]:
    """The dictionaries of a model beside the control's, and beside the base's."""
    other = similarity[
        (similarity["reference"] == "base")
        & (similarity["checkpoint"] == row.checkpoint)
        & (similarity["kind"] == row.kind)
    ].iloc[0]
    return {
        "claim": "features",
        "checkpoint": row.checkpoint,
        "condition": "clean",
        "metric": f"similarity_share[{row.kind}]",
        "estimate": row.similarity_share,
        "ci_low": row.ci_low,
        "ci_high": row.ci_high,
        "verdict": row.verdict,
        "base_estimate": other["similarity_share"],
        "base_ci_low": other["ci_low"],
        "base_ci_high": other["ci_high"],
        "base_verdict": other["verdict"],
        "n": row.n_seeds,
        "file": "similarity.csv",
        "line": row.Index + 2,
    }


def _part_row(row: Any) -> dict[str, Any]:
    """What one part of a model closes of its gap to the control."""
    return {
        "claim": "parts",
        "checkpoint": row.checkpoint,
        "condition": row.condition,
        "metric": f"gap_closed[{row.component}]",
        "estimate": row.gap_closed,
        "ci_low": row.ci_low,
        "ci_high": row.ci_high,
        "verdict": row.verdict,
        "n": row.n,
        "file": "parts.csv",
        "line": row.Index + 2,
    }
