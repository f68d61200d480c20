"""Evaluation in training: each image once, the numbers that a plain loop gives, and nothing left changed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from scipy import stats
from two_processes import start_two

import vitlens as vl
from vitlens.errors import AnalysisError, TrainingError
from vitlens.testing import randomize
from vitlens.training.evaluating import evaluate, read_evaluations
from vitlens.training.log import COLUMNS, Log

CONDITIONS = ["clean", "gaussian_noise@3", {"dark": lambda pixels: pixels / 2}]
NAMES = ["clean", "gaussian_noise@3", "dark"]


def start(seed=0, **kwargs):
    return vl.HookedViT(
        randomize(
            timm.models.VisionTransformer(
                img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3, **kwargs
            ),
            seed,
        )
    )


def items(n=11):
    generator = torch.Generator().manual_seed(0)
    return [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": i % 3, "image_id": f"image {i}"}
        for i in range(n)
    ]


def evaluated(model, dataset, conditions=CONDITIONS, *, step=0, folder=None, batch_size=4, **kwargs):
    return evaluate(
        model, dataset, conditions, step=step, folder=folder, batch_size=batch_size, seed=5, **kwargs
    )


def test_the_rows_are_those_of_a_plain_loop_over_the_images():
    model, images = start(), items()
    rows = evaluated(model, images, step=7)
    for row, name in zip(rows, NAMES, strict=True):
        assert tuple(row) == ("kind", *COLUMNS["evaluation"])
        assert (row["kind"], row["step"], row["condition"], row["n_images"]) == ("evaluation", 7, name, 11)
        hits, probabilities = 0, []
        for item in images:
            pixels = item["pixels"][None]
            if name == "dark":
                pixels = pixels / 2
            elif name != "clean":
                pixels = vl.corrupt(pixels, "gaussian_noise", 3, image_ids=[item["image_id"]], seed=5)
            with torch.no_grad():
                logits = model.model(model.normalize(pixels))[0]
            hits += int(logits.argmax() == item["label"])
            probabilities.append(logits.softmax(-1)[item["label"]].item())
        interval = stats.binomtest(hits, 11).proportion_ci(0.95, "wilson")
        mean, error = np.mean(probabilities), stats.sem(probabilities)
        low, high = stats.t.interval(0.95, 10, loc=mean, scale=error)
        assert row["top1_accuracy"] == hits / 11
        assert row["top1_low"] == pytest.approx(interval.low, abs=1e-12)
        assert row["top1_high"] == pytest.approx(interval.high, abs=1e-12)
        assert row["correct_probability"] == pytest.approx(mean, abs=1e-6)
        assert row["correct_probability_low"] == pytest.approx(max(low, 0), abs=1e-6)
        assert row["correct_probability_high"] == pytest.approx(min(high, 1), abs=1e-6)


def test_the_log_takes_the_rows_as_they_are(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    rows = evaluated(start(), items())
    log.write(*rows)
    assert Log(log.path).rows("evaluation") == [{k: v for k, v in row.items() if k != "kind"} for row in rows]


def test_no_number_depends_on_the_size_of_the_batch_beyond_rounding():
    for one, other in zip(
        evaluated(start(), items(), batch_size=3), evaluated(start(), items(), batch_size=11), strict=True
    ):
        assert one["top1_accuracy"] == other["top1_accuracy"]
        assert one["correct_probability"] == pytest.approx(other["correct_probability"], abs=1e-6)


@pytest.mark.parametrize("is_training", [True, False])
def test_mode_gradients_and_torchs_generator_are_left_as_they_were(is_training):
    model = start(drop_path_rate=0.3, proj_drop_rate=0.2).train(is_training)
    model.model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    model.model.head.weight.grad = torch.ones_like(model.model.head.weight)
    before = torch.get_rng_state()
    rows = evaluated(model, items(), ["clean", "pgd:eps=4/255,steps=2"])
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.model.head.weight.grad, torch.ones_like(model.model.head.weight))
    assert all(each.grad is None for each in model.model.blocks.parameters())
    assert rows == evaluated(model.eval(), items(), ["clean", "pgd:eps=4/255,steps=2"])


def test_a_model_that_gives_no_numbers_is_right_nowhere(tmp_path):
    model = start()
    with torch.no_grad():
        model.model.head.bias.fill_(math.nan)
    with pytest.warns(UserWarning, match="NaN or infinity at the logits"):
        (row,) = evaluated(model, items(), ["clean"])
    assert row["top1_accuracy"] == row["top1_low"] == 0
    assert math.isnan(row["correct_probability"])
    assert math.isnan(row["correct_probability_high"])
    Log(tmp_path / "log.jsonl").write(row)


def test_one_image_has_no_interval_of_its_probability():
    (row,) = evaluated(start(), items(1), ["clean"])
    assert 0 <= row["correct_probability"] <= 1
    assert math.isnan(row["correct_probability_low"])
    assert 0 <= row["top1_low"] < row["top1_high"] <= 1


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(AnalysisError, match="needs classes"):
        evaluated(
            vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)), items()
        )


def test_the_trajectory_of_each_image_is_read_back(tmp_path):
    models = {100: start(1), 0: start(0), 20: start(2)}
    for step, model in models.items():
        evaluated(model, items(), step=step, folder=tmp_path)
    data = read_evaluations(tmp_path)
    assert data["correct_probability"].dims == ("step", "condition", "image")
    assert data["step"].values.tolist() == [0, 20, 100]
    assert data["condition"].values.tolist() == NAMES
    for step, model in models.items():
        plain = vl.run(
            model, items(), [vl.Prediction()], conditions=CONDITIONS, batch_size=4, seed=5, progress=False
        )
        for name, values in plain.items():
            assert (data[name].sel(step=step) == values).all(), name


def test_an_evaluation_that_was_killed_goes_on_and_until_then_is_left_out(tmp_path):
    images = items(300)
    rows = evaluated(start(), images, ["clean"], folder=tmp_path, batch_size=64)
    evaluated(start(1), images, ["clean"], step=5, folder=tmp_path, batch_size=64)
    shards = sorted((tmp_path / "evaluations/step-000000").glob("rows-*.json"))
    assert len(shards) == 2
    shards[1].unlink()
    assert read_evaluations(tmp_path)["step"].values.tolist() == [5]
    assert evaluated(start(), images, ["clean"], folder=tmp_path, batch_size=64) == rows
    assert read_evaluations(tmp_path)["step"].values.tolist() == [0, 5]


def test_rows_of_the_same_weights_are_kept_and_those_of_others_replaced(tmp_path, monkeypatch):
    rows = evaluated(start(), items(), folder=tmp_path)
    store = tmp_path / "evaluations/step-000000/rows-000000.safetensors"
    before = store.stat().st_mtime_ns, store.stat().st_ino
    assert evaluated(start(), items(), folder=tmp_path) == rows
    assert (store.stat().st_mtime_ns, store.stat().st_ino) == before
    others = evaluated(start(1), items(), folder=tmp_path)
    assert others == evaluated(start(1), items())
    assert (store.stat().st_mtime_ns, store.stat().st_ino) != before


def test_a_folder_without_evaluations_says_so(tmp_path):
    with pytest.raises(TrainingError, match=r"holds no finished evaluation.*evaluate_on="):
        read_evaluations(tmp_path)


def test_evaluations_of_other_images_are_not_joined(tmp_path):
    evaluated(start(), items(5), folder=tmp_path)
    evaluated(start(), items(6), folder=tmp_path, step=3)
    with pytest.raises(TrainingError, match=r"do not fit each other.*the same images in the same order"):
        read_evaluations(tmp_path)


def test_two_processes_share_the_images_and_both_have_the_rows_of_one(tmp_path):
    program = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_evaluating import evaluated, items, start
folder = Path(sys.argv[2])
for step, seed in ((0, 0), (0, 1), (9, 2)):
    rows = evaluated(start(seed), items(300), ["clean"], step=step, folder=folder, batch_size=64)
(folder / f"{os.environ['RANK']}.json").write_text(json.dumps(rows))
torch.distributed.destroy_process_group()
"""
    processes = start_two(program, Path(__file__).parent, tmp_path)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    (alone,) = evaluated(start(2), items(300), ["clean"], step=9, batch_size=64)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [[alone], [alone]]
    data = read_evaluations(tmp_path)
    assert dict(data.sizes) == {"step": 2, "condition": 1, "image": 300}
    assert data["image"].values.tolist() == [f"image {i}" for i in range(300)]
    (again,) = evaluated(start(1), items(300), ["clean"], batch_size=64)
    assert (
        data["correct_probability"].sel(step=0).values.mean(dtype="float64") == again["correct_probability"]
    )
