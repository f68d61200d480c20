"""Two processes (gloo) give what one gives."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from small import items
from two_processes import start_two

from .test_store import measure

ROOT = Path(__file__).parents[2]

# One pair of processes for all that is tested: importing torch is most of the time.
SCRIPT = """
import os, pickle, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from small import items
from tests.running.test_store import Stops, measure

rank, folder, N = int(os.environ["RANK"]), Path(sys.argv[1]), 11

class Dies(list):
    def __getitem__(self, index):
        os._exit(9)

def record(name, dataset, output=None):
    try:
        outcome = measure(dataset, output)
    except Exception as error:
        outcome = f"{{type(error).__name__}}: {{error}}"
    with open(folder / f"{{name}} {{rank}}.pickle", "wb") as file:
        pickle.dump(outcome, file)

def broken(at):
    return Stops(items(N), at) if rank == 1 else items(N)

record("in memory", items(N))
record("stored", items(N), folder / "stored")
record("fails", broken(2))
record("fails stored", broken(6), folder / "fails stored")
record("differs", items(N) if rank == 0 else items(N - 1), folder / "differs")
record("dies", items(N) if rank == 0 else Dies(items(N)))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The folder of results, and a function from scenario and rank to what came out."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = start_two(SCRIPT.format(root=str(ROOT)), folder)
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 9], said
    return folder, lambda name, rank: pickle.loads((folder / f"{name} {rank}.pickle").read_bytes())


@pytest.fixture(scope="module")
def wanted():
    return measure(items(11))


def same(data, wanted):
    # Batches are the same, so every row is equal to the last bit; sums are added in another order.
    xr.testing.assert_identical(data.drop_vars("mean"), wanted.drop_vars("mean"))
    np.testing.assert_allclose(data["mean"], wanted["mean"], rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["in memory", "stored"])
def test_every_process_returns_the_result_of_one(outcomes, wanted, name, rank):
    same(outcomes[1](name, rank), wanted)


@pytest.mark.parametrize("name", ["fails", "fails stored"])
def test_a_fault_in_one_process_ends_all(outcomes, name):
    assert outcomes[1](name, 0).startswith(
        "AnalysisError: Process 1 of this run failed while measuring (DatasetError: Item"
    )
    assert "cannot be loaded (OSError: gone)" in outcomes[1](name, 1)


def test_one_process_goes_on_with_what_two_have_left(outcomes, wanted):
    folder = outcomes[0] / "fails stored"
    assert sorted(path.name for path in folder.glob("rows-*.json")) == [
        "rows-000000.json",
        "rows-000002.json",
    ]
    same(measure(items(11), folder), wanted)


def test_processes_that_were_given_different_images_end(outcomes):
    assert "holds another run: its images." in outcomes[1]("differs", 1)
    assert "images.n_images: 11 there, 10 now" in outcomes[1]("differs", 1)
    assert "A process of this run is gone" in outcomes[1]("differs", 0)


def test_a_killed_process_is_noticed_by_the_others(outcomes):
    said = outcomes[1]("dies", 0)
    assert said.startswith("AnalysisError: A process of this run is gone")
    assert "with output= what was done is kept" in said
