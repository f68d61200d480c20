"""A made gallery: exhibits of random heat over smooth pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from vitlens.saes.gallery_data import Exhibit, FeatureProfile, Gallery, ShownImage


def made_image(number, n_checkpoints=1, side=224, grid=(14, 14), picked="top"):
    rng = np.random.default_rng(number)
    # Smooth, as photographs are: noise would not compress.
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    heat = rng.random((n_checkpoints, *grid), dtype=np.float32)
    heat[heat < 0.8] = 0
    return ShownImage(
        image_id=f"folder/{number}.jpg",
        label=number % 5,
        picked=picked,
        pixels=pixels,
        activation=heat.max(axis=(1, 2)),
        heat=heat,
        prefix=np.full((n_checkpoints, 1), 0.25, dtype=np.float32),
    )


def made_profile(feature, n_active=40):
    classes = pd.DataFrame(
        {
            "label": [3, 1],
            "n_images": [10, 20],
            "n_active_images": [9, 2],
            "share_active": [0.9, 0.1],
            "lift": [4.5, 0.5],
            "mean_activation": [1.25, 0.0625],
        }
    )
    counts = np.array([n_active - 1, 0, 1]) if n_active else np.zeros(0, dtype=np.int64)
    return FeatureProfile(
        feature=feature,
        n_tokens={"cls": 100, "patch": 19_600},
        n_active_tokens={"cls": 0, "patch": n_active},
        n_active_images=min(n_active, 11),
        largest=1.5 if n_active else 0.0,
        counts=counts,
        edges=np.arange(len(counts) + 1) * 0.5,
        classes=classes if n_active else classes.head(0),
    )


def made_gallery(n_features=2, n_images=4, checkpoints=("model",), **image):
    exhibits = tuple(
        Exhibit(
            features=tuple(made_profile(10 * number + at) for at in range(len(checkpoints))),
            images=tuple(
                made_image(
                    100 * number + i,
                    len(checkpoints),
                    picked="top" if i < n_images - 1 else "middle",
                    **image,
                )
                for i in range(n_images)
            ),
            similarity={"decoder_cosine": 0.75} if len(checkpoints) > 1 else {},
        )
        for number in range(n_features)
    )
    sae = {"kind": "batch_topk", "d_sae": 768, "k_per_token": 16, "hook_name": "blocks.9", "tokens": "all"}
    return Gallery(
        exhibits=exhibits,
        checkpoints=checkpoints,
        prefix_kinds=("cls",),
        n_images=100,
        n_top_images=3,
        n_middle_images=1,
        class_names=["tench", "goldfish", "shark", "hen", "ostrich"],
        provenance={
            "features": "2 of 768, named",
            "condition": "gaussian_blur@3",
            "seed": 7,
            "checkpoints": {
                name: {"model": {"file": f"{name}.safetensors"}, "sae": sae} for name in checkpoints
            },
        },
    )
