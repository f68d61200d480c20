"""A run that ended early, however it did, ends with the same weights when it is called again."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import assert_same, changed, items, start, weights, without_times

import vitlens as vl
from vitlens.training import checkpoints as checkpoints_module
from vitlens.training import trainer as trainer_module
from vitlens.training.checkpoints import Checkpoints
from vitlens.training.finetune import finetune

FULL = {
    "steps": 12,
    "ema_decay": 0.9,
    "accumulation_steps": 2,
    "evaluate_every_steps": 5,
    "snapshot_steps": (0, 4, 12),
    "checkpoint_every_steps": 3,
}
"""With everything that a checkpoint has to hold; start() has dropout and drop path."""


def states(folder):
    last = Checkpoints(folder / "checkpoints").newest()
    return {name: last.parts[name] for name in ("model", "averaged")}


def stop_at(monkeypatch, number, error=ZeroDivisionError):
    step = trainer_module.Trainer.step

    def stops(self, at, *args):
        if at == number:
            raise error
        return step(self, at, *args)

    monkeypatch.setattr(trainer_module.Trainer, "step", stops)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, finetune(start(), items(), changed(**FULL), folder, evaluate_on=items(4), progress=False)


@pytest.mark.parametrize("number", [0, 4, 5, 6, 11])
def test_a_run_that_died_at_any_step_ends_with_the_same_weights(tmp_path, monkeypatch, unbroken, number):
    folder, wanted = unbroken
    config = changed(**FULL)
    with monkeypatch.context() as patch:
        stop_at(patch, number)
        with pytest.raises(ZeroDivisionError):
            finetune(start(), items(), config, tmp_path, evaluate_on=items(4), progress=False)
    torch.manual_seed(number)
    resumed = finetune(start(), items(), config, tmp_path, evaluate_on=items(4), progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))
    for name, tensors in states(folder).items():
        assert_same(states(tmp_path)[name], tensors)
    assert without_times(resumed.log).equals(without_times(wanted.log))
    assert resumed.evaluations.equals(wanted.evaluations)
    for step, path in wanted.snapshots.items():
        assert_same(weights(vl.load(resumed.snapshots[step])), weights(vl.load(path)))


NURSERY = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)  # as here: sums over other numbers of threads round differently
sys.path.insert(0, {tests!r})
from small_runs import changed, items, start
from vitlens.training.finetune import finetune
from vitlens.training.trainer import Trainer

step = Trainer.step
for number in {numbers!r}:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        def told(self, at, *args):
            os.write(write, bytes([at]))
            return step(self, at, *args)
        Trainer.step = told
        finetune(start(), items(), changed(**{changes!r}), {output!r}, evaluate_on=items(4), progress=False)
        os._exit(1)  # it was to be killed before
    os.close(write)
    while os.read(read, 1) != bytes([number]):
        pass
    time.sleep(random.Random(number).random() * 0.02)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), (number, status)
"""


def test_a_run_killed_at_ten_random_moments_ends_with_the_same_weights(tmp_path):
    changes = FULL | {"steps": 60, "evaluate_every_steps": None}
    config, held_out = changed(**changes), items(4)
    wanted = finetune(start(), items(), config, tmp_path / "whole", evaluate_on=held_out, progress=False)
    numbers = sorted(random.Random(0).sample(range(1, 57), 10))
    program = NURSERY.format(
        tests=str(Path(__file__).parent), numbers=numbers, changes=changes, output=str(tmp_path / "killed")
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, env=environment)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resumed = finetune(start(), items(), config, tmp_path / "killed", evaluate_on=held_out, progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))
    assert_same(states(tmp_path / "killed")["model"], states(tmp_path / "whole")["model"])
    assert without_times(resumed.log).equals(without_times(wanted.log))
    assert resumed.evaluations.equals(wanted.evaluations)


def test_ctrl_c_waits_for_the_end_of_the_step_and_for_a_checkpoint(tmp_path, monkeypatch):
    wanted = finetune(start(), items(), changed(), progress=False)
    step = trainer_module.Trainer.step

    def pressed(self, number, *args):
        if number == 4:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "step", pressed)
        with pytest.raises(KeyboardInterrupt):
            finetune(start(), items(), changed(), tmp_path, progress=False)
    assert Checkpoints(tmp_path / "checkpoints").newest().step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = finetune(start(), items(), changed(), tmp_path, progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))
    assert without_times(resumed.log).equals(without_times(wanted.log))


def test_a_second_ctrl_c_does_not_wait(tmp_path, monkeypatch):
    def pressed_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step went on")

    monkeypatch.setattr(trainer_module.Trainer, "step", pressed_twice)
    with pytest.raises(KeyboardInterrupt):
        finetune(start(), items(), changed(), tmp_path, progress=False)


def test_a_checkpoint_cut_short_falls_back_to_the_one_before_and_says_so(tmp_path, monkeypatch):
    wanted = finetune(start(), items(), changed(), progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(ZeroDivisionError):
            finetune(start(), items(), changed(), tmp_path, progress=False)
    newest = tmp_path / "checkpoints" / "step-000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:5000])
    with pytest.warns(UserWarning, match=r"step-000004.*cannot be read.*goes on from .* of step 2"):
        resumed = finetune(start(), items(), changed(), tmp_path, progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))
    assert without_times(resumed.log).equals(without_times(wanted.log))


def test_a_full_disk_is_said_with_what_is_needed_and_the_run_goes_on_from_the_last_checkpoint(
    tmp_path, monkeypatch
):
    wanted = finetune(start(), items(), changed(), progress=False)
    write = checkpoints_module.write_state

    def full(path, state):
        if state.step == 4:
            raise vl.errors.SpaceError("There is no space left.", expected="some", remedy="Make room.")
        write(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "write_state", full)
        message = r"no space left for the checkpoint .*step-000004.*needs 0\.\d MB.*goes on from step 2"
        with pytest.raises(vl.errors.SpaceError, match=message):
            finetune(start(), items(), changed(), tmp_path, progress=False)
    resumed = finetune(start(), items(), changed(), tmp_path, progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))


@pytest.mark.parametrize(
    "optimizer",
    ["sgd", "nadamw", "lamb", "adafactorbv", "muon", "lookahead_radam", "adopt", "lion", "madgrad", "adan"],
)
def test_every_kind_of_optimizer_resumes_exactly(tmp_path, monkeypatch, optimizer):
    config = changed(optimizer=optimizer, steps=4, layer_decay=0.8, precision="float16", warmup_steps=1)
    wanted = finetune(start(), items(), config, progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(ZeroDivisionError):
            finetune(start(), items(), config, tmp_path, progress=False)
    resumed = finetune(start(), items(), config, tmp_path, progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))


def test_going_on_in_other_parts_is_said(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(ZeroDivisionError):
            finetune(start(), items(), changed(), tmp_path, progress=False)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.write(dataclasses.replace(checkpoints.newest(), n_parts=3))
    with pytest.warns(UserWarning, match="made its steps in 3 parts .* and goes on in 1"):
        finetune(start(), items(), changed(), tmp_path, progress=False)


def test_what_a_kill_left_half_written_is_removed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(ZeroDivisionError):
            finetune(start(), items(), changed(), tmp_path, progress=False)
    left = tmp_path / "checkpoints" / ".step-000006.safetensors.k1ll3d.part"
    left.write_bytes(b"half")
    finetune(start(), items(), changed(), tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.part"))
