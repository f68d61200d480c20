"""A disk that fills up: it is said, what was written stays, and the job goes on once there is room."""

import errno
import os
import subprocess

import pytest

from vitlens.errors import SpaceError

from . import jobs
from .jobs import JOBS, result


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What each job leaves on a disk with room, made when it is asked for."""
    made = {}

    def wanted(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "out"
            JOBS[name].make(folder)
            made[name] = folder
        return made[name]

    return wanted


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A disk of sixteen megabytes, where one may be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    mounting = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mounting, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def n_bytes(folder):
    # A disk counts in pages, and a file that takes another's place is there twice for a while.
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk_is_said_and_the_job_goes_on_once_there_is_room(small_disk, unbroken, name):
    wanted = unbroken(name)
    folder, filler = small_disk / name, small_disk / "filler"
    free = os.statvfs(small_disk)
    taken = free.f_bavail * free.f_frsize - n_bytes(wanted) // 4
    filler.write_bytes(bytes(max(0, taken)))
    try:
        with pytest.raises(SpaceError, match=r"no space left .*(Make room|It is full)"):
            JOBS[name].make(folder)
        assert not list(folder.rglob(".*")), "half-written files are removed"
    finally:
        filler.unlink()
    JOBS[name].make(folder)
    assert result(name, folder) == result(name, wanted)
    subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.parametrize(("name", "at"), zip(JOBS, [5, 0, 5, 3, 1], strict=True))
def test_a_write_that_finds_no_room_is_said_and_made_again(tmp_path, monkeypatch, unbroken, name, at):
    seen = 0

    def full(descriptor):
        nonlocal seen
        seen += 1
        if seen > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SpaceError, match="no space left"):
            JOBS[name].make(tmp_path / "out")
    assert not list(tmp_path.rglob(".*"))
    count = tmp_path / "count"
    JOBS[name].make(tmp_path / "out", count)
    assert result(name, tmp_path / "out") == result(name, unbroken(name))


def test_what_was_measured_before_the_disk_was_full_is_not_measured_again(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"

    def full(descriptor):
        # The manifest, then three parts: their rows, their description and the sums.
        if len(list((tmp_path / "out").glob("sums-*"))) and len(list((tmp_path / "out").glob("*.json"))) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SpaceError, match="no space left"):
            jobs.run(tmp_path / "out", first)
    jobs.run(tmp_path / "out", second)
    assert second.stat().st_size <= 64 - 2 * 8 + 8 + first.stat().st_size - 3 * 8
