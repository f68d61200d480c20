"""A made comparison: labelled arrays that look like a real run's, and a stand-in that holds them."""

from __future__ import annotations

import dataclasses
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


def made_further(comparison: StandIn, *, n_named: int = 2, seed: int = 3) -> StandIn:
    """The same comparison with a variable of every other kind, as the analyses beyond the study give them."""
    rng = np.random.default_rng(seed)
    data = comparison.data
    run = ("checkpoint", "condition")
    shape = tuple(data.sizes[dim] for dim in (*run, "image"))
    n_layers, n_heads = data.sizes["layer"], data.sizes["head"]
    others = np.arange(shape[0])[:, None, None]
    depth = np.linspace(1, 0, n_layers + 1)

    def said(units: str, long_name: str) -> dict[str, str]:
        return {"units": units, "long_name": long_name}

    def over(*dims: str) -> tuple[str, ...]:
        return (*run, "image", *dims)

    def noise(*further: int) -> np.ndarray:
        return rng.normal(size=(*shape, *further))

    def moved(*further: int) -> np.ndarray:
        """Values that differ between checkpoints, and are noisy within them."""
        return 0.3 * rng.normal(size=(shape[0], 1, 1, *further)) + 0.5 * noise(*further)

    blocks = range(n_layers)
    parts = [f"{layer}_{part}" for part in ("resid_post", "attn_out", "mlp_out") for layer in blocks]
    parts += [f"L{layer}H{head}" for layer in blocks for head in range(n_heads)]
    components = ["none", "all", *parts, "feature", "classifier"]
    closed = np.concatenate([[0, 1], rng.uniform(-0.1, 0.9, len(parts)), [0.9, 0.15]])
    base = np.broadcast_to(-1.5 + 0.8 * noise()[:1, ..., None], (*shape, 1))
    log_probability = base + 0.8 * others[..., None] * closed + 0.05 * noise(len(components))
    log_probability[0] = base[0]
    estimate = np.where(
        others[..., None] > 0, 0.7 * (log_probability - base) + 0.1 * noise(len(components)), 0
    )
    direct = ["embed", "pos_embed", *(label for label in parts if "resid" not in label), "constant"]
    shares = rng.dirichlet(np.ones(4), size=(*shape, n_layers, n_heads)).astype(np.float32)

    named = list(data["image"].values[[0, 7][:n_named]])
    n_rows, n_columns = comparison.examples.sizes["patch_row"], comparison.examples.sizes["patch_column"]
    grid = (*run, "named_image", "patch_row", "patch_column")
    map_shape = (*shape[:2], n_named, n_rows, n_columns)
    further = data.assign(
        lens_kl_nats=(
            over("resid_layer"),
            (2 + 0.5 * others[..., None]) * depth + depth * np.abs(noise(n_layers + 1)),
            said("nats", "KL divergence from the output to the logit lens."),
        ),
        tuned_lens_probability=(
            over("resid_layer"),
            1 / (1 + np.exp(3 * depth - noise(n_layers + 1))),
            said("probability", "Probability of the correct class under the tuned lens"),
        ),
        tuned_lens_rank=(over("resid_layer"), rng.poisson(4 * depth, size=(*shape, n_layers + 1))),
        tuned_first_correct_layer=(
            over(),
            np.where(rng.random(shape) < 0.1, np.nan, rng.integers(n_layers + 1, size=shape)),
        ),
        resid_cosine=(
            over("resid_layer", "token_kind"),
            1 - 0.1 * others[..., None, None] * (1 - depth[:, None]) * rng.random((*shape, n_layers + 1, 2)),
            said("cosine", "Cosine with the reference's residual stream"),
        ),
        probe_correct=(
            over("resid_layer"),
            rng.random((*shape, n_layers + 1)) < 0.9 - 0.7 * depth,
            said("share", "Linear probe correct"),
        ),
        cka=(
            (*run, "resid_layer"),
            1 - 0.1 * np.arange(shape[0])[:, None, None] * rng.random((*shape[:2], n_layers + 1)),
            said("1", "Unbiased linear CKA with the reference"),
        ),
        cka_se=((*run, "resid_layer"), np.full((*shape[:2], n_layers + 1), 0.02)),
        n_artifact_tokens=(over("layer"), rng.poisson(2, size=(*shape, n_layers))),
        attention_distance_patches=(
            over("layer", "head"),
            3 + moved(n_layers, n_heads),
            said("patches", "Mean attention distance"),
        ),
        ablated_log_probability_change=(
            over("layer", "head"),
            moved(n_layers, n_heads),
            said("nats", "Change of the correct class's log-probability without one head"),
        ),
        attention_to_registers_share=(
            over("layer", "head"),
            shares[..., 0],
            said("share", "Attention on registers"),
        ),
        attribution=(
            over("direct_component"),
            moved(len(direct)),
            said("logit", "Direct attribution of the correct class's logit"),
        ),
        transplant_log_probability=(
            over("component"),
            log_probability,
            said("nats", "Log-probability of the correct class with one part transplanted"),
        ),
        transplant_correct=(
            over("component"),
            log_probability > -1.2,
            said("share", "Correct prediction with one part transplanted"),
        ),
        attribution_patching=(
            over("patching_component"),
            estimate[..., 2:],
            said("nats", "Estimated effect of a transplant"),
        ),
        attention_rollout=(grid, rng.random(map_shape), said("share", "Attention rollout")),
        integrated_gradients=(
            grid,
            rng.normal(size=map_shape),
            said("logit", "Integrated gradients of the correct class's logit"),
        ),
        token_lens_probability=(
            (*run, "named_image", "resid_layer", "patch_row", "patch_column"),
            rng.random((*map_shape[:3], n_layers + 1, n_rows, n_columns)),
            said("probability", "Probability of the correct class by patch"),
        ),
        token_lens_predicted=(
            (*run, "named_image", "resid_layer", "patch_row", "patch_column"),
            rng.integers(10, size=(*map_shape[:3], n_layers + 1, n_rows, n_columns)),
        ),
        sparsity=(over(), rng.random(shape), said("", "A stranger's own number an image")),
    )
    coords = {
        "component": components,
        "patching_component": components[2:],
        "direct_component": direct,
        "named_image": named,
        "token_kind": ["cls", "patch"],
    }
    return dataclasses.replace(comparison, data=further.assign_coords(coords))
