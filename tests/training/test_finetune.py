"""Fine-tuning: exact on resuming, honest about what it was given, and it learns."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch

import vitlens as vl
from vitlens.testing import randomize
from vitlens.training.mixing import StepOrder, mixed

CONFIG = vl.training.FinetuneConfig(
    conditions=["gaussian_noise@1-5", "contrast@2"], steps=7, batch_size=4, learning_rate=1e-3,
    warmup_steps=2, checkpoint_every_steps=2,
)  # fmt: skip


def start(**kwargs):
    settings = {"drop_path_rate": 0.3, "proj_drop_rate": 0.2} | kwargs
    return vl.HookedViT(
        randomize(
            timm.models.VisionTransformer(
                img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10, **settings
            )
        )
    )


def items(n=11):
    generator = torch.Generator().manual_seed(0)
    return [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": i % 10, "image_id": f"{i}"}
        for i in range(n)
    ]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_the_starting_model_is_left_as_it_is():
    model = start()
    before = weights(model)
    result = vl.training.finetune(model, items(), CONFIG, progress=False)
    assert_same(weights(model), before)
    assert not torch.equal(result.model.model.head.weight, model.model.head.weight)


def test_the_same_call_gives_the_same_weights_whatever_was_drawn_before():
    first = vl.training.finetune(start(), items(), CONFIG, progress=False)
    torch.manual_seed(123)
    second = vl.training.finetune(start(), items(), CONFIG, progress=False)
    assert_same(weights(first.model), weights(second.model))
    other = vl.training.finetune(start(), items(), dataclasses.replace(CONFIG, seed=1), progress=False)
    assert not torch.equal(other.model.model.head.weight, first.model.model.head.weight)


def test_the_callers_random_stream_is_left_alone():
    model = start()
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    vl.training.finetune(model, items(), CONFIG, progress=False)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_a_run_that_died_at_any_step_ends_with_the_same_weights(tmp_path, monkeypatch, stop_at):
    wanted = vl.training.finetune(start(), items(), CONFIG, tmp_path / "whole", progress=False)
    module = sys.modules["vitlens.training.finetune"]
    step = module._step

    def dies(*args):
        if args[-1] == stop_at:
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_step", dies)
        with pytest.raises(KeyboardInterrupt):
            vl.training.finetune(start(), items(), CONFIG, tmp_path / "died", progress=False)
    resumed = vl.training.finetune(start(), items(), CONFIG, tmp_path / "died", progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))
    assert resumed.log.equals(wanted.log)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)  # as here: sums over other numbers of threads round differently
sys.path.insert(0, {tests!r})
from test_finetune import CONFIG, items, start
import dataclasses, vitlens as vl
config = dataclasses.replace(CONFIG, steps=60, checkpoint_every_steps=3)
print("begin", flush=True)
vl.training.finetune(start(), items(), config, {output!r}, progress=False)
print("end", flush=True)
"""


def test_a_run_killed_from_outside_ends_with_the_same_weights(tmp_path):
    config = dataclasses.replace(CONFIG, steps=60, checkpoint_every_steps=3)
    wanted = vl.training.finetune(start(), items(), config, progress=False)
    tests = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, str(Path(__file__).parents[1])])}
    script = SCRIPT.format(tests=tests, output=str(tmp_path / "run"))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert process.stdout.readline() == b"begin\n"
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resumed = vl.training.finetune(start(), items(), config, tmp_path / "run", progress=False)
    assert_same(weights(resumed.model), weights(wanted.model))


def test_a_finished_run_is_read_back_and_not_run_again(tmp_path, monkeypatch):
    wanted = vl.training.finetune(start(), items(), CONFIG, tmp_path, progress=False)
    monkeypatch.setattr(
        sys.modules["vitlens.training.finetune"], "_step", lambda *_: pytest.fail("a step was run")
    )
    again = vl.training.finetune(start(), items(), CONFIG, tmp_path, progress=False)
    assert_same(weights(again.model), weights(wanted.model))
    assert again.log.equals(wanted.log)
    assert again.path == wanted.path


def test_the_result_needs_nothing_but_its_file(tmp_path):
    result = vl.training.finetune(start(), items(), CONFIG, tmp_path, progress=False)
    loaded = vl.load(result.path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), result.model(images))
    assert loaded.provenance["finetuned"]["config"]["conditions"] == ["gaussian_noise@1-5", "contrast@2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: (start(), items(), dataclasses.replace(CONFIG, seed=4)), r"config.seed: 0 there, 4 now"),
        (lambda: (start(init_values=0.3), items(), CONFIG), "start:"),
        (lambda: (start(), items(12), CONFIG), "data.n_items: 11 there, 12 now"),
    ],
)
def test_the_folder_of_another_run_is_refused(tmp_path, change, message):
    vl.training.finetune(start(), items(), CONFIG, tmp_path, progress=False)
    with pytest.raises(vl.errors.TrainingError, match=message):
        vl.training.finetune(*change(), tmp_path, progress=False)


def test_a_damaged_checkpoint_is_refused(tmp_path, monkeypatch):
    module = sys.modules["vitlens.training.finetune"]
    step = module._step
    with monkeypatch.context() as patch:
        patch.setattr(module, "_step", lambda *a: 1 / 0 if a[-1] == 5 else step(*a))
        with pytest.raises(ZeroDivisionError):
            vl.training.finetune(start(), items(), CONFIG, tmp_path, progress=False)
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(vl.errors.CheckpointError, match="Delete it to start the run anew"):
        vl.training.finetune(start(), items(), CONFIG, tmp_path, progress=False)


def test_a_loss_that_is_no_number_stops_the_run_and_says_the_step(tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30, warmup_steps=0, max_grad_norm=None)
    with pytest.raises(vl.errors.TrainingError, match=r"The loss is (nan|inf) at step \d"):
        vl.training.finetune(start(), items(), config, tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_clean": 1.5}, "p_clean is 1.5"),
        ({"conditions": ()}, "p_clean is 0.5.*1, as there are no conditions"),
        ({"steps": 0}, "steps is 0"),
        ({"warmup_steps": 7}, "warmup_steps is 7"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"layer_decay": 0.0}, "layer_decay is 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(vl.errors.TrainingError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_an_unknown_condition_is_refused_before_anything_is_run():
    with pytest.raises(vl.errors.ConditionError, match="gaussian_noise"):
        vl.training.FinetuneConfig(conditions=["gausian_noise@3"])


def test_a_label_outside_the_classes_is_refused_before_anything_is_written(tmp_path):
    dataset = items()
    dataset[7]["label"] = 10
    with pytest.raises(vl.errors.LabelError, match="10"):
        vl.training.finetune(start(), dataset, CONFIG, tmp_path / "run", progress=False)


def test_a_data_set_without_a_length_is_refused():
    with pytest.raises(vl.errors.TrainingError, match="generator without items by index"):
        vl.training.finetune(start(), (item for item in items()), CONFIG, progress=False)


def test_each_epoch_sees_every_image_once():
    order = [index for indices in StepOrder(11, 4, 0, 11, seed=3) for index in indices]
    epochs = [order[start : start + 11] for start in range(0, 44, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [i for indices in StepOrder(11, 4, 5, 11, seed=3) for i in indices] == order[20:]


def test_the_stated_share_of_images_stays_clean_and_the_rest_is_drawn_evenly():
    batch = vl.images.Batch(
        torch.full((2000, 3, 1, 1), 0.25), torch.zeros(2000, dtype=torch.long), tuple(map(str, range(2000)))
    )
    spec = [{"half": lambda pixels: pixels * 2}, {"whole": lambda pixels: pixels * 4}]
    choices = [vl.images.parse_conditions([each]) for each in spec]
    values = mixed(batch, choices, p_clean=0.6, seed=0, step=1)[:, 0, 0, 0]
    shares = [(values == value).float().mean().item() for value in (0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    assert torch.equal(batch.pixels, torch.full((2000, 3, 1, 1), 0.25))


def test_an_image_is_corrupted_anew_at_each_step_and_alike_in_any_batch():
    dataset = items(8)
    choices = [vl.images.parse_conditions(["gaussian_noise@3"])]
    batch = vl.images.collate(dataset)
    pixels = mixed(batch, choices, p_clean=0, seed=0, step=1)
    assert not torch.equal(pixels, mixed(batch, choices, p_clean=0, seed=0, step=2))
    part = vl.images.collate(dataset[3:5])
    assert torch.equal(mixed(part, choices, p_clean=0, seed=0, step=1), pixels[3:5])


def test_it_learns():
    dataset = [
        {"pixels": torch.full((3, 32, 32), 0.2 + 0.6 * (i % 2)), "label": i % 2, "image_id": f"{i}"}
        for i in range(8)
    ]
    config = vl.training.FinetuneConfig(p_clean=1, steps=30, batch_size=8, learning_rate=3e-3)
    result = vl.training.finetune(start(drop_path_rate=0.0), dataset, config, progress=False)
    assert result.log["loss"].iloc[-1] < 0.1 < result.log["loss"].iloc[0]


def test_an_image_that_comes_twice_in_a_step_has_noise_of_its_own_each_time():
    grey = torch.full((3, 3, 16, 16), 0.5)
    batch = vl.images.Batch(grey, torch.zeros(3, dtype=torch.long), ("a", "b", "a"))
    choices = [tuple(vl.images.parse_conditions(["gaussian_noise@3"]))]
    first, other, second = mixed(batch, choices, p_clean=0.0, seed=0, step=0)
    assert not torch.equal(first, second)
    once = vl.images.Batch(grey[:2], batch.labels[:2], ("a", "b"))
    alone = mixed(once, choices, p_clean=0.0, seed=0, step=0)
    assert torch.equal(alone, torch.stack([first, other]))
