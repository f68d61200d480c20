"""The fine-tuner: clean and corrupted images in a stated mix, resumable to the last bit."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..errors import CheckpointError, TrainingError
from ..files import read_json, write_json, write_text
from ..images import Batch, check, collate
from ..images.items import known
from ..images.streams import stream
from ..models import HookedViT, load, save, weights_sha256
from .config import FinetuneConfig
from .mixing import StepOrder, mixed
from .state import check_same_run, read_state, write_state


@dataclass(frozen=True)
class FinetuneResult:
    """What a run gave.

    Attributes:
        model: the fine-tuned model, in evaluation mode.
        log: a row a step: `step`, `loss`, `learning_rate`.
        path: the final checkpoint, which `vitlens.load` reads; None without an output folder.
    """

    model: HookedViT
    log: pd.DataFrame
    path: Path | None


def finetune(
    model: HookedViT,
    dataset: Any,
    config: FinetuneConfig,
    output: str | PathLike[str] | None = None,
    *,
    num_workers: int = 0,
    progress: bool = True,
) -> FinetuneResult:
    """Fine-tune a copy of `model` on a mix of clean and corrupted images.

    The order of the images, the draws of conditions, the corruptions' noise, dropout and drop path of a step
    depend on (seed, step) alone. A run that was killed goes on from its last checkpoint when the same call
    is made again, and ends with the same weights, bit for bit, on the same machine with the same number of
    threads; a finished run is read back.

    Args:
        model: where to start; it is left as it is.
        dataset: a map-style data set (a length, and items by index) as `vitlens.run` takes it.
        config: the recipe.
        output: a folder for `model.safetensors` (the result), `checkpoint.safetensors` (the state),
            `config.json` and `log.jsonl`; without it nothing is written and nothing can be resumed.
        num_workers: processes that load images.
        progress: show a bar.

    Returns:
        The fine-tuned model, the log and the path.

    Raises:
        TrainingError: the folder holds another run, the loss is no number, or the data set has no length.
        LabelError: a label is outside the model's classes.
        CheckpointError: a file in the folder is damaged.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> config = FinetuneConfig(conditions=["gaussian_blur@1-5"], steps=2, batch_size=4)
        >>> result = finetune(model, vl.images.digits("train"), config, progress=False)
        >>> len(result.log), result.path
        (2, None)
    """
    n_items = _length(dataset)
    check(dataset, model.cfg.n_classes)
    run = {
        "config": config.described(),
        "start": weights_sha256(model),
        "data": _fingerprint(dataset, n_items),
    }
    folder = None if output is None else Path(output)
    if folder is not None:
        finished = _claim(folder, run)
        if finished is not None:
            return finished
    tuned = HookedViT(
        copy.deepcopy(model.model), data_config=model.data_config, provenance=dict(model.provenance)
    )
    log = _train(tuned, dataset, n_items, config, run, folder, num_workers=num_workers, progress=progress)
    tuned.provenance["finetuned"] = run
    path = None
    if folder is not None:
        path = save(tuned, folder / "model.safetensors")
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return FinetuneResult(tuned.eval(), pd.DataFrame(log), path)


def _train(
    model: HookedViT,
    dataset: Any,
    n_items: int,
    config: FinetuneConfig,
    run: dict[str, Any],
    folder: Path | None,
    *,
    num_workers: int,
    progress: bool,
) -> list[dict[str, float]]:
    optimizer = create_optimizer_v2(
        model.model,
        opt=config.optimizer,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
    )
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=config.steps,
        warmup_t=config.warmup_steps,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    log: list[dict[str, float]] = []
    first_step = 0
    checkpoint = None if folder is None else folder / "checkpoint.safetensors"
    if checkpoint is not None and checkpoint.exists():
        first_step = read_state(checkpoint, model.model, optimizer, run=run)
        log = _read_log(checkpoint.parent / "log.jsonl")[:first_step]
    loader = DataLoader(
        dataset,
        batch_sampler=StepOrder(n_items, config.batch_size, first_step, config.steps, config.seed),
        collate_fn=partial(collate, n_classes=model.cfg.n_classes),
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(config.seed),
    )
    choices = config.choices()
    model.train()
    bar = tqdm(total=config.steps, initial=first_step, desc="fine-tuning", unit="step", disable=not progress)
    with bar:
        for step, batch in enumerate(loader, start=first_step):
            scheduler.step_update(step)
            pixels = mixed(batch, choices, p_clean=config.p_clean, seed=config.seed, step=step)
            loss = _step(model, optimizer, pixels, batch, config, step)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss is {loss} at step {step}.",
                    expected="a finite loss",
                    remedy="Lower learning_rate or lengthen warmup_steps; "
                    "the last checkpoint of the output folder is from before.",
                )
            log.append({"step": step, "loss": loss, "learning_rate": optimizer.param_groups[0]["lr"]})
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            done = step + 1
            if checkpoint is not None and (done % config.checkpoint_every_steps == 0 or done == config.steps):
                # The log first: at worst it is ahead of the state, and is cut back on resuming.
                lines = "".join(json.dumps(row) + "\n" for row in log)
                write_text(checkpoint.parent / "log.jsonl", lines)
                write_state(checkpoint, model.model, optimizer, step=done, run=run)
    return log


def _step(
    model: HookedViT,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    batch: Batch,
    config: FinetuneConfig,
    step: int,
) -> float:
    """One step; dropout and drop path draw from (seed, step), and the caller's generators are left alone."""
    device = model.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stream(config.seed, f"step {step}", "dropout", 0).initial_seed())
        logits = model(model.normalize(pixels.to(device)))
        loss = F.cross_entropy(
            logits.float(), batch.labels.to(device), label_smoothing=config.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
    if config.max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    value = loss.item()
    if math.isfinite(value):
        optimizer.step()
    return value


def _claim(folder: Path, run: dict[str, Any]) -> FinetuneResult | None:
    """Make the folder this run's own; the finished result where there is one."""
    config = folder / "config.json"
    if config.exists():
        check_same_run(read_json(config), run, folder)
    else:
        write_json(config, run)
    final = folder / "model.safetensors"
    if not final.exists():
        return None
    model = load(final)
    if model.provenance.get("finetuned") != json.loads(json.dumps(run)):
        raise TrainingError(
            f"{final} is not what this run would have written.",
            expected="no model.safetensors, or this run's own",
            remedy="Name another output folder.",
        )
    return FinetuneResult(model, pd.DataFrame(_read_log(folder / "log.jsonl")), final)


def _read_log(path: Path) -> list[dict[str, float]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The log {path} cannot be read ({error}).",
            expected="a row of JSON a step",
            remedy="Delete the output folder to start the run anew.",
        ) from error


def _length(dataset: Any) -> int:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or len(dataset) == 0:
        raise TrainingError(
            f"The data set is a {type(dataset).__name__} without items by index.",
            expected="a sequence or a map-style torch Dataset with at least one item",
            remedy="Put the items into a list, or give the Dataset __len__ and __getitem__.",
        )
    return len(dataset)


def _fingerprint(dataset: Any, n_items: int) -> dict[str, Any]:
    """What tells two data sets apart without reading their pixels: size, ids and labels where known."""
    said = [known(dataset, "image_ids"), [int(label) for label in known(dataset, "labels")]]
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return {"n_items": n_items, "ids_and_labels_sha256": digest}
