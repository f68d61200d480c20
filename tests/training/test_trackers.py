"""Trackers: they see what the log sees, are refused before the run, and cannot bring it down."""

import math

import pytest
from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.tracking import (
    LOGGER_TYPE_TO_CLASS,
    GeneralTracker,
    get_available_trackers,
    on_main_process,
)

from vitlens.errors import TrainingError
from vitlens.training.trackers import Trackers, check_trackers


class Own(GeneralTracker):
    name = "own"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, project="mine", folder=None, fails=()):
        super().__init__()
        self.project, self.folder, self.fails, self.calls = project, folder, fails, []

    @property
    def tracker(self):
        return self.calls

    def _note(self, what, *values):
        if what in self.fails:
            raise OSError("the line is down")
        self.calls.append((what, *values))

    def start(self):
        self._note("start")

    def store_init_configuration(self, values):
        self._note("configuration", values)

    def log(self, values, step=None, **kwargs):
        self._note("log", step, values)

    def finish(self):
        self._note("finish")


STEP = {"kind": "step", "step": 3, "loss": 2.5, "learning_rate": 1e-4, "images_per_second": 80.0}
EVALUATION = {
    "kind": "evaluation", "step": 4, "condition": "gaussian_blur@3", "top1_accuracy": 0.5,
    "top1_low": 0.4, "correct_probability_low": math.nan, "n_images": 100,
}  # fmt: skip


def test_a_tracker_gets_the_configuration_once_and_every_row_under_its_name():
    own = Own()
    trackers = Trackers([own], None, {"config": {"steps": 5, "conditions": ["a", "b"], "ema_decay": None}})
    trackers.write(STEP)
    trackers.write(EVALUATION)
    trackers.finish()
    assert own.calls == [
        ("start",),
        (
            "configuration",
            {"config.steps": 5, "config.conditions": "['a', 'b']", "config.ema_decay": "None"},
        ),
        ("log", 3, {"train/loss": 2.5, "train/learning_rate": 1e-4, "train/images_per_second": 80.0}),
        (
            "log",
            4,
            {
                "evaluation/gaussian_blur@3/top1_accuracy": 0.5,
                "evaluation/gaussian_blur@3/top1_low": 0.4,
                "evaluation/gaussian_blur@3/n_images": 100,
            },
        ),
        ("finish",),
    ]


def test_without_trackers_nothing_happens():
    trackers = Trackers((), None, {})
    trackers.write(STEP, EVALUATION)
    trackers.finish()


def test_only_the_process_that_writes_starts_a_tracker():
    own = Own()
    trackers = Trackers([own], None, {}, writes=False)
    trackers.write(STEP)
    trackers.finish()
    assert own.calls == []


def test_a_tracker_by_name_is_made_with_the_project_and_the_runs_folder(tmp_path, monkeypatch):
    made = []

    class Named(Own):
        requires_logging_directory = True

        def __init__(self, project, folder):
            super().__init__(project, folder)
            made.append(self)

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "named", Named)
    with pytest.raises(TrainingError, match=r"'named', which keeps files.*output=\"run/\""):
        check_trackers(["named"], None)
    Trackers(["named"], tmp_path, {}).write(STEP)
    assert made[0].project == "vitlens"
    assert made[0].folder == str(tmp_path / "trackers")
    assert [call[0] for call in made[0].calls] == ["start", "configuration", "log"]


def test_a_name_whose_package_is_missing_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("vitlens.training.trackers.get_available_trackers", lambda: [])
    with pytest.raises(
        TrainingError, match=r"'tensorboard', which is not installed.*pip install tensorboard.*without it"
    ):
        check_trackers(["tensorboard"], tmp_path)


def test_a_name_whose_package_is_there_passes_and_nothing_is_started(tmp_path):
    check_trackers([*map(str, get_available_trackers()), Own()], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensorbord", "all"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(TrainingError, match=r"log_with has .*'tensorboard', 'wandb'.*nearest: "):
        Trackers([name], None, {})


def test_a_name_by_itself_is_no_list_of_names():
    with pytest.raises(TrainingError, match=r"log_with is 'wandb' by itself.*\(\"tensorboard\",\)"):
        Trackers("wandb", None, {})


def test_accelerates_own_trackers_find_the_state_that_they_ask_for():
    class Asks(Own):
        main_process_only = True

        @on_main_process
        def start(self):
            get_logger("test").debug("as accelerate's own trackers do")
            super().start()

    PartialState._reset_state()
    own = Asks()
    Trackers([own], None, {}).finish()
    assert [call[0] for call in own.calls] == ["start", "configuration", "finish"]


@pytest.mark.parametrize("fails", ["start", "configuration"])
def test_a_tracker_that_does_not_start_is_refused_and_those_before_it_are_closed(fails):
    first = Own()
    with pytest.raises(TrainingError, match=r"'own' cannot be started .OSError: the line is down"):
        Trackers([first, Own(fails=[fails])], None, {})
    assert first.calls[-1] == ("finish",)


def _run(trackers):
    trackers.write(STEP, STEP)
    trackers.finish()


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_a_tracker_that_fails_on_the_way_is_left_out_with_a_warning_and_the_others_go_on(fails):
    bad, good = Own(fails=[fails]), Own()
    trackers = Trackers([bad, good], None, {})
    with pytest.warns(
        UserWarning, match=r"'own' failed .OSError: the line is down.*the run goes on"
    ) as caught:
        _run(trackers)
    assert len(caught) == 1
    assert [call[0] for call in good.calls] == ["start", "configuration", "log", "log", "finish"]
