"""Entering the room is silent."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_room_prints_nothing_and_warns_of_nothing():
    # sae-lens imports a deprecated module of transformer-lens, which python hides only by default.
    program = "import vitlens, warnings; warnings.simplefilter('error'); import vitlens.saes"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
