"""The log: what was written is there, what is cut is gone, and a kill within a line costs that line."""

import errno
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlens.errors import CheckpointError, SpaceError, TrainingError
from vitlens.training.log import COLUMNS, Log


def steps(first, last):
    return [
        {"kind": "step", "step": at, "loss": 1 / (1 + at), "learning_rate": 1e-4, "images_per_second": 9.5}
        for at in range(first, last)
    ]


def evaluation(step, condition="clean", accuracy=0.5):
    return {"kind": "evaluation", "step": step, "condition": condition, "top1_accuracy": accuracy}


def test_a_log_without_a_path_keeps_its_rows_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = Log(None)
    log.write(*steps(0, 3))
    log.write(evaluation(3))
    log.sync()
    log.cut(2)
    assert [row["step"] for row in log.rows("step")] == [0, 1]
    assert log.rows("evaluation") == []
    assert list(tmp_path.iterdir()) == []


def test_every_row_is_a_line_of_json_that_is_there_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "run" / "log.jsonl"
    log = Log(path)
    assert not path.exists()
    for at, row in enumerate([*steps(0, 2), evaluation(2)], start=1):
        log.write(row)
        lines = path.read_text().splitlines()
        assert len(lines) == at
        assert json.loads(lines[-1]) == row


def test_a_log_that_is_opened_again_has_the_same_rows(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(*steps(0, 2), evaluation(2), *steps(2, 4))
    again = Log(tmp_path / "log.jsonl")
    assert again.rows("step") == log.rows("step")
    assert again.rows("evaluation") == log.rows("evaluation")
    assert again.frame("step").equals(log.frame("step"))


def test_rows_come_without_their_kind_and_a_table_has_its_columns_also_when_empty():
    log = Log(None)
    assert tuple(log.frame("step").columns) == COLUMNS["step"]
    assert tuple(log.frame("evaluation").columns) == COLUMNS["evaluation"]
    log.write(*steps(0, 1))
    assert tuple(log.frame("step").columns) == COLUMNS["step"]
    assert list(log.frame("step")["loss"]) == [1.0]


def test_a_number_that_is_not_finite_is_null_in_the_file_and_nan_for_the_reader(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(evaluation(0, accuracy=math.nan), evaluation(1, accuracy=math.inf))
    assert [json.loads(line)["top1_accuracy"] for line in log.path.read_text().splitlines()] == [None, None]
    for each in (log, Log(log.path)):
        assert all(math.isnan(row["top1_accuracy"]) for row in each.rows("evaluation"))


@given(n=st.integers(0, 6), at=st.integers(0, 7))
def test_after_a_cut_there_are_the_steps_that_were_made_and_the_evaluations_of_their_weights(n, at):
    log = Log(None)
    for step in range(n):
        log.write(evaluation(step))
        log.write(*steps(step, step + 1))
    log.write(evaluation(n))
    log.cut(at)
    assert [row["step"] for row in log.rows("step")] == list(range(min(n, at)))
    assert [row["step"] for row in log.rows("evaluation")] == list(range(min(n, at) + 1))


def test_a_log_ahead_of_its_checkpoint_ends_as_one_that_was_never_killed(tmp_path):
    broken, unbroken = Log(tmp_path / "a.jsonl"), Log(tmp_path / "b.jsonl")
    unbroken.write(*steps(0, 6))
    broken.write(*steps(0, 5), evaluation(5))
    resumed = Log(broken.path)
    resumed.cut(4)
    assert resumed.path.read_text() == "".join(unbroken.path.read_text().splitlines(keepends=True)[:4])
    resumed.write(*steps(4, 6))
    assert broken.path.read_bytes() == unbroken.path.read_bytes()


def test_wherever_a_kill_cuts_the_last_line_the_rows_before_are_read_and_the_next_takes_its_place(tmp_path):
    whole = Log(tmp_path / "whole.jsonl")
    whole.write(*steps(0, 3))
    content = whole.path.read_bytes()
    last = len(content.splitlines(keepends=True)[-1])
    path = tmp_path / "cut.jsonl"
    for lost in range(1, last + 1):
        path.write_bytes(content[:-lost])
        log = Log(path)
        assert [row["step"] for row in log.rows("step")] == [0, 1]
        assert path.read_bytes() == content[:-lost], "reading changes nothing"
        log.write(*steps(2, 3))
        assert path.read_bytes() == content


def test_a_last_line_of_zeros_as_a_power_cut_leaves_it_is_left_out(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(*steps(0, 2))
    content = log.path.read_bytes()
    log.path.write_bytes(content + b"\0" * 40 + b"\n")
    again = Log(log.path)
    again.cut(2)
    assert log.path.read_bytes() == content


@pytest.mark.parametrize("line", ["{'kind'}", "[1]", "7", '{"kind": "step"}', '{"kind": "x", "step": 1}', ""])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    log = Log(tmp_path / "log.jsonl")
    log.write(*steps(0, 3))
    lines = log.path.read_text().splitlines()
    log.path.write_text("\n".join([lines[0], line, lines[2], ""]))
    with pytest.raises(
        CheckpointError, match=r"Line 2 of the log .*log\.jsonl is damaged .* Delete the line"
    ):
        Log(log.path)


def test_a_log_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"The log .* cannot be read .*permissions"):
        Log(tmp_path)


def test_of_several_processes_one_writes_and_all_have_the_rows(tmp_path):
    path = tmp_path / "log.jsonl"
    writer, other = Log(path), Log(path, writes=False)
    for log in (writer, other):
        log.write(*steps(0, 3))
        log.cut(2)
        log.sync()
    assert len(path.read_text().splitlines()) == 2
    assert other.rows("step") == writer.rows("step")


def test_an_evaluation_that_was_made_twice_counts_once_with_its_last_numbers():
    log = Log(None)
    log.write(evaluation(4, "clean", 0.1))
    assert log.evaluated(4, ["clean"])
    assert not log.evaluated(4, ["clean", "contrast@3"])
    assert not log.evaluated(3, ["clean"])
    log.write(evaluation(4, "clean", 0.2), evaluation(4, "contrast@3", 0.3))
    assert log.evaluated(4, ["clean", "contrast@3"])
    assert [row["top1_accuracy"] for row in log.rows("evaluation")] == [0.2, 0.3]


@pytest.mark.parametrize(
    "row", [{"step": 1}, {"kind": "loss", "step": 1}, {"kind": "step"}, {"kind": "step", "step": "1"}]
)
def test_a_row_without_kind_or_step_is_refused(row):
    with pytest.raises(TrainingError, match=r"A row of the log is .* Give the row both"):
        Log(None).write(row)


def test_on_a_full_disk_the_rows_before_are_kept_and_a_part_of_a_line_is_mended_later(tmp_path, monkeypatch):
    log = Log(tmp_path / "log.jsonl")
    log.write(*steps(0, 2))
    real = Path.open

    def full(self, mode="r", *arguments, **options):
        file = real(self, mode, *arguments, **options)
        if mode == "a":
            with file:
                file.write('{"kind": "st')
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(SpaceError, match=r"no space left to write .*log\.jsonl"):
            log.write(*steps(2, 3))
    assert [row["step"] for row in Log(log.path).rows("step")] == [0, 1]
    assert [row["step"] for row in log.rows("step")] == [0, 1]
    log.write(*steps(2, 4))
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [0, 1, 2, 3]
