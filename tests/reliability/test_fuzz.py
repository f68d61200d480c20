"""Every reader on some damaged and forged files, in a process with little memory; thousands by fuzz.py."""

import json
import subprocess
import sys
from pathlib import Path


def test_readers_refuse_what_is_damaged_in_vitlens_own_words_or_read_what_was_written():
    program = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, program, "--inputs", "40", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 8
    assert {name: bugs for name, (_, bugs) in found.items() if bugs} == {}
    for name, (counts, _) in found.items():
        assert counts["refused"] > 0, name
        assert sum(counts.values()) >= 40, name
