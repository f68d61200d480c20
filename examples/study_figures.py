"""The study's figures: small SVG pictures, each of rows that stand in a table beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots
from study_claims import CLAIMS, HALF, MARGINS, TUNED, Claim
from study_table import TRAINED_ON

from vitlens.comparison.features import SIMILAR
from vitlens.report.charts.style import FONT_FAMILY, NEUTRAL, looks

WIDTH_PX = 640
LOOKS = looks(list(TRAINED_ON))
AXES = {
    "top1_accuracy": "top-1 accuracy",
    "correct_probability": "probability of the correct class",
    "first_correct_layer": "first correct layer",
    "mean_attention_entropy_nats": "attention entropy, nats",
    "code_cosine_vanilla": "cosine of codes",
}


def draw(tables: Mapping[str, pd.DataFrame], layers: pd.DataFrame) -> dict[str, go.Figure]:
    """Every figure of the page, by the name of its file."""
    claims = tables["claims"]
    figures = {
        claim.name: differences(claim, claims[claims["claim"] == claim.name])
        for claim in CLAIMS
        if claim.rows and (claims["claim"] == claim.name).any()
    }
    return figures | {
        "accuracy": accuracy(tables["groups"]),
        "lens": by_layer(layers, "lens_accuracy", "accuracy of the logit lens", "place on the stream"),
        "entropy": by_layer(layers, "attention_entropy_nats", "entropy, nats", "block"),
        "features": features(tables["similarity"]),
        "parts": parts(tables["parts"]),
    }


def differences(claim: Claim, rows: pd.DataFrame) -> go.Figure:
    """Each row's difference from the control, and from the base; the band is what counts as none."""
    figure = go.Figure()
    margin = MARGINS[rows["metric"].iloc[0]]
    several = rows["metric"].nunique() > 1
    labels = [
        f"{row.checkpoint}, {row.condition}" + f" ({row.metric.removeprefix('code_cosine_')})" * several
        for row in rows.itertuples()
    ]
    figure.add_vrect(x0=-margin, x1=margin, fillcolor=NEUTRAL, opacity=0.15, line_width=0)
    figure.add_vline(x=0, line_color=NEUTRAL, line_width=1)
    for prefix, name, color, offset in (
        ("", "from the control", "#0072B2", 0),
        ("base_", "from the base", NEUTRAL, 1),
    ):
        figure.add_scatter(
            x=rows[f"{prefix}estimate"],
            y=[place + 0.28 * offset for place in range(len(rows))],
            error_x=whiskers(rows, f"{prefix}estimate", f"{prefix}ci_low", f"{prefix}ci_high"),
            mode="markers",
            name=name,
            marker={
                "color": color,
                "size": 9 if not offset else 6,
                "symbol": "square" if offset else "circle",
            },
        )
    figure.update_yaxes(tickvals=[*range(len(rows))], ticktext=labels, range=[len(rows) - 0.4, -0.6])
    figure.update_xaxes(title_text=f"difference in {AXES[rows['metric'].iloc[0]]}")
    return finished(figure, 130 + 34 * len(rows))


def accuracy(groups: pd.DataFrame) -> go.Figure:
    """Top-1, top-5 and top-10 accuracy of the five, by group of conditions."""
    names = [name for name in ("top1", "top5", "top10") if f"{name}_accuracy" in set(groups["metric"])]
    figure = make_subplots(len(names), 1, shared_xaxes=True, vertical_spacing=0.06)
    for row, name in enumerate(names, start=1):
        part = groups[groups["metric"] == f"{name}_accuracy"]
        order = list(part["condition"].unique())
        for place, checkpoint in enumerate(TRAINED_ON):
            its = part[part["checkpoint"] == checkpoint]
            figure.add_scatter(
                x=[order.index(each) + 0.13 * (place - 2) for each in its["condition"]],
                y=its["value"],
                error_y=whiskers(its, "value", "ci_low", "ci_high"),
                mode="markers",
                name=checkpoint,
                legendgroup=checkpoint,
                showlegend=row == 1,
                marker=marker(checkpoint, 8),
                row=row,
                col=1,
            )
        figure.update_yaxes(title_text=f"{name.replace('top', 'top-')}", range=[0, 1.02], row=row, col=1)
        figure.update_xaxes(tickvals=[*range(len(order))], ticktext=order, row=row, col=1)
    return finished(figure, 110 + 200 * len(names))


def by_layer(layers: pd.DataFrame, metric: str, label: str, axis: str) -> go.Figure:
    """A mean over images along the layers, a panel for each group of conditions."""
    part = layers[layers["metric"] == metric]
    order = list(part["condition"].unique())
    n_rows = (len(order) + 1) // 2
    figure = make_subplots(
        n_rows,
        2,
        subplot_titles=order,
        shared_yaxes=True,
        vertical_spacing=0.3 / n_rows,
        horizontal_spacing=0.06,
    )
    for place, condition in enumerate(order):
        for checkpoint in TRAINED_ON:
            its = part[(part["condition"] == condition) & (part["checkpoint"] == checkpoint)]
            figure.add_scatter(
                x=its["layer"],
                y=its["value"],
                mode="lines+markers",
                name=checkpoint,
                legendgroup=checkpoint,
                showlegend=place == 0,
                line={"color": LOOKS[checkpoint].color, "dash": LOOKS[checkpoint].dash, "width": 2},
                marker=marker(checkpoint, 5),
                row=place // 2 + 1,
                col=place % 2 + 1,
            )
    figure.update_xaxes(title_text=axis, row=n_rows)
    figure.update_yaxes(title_text=label, col=1)
    return finished(figure, 120 + 210 * n_rows)


def features(similarity: pd.DataFrame) -> go.Figure:
    """Similarity shares between the nulls, against the base and against the control."""
    figure = go.Figure()
    pairs = similarity[(similarity["reference"] == "base") | similarity["checkpoint"].isin(TUNED)]
    order = list(dict.fromkeys(f"{row.reference} → {row.checkpoint}" for row in pairs.itertuples()))
    figure.add_vrect(x0=SIMILAR, x1=2 - SIMILAR, fillcolor=NEUTRAL, opacity=0.15, line_width=0)
    for x in (0, 1):
        figure.add_vline(x=x, line_color=NEUTRAL, line_width=1, line_dash="dash")
    for place, (kind, its) in enumerate(pairs.groupby("kind", sort=False)):
        look = list(LOOKS.values())[place]
        figure.add_scatter(
            x=its["similarity_share"],
            y=[order.index(f"{row.reference} → {row.checkpoint}") + 0.2 * place for row in its.itertuples()],
            error_x=whiskers(its, "similarity_share", "ci_low", "ci_high"),
            mode="markers",
            name=str(kind),
            marker={"color": look.color, "symbol": look.symbol, "size": 8},
        )
    figure.update_yaxes(tickvals=[*range(len(order))], ticktext=order, range=[len(order) - 0.4, -0.6])
    figure.update_xaxes(title_text="share: 0 as a random model's, 1 as another seed's")
    return finished(figure, 130 + 34 * len(order))


def parts(table: pd.DataFrame) -> go.Figure:
    """The share of the gap that each component closes, by block, a panel for each model and condition."""
    cells = table[["checkpoint", "condition"]].drop_duplicates()
    titles = [f"{row.checkpoint}, {row.condition}" for row in cells.itertuples()]
    n_rows = (len(titles) + 1) // 2
    figure = make_subplots(
        n_rows, 2, subplot_titles=titles, vertical_spacing=0.3 / n_rows, horizontal_spacing=0.1
    )
    named = table["component"].str.extract(r"^(?P<layer>\d+)_(?P<kind>resid_post|attn_out|mlp_out)$")
    kinds = {"resid_post": "stream up to here", "attn_out": "attention", "mlp_out": "MLP"}
    for place, cell in enumerate(cells.itertuples()):
        is_it = (table["checkpoint"] == cell.checkpoint) & (table["condition"] == cell.condition)
        where = {"row": place // 2 + 1, "col": place % 2 + 1}
        for kind, look in zip(kinds, LOOKS.values(), strict=False):
            its = table[is_it & (named["kind"] == kind)]
            figure.add_scatter(
                x=named.loc[its.index, "layer"].astype(int),
                y=its["gap_closed"],
                error_y=whiskers(its, "gap_closed", "ci_low", "ci_high"),
                mode="lines+markers",
                name=kinds[kind],
                legendgroup=kind,
                showlegend=place == 0,
                line={"color": look.color, "dash": look.dash, "width": 2},
                marker={"color": look.color, "symbol": look.symbol, "size": 6},
                **where,
            )
        # A panel without traces would be left out.
        figure.add_hline(y=HALF, line_color=NEUTRAL, line_width=1, line_dash="dot", **where)
    figure.update_xaxes(title_text="block", row=n_rows)
    figure.update_yaxes(title_text="share of the gap", col=1)
    return finished(figure, 120 + 230 * n_rows)


def layer_means(data: xr.Dataset, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Means over images along the layers: how often the logit lens is right, and attention entropy."""
    entropy = data["attention_entropy_nats"].mean("head")
    kind = "cls" if "cls" in entropy["query_kind"].values else "patch"
    measured = {
        "lens_accuracy": (data["lens_rank"] == 0).rename(resid_layer="layer"),
        "attention_entropy_nats": entropy.sel(query_kind=kind, drop=True),
    }
    tables = []
    for metric, values in measured.items():
        for group, members in groups.items():
            means = values.sel(condition=list(members)).mean(["condition", "image"])
            flat = means.drop_vars([name for name in means.coords if name not in means.dims])
            found = flat.to_dataframe("value").reset_index()
            tables.append(found.assign(metric=metric, condition=group, n_images=data.sizes["image"]))
    columns = ["metric", "condition", "checkpoint", "layer", "value", "n_images"]
    return pd.concat(tables, ignore_index=True)[columns]


def whiskers(rows: pd.DataFrame, value: str, low: str, high: str) -> dict[str, object]:
    """An interval as plotly's error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "array": (rows[high] - rows[value]).astype(float),
        "arrayminus": (rows[value] - rows[low]).astype(float),
        "thickness": 1.5,
        "width": 3,
    }


def marker(checkpoint: str, size: int) -> dict[str, object]:
    """How a checkpoint is drawn, in every figure."""
    return {"color": LOOKS[checkpoint].color, "symbol": LOOKS[checkpoint].symbol, "size": size}


def finished(figure: go.Figure, height_px: int) -> go.Figure:
    """The look that all share: letters that can be read on a phone, legend above, no title of its own."""
    figure.update_layout(
        template="plotly_white",
        width=WIDTH_PX,
        height=height_px,
        font={"family": FONT_FAMILY, "size": 14, "color": "#222222"},
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        margin={"t": 64, "l": 70, "r": 16, "b": 60},
        paper_bgcolor="#FFFFFF",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
