"""The command itself: its start, and its end by Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from vitlens.cli import main
from vitlens.cli.words import spoken

CALL = "import sys; from vitlens.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("words", ["--help", "--version", "comapre"])
def test_what_needs_no_model_imports_no_torch(words):
    code = f"""
import sys
from vitlens.cli import main
try:
    main(['{words}'])
except SystemExit:
    pass
assert not {{'torch', 'timm', 'plotly', 'xarray'}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_while_torch_is_imported_are_one_line(tmp_path, number, status):
    # The command's first import is held up, so that the signal surely falls into it.
    (tmp_path / "torch.py").write_text("import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-c", CALL, "corrupt", "photo.png", "--output", "sheet.html"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate()[1]
    assert (process.returncode, said) == (status, "vitlens corrupt: stopped.\n")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("batch_size is 0.", "--batch-size is 0."),
        ("Pass evaluate_on=, or leave it.", "Pass --evaluate-on, or leave it."),
        ("There is 'batch_size', data/batch_size/1.png.", "There is 'batch_size', data/batch_size/1.png."),
        ("steps is 0. Take steps.", "--steps is 0. Take steps."),
        ("primary names 'x'.", "--primary names 'x'."),
        ("--primary names 'x'.", "--primary names 'x'."),
        ("Correct the name, or wrap the live module: HookedViT(module).", "Correct the name."),
        ("margins names 'x'.", "--margin names 'x'."),
    ],
)
def test_arguments_are_said_as_options(message, expected):
    options = ["batch-size", "evaluate-on", "steps"]
    assert spoken(message, options) == expected
    assert spoken(expected, options) == expected


def test_the_top_help_names_each_command_once(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    page = capsys.readouterr().out
    for name in ("compare", "finetune", "corrupt"):
        assert len(re.findall(rf"^    {name} +\S", page, re.M)) == 1
