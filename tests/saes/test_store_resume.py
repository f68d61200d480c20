"""A write that was killed, or shared among processes, ends with the files of an unbroken one."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
import torch
from two_processes import start_two

import vitlens as vl
from vitlens.saes.store import ActivationStore

from .test_store import CONDITIONS, make_items, make_model, write

ROOT = Path(__file__).parents[2]
N_IMAGES = 90

# One pair of processes for all that is tested: importing torch is most of the time.
SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from tests.saes.test_store_resume import N_IMAGES, make_items, whole

class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)

whole(sys.argv[1] + "/shared")
whole(sys.argv[1] + "/killed", Slow(make_items(N_IMAGES)))
"""


def whole(path, dataset=None, **keywords):
    models = {"base": make_model(0), "tuned": make_model(1)}
    return write(path, models, dataset or make_items(N_IMAGES), conditions=CONDITIONS, **keywords)


@pytest.fixture(scope="module")
def left_by_two(tmp_path_factory):
    """What two processes wrote: a whole store, `shared`, and one in which they were killed, `killed`."""
    folder = tmp_path_factory.mktemp("two")
    processes = start_two(SCRIPT.format(root=str(ROOT)), folder)
    deadline = time.monotonic() + 300
    while len(list(folder.glob("killed/shard-*.json"))) < 2 and time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.002)
    time.sleep(random.Random(0).uniform(0, 0.3))
    codes = [process.poll() for process in processes]
    for process in processes:
        process.send_signal(signal.SIGKILL)
    said = [process.communicate()[1] for process in processes]
    assert codes == [None, None], said
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return files(whole(tmp_path_factory.mktemp("unbroken") / "s").path)


class Counted(torch.utils.data.Dataset):
    """A data set that may break off, and tells which items were loaded."""

    def __init__(self, items, at=None):
        self.items, self.at, self.loaded = items, at, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index == self.at:
            raise OSError("gone")
        self.loaded.append(index)
        return self.items[index]


def test_two_processes_write_the_store_of_one(left_by_two, unbroken):
    assert files(left_by_two / "shared") == unbroken


def test_a_killed_write_ends_with_the_same_bytes(left_by_two, unbroken):
    folder = left_by_two / "killed"
    left = {path.name: path.read_bytes() for path in folder.glob("shard-*.json")}
    assert 2 <= len(left) < 12
    with pytest.raises(vl.errors.SAEError, match="is not complete"):
        ActivationStore.open(folder)
    again = Counted(make_items(N_IMAGES))
    whole(folder, again)
    assert files(folder) == unbroken
    assert left.items() <= unbroken.items()
    done = {int(name.split("-")[1].split(".")[0]) for name in left}
    assert {index // 8 for index in again.loaded} == set(range(12)) - done


@pytest.mark.parametrize("moment", range(4))
def test_whatever_a_kill_leaves_behind_is_cleared_up(tmp_path, unbroken, moment):
    """A part of a file; a shard without its description; a manifest of a store that is not complete."""
    folder = whole(tmp_path / "s").path
    leave = [
        lambda: (folder / ".shard-000003.safetensors.x.part").write_bytes(b"half"),
        lambda: (folder / "shard-000003.json").unlink(),
        lambda: [path.unlink() for path in folder.glob("shard-00000[37].*")],
        lambda: [path.unlink() for path in folder.glob("shard-*")],
    ]
    leave[moment]()
    whole(folder)
    assert files(folder) == unbroken


@pytest.mark.parametrize("at", [0, 7, 8, 89])
def test_a_write_that_broke_off_loses_at_most_the_shard_in_hand(tmp_path, unbroken, at):
    with pytest.raises(vl.errors.DatasetError, match="gone"):
        whole(tmp_path, Counted(make_items(N_IMAGES), at), on_bad_image="raise")
    again = Counted(make_items(N_IMAGES))
    whole(tmp_path, again)
    assert files(tmp_path) == unbroken
    assert again.loaded == list(range(at // 8 * 8, N_IMAGES))


def test_a_complete_store_is_handed_back_without_an_image_being_loaded(tmp_path):
    whole(tmp_path)
    again = Counted(make_items(N_IMAGES))
    assert whole(tmp_path, again).n_images == N_IMAGES
    assert not again.loaded


def test_workers_and_iterables_give_the_same_bytes(tmp_path, unbroken):
    whole(tmp_path / "workers", num_workers=1)
    assert files(tmp_path / "workers") == unbroken

    def broken():
        yield from make_items(N_IMAGES)[:30]
        raise OSError("gone")

    with pytest.raises(vl.errors.DatasetError, match="gone"):
        whole(tmp_path / "iterable", broken())
    store = whole(tmp_path / "iterable", iter(make_items(N_IMAGES)))
    assert files(tmp_path / "iterable") == unbroken
    assert store.n_images == N_IMAGES
