"""Two processes on one output folder: one works, the other says so."""

import errno
import os
import subprocess
import sys

import filelock
import numpy as np
import pytest
from PIL import Image

import vitlens as vl
from vitlens.claims import LOCK_NAME, claimed
from vitlens.cli import main
from vitlens.errors import BusyError

from . import jobs
from .jobs import JOBS

HOLDER = """
import sys
from vitlens.claims import claimed
with claimed(sys.argv[1]):
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held():
    """Let another process have a folder."""
    holders = []

    def hold(folder):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        holders.append(holder)
        assert holder.stdout.readline() == b"there\n"
        return holder

    yield hold
    for holder in holders:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("name", JOBS)
def test_the_second_process_is_told_who_works_there_and_may_once_that_one_is_killed(tmp_path, held, name):
    folder, count = tmp_path / "out", tmp_path / "count"
    holder = held(folder)
    told = rf"out is in use by process {holder.pid} on host \S+ since 20\d\d-.*no other process works"
    with pytest.raises(BusyError, match=told):
        JOBS[name].make(folder, count)
    n_before = count.stat().st_size if count.exists() else 0
    assert n_before == 0 or name in ("run", "compare")  # those look at a few images, to know them again
    holder.kill()
    holder.communicate()
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME]
    JOBS[name].make(folder, count)
    assert not (folder / LOCK_NAME).exists()
    # What is finished is read while somebody else has the folder.
    held(folder)
    JOBS[name].make(folder, count)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_its_folder_to_itself_while_it_works(tmp_path, monkeypatch, name):
    folder, refused = tmp_path / "out", []
    counted = jobs.counted

    def tries(count):
        counted(count)
        if len(refused) == 3:  # each takes a moment
            return
        try:
            with claimed(folder):
                pass
        except BusyError:
            refused.append(True)

    monkeypatch.setattr(jobs, "counted", tries)
    JOBS[name].make(folder)
    assert len(refused) == 3
    with claimed(folder):  # and lets it go
        pass


def test_a_folder_is_let_go_of_when_the_job_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "counted", lambda count: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        JOBS["train"].make(tmp_path / "out")
    with claimed(tmp_path / "out"):
        pass


def test_a_claim_leaves_no_folder_where_nothing_was_written(tmp_path):
    with claimed(tmp_path / "new"):
        assert (tmp_path / "new" / LOCK_NAME).exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "number"),
    zip(JOBS, [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EROFS, errno.EROFS], strict=True),
)
def test_what_is_finished_is_read_where_nothing_can_be_written(tmp_path, monkeypatch, name, number):
    JOBS[name].make(tmp_path / "out")

    def refuses(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuses)
    for writes in ("mkstemp", "mkdtemp"):
        monkeypatch.setattr(f"tempfile.{writes}", refuses)
    monkeypatch.setattr(os, "unlink", refuses)
    JOBS[name].make(tmp_path / "out")


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuses(*arguments, **keywords):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuses)
    with pytest.warns(UserWarning, match="is on a file system without locks"), claimed(tmp_path):
        pass


def test_a_command_says_in_one_line_that_its_folder_is_in_use(tmp_path, held, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "tuned")):
        vl.save(jobs.model(seed), f"{name}.safetensors")
    for name in "abcd":
        (tmp_path / "data" / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "0.png")
    common = ["--data", "data", "--no-progress"]
    for folder, call in {
        "report.data": ["compare", "base.safetensors", "tuned.safetensors", "--output", "report.html"],
        "tuned": ["finetune", "base.safetensors", "--output", "tuned", "--steps", "1", "--p-clean", "1"],
        "sae.store": ["train-sae", "base.safetensors", "--output", "sae", "--hook", jobs.PLACE,
                      "--d-sae", "8", "--k-per-token", "2", "--batch-size", "4"],
    }.items():  # fmt: skip
        holder = held(tmp_path / folder)
        assert main([*call, *common]) == 1
        said = capsys.readouterr().err
        assert f"{folder} is in use by process {holder.pid} on host " in said
        assert said.count("\n") == 1
