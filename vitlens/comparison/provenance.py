"""Provenance: what a comparison was made of, and the call that makes it again."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from torch.utils.data import Subset

from ..images import BAD_IMAGES, ImageDataset, fingerprint, parse_conditions, texts_sha256
from ..models import HookedViT, weights_sha256
from ..running import AnyAnalysis, analysis_identity, normalization

_PACKAGES = ("vitlens", "torch", "timm", "transformer-lens", "sae-lens")


def settings(
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    *,
    analyses: Sequence[AnyAnalysis],
    conditions: Sequence[Any],
    saes: Mapping[str, Sequence[Any]] | None,
    unrelated_model: HookedViT | None,
    class_names: Sequence[str] | None,
    n_examples: int,
    n_gallery_features: int,
    batch_size: int,
    precision: str | None,
    seed: int,
) -> dict[str, Any]:
    """All that a comparison's numbers depend on, by which two calls are told apart; JSON can hold it.

    Args are those of `compare`. Weights and class names are hashed; `vitlens.images.fingerprint` says what is
    known of a data set.
    """
    return {
        "checkpoints": {name: weights_sha256(model) for name, model in models.items()},
        "normalization": {name: normalization(model) for name, model in models.items()},
        "order": list(models),  # the first is the reference
        "images": fingerprint(dataset),
        "conditions": [condition.identity for condition in parse_conditions(conditions)],
        "analyses": [analysis_identity(analysis) for analysis in analyses],
        "saes": {name: [weights_sha256(sae) for sae in theirs] for name, theirs in (saes or {}).items()},
        "unrelated_model": None if unrelated_model is None else weights_sha256(unrelated_model),
        "class_names_sha256": None if class_names is None else texts_sha256(class_names),
        "n_examples": n_examples,
        "n_gallery_features": n_gallery_features,
        "batch_size": batch_size,
        "precision": precision,
        "seed": seed,
    }


def provenance(
    models: Mapping[str, HookedViT], dataset: ImageDataset, data: xr.Dataset, settled: Mapping[str, Any]
) -> dict[str, Any]:
    """What is needed to repeat a comparison.

    Args:
        models: checkpoint name -> model.
        dataset: the images.
        data: what was measured of them.
        settled: from `settings`.

    Returns:
        `date`, `call`, `versions`, `seed`, `conditions`, `images` (with hashes of their ids and labels,
        and those that could not be read),
        `checkpoints` (hash of the weights, normalization, and what each model remembers of its origin) and
        `settings`.
    """
    conditions = [str(condition) for condition in data["condition"].values]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "call": _call(models, conditions, settled),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "seed": settled["seed"],
        "conditions": conditions,
        "images": {
            "data set": _kind(dataset),
            "n": int(data.sizes["image"]),
            "ids_sha256": texts_sha256(data["image"].values),
            **({"labels_sha256": _labels_sha256(data["label"])} if "label" in data else {}),
            **({BAD_IMAGES: data.attrs[BAD_IMAGES]} if BAD_IMAGES in data.attrs else {}),
        },
        "checkpoints": {
            name: {
                "weights_sha256": settled["checkpoints"][name],
                **settled["normalization"][name],
                **model.provenance,
            }
            for name, model in models.items()
        },
        "settings": dict(settled),
    }


def _call(models: Mapping[str, HookedViT], conditions: Sequence[str], settled: Mapping[str, Any]) -> str:
    """The call in Python; what only its caller has is `...`."""
    files = {name: model.provenance.get("file") for name, model in models.items()}
    loaded = ", ".join(
        f"{name!r}: {'...' if file is None else f'vitlens.load({file!r})'}" for name, file in files.items()
    )
    said = {"analyses": f"[{', '.join(settled['analyses'])}]", "conditions": repr(conditions)}
    if settled["saes"]:
        said |= {"saes": "...", "n_gallery_features": repr(settled["n_gallery_features"])}
    if settled["unrelated_model"] is not None:
        said["unrelated_model"] = "..."
    if settled["class_names_sha256"] is not None:
        said["class_names"] = "..."
    said |= {name: repr(settled[name]) for name in ("n_examples", "batch_size", "precision", "seed")}
    return f"vitlens.compare({{{loaded}}}, dataset, {', '.join(f'{k}={v}' for k, v in said.items())})"


def _kind(dataset: ImageDataset) -> str:
    if isinstance(dataset, Subset):
        return f"part of {_kind(dataset.dataset)}"
    return type(dataset).__name__


def _labels_sha256(labels: xr.DataArray) -> str:
    # Every checkpoint and condition has the same labels.
    first = labels.isel(checkpoint=0, condition=0).values
    return hashlib.sha256(first.astype("<i8").tobytes()).hexdigest()
