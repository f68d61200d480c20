"""Arguments of a wrong type, which the tests' own type checker would catch first: in a plain process."""

import subprocess
import sys

SLIPS = """
import numpy as np, xarray as xr
from vitlens.comparison.recipes import across_seeds
from vitlens.comparison.summary import summarize
from vitlens.comparison.transfer import transfer
from vitlens.errors import VitlensError

values = np.random.default_rng(0).random((3, 3, 9))
coordinates = {"checkpoint": ["base", "a", "b"], "condition": ["clean", "fog@3", "snow@3"]}
data = xr.Dataset({"correct_probability": (("checkpoint", "condition", "image"), values)}, coordinates)
summary = summarize(data, n_resamples=np.int64(20), seed=np.int64(1), level=np.float32(0.9))
slips = {
    "a frame": lambda: summarize(summary),
    "an array": lambda: summarize(data["correct_probability"]),
    "level as text": lambda: summarize(data, level="95"),
    "n_resamples 20.0": lambda: summarize(data, n_resamples=20.0),
    "seed None": lambda: summarize(data, seed=None),
    "margins as a number": lambda: summarize(data, margins=0.02),
    "a margin as text": lambda: summarize(data, margins={"correct_probability": "0.02"}),
    "primary as text": lambda: summarize(data, primary="correct_probability"),
    "primary as a number": lambda: summarize(data, primary=3),
    "a reference that is a number": lambda: summarize(data, reference=0),
    "pools as a list": lambda: summarize(data, pools=["fog@3"]),
    "a pool as text": lambda: summarize(data, pools={"seen": "fog@3"}),
    "a pool as a number": lambda: summarize(data, pools={"seen": 3}),
    "a pool of numbers": lambda: summarize(data, pools={"seen": [3]}),
    "seen as text": lambda: transfer(data, seen="fog@3", unseen=["snow@3"]),
    "unseen None": lambda: transfer(data, seen=["fog@3"], unseen=None),
    "clean as a number": lambda: transfer(data, seen=["fog@3"], unseen=["snow@3"], clean=3),
    "metrics as text": lambda: transfer(data, seen=["fog@3"], unseen=["snow@3"], metrics="rank"),
    "recipes as a list": lambda: across_seeds(summary, ["a", "b"]),
    "a recipe as text": lambda: across_seeds(summary, {"r": "ab"}),
    "a recipe as a number": lambda: across_seeds(summary, {"r": 2}),
    "a recipe of numbers": lambda: across_seeds(summary, {"r": [1, 2]}),
    "a recipe's level as text": lambda: across_seeds(summary, {"r": ["a", "b"]}, level="x"),
}
for name, slip in slips.items():
    try:
        slip()
        print(name, "passed")
    except VitlensError as error:
        if str(error).count(".") < 2:
            print(name, "does not say what to do")
    except Exception as error:
        print(name, repr(error))
"""


def test_every_slip_is_answered_by_an_error_of_vitlens_and_numpys_numbers_are_numbers():
    done = subprocess.run([sys.executable, "-c", SLIPS], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr
