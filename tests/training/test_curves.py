"""The page of a run: it draws what the log says, tells seen from unseen, and stands by itself."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlens.errors import CheckpointError, TrainingError
from vitlens.training.curve_figures import KINDS, N_POINTS, figures, smoothed, window_of
from vitlens.training.curves import _kinds, write_curves
from vitlens.training.log import Log

CONFIG = {"conditions": ["gaussian_blur@1-3", "noise@2"], "p_clean": 0.5, "steps": 40, "batch_size": 8}
CONDITIONS = ["clean", "gaussian_blur@3", "gaussian_blur@5", "contrast@3"]


def filled(log, n=20, every=10, conditions=CONDITIONS):
    for step in range(n + 1):
        if every and step % every == 0:
            log.write(*(evaluation(step, at, condition) for at, condition in enumerate(conditions)))
        if step < n:
            log.write(
                {
                    "kind": "step",
                    "step": step,
                    "loss": 2 - step / n,
                    "learning_rate": 1e-4 * (1 - step / n),
                    "images_per_second": 80 + step % 3,
                }
            )
    return log


def evaluation(step, at, condition):
    accuracy = 0.2 + 0.1 * at + step / 100
    return {
        "kind": "evaluation", "step": step, "condition": condition,
        "top1_accuracy": accuracy, "top1_low": accuracy - 0.05, "top1_high": accuracy + 0.05,
        "correct_probability": accuracy / 2, "correct_probability_low": accuracy / 2 - 0.03,
        "correct_probability_high": accuracy / 2 + 0.03, "n_images": 500,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    filled(Log(tmp_path / "log.jsonl"))
    (tmp_path / "config.json").write_text(json.dumps({"config": CONFIG, "start": "5f" * 32}))
    return tmp_path


def drawn(page):
    """The figures in a page, as plotly gets them."""
    found = re.findall(
        r'<script type="application/json" id="figure-\d-(.*?)-data">(.*?)</script>', page, re.S
    )
    return {name: json.loads(content) for name, content in found}


def values(array):
    """Numbers as plotly's JSON has them, packed or as a list."""
    if isinstance(array, dict):
        import base64

        return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]).tolist()
    return array


def test_the_figures_hold_the_numbers_of_the_log(folder):
    path = write_curves(folder)
    assert path == folder / "curves.html"
    figures = drawn(path.read_text())
    assert list(figures) == ["loss", "learning-rate", "top1-accuracy", "correct-probability"]
    single, mean = figures["loss"]["data"]
    assert values(single["x"]) == list(range(20))
    assert values(single["y"]) == [2 - step / 20 for step in range(20)]
    assert len(values(mean["y"])) == 20
    lines = [trace for trace in figures["top1-accuracy"]["data"] if trace["mode"] == "lines+markers"]
    bands = [trace for trace in figures["top1-accuracy"]["data"] if trace.get("fill") == "toself"]
    for at, (line, band) in enumerate(zip(lines, bands, strict=True)):
        accuracy = [100 * (0.2 + 0.1 * at + step / 100) for step in (0, 10, 20)]
        assert values(line["x"]) == [0, 10, 20]
        assert values(line["y"]) == pytest.approx(accuracy)
        assert values(band["y"]) == pytest.approx(
            [each - 5 for each in accuracy] + [each + 5 for each in accuracy[::-1]]
        )


def test_conditions_of_one_kind_share_a_color_and_no_two_lines_look_alike(folder):
    lines = [
        trace
        for trace in drawn(write_curves(folder).read_text())["top1-accuracy"]["data"]
        if trace["mode"] == "lines+markers"
    ]
    assert [line["name"].replace("<br>", " ") for line in lines] == [
        "clean", "gaussian_blur@3 (seen)", "gaussian_blur@5 (seen at another strength)", "contrast@3 (unseen)"
    ]  # fmt: skip
    assert len({line["line"]["color"] for line in lines}) == 4
    unseen = figures(
        *(
            filled(Log(None), conditions=["contrast@1", "contrast@2"]).frame(kind)
            for kind in ("step", "evaluation")
        ),
        {"contrast@1": "unseen", "contrast@2": "unseen"},
    )["top1_accuracy"]
    first, second = (trace for trace in unseen.data if trace.mode == "lines+markers")
    assert first.line.color == second.line.color
    assert (first.line.dash, first.marker.symbol) != (second.line.dash, second.marker.symbol)


def test_all_figures_have_one_axis_of_steps(folder):
    ranges = {
        tuple(each["layout"]["xaxis"]["range"]) for each in drawn(write_curves(folder).read_text()).values()
    }
    assert len(ranges) == 1
    low, high = ranges.pop()
    assert low < 0
    assert high > 20


def test_the_table_has_the_last_evaluation_and_the_page_what_was_trained_on(folder):
    page = write_curves(folder).read_text()
    assert "<h1>Fine-tuning on gaussian_blur@1-3 and noise@2</h1>" in page
    assert "<dt>Steps</dt><dd>20 of 40</dd>" in page
    assert "<dt>Speed</dt><dd>81.0 images per second (median)</dd>" in page
    assert "<dt>Clean images</dt><dd>50 %</dd>" in page
    assert '<th scope="col">accuracy at step 0</th><th scope="col">accuracy at step 20</th>' in page
    row = re.search(r"<tr><td>gaussian_blur@3</td><td>(.*?)</tr>", page)[1]
    assert re.sub(r"<.*?>", "|", row).split("||") == [
        "seen",
        "30.0 %",
        "50.0 % [45.0, 55.0]",
        "0.250 [0.220, 0.280]|",
    ]
    details = re.search(r"<details>(.*?)</details>", page, re.S)[1]
    assert "config · batch_size</th><td>8</td>" in details
    assert "5f" * 32 in details


def test_the_page_asks_the_network_for_nothing_and_is_the_same_each_time(folder):
    page = write_curves(folder).read_text()
    own = re.sub(r"<script>/\*\*?.*?</script>", "", page, count=1, flags=re.S)
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!#)', own.split("<main>")[1].split("</main>")[0])
    assert write_curves(folder, folder / "again.html", title=None).read_text() == page
    assert write_curves(Log(folder / "log.jsonl"), folder / "again.html").read_text() == page


def test_no_name_can_leave_its_place_in_the_page(tmp_path):
    name = "</script><img src=x onerror=alert(1)>%{x}"
    filled(Log(tmp_path / "log.jsonl"), conditions=["clean", name])
    (tmp_path / "config.json").write_text(json.dumps({"config": {**CONFIG, "conditions": [name]}}))
    page = write_curves(tmp_path, title="<b>bold</b>").read_text()
    assert "<img src=x" not in page
    assert "<h1>&lt;b&gt;bold&lt;/b&gt;</h1>" in page


@pytest.mark.parametrize("parts", [(0, 10), (20, 0), (1, 10)])
def test_a_run_that_is_under_way_has_a_page_of_what_there_is(tmp_path, parts):
    n, every = parts
    filled(Log(tmp_path / "log.jsonl"), n, every)
    found = drawn(write_curves(tmp_path).read_text())
    assert ("loss" in found) == (n > 0)
    assert ("top1-accuracy" in found) == (every > 0)
    if every and n < every:
        # One evaluation alone has bars, for a band has two ends.
        assert all(trace["error_y"] for trace in found["top1-accuracy"]["data"])
    assert (tmp_path / "curves.html").read_text().count("accuracy at step") == (1 if every else 0)


def test_an_empty_log_in_memory_has_a_page_too(tmp_path):
    page = write_curves(Log(None), tmp_path / "new" / "page.html").read_text()
    assert "<h1>Fine-tuning</h1>" in page
    assert "<dt>Steps</dt><dd>none yet</dd>" in page
    assert drawn(page) == {}


def test_numbers_that_are_none_leave_a_gap(tmp_path):
    log = filled(Log(None))
    log.write({**evaluation(20, 0, "clean"), "top1_low": math.nan, "correct_probability": math.nan})
    log.write({"kind": "step", "step": 20, "loss": math.nan, "learning_rate": 1e-4, "images_per_second": 1.0})
    page = write_curves(log, tmp_path / "page.html").read_text()
    assert "NaN" not in "".join(re.findall(r'<script type="application/json".*?</script>', page, re.S))
    assert "<td>clean</td><td>–</td>" in page


def test_a_long_run_draws_so_many_points_and_says_so():
    log = Log(None)
    n = 3 * N_POINTS - 1
    log.write(*({"kind": "step", "step": at, "loss": float(at), "learning_rate": 0.1} for at in range(n)))
    loss = figures(log.frame("step"), log.frame("evaluation"), {})["loss"]
    assert all(len(trace.x) == N_POINTS for trace in loss.data)
    assert "one in 3 is drawn" in loss.layout.title.subtitle.text
    np.testing.assert_allclose(loss.data[1].y[200:-200], np.arange(n, dtype=float)[::3][200:-200])


@given(
    values=st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=1, max_size=30),
    half=st.integers(0, 6),
)
def test_the_moving_mean_is_the_mean_of_the_numbers_around_each_step(values, half):
    found = smoothed(np.array(values), 2 * half + 1)
    for at, value in enumerate(found):
        around = [each for each in values[max(0, at - half) : at + half + 1] if not math.isnan(each)]
        assert math.isnan(value) if not around else value == pytest.approx(np.mean(around), abs=1e-12)


@given(st.integers(1, 10**6))
def test_the_window_is_odd_and_a_small_part_of_a_long_run(n):
    assert window_of(n) % 2 == 1
    assert window_of(n) == 5 or window_of(n) <= n / 40 + 1


@pytest.mark.parametrize(
    ("trained", "evaluated", "kind"),
    [
        ("gaussian_blur@1-5", "gaussian_blur@3", "seen"),
        ("gaussian_blur@1-2", "gaussian_blur@3", "seen at another strength"),
        ("gaussian_blur@3", "gaussian_blur@3:jpeg_quality=85", "seen at another strength"),
        ("gaussian_blur@1-5", "defocus_blur@3", "of a seen family"),
        ("gaussian_blur@1-5", "gaussian_noise@3", "unseen"),
        ("gaussian_blur@1-5", "clean", "clean"),
        ("removes_high_frequency@3", "gaussian_blur@3", "seen"),
        ("removes_high_frequency@3", "gaussian_noise@3", "unseen"),
        ("pgd:eps=4/255,steps=3", "pgd:steps=3,eps=4/255", "seen"),
        ("pgd:eps=4/255,steps=3", "pgd:eps=8/255,steps=3", "seen at another strength"),
        ("pgd:eps=4/255,steps=3", "gaussian_blur@3", "unseen"),
        ("mine,other", "mine", "seen"),
        ("mine,other", "third", "unseen"),
        ("imagenet_c@1-3", "gaussian_noise@2", "seen"),
        ("frost@1-3", "frost@2", "seen"),
        ("frost@1-3", "frost@4", "seen at another strength"),
    ],
)  # fmt: skip
def test_what_was_trained_on_says_which_conditions_were_seen(trained, evaluated, kind):
    assert kind in KINDS
    assert _kinds([evaluated], {"conditions": ["contrast@1", trained]}) == {evaluated: kind}


def test_what_no_image_went_through_was_not_seen(tmp_path):
    config = {"conditions": ["gaussian_blur@1-5"], "p_clean": 1.0}
    assert _kinds(["gaussian_blur@3"], config) == {"gaussian_blur@3": "unseen"}
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    page = write_curves(filled(Log(tmp_path / "log.jsonl"))).read_text()
    assert "Fine-tuning on clean images" in page
    assert "<dt>Trained on</dt>" not in page


@pytest.mark.parametrize("loss", ["Adversarial", "Trades"])
def test_adversarial_training_has_seen_attacks(loss):
    config = {"conditions": [], "loss": {"kind": loss}}
    assert _kinds(["pgd:eps=4/255,steps=3", "contrast@3"], config) == {
        "pgd:eps=4/255,steps=3": "seen at another strength",
        "contrast@3": "unseen",
    }


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"holds no log\.jsonl.*the output folder"):
        write_curves(tmp_path)


def test_a_log_in_memory_needs_a_path():
    with pytest.raises(TrainingError, match="has no folder, and there is no path"):
        write_curves(Log(None))


def test_a_folder_is_no_file(folder):
    with pytest.raises(TrainingError, match=r"is a folder.*curves\.html"):
        write_curves(folder, folder)


def test_a_damaged_configuration_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        write_curves(folder)
