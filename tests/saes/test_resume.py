"""A training that was interrupted: it goes on, and ends with the same weights."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from vitlens import saes
from vitlens.errors import CheckpointError, SAEError
from vitlens.saes.tokens import InMemory
from vitlens.saes.trainer import Trainer

from .conftest import TINY

KINDS = ["batch_topk", "vanilla", "topk", "jumprelu", "matryoshka"]
N_STEPS = 10  # of TINY


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def stop_at(monkeypatch):
    """Raise before a given step, until told otherwise."""

    def set_to(stop):
        def step(self, batch, _step=Trainer.step):
            if self.n_training_steps == stop:
                raise StoppedError
            return _step(self, batch)

        monkeypatch.undo()
        if stop is not None:
            monkeypatch.setattr(Trainer, "step", step)

    return set_to


def train(planted, folder=None, **settings):
    return saes.train(planted.activations, output=folder, save_every_seconds=0.0, **TINY | settings)


def assert_same(sae, other):
    assert sae.state_dict().keys() == other.state_dict().keys()
    for name, weights in sae.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name
    assert sae.cfg.metadata.to_dict() == other.cfg.metadata.to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_training_ends_with_the_same_weights_and_history(planted, kind, tmp_path, stop_at):
    # A window of two batches: the auxiliary loss and its counters are at work on either side of a break.
    settings = {"kind": kind, "dead_window_tokens": 128}
    unbroken = train(planted, **settings)
    for stop in (0, 1, 4, N_STEPS - 1):
        stop_at(stop)
        with pytest.raises(StoppedError):
            train(planted, tmp_path / "run", **settings)
    stop_at(None)
    assert_same(train(planted, tmp_path / "run", **settings), unbroken)


def test_no_step_is_taken_twice(planted, tmp_path, stop_at, monkeypatch):
    stop_at(7)
    with pytest.raises(StoppedError):
        train(planted, tmp_path)
    stop_at(None)
    steps, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, batch: (steps.append(1), step(self, batch))[1])
    train(planted, tmp_path)
    assert len(steps) == N_STEPS - 7


def test_nothing_is_lost_between_the_last_step_and_the_finished_sae(planted, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(saes.training, "figures", interrupt)
        with pytest.raises(StoppedError):
            train(planted, tmp_path)
    monkeypatch.setattr(Trainer, "step", interrupt)
    resumed = train(planted, tmp_path)
    monkeypatch.undo()
    assert_same(resumed, train(planted))


def test_a_finished_training_is_read_back(planted, tmp_path, monkeypatch):
    first = train(planted, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cfg.json",
        "run.json",
        "sae_weights.safetensors",
    ]
    monkeypatch.setattr(Trainer, "step", None)
    assert_same(train(planted, tmp_path), first)
    assert_same(saes.load(tmp_path), first)


def test_what_a_killed_writer_left_is_cleared_away(planted, tmp_path, stop_at):
    stop_at(3)
    with pytest.raises(StoppedError):
        train(planted, tmp_path)
    (tmp_path / ".state.safetensors.x.part").write_bytes(b"half")
    (tmp_path / ".sae.x.part").mkdir()
    stop_at(None)
    train(planted, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


OTHER_ARGUMENTS = [
    ({"seed": 1}, r"arguments\.seed: 0 there, 1 now"),
    ({"d_sae": 48}, r"arguments\.d_sae: 40 there, 48 now"),
    ({"kind": "topk"}, r"arguments\.kind: 'batch_topk' there, 'topk' now"),
    ({"learning_rate": 1e-3}, r"arguments\.learning_rate: None there, 0.001 now"),
    ({"options": {"aux_loss_coefficient": 0.5}}, r"options\.aux_loss_coefficient: None there, 0.5 now"),
    ({"metadata": {"note": "x"}}, r"metadata\.note: None there, 'x' now"),
]


@pytest.mark.parametrize(("settings", "message"), OTHER_ARGUMENTS)
@pytest.mark.parametrize("stop", [5, None])
def test_other_arguments_are_refused_by_name(planted, tmp_path, stop_at, settings, message, stop):
    stop_at(stop)
    if stop is None:
        train(planted, tmp_path)
    else:
        with pytest.raises(StoppedError):
            train(planted, tmp_path)
    with pytest.raises(SAEError, match=message):
        train(planted, tmp_path, **settings)


def test_another_source_is_refused(planted, tmp_path):
    train(planted, tmp_path)
    changed = planted.activations.clone()
    changed[17, 3] += 1e-4
    for source, name in [
        (changed, r"source\.sha256"),
        (planted.activations[:-1], r"source\.n_tokens: 4000 there, 3999 now"),
        (planted.activations.double(), r"source\.sha256"),
        (InMemory(planted.activations, origin={"hook_name": "a"}), r"origin\.hook_name: None there, 'a' now"),
    ]:
        with pytest.raises(SAEError, match=name):
            saes.train(source, output=tmp_path, **TINY)


def test_a_folder_of_something_else_is_refused_and_left_alone(planted, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SAEError, match="exists and holds no training"):
        train(planted, tmp_path)
    with pytest.raises(SAEError, match="exists and holds no training"):
        train(planted, tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not safetensors", "of another training"])
def test_a_damaged_state_is_refused_with_what_to_do(planted, tmp_path, stop_at, damage):
    stop_at(5)
    for folder, settings in ((tmp_path, {}), (tmp_path / "other", {"d_sae": 48})):
        with pytest.raises(StoppedError):
            train(planted, folder, **settings) if folder != tmp_path else train(planted, folder / "run")
    stop_at(None)
    state = tmp_path / "run" / "state.safetensors"
    content = bytearray(state.read_bytes())
    if damage == "truncated":
        del content[-1000:]
    elif damage == "flipped":
        content[-1000] ^= 1
    elif damage == "not safetensors":
        content[:] = b"nothing"
    else:
        content[:] = (tmp_path / "other" / "state.safetensors").read_bytes()
    state.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.safetensors cannot be read.*Delete it"):
        train(planted, tmp_path / "run")
    state.unlink()
    assert_same(train(planted, tmp_path / "run"), train(planted))


def test_the_state_is_written_no_more_often_than_asked(planted, tmp_path, stop_at):
    stop_at(N_STEPS - 1)
    with pytest.raises(StoppedError):
        saes.train(planted.activations, output=tmp_path, save_every_seconds=3600, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_diverged_state_is_not_kept(planted, tmp_path):
    with pytest.raises(SAEError, match="The loss is"):
        train(planted, tmp_path, learning_rate=1e30)
    state = tmp_path / "state.safetensors"
    if state.exists():
        with safe_open(state, framework="pt") as file:
            assert all(file.get_tensor(name).isfinite().all() for name in file.keys() if "sae." in name)  # noqa: SIM118


SCRIPT = """
import os, random, signal, sys, time, torch
from vitlens.saes.training import train

torch.set_num_threads(1)
x = torch.load({source!r}, weights_only=True)
draw = random.Random(0)
for _ in range(4):
    child = os.fork()  # sparing the time to import everything again
    if child == 0:
        train(x, output={folder!r}, save_every_seconds=0.0, **{settings!r})
        os._exit(0)
    time.sleep(draw.uniform(0.1, 0.8))
    os.kill(child, signal.SIGKILL)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_a_training_killed_at_random_moments_ends_with_the_same_weights(planted, tmp_path):
    settings = TINY | {"n_tokens": 64 * 400, "dead_window_tokens": 256}
    unbroken = saes.train(planted.activations, **settings)
    torch.save(planted.activations, tmp_path / "x.pt")
    folder = tmp_path / "run"
    script = SCRIPT.format(source=str(tmp_path / "x.pt"), folder=str(folder), settings=settings)
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    assert str(int(signal.SIGKILL)) in killed.stdout.split()
    resumed = saes.train(planted.activations, output=folder, save_every_seconds=3600, **settings)
    assert_same(resumed, unbroken)
    assert json.loads((folder / "run.json").read_text())["format"] == "vitlens.sae-training.1"
    assert not list(folder.glob("*.part"))
