"""The study's sparse autoencoders: of every checkpoint and a random model; how alike they are, and codes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from compare_checkpoints import KINDS

import vitlens as vl

UNRELATED = "unrelated"


def dictionaries(
    models: Mapping[str, vl.HookedViT], train: Any, hook_name: str, folder: Path, settings: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """SAEs of both kinds for every model, no two of one kind with one seed, all at the base's scale.

    Args:
        models: the base first, `unrelated` last.
        train: images whose activations they are trained on.
        hook_name: where they read.
        folder: of activations and SAEs; whatever is there is not made again.
        settings: `n_seeds`, `num_workers`, and as `recipe` arguments of `vl.saes.train`.

    Returns:
        Model name -> its SAEs, kind by kind.
    """
    store = vl.saes.ActivationStore.write(
        folder / "activations",
        models,
        train,
        hook_names=[hook_name],
        dtype="float16",
        num_workers=settings["num_workers"],
    )
    n_seeds, scale = settings["n_seeds"], None
    saes: dict[str, list[Any]] = {name: [] for name in models}
    for place, name in enumerate(models):
        tokens = store.tokens(hook_name, checkpoint=name)
        for kind in KINDS:
            for seed in range(place * n_seeds, (place + 1) * n_seeds):
                print(f"{name}: {kind} SAE, seed {seed}")
                sae = vl.saes.train(
                    tokens,
                    kind=kind,
                    activation_scale=scale,
                    seed=seed,
                    device=models[name].device,
                    output=folder / f"{name}-{kind}-{seed}",
                    **settings["recipe"],
                )
                scale = scale or sae.cfg.metadata.activation_scale
                saes[name].append(sae)
    return saes


def similarity(comparisons: Sequence[vl.Comparison]) -> pd.DataFrame:
    """How alike the dictionaries are, against each comparison's reference, in one table."""
    return pd.concat([comparison.similarity for comparison in comparisons], ignore_index=True)


def quality(saes: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Active features, variance unexplained and dead features of every SAE, on its held-out tokens."""
    return pd.DataFrame(
        [
            {
                "model": name,
                "kind": kind,
                "seed": sae.cfg.metadata.seed,
                **{figure: sae.cfg.metadata[figure] for figure in ("l0", "fvu", "n_dead")},
            }
            for name, its in saes.items()
            for kind, sae in zip(
                [kind for kind in KINDS for _ in range(len(its) // len(KINDS))], its, strict=True
            )
        ]
    )


def codes(
    models: Mapping[str, vl.HookedViT],
    saes: Mapping[str, Sequence[Any]],
    images: Any,
    conditions: Sequence[str],
    path: Path,
    **how: Any,
) -> xr.Dataset:
    """How near the codes of an image under each condition are to those of its clean version.

    Args:
        models: checkpoint name -> model, the base first.
        saes: from `dictionaries`; the first of each kind of the base's codes all checkpoints.
        images: to be coded.
        conditions: under which, besides clean.
        path: a file that keeps the values; those of the same weights, images and conditions are read back.
        **how: `batch_size` and `seed`, as for `vl.saes.code_similarity`.

    Returns:
        `code_cosine_vanilla` and `code_cosine_batch_topk`, dims (checkpoint, condition, image).
    """
    own = dict(zip(KINDS, saes["base"][:: len(saes["base"]) // len(KINDS)], strict=True))
    asked = {
        "weights": {name: vl.weights_sha256(model) for name, model in models.items()},
        "image_ids": [images[place]["image_id"] for place in range(len(images))],
        "conditions": list(conditions),
        "seed": how.get("seed", 0),
    }
    if path.exists():
        kept = vl.Comparison.load(path)
        if kept.provenance["asked"] == asked:
            return kept.data
    found = vl.saes.code_similarity(models, own, images, conditions=conditions, **how)
    of_conditions = found["code_cosine_image"].sel(comparison=found["comparison_kind"] == "conditions")
    of_conditions = of_conditions.sel(condition=list(conditions)).assign_coords(
        comparison=of_conditions["checkpoint_b"].values
    )
    plain = of_conditions.drop_vars(["comparison_kind", "checkpoint_a", "checkpoint_b"])
    data = xr.Dataset(
        {
            f"code_cosine_{kind}": plain.sel(dictionary=kind, drop=True)
            .rename(comparison="checkpoint")
            .transpose("checkpoint", "condition", "image")
            .assign_attrs(units="cosine", long_name=f"Cosine of {kind} codes with the clean image's.")
            for kind in KINDS
        }
    )
    n_classes = next(iter(models.values())).cfg.n_classes
    vl.Comparison(data, "base", n_classes, provenance=json.loads(json.dumps({"asked": asked}))).save(path)
    return data
