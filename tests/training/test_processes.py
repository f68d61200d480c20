"""Parts of a step, in one process or in several, add up to the step."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import EXACT, assert_close, assert_same, changed, items, start, weights
from two_processes import start_two

import vitlens as vl
from vitlens.running.ranks import Ranks
from vitlens.training.finetune import finetune
from vitlens.training.losses import Trades
from vitlens.training.processes import Processes, processes

TOLERANCE = 2e-5
"""Weights move by about the learning rate, 1e-3, in each of 7 steps; Adam makes much of small gradients."""


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("settings", [{}, {"loss": Trades(steps=2, eps_pixel=0.1), "batch_size": 5}])
def test_accumulating_parts_equals_one_large_batch_where_nothing_is_dropped(n, settings):
    config = (
        changed(batch_size=8, **{"optimizer": "sgd"} | settings)
        if "batch_size" not in settings
        else (changed(optimizer="sgd", **settings))
    )
    wanted = finetune(start(**EXACT), items(), config, progress=False)
    parts = finetune(
        start(**EXACT), items(), changed(**vars_of(config), accumulation_steps=n), progress=False
    )
    assert_close(weights(parts.model), weights(wanted.model), TOLERANCE)
    assert parts.log["loss"].tolist() == pytest.approx(wanted.log["loss"].tolist(), abs=1e-5)


def vars_of(config):
    return {name: value for name, value in vars(config).items() if name != "accumulation_steps"}


def test_parts_of_unequal_size_count_by_their_images():
    config = changed(batch_size=11, optimizer="sgd", conditions=["gaussian_noise@3"])
    wanted = finetune(start(**EXACT), items(), config, progress=False)
    parts = finetune(
        start(**EXACT), items(), changed(**vars_of(config), accumulation_steps=4), progress=False
    )
    assert_close(weights(parts.model), weights(wanted.model), TOLERANCE)


def test_parts_draw_distinct_dropout(monkeypatch):
    same = [dict(item, pixels=items(1)[0]["pixels"], label=0) for item in items(4)]
    seen = []
    forward = vl.HookedViT.forward

    def keep(self, images, **kwargs):
        logits = forward(self, images, **kwargs)
        seen.append(logits.detach())
        return logits

    monkeypatch.setattr(vl.HookedViT, "forward", keep)
    config = changed(p_clean=1, conditions=(), steps=2, warmup_steps=0, accumulation_steps=4)
    finetune(start(drop_path_rate=0.0), same, config, progress=False)
    assert len({tuple(logits[0].tolist()) for logits in seen[:4]}) == 4


def test_a_single_process_leaves_no_group_behind():
    with processes() as together:
        assert (together.n, together.is_first) == (1, True)
    assert not torch.distributed.is_initialized()


def test_more_parts_than_images_are_refused():
    class Two(Ranks):
        def gather(self, value, what):
            return [value, value]

    from vitlens.training.finetune import _check_share

    together = Processes(torch.device("cpu"), Two(0, 2))
    with pytest.raises(vl.errors.TrainingError, match=r"batch_size is 4.*6 parts: 2 processes of 3"):
        _check_share(changed(accumulation_steps=3), together)


def test_processes_that_were_given_different_things_are_refused():
    class Two(Ranks):
        def gather(self, value, what):
            return [value, {"config": {"seed": 1}}]

    with pytest.raises(vl.errors.TrainingError, match=r"Process 1 .*\(config.seed: 0 there, 1 here\)"):
        Processes(torch.device("cpu"), Two(0, 2)).agree({"config": {"seed": 0}})


RUNS = {
    "exact": {"optimizer": "sgd", "batch_size": 5},
    "dropped": {"ema_decay": 0.5, "snapshot_steps": (3,), "evaluate_every_steps": 4},
    "stopped": {"ema_decay": 0.5},
}

PROGRAM = """
import json, os, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from pathlib import Path
from small_runs import EXACT, changed, items, start
import vitlens as vl
from vitlens.training.finetune import finetune
from vitlens.training.trainer import Trainer

out, rank = Path(sys.argv[1]), os.environ["RANK"]
said = {{}}
for name, changes in {runs!r}.items():
    model = start(**(EXACT if name == "exact" else {{}}))
    if name == "stopped":
        step = Trainer.step
        def stops(self, number, batches, wants_to_stop):
            # Ctrl-C reaches one of the two, and both end after the same step.
            return step(self, number, batches, number == 3 and rank == "1")
        Trainer.step = stops
        try:
            finetune(model, items(), changed(**changes), out / name, progress=False)
        except KeyboardInterrupt:
            said["interrupted"] = True
        Trainer.step = step
    held_out = items(5) if name == "dropped" else None
    result = finetune(model, items(), changed(**changes), out / name, evaluate_on=held_out, progress=False)
    said[name] = vl.models.weights_sha256(result.model)
    said[name + " losses"] = result.log["loss"].tolist()
    said[name + " evaluations"] = result.evaluations.values.tolist()
(out / (rank + ".json")).write_text(json.dumps(said))
"""


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    started = start_two(PROGRAM.format(tests=str(Path(__file__).parent), runs=RUNS), folder)
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_have_the_same_result(by_two):
    _, (first, second) = by_two
    assert first == second
    assert first["interrupted"]


BREAKS = """
import os, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from small_runs import changed, items, start
from vitlens.training.finetune import finetune

class Breaks(torch.utils.data.Dataset):
    # Its third item cannot be read by one of the two.
    n_read = 0
    def __len__(self):
        return 11
    def __getitem__(self, index):
        self.n_read += 1
        if os.environ["RANK"] == "{at}" and self.n_read == 3:
            raise {error}
        return items()[index]

finetune(start(), {training}, changed(), sys.argv[1], evaluate_on={held_out}, progress=False)
"""


@pytest.mark.parametrize(
    ("at", "error", "training", "held_out"),
    [(1, 'OSError("damaged picture")', "Breaks()", None), (0, "KeyboardInterrupt", "items()", "Breaks()")],
)
def test_an_error_that_one_process_has_alone_ends_the_other_too(tmp_path, at, error, training, held_out):
    program = BREAKS.format(
        tests=str(Path(__file__).parent), at=at, error=error, training=training, held_out=held_out
    )
    started = start_two(program, tmp_path)
    said = [process.communicate(timeout=120)[1] for process in started]
    assert error.partition("(")[0] in said[at]
    assert "A process of this run is gone" in said[1 - at]
    assert all(process.returncode for process in started)


def test_two_processes_equal_one_where_nothing_is_dropped(by_two):
    folder, (said, _) = by_two
    wanted = finetune(start(**EXACT), items(), changed(**RUNS["exact"]), progress=False)
    assert_close(weights(vl.load(folder / "exact" / "model.safetensors")), weights(wanted.model), TOLERANCE)
    assert said["exact losses"] == pytest.approx(wanted.log["loss"].tolist(), abs=1e-5)


def test_two_processes_equal_two_parts_of_one_dropout_included(by_two, tmp_path):
    folder, (said, _) = by_two
    config = changed(**RUNS["dropped"], accumulation_steps=2)
    wanted = finetune(start(), items(), config, tmp_path, evaluate_on=items(5), progress=False)
    assert said["dropped losses"] == pytest.approx(wanted.log["loss"].tolist(), abs=1e-5)
    for name in ("model.safetensors", "snapshots/step-000003.safetensors"):
        assert_close(weights(vl.load(folder / "dropped" / name)), weights(vl.load(tmp_path / name)), 1e-4)
    assert [row[:2] for row in said["dropped evaluations"]] == wanted.evaluations.values[:, :2].tolist()


def test_two_processes_that_were_interrupted_end_as_if_they_were_not(by_two):
    folder, (said, _) = by_two
    assert len(said["stopped losses"]) == 7
    assert_same(
        weights(vl.load(folder / "stopped" / "model.safetensors")),
        weights(vl.load(folder / "dropped" / "model.safetensors")),
    )
