"""Figure of how alike two checkpoints' SAE features are, beside what alike and unlike mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from ...comparison.sae_groups import KIND_WORDS
from .behind import add
from .panels import Grid
from .style import NEUTRAL, Look, escape, wrap

ROLE_WORDS = {"seeds": "two seeds of one checkpoint", "unrelated": "unrelated model"}
NULLS = {"seeds": Look(NEUTRAL, "circle", "dash"), "unrelated": Look(NEUTRAL, "circle", "dot")}
N_STEPS = 101


@dataclass(frozen=True)
class Alikeness:
    """The features of one kind at one hook: those of a pair of checkpoints, and the yardsticks beside it.

    Attributes:
        kind: of the SAEs.
        hook_name: where they read.
        pair: names of the two checkpoints.
        curves: role to rows, for the roles that have any: "checkpoints", "seeds", "unrelated".
    """

    kind: str
    hook_name: str
    pair: tuple[str, str]
    curves: Mapping[str, pd.DataFrame]

    @property
    def pair_words(self) -> str:
        """The pair as one says it."""
        return " → ".join(self.pair)

    @property
    def words(self) -> str:
        """Kind and pair, as one says them."""
        return f"{KIND_WORDS.get(self.kind, self.kind)}, {self.pair_words}"


def alikenesses(features: pd.DataFrame | None) -> list[Alikeness]:
    """Every kind, hook and pair of checkpoints in a table of features, with the yardsticks that belong to it.

    A yardstick belongs to a pair if it has the same kind and hook and starts from one of its checkpoints. The
    kinds of one pair stand beside each other, vanilla first.

    Args:
        features: one row for each live feature; rows without a finite `decoder_cosine` are left out.

    Returns:
        One entry for each kind, hook and pair; empty without any.
    """
    if features is None:
        return []
    features = features[np.isfinite(features["decoder_cosine"])]
    pairs = features[features["role"] == "checkpoints"]
    found = []
    for (hook, a, b), _ in pairs.groupby(["hook_name", "checkpoint_a", "checkpoint_b"], sort=False):
        here = features[(features["hook_name"] == hook) & features["checkpoint_a"].isin([a, b])]
        of_pair = (here["checkpoint_a"] == a) & (here["checkpoint_b"] == b)
        here = here[(here["role"] != "checkpoints") | of_pair]
        kinds = here["kind"][here["role"] == "checkpoints"].drop_duplicates()
        for kind in sorted(kinds, key=lambda kind: (kind != "vanilla", kind)):
            curves = {
                role: here[(here["kind"] == kind) & (here["role"] == role)]
                for role in ("checkpoints", *ROLE_WORDS)
            }
            found.append(
                Alikeness(str(kind), str(hook), (str(a), str(b)), {k: v for k, v in curves.items() if len(v)})
            )
    return found


def feature_similarity(features: pd.DataFrame | None, looks: Mapping[str, Look]) -> go.Figure | None:
    """How the cosines of nearest decoder directions are distributed, one panel for each kind and pair.

    A pair of checkpoints is drawn beside two yardsticks: two seeds of one checkpoint, as alike as training
    allows, and an unrelated model, as alike as chance allows.

    Args:
        features: one row for each live feature, with `kind`, `hook_name`, `role`, `checkpoint_a`,
            `checkpoint_b`, `seed_a`, `seed_b` and `decoder_cosine`.
        looks: look of each checkpoint; a pair is drawn like its second.

    Returns:
        The figure; None without rows for a pair of checkpoints.
    """
    panels = alikenesses(features)
    if not panels:
        return None
    several_hooks = len({panel.hook_name for panel in panels}) > 1
    titles = [
        f"{panel.words}{f', {panel.hook_name}' if several_hooks else ''} "
        f"({len(panel.curves['checkpoints']):,} features)"
        for panel in panels
    ]
    n_kinds = len({panel.kind for panel in panels})
    grid = Grid(titles, n_columns=min(max(n_kinds, 2), len(panels)), panel_px=(250, 240))
    figure = grid.figure()

    least = min(rows["decoder_cosine"].min() for panel in panels for rows in panel.curves.values())
    lowest = min(0.0, float(np.floor(10 * least) / 10))
    cosine = np.linspace(lowest, 1, N_STEPS)
    legend: dict[str, None] = {}
    for at, panel in enumerate(panels):
        for role, rows in panel.curves.items():
            name = ROLE_WORDS.get(role, panel.pair_words)
            look = NULLS.get(role) or looks.get(panel.pair[1], Look(NEUTRAL, "circle", "solid"))
            label = wrap(name, 44)
            shares, low, high = _ecdf(rows, cosine)
            n_groups = rows.groupby(_GROUP, sort=False).ngroups
            shared = {"legendgroup": label, **grid.place(at)}
            if n_groups > 1:
                figure.add_scatter(
                    x=np.concatenate([cosine, cosine[::-1]]),
                    y=100 * np.concatenate([low, high[::-1]]),
                    mode="lines",
                    line={"width": 0},
                    fill="toself",
                    fillcolor=look.shade(0.18),
                    showlegend=False,
                    hoverinfo="skip",
                    **shared,
                )
            mean = rows["decoder_cosine"].mean()
            curve = {"decoder_cosine": cosine, "share_at_or_below": shares, "low": low, "high": high}
            about = {"kind": panel.kind, "hook_name": panel.hook_name, "pair": panel.pair_words, "role": role}
            add(figure, pd.DataFrame(curve).assign(**about)[[*about, *curve]])
            figure.add_scatter(
                x=cosine,
                y=100 * shares,
                mode="lines",
                name=label,
                showlegend=label not in legend,
                line={"color": look.color, "dash": look.dash, "width": 2},
                hovertemplate=f"<b>{escape(name)}</b><br>%{{y:.1f}} % of features at or below %{{x:.2f}}"
                f"<br>mean {mean:.3f}; {len(rows):,} features, {n_groups} "
                f"pair{'s' * (n_groups > 1)} of SAEs<extra></extra>",
                **shared,
            )
            legend[label] = None
    figure.update_xaxes(range=[lowest, 1.01], zeroline=False, dtick=0.2, tick0=0)
    figure.update_yaxes(range=[-2, 102], dtick=25, tick0=0, zeroline=False)
    grid.label(figure, x="decoder cosine of the nearest feature", y="share of features (%)")
    return grid.finish(
        figure,
        title="Similarity of SAE features",
        subtitle="cumulative share of live features; bands: range over pairs of SAEs",
        caption="For each live feature of one SAE, the cosine of its decoder direction with the "
        "nearest of the "
        "other's; a curve further right means more alike. Two seeds of one checkpoint show how "
        "alike features can "
        "be, an unrelated (random-weight) model how alike they are by chance.",
        legend=list(legend),
    )


_GROUP = ["checkpoint_a", "checkpoint_b", "seed_a", "seed_b"]

_Curve = Float[np.ndarray, " step"]


def _ecdf(rows: pd.DataFrame, cosine: _Curve) -> tuple[_Curve, _Curve, _Curve]:
    """Share of features at or below each cosine: of all rows, and the range over pairs of SAEs."""

    def shares(some: pd.DataFrame) -> _Curve:
        ordered = np.sort(some["decoder_cosine"].to_numpy())
        return np.searchsorted(ordered, cosine, side="right") / len(some)

    each = np.stack([shares(group) for _, group in rows.groupby(_GROUP, sort=False)])
    return shares(rows), each.min(0), each.max(0)
