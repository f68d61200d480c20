"""What a fine-tuning run gave, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..models import HookedViT


@dataclass(frozen=True)
class FinetuneResult:
    """What a run gave.

    Attributes:
        model: the fine-tuned model, in evaluation mode; the averaged weights where `ema_decay` was given.
        log: a row for each step: `step` (steps made before it, from 0), `loss` (mean over the step's
            images), `learning_rate`, `images_per_second`.
        evaluations: a row for each evaluation and condition: `step` (steps made; 0 is the start),
            `condition`, `top1_accuracy` and `correct_probability`, each with its 95 % interval in `_low` and
            `_high`, and `n_images`. Empty where nothing was evaluated.
        path: the final checkpoint, which `vitlens.load` reads; None without an output folder.
        best: the checkpoint of the evaluation whose accuracy was best, as the mean over its conditions, which
            `vitlens.load` reads; None without an output folder or evaluations.
        snapshots: steps made -> the model as it was then, which `vitlens.load` reads; empty without an
            output folder.

    Example:
        >>> import timm, vitlens as vl
        >>> from vitlens.training.log import Log
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> log = Log(None)
        >>> log.write({"kind": "step", "step": 0, "loss": 2.3, "learning_rate": 1e-4})
        >>> FinetuneResult(model, log.frame("step"), log.frame("evaluation"), None).log["loss"].tolist()
        [2.3]
    """

    model: HookedViT
    log: pd.DataFrame
    evaluations: pd.DataFrame
    path: Path | None
    snapshots: Mapping[int, Path] = field(default_factory=dict)
    best: Path | None = None
