"""The study's page: a template filled with the rows that stand beside it.

    python examples/study_page.py docs

writes `docs/study.md` anew from `docs/study/`, without a model or an image: for another wording.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from study_claims import CLAIMS, HALF, MARGINS, Claim
from study_verdicts import outcome

from vitlens.comparison.features import SIMILAR
from vitlens.files import whole

PAGE, BESIDE = "study.md", "study"
TEMPLATE = Path(__file__).with_name("study_page.md")
FURTHER = {
    "first_correct_layer": ("lens", "How often the logit lens is right, by place on the residual stream"),
    "attention": ("entropy", "Attention entropy by block"),
}
"""Figures beside a claim's own."""


def rendered(folder: Path) -> str:
    """The page, from the tables beside it.

    Args:
        folder: has `study/` with its tables, `run.json`, and the figures that there are.
    """
    beside = folder / BESIDE
    tables = {
        name: pd.read_csv(beside / f"{name}.csv") for name in ("claims", "verdicts", "similarity", "saes")
    }
    run = json.loads((beside / "run.json").read_text())
    drawn = {path.stem for path in beside.glob("*.svg")}
    rows, judged = tables["claims"], tables["verdicts"].fillna("").set_index("claim")
    sections = [
        section(claim, number, rows[rows["claim"] == claim.name], judged.loc[claim.name], tables, drawn)
        for number, claim in enumerate(CLAIMS, start=1)
    ]
    overview = [
        [
            f"{number}. {claim.sentence}",
            f"**{its['verdict']}**",
            f"{tally(claim, rows)['holds']} of {its['n_rows']}",
            its["against_base"] or "–",
        ]
        for number, claim in enumerate(CLAIMS, start=1)
        for its in [judged.loc[claim.name]]
    ]
    times = {**run["times_seconds"], "all": sum(run["times_seconds"].values())}
    page = Template(TEMPLATE.read_text()).substitute(
        standing=standing(run),
        verdicts=markdown(["claim", "verdict", "rows that agree", "against the base alone"], overview),
        margins=markdown(
            ["metric", "margin"],
            [
                *([f"`{name}`", f"±{margin:g}"] for name, margin in MARGINS.items()),
                ["`similarity_share` of dictionaries", f"above {SIMILAR:g} is equivalent"],
                ["share of a gap closed by one part", f"below {HALF:g} is no carrier"],
            ],
        ),
        run=described(run),
        command=run["command"].replace(" --", " \\\n    --"),
        times=markdown(["step", "minutes"], [[step, f"{spent / 60:.1f}"] for step, spent in times.items()]),
        recipes=markdown(["model", "sees"], [[f"`{name}`", sees] for name, sees in run["recipes"].items()]),
        groups=markdown(
            ["group", "conditions"],
            [[name, ", ".join(f"`{each}`" for each in members)] for name, members in run["groups"].items()],
        ),
        machine=run["machine"],
        claims="\n\n".join(sections),
        limits=limits(run),
    )
    if drawn:
        return page
    return "\n".join(line for line in page.split("\n") if not line.startswith("!["))


def section(
    claim: Claim,
    number: int,
    rows: pd.DataFrame,
    judged: pd.Series,
    tables: Mapping[str, pd.DataFrame],
    drawn: set[str],
) -> str:
    """A claim: its sentence, its verdict, its figure, and its rows."""
    counts = tally(claim, rows)
    told = {"holds": "agree", "fails": "disagree", "undecided": "undecided"}
    said = f"**{judged['verdict'].capitalize()}**"
    said += f" ({len(rows)} rows: {', '.join(f'{n} {told[word]}' for word, n in counts.items() if n)})."
    if judged["against_base"]:
        said += f" Against the base alone: {judged['against_base']}."
    shown = rows
    if claim.name == "parts":  # of many parts the one that closes most, in each model
        top = rows.groupby(["checkpoint", "condition"], sort=False)["estimate"].idxmax().dropna()
        shown = rows.loc[top]
        said += " A row is a part; of each model, the one that closes most is shown."
    several, sign = rows["metric"].nunique() > 1, "+" if claim.rows else ""
    measure = f", in `{rows['metric'].iloc[0]}`" if len(rows) and not several else ""
    lines = [f"## {number}. {claim.title}", f"*{claim.sentence}* Claimed: {claim.says}{measure}.", said]
    names = [(claim.name, claim.title), *([FURTHER[claim.name]] if claim.name in FURTHER else [])]
    lines += [f"![{text}](study/{name}.svg)" for name, text in names if name in drawn]
    head = [
        "model",
        "under",
        *["measure"] * several,
        "estimate",
        "p",
        "verdict",
        "beside the base",
        "n",
        "row",
    ]
    cells = [
        [
            f"`{row.checkpoint}`",
            f"`{row.condition}`",
            *[f"`{row.metric}`"] * several,
            estimate(row.estimate, row.ci_low, row.ci_high, sign),
            number_of(row.p_adjusted),
            row.verdict,
            estimate(row.base_estimate, row.base_ci_low, row.base_ci_high, sign),
            f"{row.n:.0f}",
            f"[{row.file}:{row.line}](study/{row.file})",
        ]
        for row in shown.itertuples()
    ]
    lines.append(markdown(head, cells) if cells else "No row: none of these conditions was measured.")
    if claim.name == "features":
        lines += [nulls(tables["similarity"]), quality(tables["saes"])]
    if claim.remark:
        lines.append(claim.remark)
    return "\n\n".join(lines)


def tally(claim: Claim, rows: pd.DataFrame) -> dict[str, int]:
    """How many rows of a claim agree with it, disagree, and are undecided."""
    its = rows[rows["claim"] == claim.name]
    outcomes = [outcome(claim.says, row.verdict, row.estimate) for row in its.itertuples()]
    return {word: outcomes.count(word) for word in ("holds", "fails", "undecided")}


def nulls(similarity: pd.DataFrame) -> str:
    """What stands behind the shares: mean likeness of each pair, of two seeds, and of a random model."""
    cells = [
        [
            f"{row.reference} → {row.checkpoint}",
            row.kind,
            f"{row.pair:.3f}",
            f"{row.seed_to_seed:.3f}",
            f"{row.unrelated:.3f}",
            estimate(row.similarity_share, row.ci_low, row.ci_high, sign=""),
            row.verdict,
        ]
        for row in similarity.itertuples()
        if row.reference == "base"
    ]
    head = ["models", "kind", "cosine", "seed to seed", "random model", "share", "verdict"]
    text = "The study's own comparison, each model with the base, between the two nulls"
    return f"{text} ([`similarity.csv`](study/similarity.csv)):\n\n{markdown(head, cells)}"


def quality(saes: pd.DataFrame) -> str:
    """How good the dictionaries are, on tokens that they were not trained on; means over seeds."""
    means = saes.groupby(["model", "kind"], sort=False)[["l0", "fvu", "n_dead"]].mean().reset_index()
    cells = [
        [f"`{row.model}`", row.kind, f"{row.l0:.1f}", f"{row.fvu:.3f}", f"{row.n_dead:.0f}"]
        for row in means.itertuples()
    ]
    head = ["model", "kind", "active features", "variance unexplained", "dead"]
    text = "How good they are, on held-out tokens, means over seeds"
    return f"{text} ([`saes.csv`](study/saes.csv)):\n\n{markdown(head, cells)}"


def standing(settings: Mapping[str, Any]) -> str:
    """What the reader should know before the first verdict."""
    if not settings["is_digits"]:
        return ""
    return (
        "!!! note\n"
        "    These numbers are of the embedded default: a ViT with "
        f"{settings['n_parameters']:,} parameters, trained on scanned digits of 8 × 8 pixels. They show that "
        "the protocol runs and what its answers look like. They say nothing about models of photographs."
    )


def described(settings: Mapping[str, Any]) -> str:
    """The models, the images and the sizes, in a paragraph."""
    sae = settings["sae"]
    recipe = sae["recipe"]
    return (
        f"Base: {settings['model']}, {settings['n_parameters']:,} parameters (weights "
        f"`{settings['weights_sha256'][:12]}`). Each fine-tune: {settings['steps']} steps of "
        f"{settings['batch_size']} images out of {settings['n_train']:,}, learning rate "
        f"{settings['learning_rate']:g}. Measured on {settings['n_held_out']:,} held-out images; "
        f"transplants, codes and the dictionaries' comparison with the control on {settings['n_sweep']} of "
        f"them. Sparse autoencoders at `{settings['hook']}`, patches: {recipe['d_sae']} features, "
        f"{recipe['k_per_token']} active in BatchTopK, {recipe['n_tokens']:,} tokens of "
        f"{settings['n_sae_images']:,} training images, {sae['n_seeds']} seeds for each kind "
        f"and model. Seed {settings['seed']}.{' ' * bool(settings['note'])}{settings['note']} Everything as "
        "data: [`run.json`](study/run.json)."
    )


def limits(settings: Mapping[str, Any]) -> str:
    """What the size of model and data adds to the limits."""
    if settings["is_digits"]:
        return "- Scanned digits are no photographs, and this model is no trained ViT of any size in use."
    return (
        f"- One model, {settings['n_train']:,} training and {settings['n_held_out']:,} held-out images, "
        f"{settings['steps']} steps: small beside the study's. Larger differences may come with more of each."
    )


def estimate(value: float, low: float, high: float, sign: str = "+") -> str:
    """A value with its interval; differences with their sign."""
    if pd.isna(value):
        return "–"
    return f"{value:{sign}.3f}" if pd.isna(low) else f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def number_of(p: float) -> str:
    """A p-value with two digits."""
    return "–" if pd.isna(p) else f"{p:.2g}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with whole(place / PAGE) as written:
        written.write_text(rendered(place))
