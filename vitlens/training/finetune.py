"""The fine-tuner: clean and corrupted images in a stated mix, resumable to the last bit."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..errors import SpaceError, TrainingError, VitlensError
from ..files import as_path, clear_parts, read_json, write_json
from ..images import fingerprint
from ..images.values import is_whole
from ..models import HookedViT, load, save, weights_sha256
from ..signals import Terminated
from .checkpoints import Checkpoints
from .config import FinetuneConfig
from .curves import write_curves
from .log import Log
from .loop import Loop, origin, snapshot_path
from .mixing import StepOrder
from .processes import Processes, processes
from .result import FinetuneResult
from .starting import check_data, starting_model
from .state import check_same_run
from .trackers import Trackers, check_trackers
from .trainer import Trainer


@contextlib.contextmanager
def _in_its_own_right() -> Iterator[None]:
    """Whatever surrounds the call: gradients are on, and the precision is the recipe's."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


@_in_its_own_right()
def finetune(
    model: HookedViT,
    dataset: Any,
    config: FinetuneConfig,
    output: str | PathLike[str] | None = None,
    *,
    evaluate_on: Any = None,
    log_with: Sequence[Any] = (),
    num_workers: int = 0,
    progress: bool = True,
) -> FinetuneResult:
    """Fine-tune a copy of `model` on a mix of clean and corrupted images.

    The order of the images, the draws of conditions and the corruptions' noise depend on (seed, step, image)
    alone, dropout and drop path on (seed, step, part of the step). A run that was killed goes on from its
    last checkpoint when the same call is made again, and ends with the same weights, bit for bit, on the same
    machine with the same number of threads and processes (on a GPU, as far as its kernels repeat themselves:
    see `torch.use_deterministic_algorithms`). A finished run is read back. What a data set draws itself,
    as for a random crop, from torch's generator of the CPU, numpy's or Python's, comes from (seed, step,
    image) too.

    Under `torchrun` or `accelerate launch` each process takes its share of every step: `batch_size` is that
    of all together. The device is accelerate's choice: a GPU where there is one, unless ACCELERATE_USE_CPU
    is set. Two runs at once want two processes: threads would share torch's generators.

    Args:
        model: where to start; it is left as it is.
        dataset: a map-style data set (a length, and items by index) as `vitlens.run` takes it.
        config: the recipe.
        output: a folder for `model.safetensors` (the result), `checkpoints/` (the newest two and the best),
            `snapshots/`, `evaluations/` (a row for each image), `config.json`, `log.jsonl` and `curves.html`;
            without it nothing is written and nothing can be resumed.
        evaluate_on: what to evaluate on, such as held-out images; None for no evaluation.
        log_with: trackers to send the log to as well, such as "tensorboard" or "wandb".
        num_workers: processes that load images.
        progress: show a bar.

    Returns:
        The fine-tuned model on the device of `model`, the log, the evaluations and where things are. With
        `ema_decay` the model is the average; the weights as trained are in the last checkpoint.

    Raises:
        TrainingError: the folder holds another run or cannot be written, the data have another number of
            classes than the model, the recipe does not fit the data, or the loss is no number.
        AnalysisError: of several processes another is gone, or has failed.
        LabelError: a label is outside the model's classes.
        CheckpointError: there are checkpoints in the folder, and none can be read.
        BusyError: another process is at work in the folder.
        SpaceError: the disk is full; the last checkpoint is whole.
        KeyboardInterrupt, Terminated: Ctrl-C was pressed, or SIGTERM came; the step in hand was ended and a
            checkpoint written.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> config = FinetuneConfig(conditions=["gaussian_blur@1-5"], steps=2, batch_size=4)
        >>> result = finetune(model, vl.images.digits("train"), config, progress=False)
        >>> len(result.log), result.path
        (2, None)
    """
    _check_kinds(model, config, num_workers)
    n_items = check_data(dataset, model, config)
    if evaluate_on is not None:
        check_data(evaluate_on, model, config, "data set evaluate_on")
    n_steps = config.n_steps(n_items)
    folder = None if output is None else as_path(output, "output", TrainingError)
    _check_wishes(config, folder, evaluate_on)
    check_trackers(log_with, folder)
    tuned = starting_model(model, config, to_save=folder is not None)
    config.mix().check(tuned)
    config.loss.check(tuned, config.mix())
    run: dict[str, Any] = {
        "config": config.described(),
        "start": weights_sha256(model),
        "data": fingerprint(dataset, pixels=False),
        "evaluation_data": None if evaluate_on is None else fingerprint(evaluate_on, pixels=False),
    }
    with processes() as together, contextlib.ExitStack() as held:
        _check_share(config, together)
        together.agree(run)
        order = StepOrder(n_items, config.batch_size, config.seed)
        # What cannot be trained so is refused before the folder is taken.
        trainer = Trainer(tuned, order, n_steps, config, together)
        if folder is not None:
            # A finished run is read back, by as many at a time as like.
            held.enter_context(together.shared.claiming(None if _is_finished(folder) else folder))
            together.first(lambda: _begin(folder, run), "making the output folder")
            if _is_finished(folder):
                return _finished(folder, run, trainer.shown, model, config)
        log = Log(None if folder is None else folder / "log.jsonl", writes=together.is_first)
        # Together: one that cannot start in the first process stops all of them.
        with together.shared.together("starting the trackers"):
            trackers = Trackers(log_with, folder, run["config"], writes=together.is_first)
        loop = Loop(
            trainer, dataset, evaluate_on, config, n_steps, run, folder, log, trackers,
            num_workers=num_workers, progress=progress,
        )  # fmt: skip
        try:
            loop.run_steps()
        except (VitlensError, KeyboardInterrupt, Terminated):
            if folder is not None and together.is_first and log.path is not None and log.path.exists():
                with contextlib.suppress(VitlensError, OSError):  # the error is what has to be seen
                    write_curves(log, folder / "curves.html")
            raise
        finally:
            trackers.finish()
        trainer.shown.provenance.update(origin(trainer, run, n_steps))
        path = None
        if folder is not None:
            path = folder / "model.safetensors"
            together.first(lambda: _end(trainer.shown, folder), "writing the result")
    return _result(_as_given(trainer.shown, model), log, path, folder, config)


def _check_kinds(model: Any, config: Any, num_workers: Any) -> None:
    for name, value, holds, expected, remedy in (
        ("model", model, isinstance(model, HookedViT), "a HookedViT", "Wrap it: vitlens.HookedViT(model)."),
        (
            "config",
            config,
            isinstance(config, FinetuneConfig),
            "a FinetuneConfig",
            "Write vitlens.training.FinetuneConfig(...).",
        ),
        (
            "num_workers",
            num_workers,
            is_whole(num_workers) and num_workers >= 0,
            "a whole number of 0 or more",
            "Leave it out to load images in this process.",
        ),
    ):
        if not holds:
            given = repr(value) if name == "num_workers" else f"a {type(value).__name__}"
            raise TrainingError(f"{name} is {given}.", expected=expected, remedy=remedy)


def _check_wishes(config: FinetuneConfig, folder: Path | None, evaluate_on: Any) -> None:
    if folder is None and config.snapshot_steps:
        raise TrainingError(
            f"snapshot_steps is {tuple(config.snapshot_steps)}, and there is no output folder.",
            expected="a folder to keep snapshots in",
            remedy="Pass output=, or leave snapshot_steps out.",
        )
    if evaluate_on is None and config.evaluate_every_steps is not None:
        raise TrainingError(
            f"evaluate_every_steps is {config.evaluate_every_steps}, and there is nothing to evaluate on.",
            expected="a data set to evaluate on",
            remedy="Pass evaluate_on=, or leave evaluate_every_steps out.",
        )
    if evaluate_on is None and config.evaluation_conditions != ("clean",):
        raise TrainingError(
            f"evaluation_conditions is {config.evaluation_conditions}, and there is nothing to evaluate on.",
            expected="a data set to evaluate on",
            remedy="Pass evaluate_on=, or leave evaluation_conditions out.",
        )


def _check_share(config: FinetuneConfig, together: Processes) -> None:
    n_parts = together.n * config.accumulation_steps
    if n_parts > config.batch_size:
        raise TrainingError(
            f"batch_size is {config.batch_size}, to be shared out in {n_parts} parts: {together.n} processes "
            f"of {config.accumulation_steps} accumulation_steps each.",
            expected="at least one image in each part",
            remedy="batch_size counts the images of a step over all processes: raise it.",
        )


def _is_finished(folder: Path) -> bool:
    return (folder / "model.safetensors").exists()


def _begin(folder: Path, run: dict[str, Any]) -> None:
    """Write down in the folder which run it holds, or compare."""
    config = folder / "config.json"
    if config.exists():
        found = read_json(config)
        if not isinstance(found, dict) or "config" not in found:
            raise TrainingError(
                f"{config} was not written by a fine-tuning run.",
                expected="a folder that is new, empty or this run's own",
                remedy="Name another output folder.",
            )
        check_same_run(found, run, folder)
    elif _is_finished(folder):
        raise TrainingError(
            f"{folder} holds a model.safetensors that is not of this run.",
            expected="a folder that is new, empty or this run's own",
            remedy="Name another output folder.",
        )
    try:
        if not config.exists():
            write_json(config, run)
        clear_parts(folder)
    except SpaceError:
        raise
    except OSError as error:
        raise TrainingError(
            f"The output folder {folder} cannot be written ({type(error).__name__}: {error}).",
            expected="a folder that can be made, in which this process may write",
            remedy="Name another, or see to its permissions.",
        ) from error


def _end(tuned: HookedViT, folder: Path) -> None:
    write_curves(folder, folder / "curves.html")
    # Last of all: where it stands, the run is finished.
    save(tuned, folder / "model.safetensors")


def _finished(
    folder: Path, run: dict[str, Any], tuned: HookedViT, model: HookedViT, config: FinetuneConfig
) -> FinetuneResult:
    """The result of a run that has come to its end before, in `tuned`, which was built as it was then."""
    final = folder / "model.safetensors"
    found = load(final).provenance.get("finetuned")
    if not isinstance(found, dict) or {name: found.get(name) for name in run} != json.loads(json.dumps(run)):
        raise TrainingError(
            f"{final} is not what this run would have written.",
            expected="no model.safetensors, or this run's own",
            remedy="Name another output folder.",
        )
    tuned.model.load_state_dict(load_file(final))  # load's are in float32, the run's in the model's own
    tuned.provenance["finetuned"] = found
    log = Log(folder / "log.jsonl", writes=False)
    return _result(_as_given(tuned, model), log, final, folder, config)


def _as_given(tuned: HookedViT, model: HookedViT) -> HookedViT:
    """The result where the start was, in evaluation mode; what was frozen for the run is free again."""
    free = {name: each.requires_grad for name, each in model.model.named_parameters()}
    for name, each in tuned.model.named_parameters():
        each.requires_grad_(free.get(name, True))
        each.grad = None
    return tuned.to(model.device).eval()


def _result(
    model: HookedViT, log: Log, path: Path | None, folder: Path | None, config: FinetuneConfig
) -> FinetuneResult:
    kept = (
        {} if folder is None else {step: snapshot_path(folder, step) for step in set(config.snapshot_steps)}
    )
    snapshots = {step: where for step, where in sorted(kept.items()) if where.exists()}
    best_step = log.best_step()
    best = None
    if folder is not None and best_step is not None:
        best = Checkpoints(folder / "checkpoints").path(best_step)
    return FinetuneResult(model, log.frame("step"), log.frame("evaluation"), path, snapshots, best)
