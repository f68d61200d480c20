"""A made comparison: labelled arrays that look like a real run's, and a stand-in that holds them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

CONDITIONS = (
    "clean",
    "gaussian_blur@3",
    "gaussian_noise@3",
    "contrast@5",
    "defocus_blur@3",
    "pgd:eps=4/255,steps=10",
)
SUMMARY_COLUMNS = (
    "metric",
    "condition",
    "layer",
    "head",
    "reference",
    "checkpoint",
    "value_reference",
    "value",
    "difference",
    "ci_low",
    "ci_high",
    "p_adjusted",
    "margin",
    "verdict",
    "n",
)


@dataclass(frozen=True)
class StandIn:
    """What a report reads, and nothing else."""

    data: xr.Dataset
    reference: str
    examples: xr.Dataset | None = None
    features: pd.DataFrame | None = None
    class_names: Sequence[str] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> pd.DataFrame:
        return made_summary(self.data, self.reference)


def made_data(
    checkpoints: Sequence[str],
    conditions: Sequence[str],
    *,
    n_images: int,
    n_layers: int,
    n_heads: int,
    n_classes: int,
    kinds: Sequence[str] = ("cls", "patch"),
    seed: int = 0,
) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    shape = (len(checkpoints), len(conditions), n_images)
    label = np.broadcast_to(rng.integers(n_classes, size=n_images), shape)
    hardness = rng.normal(size=n_images)
    skill = rng.normal(1.2, 0.5, size=shape[:2])[..., None] - 0.3 * np.arange(shape[1])[:, None]
    depth = np.linspace(-4, 1, n_layers + 1)
    logit = (skill + hardness)[..., None] + depth + 0.6 * rng.normal(size=(*shape, n_layers + 1))
    lens_probability = 1 / (1 + np.exp(-2 * logit))
    lens_rank = np.minimum(rng.poisson(3 * np.exp(-1.5 * logit).clip(0, 50)), n_classes - 1)
    rank = lens_rank[..., -1]
    right = lens_rank == 0
    first = np.where(right.any(-1), right.argmax(-1), np.nan)
    entropy = (
        2.0
        + 1.2 * rng.random((n_layers, n_heads, len(kinds)))
        + 0.25 * rng.normal(size=(len(checkpoints), 1, 1, n_layers, n_heads, len(kinds)))
        + 0.3 * rng.normal(size=(*shape, n_layers, n_heads, len(kinds)))
    )
    sample = ("checkpoint", "condition", "image")
    return xr.Dataset(
        {
            "label": (sample, label),
            "predicted": (sample, np.where(rank == 0, label, (label + 1) % n_classes)),
            "rank": (sample, rank),
            "correct_probability": (sample, lens_probability[..., -1].astype(np.float32)),
            "entropy_nats": (sample, rng.random(shape).astype(np.float32)),
            "lens_probability": ((*sample, "resid_layer"), lens_probability.astype(np.float32)),
            "lens_rank": ((*sample, "resid_layer"), lens_rank),
            "first_correct_layer": (sample, first),
            "last_change_layer": (sample, rng.integers(n_layers, size=shape).astype(np.float64)),
            "attention_entropy_nats": (
                (*sample, "layer", "head", "query_kind"),
                entropy.clip(0).astype(np.float32),
            ),
        },
        coords={
            "checkpoint": list(checkpoints),
            "condition": list(conditions),
            "image": [f"image_{i:05}" for i in range(n_images)],
            "layer": np.arange(n_layers),
            "resid_layer": np.arange(n_layers + 1),
            "head": np.arange(n_heads),
            "query_kind": list(kinds),
        },
    )


def made_summary(data: xr.Dataset, reference: str) -> pd.DataFrame:
    """A frame of the summary's columns, by normal intervals."""
    n_places = data.sizes["resid_layer"]
    metrics = {
        "top1_accuracy": (data["rank"] < 1).astype(float),
        "correct_probability": data["correct_probability"].astype(float),
        "entropy_nats": data["entropy_nats"].astype(float),
        "first_correct_layer": data["first_correct_layer"].fillna(n_places),
    }
    entropy = data["attention_entropy_nats"]
    for kind in entropy["query_kind"].values:
        metrics[f"attention_entropy_nats[{kind}]"] = entropy.sel(query_kind=kind).astype(float)
    rows = []
    for metric, values in metrics.items():
        others = [name for name in data["checkpoint"].values if name != reference]
        cells = [values[dim].values if dim in values.dims else [pd.NA] for dim in ("layer", "head")]
        for condition, layer, head, name in itertools.product(data["condition"].values, *cells, others):
            at = {"condition": condition}
            at |= {} if layer is pd.NA else {"layer": layer, "head": head}
            before, after = (values.sel(checkpoint=which, **at).values for which in (reference, name))
            change = after - before
            error = change.std(ddof=1) / len(change) ** 0.5
            difference, half = change.mean(), 1.96 * error
            p = 2 * stats.norm.sf(abs(difference) / error) if error else 1.0
            margin = 0.02 if metric == "correct_probability" else np.nan
            p_adjusted = np.nan if metric == "entropy_nats" else min(1.0, 10 * p)
            verdict = "changed" if p_adjusted < 0.05 else "undecided"
            if abs(difference) + half < margin:
                verdict = "equivalent"
            row = (metric, condition, layer, head, reference, name, before.mean(), after.mean(), difference)
            rows.append(
                (*row, difference - half, difference + half, p_adjusted, margin, verdict, len(change))
            )
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)).astype({"layer": "Int64", "head": "Int64"})


def made_examples(
    data: xr.Dataset, *, n_images: int, side: int, image_px: int, conditions: Sequence[str], seed: int = 1
) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    checkpoints, layers, heads = (data[dim].values for dim in ("checkpoint", "layer", "head"))
    images = data["image"].values[:n_images]
    row, column = np.mgrid[:side, :side] / side - 0.5
    center = rng.uniform(-0.3, 0.3, size=(len(checkpoints), 1, n_images, len(layers), len(heads), 2, 1, 1))
    bump = np.exp(-12 * ((row - center[..., 0, :, :]) ** 2 + (column - center[..., 1, :, :]) ** 2))
    bump = bump * rng.uniform(0.5, 1.5, size=(1, len(conditions), *bump.shape[2:]))
    yy, xx = np.mgrid[:image_px, :image_px] / image_px
    waves = np.stack([np.sin(9 * xx + 5 * yy + shift) for shift in range(3)], axis=-1)
    pixels = 127 + 90 * waves[None, None] * rng.uniform(0.3, 1, size=(len(conditions), n_images, 1, 1, 3))
    sample = ("checkpoint", "condition", "image")
    chosen = data.sel(condition=list(conditions), image=images)
    return xr.Dataset(
        {
            "attention_map": (
                (*sample, "layer", "head", "patch_row", "patch_column"),
                0.9 * bump / bump.sum((-2, -1), keepdims=True),
            ),
            "pixels": (("condition", "image", "row", "column", "channel"), pixels.astype(np.uint8)),
            "label": chosen["label"].isel(checkpoint=0, condition=0, drop=True),
            "predicted": chosen["predicted"],
            "correct_probability": chosen["correct_probability"],
        },
        coords={
            "checkpoint": checkpoints,
            "condition": list(conditions),
            "image": images,
            "layer": layers,
            "head": heads,
        },
    )


def made_features(checkpoints: Sequence[str], *, n_seeds: int = 2, n_features: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    base, *others = checkpoints
    seeds = range(n_seeds)
    pairs = [("checkpoints", base, other, a, b) for other in others for a in seeds for b in seeds if a != b]
    pairs += [("seeds", name, name, a, b) for name in checkpoints for a in seeds for b in seeds if a < b]
    pairs += [("unrelated", base, "random weights", a, a) for a in seeds]
    center = {"checkpoints": 0.7, "seeds": 0.8, "unrelated": 0.3}
    parts = []
    for kind, (role, a, b, seed_a, seed_b) in itertools.product(("vanilla", "batch_topk"), pairs):
        n = n_features + 10 * seed_a
        cosine = np.tanh(rng.normal(np.arctanh(center[role]) - 0.1 * (kind == "vanilla"), 0.35, size=n))
        parts.append(
            pd.DataFrame(
                {
                    "kind": kind,
                    "hook_name": "blocks.4.hook_resid_post",
                    "role": role,
                    "checkpoint_a": a,
                    "checkpoint_b": b,
                    "seed_a": seed_a,
                    "seed_b": seed_b,
                    "feature": np.arange(n),
                    "nearest": rng.integers(n, size=n),
                    "decoder_cosine": cosine,
                    "mutual": cosine > 0.5,
                    "activation_correlation": np.where(cosine > 0.5, cosine, np.nan),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def made_comparison(
    checkpoints: Sequence[str] = ("base", "tuned on blur", "tuned on noise"),
    conditions: Sequence[str] = CONDITIONS,
    *,
    n_images: int = 200,
    n_layers: int = 6,
    n_heads: int = 4,
    side: int = 8,
    image_px: int = 32,
    class_names: Sequence[str] = tuple("0123456789"),
    n_examples: int = 3,
) -> StandIn:
    data = made_data(
        checkpoints,
        conditions,
        n_images=n_images,
        n_layers=n_layers,
        n_heads=n_heads,
        n_classes=len(class_names),
    )
    return StandIn(
        data=data,
        reference=checkpoints[0],
        examples=made_examples(
            data, n_images=n_examples, side=side, image_px=image_px, conditions=conditions[:3]
        ),
        features=made_features(checkpoints),
        class_names=class_names,
        provenance={
            "date": "2026-01-05",
            "data": "made images, seed 0",
            "versions": {"vitlens": "0.1.0", "torch": "2.15"},
            "seeds": [0, 1],
            "checkpoints": {
                name: {"sha256": f"{i:064x}", "note": None} for i, name in enumerate(checkpoints)
            },
        },
    )
