"""The table of how far results agree between threads, batch sizes, workers and repeats.

    VITLENS_DATA=... python tests/reliability/agreement.py

Writes docs/tables/agreement.md. DeiT-tiny and photographs of VITLENS_DATA, float32, on the CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import xarray as xr
from safetensors.torch import load_file

import vitlens as vl

OUTPUT = Path(__file__).parents[2] / "docs" / "tables" / "agreement.md"
CONDITIONS = ["clean", "gaussian_noise@3", "jpeg@3"]
REFERENCE = {"threads": 1, "batch_size": 32, "num_workers": 0, "deterministic": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "the same again": {},
    "2 threads": {"threads": 2},
    "batch_size 7": {"batch_size": 7},
    "batch_size 1": {"batch_size": 1},
    "num_workers 2": {"num_workers": 2},
    "use_deterministic_algorithms": {"deterministic": True},
    "2 threads, batch_size 7, num_workers 2": {"threads": 2, "batch_size": 7, "num_workers": 2},
}
GROUPS = {
    "probabilities": ("correct_probability", "predicted_probability", "lens_probability"),
    "entropies (nats)": ("entropy_nats", "lens_entropy_nats", "attention_entropy_nats"),
    "distances (patches)": ("attention_distance_patches",),
    "attributions (logits)": ("attribution",),
    "ranks and classes": ("rank", "predicted", "lens_rank", "lens_predicted"),
}


def measured(
    model: vl.HookedViT,
    images: Any,
    *,
    threads: int,
    batch_size: int,
    num_workers: int,
    deterministic: bool,
    conditions: list[str] = CONDITIONS,
) -> xr.Dataset:
    """The same measurement under some settings; torch's are put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    try:
        return vl.run(
            model,
            images,
            [
                vl.Prediction(),
                vl.LogitLens(),
                vl.AttentionEntropy(),
                vl.AttentionDistance(),
                vl.LogitAttribution(),
            ],
            conditions=conditions,
            batch_size=batch_size,
            num_workers=num_workers,
            progress=False,
        )
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)


def largest_differences(data: xr.Dataset, reference: xr.Dataset) -> Mapping[str, float]:
    """The largest difference of any value, for each group; of ranks and classes, the share that differ."""
    found = {}
    for group, names in GROUPS.items():
        pairs = [(data[name].values, reference[name].values) for name in names]
        if group == "ranks and classes":
            found[group] = float(np.mean(np.concatenate([(a != b).ravel() for a, b in pairs])))
        else:
            found[group] = max(float(np.abs(a - b).max()) for a, b in pairs)
    return found


def deit_tiny(folder: Path) -> vl.HookedViT:
    """DeiT-tiny with trained weights."""
    module = timm.create_model("deit_tiny_patch16_224")
    state = load_file(folder / "deit_tiny_patch16_224.fp16.safetensors")
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return vl.HookedViT(module)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    n_images = parser.parse_args().images
    folder = Path(os.environ["VITLENS_DATA"])
    model = deit_tiny(folder)
    images = vl.images.spread(vl.images.folder(folder / "imagenet_samples", model), n_images)
    reference = measured(model, images, **REFERENCE)
    lines = [
        f"| against one thread, batch_size 32, no workers | same bytes | {' | '.join(GROUPS)} |",
        f"| --- | --- |{' --- |' * len(GROUPS)}",
    ]
    for name, changed in VARIANTS.items():
        data = measured(model, images, **{**REFERENCE, **changed})
        found = largest_differences(data, reference)
        cells = [
            f"{100 * value:.3g} %" if group == "ranks and classes" else f"{value:.1e}" if value else "0"
            for group, value in found.items()
        ]
        lines.append(f"| {name} | {'yes' if data.identical(reference) else 'no'} | {' | '.join(cells)} |")
        sys.stdout.write(f"{lines[-1]}\n")
    shown = ", ".join(CONDITIONS)
    head = (
        f"DeiT-tiny, {n_images} photographs under {shown}; float32 on an x86-64 CPU, torch "
        f"{torch.__version__}. Largest difference of any value; of ranks and classes the share that differ. "
        "To repeat: `VITLENS_DATA=... python tests/reliability/agreement.py`."
    )
    OUTPUT.write_text("\n".join([head, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
