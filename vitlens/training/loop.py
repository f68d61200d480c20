"""The loop of a run: steps, and what is kept and seen of them, from wherever a run before it stopped."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..errors import TrainingError, VitlensError
from ..images import Condition, collate, parse_conditions
from ..images.streams import stream
from ..images.workers import from_workers
from ..models import save
from ..models.checkpoints import said_of
from ..signals import Interrupt, not_in_workers
from .checkpoints import Checkpoints, step_name
from .config import FinetuneConfig
from .curves import write_curves
from .evaluating import evaluate
from .loading import SeededItems
from .log import Log
from .state import State, check_same_run, read_state
from .trackers import Trackers
from .trainer import Loaded, Trainer

_READ_EVERY_STEPS = 10
"""How often a loss is read from an accelerator: it has to be waited for."""


class Loop:
    """The steps of a run.

    Args:
        trainer: the model in training.
        dataset: what it is trained on.
        evaluate_on: what it is evaluated on; None for nothing.
        config: the recipe.
        n_steps: how many steps the run has.
        run: what identifies the run.
        folder: the output folder; None to write nothing.
        log: takes the rows.
        trackers: take them too.
        num_workers: processes that load images.
        progress: whether to show a bar.
    """

    def __init__(
        self,
        trainer: Trainer,
        dataset: Any,
        evaluate_on: Any,
        config: FinetuneConfig,
        n_steps: int,
        run: dict[str, Any],
        folder: Path | None,
        log: Log,
        trackers: Trackers,
        *,
        num_workers: int = 0,
        progress: bool = True,
    ) -> None:
        self._trainer, self._together = trainer, trainer.together
        self._dataset, self._evaluate_on, self._num_workers = dataset, evaluate_on, num_workers
        self._config, self._n_steps, self._run = config, n_steps, run
        self._folder, self._log, self._trackers = folder, log, trackers
        self._checkpoints = None if folder is None else Checkpoints(folder / "checkpoints")
        self._conditions: Sequence[Condition] = parse_conditions(config.evaluation_conditions)
        self._progress = progress and self._together.is_first
        self._unread: list[tuple[int, float, Tensor]] = []
        self._clock = 0.0

    def run_steps(self) -> None:
        """Make all steps that are not made yet.

        Raises:
            TrainingError: the loss or a weight is no number; the last checkpoint is from before.
            SpaceError: the disk is full; the last checkpoint is whole.
            CheckpointError: there are checkpoints, and none can be read.
            KeyboardInterrupt, Terminated: Ctrl-C was pressed, or SIGTERM came; the step in hand was ended and
                a checkpoint written.
        """
        first_step = self._resumed()
        with contextlib.closing(self._batches(first_step)) as batches:
            self._run_steps(first_step, batches)

    def _run_steps(self, first_step: int, batches: Iterator[Loaded]) -> None:
        interrupt = Interrupt()
        if first_step == 0:
            self._keep_snapshot(0)
        self._evaluate(first_step)
        if not self._is_evaluation_due(first_step):
            self._rehearse()
        with tqdm(
            total=self._n_steps,
            initial=first_step,
            desc="fine-tuning",
            unit="step",
            disable=not self._progress,
        ) as bar:
            self._clock = time.perf_counter()
            for step in range(first_step, self._n_steps):
                with interrupt.kept_waiting():
                    said = self._trainer.step(step, batches, interrupt.asked)
                    self._unread.append((step, self._trainer.learning_rate, said))
                    bar.update()
                    stops = self._step_made(step + 1, interrupt.asked, bar)
                if stops:
                    raise interrupt.error()
                self._evaluate(step + 1)
        if interrupt.asked and self._together.n == 1:
            raise interrupt.error()

    def _step_made(self, done: int, is_asked_to_stop: bool, bar: Any) -> bool:
        """See to what is due after a step; whether the run is to stop here."""
        is_alone = self._together.n == 1
        is_due = self._is_checkpoint_due(done)
        stops = is_alone and is_asked_to_stop
        reads_each = self._trainer.model.device.type == "cpu" or len(self._unread) >= _READ_EVERY_STEPS
        if is_due or stops or reads_each or done in self._config.snapshot_steps:
            n_asked = self._read_losses(bar)
            # Several processes stop together, at the step of which all have read the same.
            stops = stops or (not is_alone and n_asked > 0)
        if done in self._config.snapshot_steps:
            self._keep_snapshot(done)
        if is_due or stops:
            self._checkpoint(done)
        return stops

    # ------------------------------------------------------------------ reading

    def _batches(self, first_step: int) -> Generator[Loaded, None, None]:
        trainer = self._trainer
        loader = DataLoader(
            SeededItems(self._dataset, self._config.seed),
            batch_sampler=trainer.order.sampler(
                range(first_step, self._n_steps), trainer.n_parts, trainer.parts
            ),
            collate_fn=partial(_loaded, n_classes=trainer.model.cfg.n_classes),
            num_workers=self._num_workers,
            worker_init_fn=not_in_workers,
            pin_memory=trainer.model.device.type == "cuda",
            generator=stream(self._config.seed, "loader", "workers", 0),
        )
        return (_or_raised(each) for each in from_workers(loader))

    def _read_losses(self, bar: Any) -> int:
        """Log the steps whose losses have not been read; how many processes were asked to stop in them."""
        if not self._unread:
            return 0
        read = torch.stack([said for _, _, said in self._unread]).tolist()
        now = time.perf_counter()
        rate = len(read) * self._config.batch_size / max(now - self._clock, 1e-9)
        self._clock = now
        rows: list[dict[str, Any]] = []
        for (step, learning_rate, _), (loss, _) in zip(self._unread, read, strict=True):
            if not math.isfinite(loss):
                self._log.write(*rows)
                raise TrainingError(
                    f"The loss is {loss} at step {step}.",
                    expected="a finite loss",
                    remedy="Lower learning_rate or lengthen warmup_steps" + self._where_it_stands(),
                )
            rows.append(
                {
                    "kind": "step",
                    "step": step,
                    "loss": loss,
                    "learning_rate": learning_rate,
                    "images_per_second": rate,
                }
            )
        self._unread.clear()
        self._write(rows)
        bar.set_postfix(loss=f"{read[-1][0]:.3f}", images_s=f"{rate:.0f}", refresh=False)
        return int(max(n_asked for _, n_asked in read))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self._log.write(*rows)
        self._trackers.write(*rows)

    # ------------------------------------------------------------------ keeping

    def _resumed(self) -> int:
        """Go back to the newest whole checkpoint; how many steps it has."""
        if self._checkpoints is None:
            return 0
        newest: State | None = self._together.first(self._checkpoints.newest, "reading the checkpoints")
        # Processes that are not the first read the one that the first has found whole.
        said = self._together.shared.gather(newest and newest.step, "the step to go on from")
        step: int | None = said[0]
        with self._together.shared.together("cutting the log"):
            self._log.cut(step or 0)
        if step is None:
            return 0
        state = newest or read_state(self._checkpoints.path(step))
        check_same_run(state.run, self._run, self._checkpoints.path(step))
        if state.n_parts != self._trainer.n_parts:
            warnings.warn(
                f"The run made its steps in {state.n_parts} parts (processes × accumulation_steps), and goes "
                f"on in {self._trainer.n_parts}: each part draws its own dropout, and sums are rounded "
                "otherwise, so that it will not end with the same weights to the last bit.",
                UserWarning,
                stacklevel=4,
            )
        self._trainer.restore(state.parts)
        return state.step

    def _is_checkpoint_due(self, done: int) -> bool:
        every = self._config.checkpoint_every_steps
        return done % every == 0 or done == self._n_steps or self._is_evaluation_due(done)

    def _checkpoint(self, done: int) -> None:
        if not self._trainer.is_finite():
            raise TrainingError(
                f"A weight is no finite number after step {done - 1}.",
                expected="finite weights",
                remedy="Lower learning_rate, lengthen warmup_steps or set max_grad_norm"
                + self._where_it_stands(),
            )
        checkpoints = self._checkpoints
        if checkpoints is None:
            return

        def write() -> None:
            # The log first: at worst it is ahead of the checkpoint, and is cut back on resuming.
            self._log.sync()
            trainer = self._trainer
            is_averaged = trainer.shown is not trainer.model
            said = said_of(trainer.shown, provenance=origin(trainer, self._run, done))
            said["prefix"] = "averaged." if is_averaged else "model."
            state = State(done, self._run, trainer.n_parts, trainer.state(), said)
            checkpoints.write(state, self._log.best_step())

        self._together.first(write, "writing a checkpoint")
        self._clock = time.perf_counter()

    def _keep_snapshot(self, done: int) -> None:
        if done not in self._config.snapshot_steps or self._folder is None:
            return
        path = snapshot_path(self._folder, done)
        said = origin(self._trainer, self._run, done)
        self._together.first(lambda: save(self._trainer.shown, path, provenance=said), "keeping a snapshot")

    def _where_it_stands(self) -> str:
        if self._folder is None:
            return "."
        steps = [] if self._checkpoints is None else self._checkpoints.steps()
        kept = f" The last checkpoint, of step {steps[-1]}, is from before, and is kept." if steps else ""
        return f", with an output folder of its own for the other recipe.{kept}"

    # ------------------------------------------------------------------ seeing

    def _is_evaluation_due(self, done: int) -> bool:
        every = self._config.evaluate_every_steps
        if self._evaluate_on is None:
            return False
        return done == self._n_steps or (every is not None and done % every == 0)

    def _rehearse(self) -> None:
        """Evaluate on one image: what cannot be evaluated is said before the steps, not after them."""
        if self._evaluate_on is not None:
            evaluate(
                self._trainer.shown,
                [self._evaluate_on[0]],
                self._conditions,
                step=0,
                folder=None,
                batch_size=1,
                seed=self._config.seed,
                precision=self._config.precision,
                progress=False,
            )

    def _evaluate(self, done: int) -> None:
        names = [condition.name for condition in self._conditions]
        if not self._is_evaluation_due(done) or self._log.evaluated(done, names):
            return
        rows = evaluate(
            self._trainer.shown,
            self._evaluate_on,
            self._conditions,
            step=done,
            folder=self._folder,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            precision=self._config.precision,
            num_workers=self._num_workers,
            progress=False,
        )
        self._together.first(lambda: self._seen(rows), "logging an evaluation")
        if not self._together.is_first:
            self._log.write(*rows)
        self._clock = time.perf_counter()

    def _seen(self, rows: list[dict[str, Any]]) -> None:
        self._write(rows)
        if self._checkpoints is not None:
            self._checkpoints.keep(self._log.best_step())
        if self._folder is not None:
            write_curves(self._log, self._folder / "curves.html")


def origin(trainer: Trainer, run: dict[str, Any], step: int) -> dict[str, Any]:
    """Where the model as it is now comes from; JSON."""
    is_averaged = trainer.shown is not trainer.model
    weights = f"averaged, ema_decay={trainer.config.ema_decay}" if is_averaged else "as trained"
    versions = {name: version(name) for name in ("vitlens", "torch", "timm", "accelerate")}
    return {"finetuned": {**run, "step": step, "weights": weights, "versions": versions}}


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the model is kept as it was after so many steps."""
    return folder / "snapshots" / f"{step_name(step)}.safetensors"


def _loaded(items: Sequence[Any], n_classes: int) -> Loaded | VitlensError:
    try:
        if fault := next((item for item in items if isinstance(item, VitlensError)), None):
            raise fault
        batch = collate(items, n_classes)
    except VitlensError as error:
        return error  # a value comes home from a worker as it is
    # A tuple, since a loader can pin what is in it.
    return batch.pixels, batch.labels, batch.image_ids


def _or_raised(loaded: Loaded | VitlensError) -> Loaded:
    if isinstance(loaded, VitlensError):
        raise loaded
    return loaded
