"""Arguments of a wrong type, which the tests' own type checker would catch first: in a plain process."""

import subprocess
import sys
from pathlib import Path

SLIPS = """
import sys
sys.path.insert(0, {tests!r})
import json, numpy as np, torch
import vitlens as vl
from small_runs import changed, items, start
from vitlens.errors import VitlensError
from vitlens.training import Trades, finetune

def run(model=None, config=None, **options):
    return lambda: finetune(model or start(), items(), config or changed(), progress=False, **options)

slips = [
    (lambda: changed(steps="10"), "steps is '10'. Expected: a whole number or None."),
    (lambda: changed(steps=2.5), "steps is 2.5. Expected: a whole number or None."),
    (lambda: changed(batch_size=None), "batch_size is None. Expected: a whole number."),
    (lambda: changed(checkpoint_every_steps=1.5), "checkpoint_every_steps is 1.5. Expected: a whole number."),
    (lambda: changed(seed=0.5), "seed is 0.5. Expected: a whole number."),
    (lambda: changed(p_clean="half"), "p_clean is 'half'. Expected: a number."),
    (lambda: changed(optimizer=torch.optim.SGD), "Expected: a text."),
    (lambda: changed(precision=["bfloat16"]), "precision is ['bfloat16']. Expected: a text or None."),
    (lambda: changed(snapshot_steps=5), "snapshot_steps is 5. Expected: a list or tuple of whole numbers."),
    (lambda: changed(snapshot_steps=(1.5,)), "Expected: a list or tuple of whole numbers."),
    (lambda: changed(conditions={{"mine": abs}}), "Expected: a list or tuple of conditions."),
    (lambda: changed(evaluation_conditions=5), "Expected: a list or tuple of conditions."),
    (lambda: changed(trainable=None), "trainable is None. Expected: 'all', or names"),
    (lambda: changed(loss="trades"), "loss is 'trades'. Expected: an Objective"),
    (lambda: Trades(beta="6"), "beta is '6'. Expected: a finite number"),
    (run(log_with=None), "log_with is None."),
    (run(num_workers=1.0), "num_workers is 1.0. Expected: a whole number of 0 or more."),
    (run(model=start().model), "model is a VisionTransformer. Expected: a HookedViT."),
    (run(config={{"steps": 3}}), "config is a dict. Expected: a FinetuneConfig."),
]
for slip, message in slips:
    try:
        slip()
        print("passed:", message)
    except VitlensError as error:
        if message not in str(error):
            print("not", message, "but", error)
    except Exception as error:
        print(message, repr(error))
config = changed(
    steps=np.int64(4), learning_rate=np.float32(0.5), snapshot_steps=np.array([2, 0]), trainable=["head"],
    conditions=(each for each in ["contrast@2"]),
)
assert config == changed(
    steps=4, learning_rate=0.5, snapshot_steps=(0, 2), trainable="head", conditions=["contrast@2"]
)
assert len(config.mix().choices) == len(config.mix().choices) == 1
assert json.loads(json.dumps(config.described()))["snapshot_steps"] == [0, 2]
"""


def test_every_slip_is_answered_and_what_can_be_taken_is_taken():
    program = SLIPS.format(tests=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("", 0), ended.stdout + ended.stderr
