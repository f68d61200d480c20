"""A comparison by two processes (gloo) is the one that a single process makes."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small import items, model
from two_processes import start_two

import vitlens as vl

N = 11

# The second is faster by far at what only the first does, so that it would be the first to look for the file.
SCRIPT = """
import os, pickle, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from test_compare_in_processes import compare
import vitlens as vl

rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
write = vl.comparison.storing.write

def write_slowly(*arguments):
    import time
    time.sleep(1)
    return write(*arguments)

vl.comparison.storing.write = write_slowly
made = {{"in memory": compare(None), "kept": compare(folder / "kept"), "again": compare(folder / "kept")}}
with open(folder / f"{{rank}}.pickle", "wb") as file:
    pickle.dump({{name: (each.data, each.summary()) for name, each in made.items()}}, file)
"""


def compare(output):
    return vl.compare(
        {"base": model(0), "tuned": model(1)},
        items(N),
        conditions=["clean", "gaussian_noise@3"],
        batch_size=3,
        n_examples=2,
        output=output,
        progress=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("processes")
    processes = start_two(SCRIPT.format(folder=str(Path(__file__).parent)), made)
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return made


@pytest.fixture(scope="module")
def wanted():
    return compare(None)


@pytest.mark.parametrize("name", ["in memory", "kept", "again"])
@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_returns_the_comparison_of_one(folder, wanted, rank, name):
    data, summary = pickle.loads((folder / f"{rank}.pickle").read_bytes())[name]
    xr.testing.assert_identical(data, wanted.data)
    pd.testing.assert_frame_equal(summary, wanted.summary())


def test_what_two_processes_keep_is_read_by_one(folder, wanted):
    kept = compare(folder / "kept")
    xr.testing.assert_identical(kept.data, wanted.data)
    assert kept.examples is not None
    np.testing.assert_array_equal(kept.data["image"], [item["image_id"] for item in items(N)])
