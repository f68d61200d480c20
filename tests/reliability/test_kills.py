"""Jobs that were killed, or asked to end, leave what was done, and end with the result of one left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("killing.py")
NAMES = ["run", "store", "train", "finetune", "compare"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the harness finds in a process that is clean to be forked."""
    path = tmp_path_factory.mktemp("kills") / "found.json"
    arguments = ["--kills", "10", "--signals", "--json", str(path)]
    subprocess.run(
        [sys.executable, "-W", "ignore", str(HARNESS), *arguments],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_job_ends_with_the_same_result(found, name):
    trials = found["kills"][name]
    assert sum(each["killed"] for each in trials) == 2
    assert [each["different"] for each in trials] == [[]] * len(trials)
    assert [each["left"] for each in trials] == [[]] * len(trials)


@pytest.mark.parametrize(("name", "interval"), zip(NAMES, [8, 16, 1, 4, 264], strict=True))
def test_a_kill_costs_at_most_the_stated_interval(found, name, interval):
    assert max(each["again"] for each in found["kills"][name]) <= interval


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("signal", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_job_that_is_asked_to_end_leaves_nothing_half_written_and_nobody_behind(
    found, name, signal, status
):
    end = found["signals"][signal][name]
    assert end == {"status": status, "said": "", "left": [], "lingering": False, "finished": True}
