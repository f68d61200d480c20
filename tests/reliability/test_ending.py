"""SIGTERM ends a job as Ctrl-C does, and commands and loops tell the two apart."""

import signal
import subprocess
import sys

import pytest

import vitlens as vl
from vitlens.claims import claimed
from vitlens.cli import main
from vitlens.signals import Interrupt, Terminated, ending_in_order
from vitlens.training.checkpoints import Checkpoints

from . import jobs


def test_a_claimed_folder_is_let_go_of_at_sigterm(tmp_path):
    with pytest.raises(Terminated), claimed(tmp_path / "out"):
        signal.raise_signal(signal.SIGTERM)
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_program_that_nobody_catches_it_in_ends_with_143_and_no_words():
    program = (
        "import signal\n"
        "from vitlens.signals import ending_in_order\n"
        "with ending_in_order():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_a_program_that_handles_sigterm_itself_keeps_its_handler():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        with ending_in_order():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True]


def test_a_second_sigterm_does_not_break_into_the_tidying_up():
    tidied = []

    def tidying():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            tidied.append(True)

    with pytest.raises(Terminated), ending_in_order():
        tidying()
    assert tidied == [True]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_fine_tuning_ends_its_step_and_writes_a_checkpoint(tmp_path, monkeypatch, number, error):
    steps = []

    def sent(count):
        if count is None:  # an image
            return
        steps.append(True)
        if len(steps) == 6:
            signal.raise_signal(number)

    monkeypatch.setattr(jobs, "counted", sent)
    with pytest.raises(error):
        jobs.finetune(tmp_path / "run", tmp_path / "count")
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest().step == 6
    assert len(steps) == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_sigterm_is_not_kept_waiting():
    interrupt = Interrupt()

    def impatient():
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Terminated), ending_in_order(), interrupt.kept_waiting():
        impatient()


def test_a_command_that_sigterm_ends_says_where_what_was_done_is(tmp_path, monkeypatch, capsys):
    def ended(*arguments, **settings):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    vl.save(jobs.model(), "base.safetensors")
    (tmp_path / "data" / "a").mkdir(parents=True)
    monkeypatch.setattr("vitlens.cli.evaluate.folder", lambda *_: jobs.Images(4))
    monkeypatch.setattr("vitlens.cli.evaluate.measure", ended)
    call = ["evaluate", "base.safetensors", "--data", "data", "--output", "a.csv", "--no-progress"]
    assert main(call) == 143
    wanted = "vitlens evaluate: stopped; what was done is in a.data, and the same command goes on.\n"
    assert capsys.readouterr().err == wanted


def test_a_worker_passes_over_what_was_sent_to_all_and_ends_when_it_is_meant():
    program = (
        "import signal\n"
        "from vitlens.signals import not_in_workers\n"
        "not_in_workers(0)\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):\n"
        "    print(number, flush=True)\n"
        "    signal.raise_signal(number)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.split())) == (-signal.SIGTERM, 4)
