"""Kills long jobs at random moments, lets them go on, and compares with jobs that were left alone.

    python tests/reliability/killing.py --kills 200        writes docs/tables/kills.md

This process imports vitlens and never runs a torch operation: each job is a fork of it, which spares the
seconds of import, and a fork after a torch operation could hang.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.reliability.jobs import JOBS, result  # noqa: E402
from vitlens.claims import LOCK_NAME  # noqa: E402

TABLE = Path(__file__).parents[2] / "docs" / "tables" / "kills.md"
SECONDS = {"run": 0.004, "store": 0.004, "train": 0.004, "finetune": 0.01, "compare": 0.0005}
"""How long an image or a step takes at least, so that kills fall into all of a job."""

MOMENTS = ("at any time", "in a write", "at a half-written file")


def fork(job: Callable[[], None], said: Path) -> int:
    """Do a job in another process; its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with said.open("w") as file:
            os.dup2(file.fileno(), 2)
        job()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def done(process: int, said: Path) -> None:
    """Wait for a process that shall do its job."""
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(f"A job ended with status {status}: {said.read_text()}")


def killing_itself(job: Callable[[], None], at: int, counted: Callable[[], None] | None = None) -> None:
    """Do a job that kills itself just before its `at`-th flush, replacement or removal of a file."""
    seen = 0
    for name in ("fsync", "replace", "rename", "unlink"):
        original = getattr(os, name)

        def does(*arguments, original=original, **keywords):
            nonlocal seen
            if counted is not None:
                counted()
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
            return original(*arguments, **keywords)

        setattr(os, name, does)
    job()


class Killing:
    """Kills of one job.

    Args:
        name: a key of `JOBS`.
        work: a folder to work in.
        draw: what the moments are drawn from.
    """

    def __init__(self, name: str, work: Path, draw: random.Random) -> None:
        self.name, self._work, self._draw = name, work, draw
        self._job, self._seconds = JOBS[name], SECONDS[name]
        self._said, whole, writes = work / f"{name}.said", work / f"{name}.whole", work / f"{name}.writes"
        started = time.monotonic()

        def noted() -> None:
            with writes.open("ab") as file:
                file.write(b".")

        count = work / f"{name}.count"
        done(
            fork(lambda: killing_itself(lambda: self._make(whole, count), -1, noted), self._said), self._said
        )
        self._duration = time.monotonic() - started
        self._n_writes, self._n_units = writes.stat().st_size, count.stat().st_size
        # What a call counts that has nothing left to do: looking at some images, to tell data sets apart.
        done(fork(lambda: self._make(whole, count), self._said), self._said)
        self._n_looked_at = count.stat().st_size - self._n_units
        self._wanted = result_of(name, whole, self._said)

    def _make(self, folder: Path, count: Path) -> None:
        self._job.make(folder, count, self._seconds)

    def kill(self, moment: str) -> dict:
        """Kill the job once, let it go on, and compare.

        Returns:
            Whether it was killed before it was done, how many units were done again, in which files the
            result is another, and what is left over.
        """
        folder, count = self._work / "killed", self._work / "killed.count"
        shutil.rmtree(folder, ignore_errors=True)
        count.unlink(missing_ok=True)

        def job() -> None:
            self._make(folder, count)

        if moment == "in a write":
            at = self._draw.randrange(self._n_writes)
            process = fork(lambda: killing_itself(job, at), self._said)
        else:
            process = fork(job, self._said)
            time.sleep(self._draw.uniform(0, 0.9 * self._duration))
            if moment == "at a half-written file":
                deadline = time.monotonic() + 0.5 * self._duration
                while time.monotonic() < deadline and not list(folder.rglob(".*.part")):
                    pass
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        was_killed = os.WIFSIGNALED(status)
        if not was_killed and status:
            raise RuntimeError(f"{self.name} ended with status {status}: {self._said.read_text()}")
        in_a_write = bool(list(folder.rglob(".*.part"))) if folder.exists() else False
        done(fork(job, self._said), self._said)
        again = max(0, count.stat().st_size - self._n_units - self._n_looked_at)
        left = [str(path) for path in folder.rglob(".*") if path.name != LOCK_NAME]
        return {
            "moment": moment,
            "killed": was_killed,
            "in_a_write": in_a_write,
            "again": again,
            "different": different(result_of(self.name, folder, self._said), self._wanted),
            "left": left,
        }


def result_of(name: str, folder: Path, said: Path) -> dict[str, bytes]:
    """The result of a job, read in another process."""
    read = folder.with_name(f"{folder.name}.read")

    def job() -> None:
        read.write_text(json.dumps({key: each.hex() for key, each in result(name, folder).items()}))

    done(fork(job, said), said)
    return {key: bytes.fromhex(each) for key, each in json.loads(read.read_text()).items()}


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The names of what is not the same in both."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def kills(names: list[str], n_kills: int, seed: int, progress: bool) -> dict[str, list[dict]]:
    """Job -> what came of each of its kills; `n_kills` of all jobs together."""
    found: dict[str, list[dict]] = {}
    for at, name in enumerate(names):
        n_own = n_kills // len(names) + (at < n_kills % len(names))
        with tempfile.TemporaryDirectory() as work:
            killing = Killing(name, Path(work), random.Random(f"{name} {seed}"))
            found[name] = []
            # A job that was done before the signal came is no kill; it is not waited for without end.
            for trial in range(3 * n_own):
                if sum(each["killed"] for each in found[name]) == n_own:
                    break
                found[name].append(killing.kill(MOMENTS[trial % len(MOMENTS)]))
        if progress:
            sys.stderr.write(f"{name}: {len(found[name])} kills\n")
    return found


def table(found: dict[str, list[dict]], seed: int) -> str:
    lines = [
        "| job | kills | with a file half-written | same result | files left over "
        "| work done again is counted in | at most | bound |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for name, trials in found.items():
        killed = [each for each in trials if each["killed"]]
        job = JOBS[name]
        lines.append(
            f"| `{name}` | {len(killed)} | {sum(each['in_a_write'] for each in killed)} "
            f"| {sum(not each['different'] for each in killed)} "
            f"| {sum(len(each['left']) for each in killed)} "
            f"| {job.unit} | {max((each['again'] for each in killed), default=0)} "
            f"| {job.interval}: {job.said} |"
        )
    n = sum(each["killed"] for trials in found.values() for each in trials)
    return (
        "\n".join(lines)
        + f"\n\n`python tests/reliability/killing.py --kills {n} --seed {seed}`: SIGKILL, in "
        "turn at a random time, just before a flush, a replacement or a removal of a file, and at the sight "
        "of a half-written file; then the same call once more, and its files compared byte for byte with "
        "those of a job that was left alone (a comparison's by its data, dates and rates aside).\n"
    )


def signalled(name: str, work: Path, number: signal.Signals) -> dict:
    """Send a signal to a job and its workers, in the midst of it, and see how it ends.

    Returns:
        Its exit status, what it wrote to standard error, what was left half-written, whether processes
        lingered; and whether it was finished when it was called once more.
    """
    folder, count, said = (work / f"{name}.{number.name}{ending}" for ending in ("", ".count", ".said"))

    def job(num_workers: int) -> None:
        JOBS[name].make(folder, count, 10 * SECONDS[name], num_workers)

    def alone() -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = 0
        try:
            job(num_workers=0 if name == "train" else 2)
        except KeyboardInterrupt:
            status = 130
        except SystemExit as ended:
            status = ended.code
        # As the interpreter does when it ends.
        gc.collect()
        multiprocessing.util._exit_function()
        os._exit(status)

    process = fork(alone, said)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not count.exists() or count.stat().st_size < 20):
        time.sleep(0.002)
    os.killpg(process, number)
    _, status = os.waitpid(process, 0)
    lingering = lingers(process)
    left = [str(path) for path in folder.rglob(".*")]
    done(fork(lambda: job(num_workers=0), said), said)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "said": said.read_text(),
        "left": left,
        "lingering": lingering,
        "finished": (folder / JOBS[name].finished).exists(),
    }


def lingers(group: int) -> bool:
    """Whether a process of a group is still there a moment later."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="of all jobs together")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what was found there instead of the table")
    parser.add_argument("--signals", action="store_true", help="send SIGINT and SIGTERM as well")
    chosen = parser.parse_args()
    found = kills(chosen.jobs, chosen.kills, chosen.seed, chosen.json is None)
    if chosen.json is not None:
        ends: dict[str, dict[str, dict]] = {}
        with tempfile.TemporaryDirectory() as work:
            for number in (signal.SIGINT, signal.SIGTERM) if chosen.signals else ():
                ends[number.name] = {name: signalled(name, Path(work), number) for name in chosen.jobs}
        chosen.json.write_text(json.dumps({"kills": found, "signals": ends}))
        return
    TABLE.write_text(table(found, chosen.seed))
    sys.stdout.write(TABLE.read_text())


if __name__ == "__main__":
    main()
