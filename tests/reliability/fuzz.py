"""Damaged and forged files for every reader: a table of what was refused, what was read, what went wrong.

    python tests/reliability/fuzz.py --inputs 5000        # writes docs/tables/fuzz.md

Each input is read under a limit of memory and of time. It may be refused with a VitlensError, or read; where
a format has a checksum, what is read after an accident has to be what was written.
"""

from __future__ import annotations

# ruff: noqa: T201  # it is a program
import argparse
import contextlib
import json
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vitlens.errors import VitlensError

try:
    from .damage import changed_json, damaged_bytes, with_header
    from .readers import READERS, Reader
except ImportError:  # as a program
    from damage import changed_json, damaged_bytes, with_header
    from readers import READERS, Reader

TABLE = Path(__file__).parents[2] / "docs" / "tables" / "fuzz.md"
N_MORE_BYTES = 2**30
"""What reading may take beyond what the process has, though the files are of some kilobytes."""
N_SECONDS = 20


class Hang(BaseException):
    """A reader took too long; no library catches it as an error of its own."""


@dataclass
class Found:
    """What became of the inputs of one reader."""

    counts: Counter[str] = field(default_factory=Counter)
    bugs: dict[str, str] = field(default_factory=dict)


def try_one(reader: Reader, draw: Any, whole: Path, wanted: Any, folder: Path) -> tuple[str, str]:
    """Damage a copy and read it: `refused`, `read` or `bug`, and in words what was done and what came."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    how = draw(st.sampled_from(["accident", "accident", "forged", "header"]))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path = paths[draw(st.integers(0, len(paths) - 1))]
    if how == "header" and path.suffix != ".safetensors":
        how = "forged"
    if how == "accident":
        content, kind = damaged_bytes(draw, path.read_bytes())
        how = f"{kind} in {path.name}"
        path.write_bytes(content)
    elif how == "header":
        content = path.read_bytes()
        path.write_bytes(with_header(draw, content, lambda header: changed_json(draw, header)))
    else:
        reader.forge(draw, folder)
    is_accident = how not in ("forged", "header")
    signal.alarm(N_SECONDS)
    try:
        read = reader.read(folder)
    except VitlensError as error:
        if for_want_of_memory(error):
            return "bug", f"{how}: asked for memory without end: {error}"
        if min(len(error.given), len(error.expected), len(error.remedy)) < 4:
            return "bug", f"{how}: {error!r} does not say what to do"
        return "refused", ""
    except Hang:
        return "bug", f"{how}: took more than {N_SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = [line for line in _lines_of(error) if "vitlens" in line]
        return "bug", f"{how}: {type(error).__name__}: {str(error)[:120]} ({where[-1] if where else '?'})"
    finally:
        signal.alarm(0)
    if is_accident and reader.is_sealed and read != wanted:
        return "bug", f"{how}: other content was read"
    return "read", ""


def fuzz(reader: Reader, n_inputs: int) -> Found:
    """Read `n_inputs` damaged examples; the same ones every time."""
    found = Found()
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "damaged"
        whole.mkdir()
        reader.make(whole)
        wanted = reader.read(whole)

        # Without shrinking and without a stop at the first failure: all of them are wanted.
        @settings(
            max_examples=n_inputs,
            database=None,
            derandomize=True,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def one(data: st.DataObject) -> None:
            outcome, why = try_one(reader, data.draw, whole, wanted, folder)
            found.counts[outcome] += 1
            if outcome == "bug":
                found.bugs.setdefault(why.partition(": ")[2].partition(" (")[0], why)

        one()
    return found


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Little more memory than there is now, and an end to every hang."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    old = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/status")
    if status.exists():
        now = next(line for line in status.read_text().splitlines() if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (int(now.split()[1]) * 1024 + N_MORE_BYTES, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
        signal.signal(signal.SIGALRM, before)


def table(found: dict[str, Found]) -> str:
    """What was found, as a table of markdown."""
    lines = ["| reader | inputs | refused | read | bugs |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, each in found.items():
        counts = each.counts
        lines.append(
            f"| {name} | {counts.total():,} | {counts['refused']:,} | {counts['read']:,} "
            f"| {counts['bug']:,} |"
        )
    return "\n".join(lines) + "\n"


def for_want_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _lines_of(error: BaseException) -> list[str]:
    places, trace = [], error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=5000, help="inputs for each reader")
    parser.add_argument("--reader", help="only those whose name has this in it")
    parser.add_argument("--output", type=Path, default=TABLE, help="where the table shall stand")
    parser.add_argument("--json", action="store_true", help="print what was found, and write no table")
    given_ = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {}
    with limited():
        for kind in READERS:
            if given_.reader is None or given_.reader in kind.name:
                found[kind.name] = fuzz(kind(), given_.inputs)
                if not given_.json:
                    print(kind.name, dict(found[kind.name].counts), flush=True)
                    for why in found[kind.name].bugs.values():
                        print("   ", why, flush=True)
    if given_.json:
        print(json.dumps({name: [each.counts, list(each.bugs.values())] for name, each in found.items()}))
    else:
        given_.output.write_text(table(found), encoding="utf-8")
    return int(any(each.bugs for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
