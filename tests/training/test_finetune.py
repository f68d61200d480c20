"""Fine-tuning: it learns, leaves alone what is not its own, and is honest about what it was given."""

import dataclasses
import math
import random
import signal

import numpy as np
import pytest
import timm
import torch
from small_runs import EXACT, assert_same, changed, items, log_rows, start, weights, without_times

import vitlens as vl
from vitlens.training import trainer as trainer_module
from vitlens.training.config import FinetuneConfig
from vitlens.training.finetune import finetune
from vitlens.training.generators import all_kept, seed_all
from vitlens.training.losses import Adversarial, Consistency, Trades

CONFIG = changed()


def test_the_starting_model_is_left_as_it_is():
    model = start()
    before = weights(model)
    result = finetune(model, items(), changed(trainable="head"), progress=False)
    assert_same(weights(model), before)
    assert all(each.requires_grad and each.grad is None for each in model.model.parameters())
    assert not torch.equal(result.model.model.head.weight, model.model.head.weight)
    # What was frozen for the run is free again, and is what it was.
    assert all(each.requires_grad and each.grad is None for each in result.model.model.parameters())
    assert_same(
        {name: each for name, each in weights(result.model).items() if not name.startswith("head")},
        {name: each for name, each in before.items() if not name.startswith("head")},
    )


def test_the_same_call_gives_the_same_weights_whatever_was_drawn_before():
    first = finetune(start(), items(), CONFIG, progress=False)
    torch.manual_seed(123)
    second = finetune(start(), items(), CONFIG, progress=False)
    assert_same(weights(first.model), weights(second.model))
    other = finetune(start(), items(), changed(seed=1), progress=False)
    assert not torch.equal(other.model.model.head.weight, first.model.model.head.weight)


def test_the_callers_random_stream_is_left_alone():
    model = start()
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    finetune(model, items(), changed(new_head=12, drop_path_rate=0.5), progress=False)
    assert torch.equal(torch.rand(3), wanted)


def test_workers_that_load_change_nothing():
    wanted = finetune(start(), items(), CONFIG, progress=False)
    loaded = finetune(start(), items(), CONFIG, num_workers=1, progress=False)
    assert_same(weights(loaded.model), weights(wanted.model))


def test_it_learns():
    dataset = [
        {"pixels": torch.full((3, 32, 32), 0.2 + 0.6 * (i % 2)), "label": i % 2, "image_id": f"{i}"}
        for i in range(8)
    ]
    config = FinetuneConfig(p_clean=1, steps=30, batch_size=8, learning_rate=3e-3)
    result = finetune(start(**EXACT), dataset, config, progress=False)
    assert result.log["loss"].iloc[-1] < 0.1 < result.log["loss"].iloc[0]


def test_a_step_is_the_one_of_a_plain_loop():
    model = start(**EXACT)
    config = FinetuneConfig(
        p_clean=1, steps=3, batch_size=11, learning_rate=1e-2, weight_decay=0.1, label_smoothing=0.1
    )
    result = finetune(model, items(), config, progress=False)
    plain = start(**EXACT).model.train()
    pixels = model.normalize(torch.stack([item["pixels"] for item in items()]))
    labels = torch.tensor([item["label"] for item in items()])
    decayed = [each for name, each in plain.named_parameters() if each.ndim > 1 and "token" not in name]
    decayed = [each for each in decayed if each is not plain.pos_embed]
    rest = [each for each in plain.parameters() if not any(each is other for other in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    losses = []
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / 3))
        loss = torch.nn.functional.cross_entropy(plain(pixels), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert result.log["loss"].tolist() == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(result.model.model.head.weight, plain.head.weight, rtol=0, atol=1e-4)


def test_the_rate_rises_in_equal_parts_and_falls_along_half_a_cosine():
    config = changed(steps=8, warmup_steps=3, learning_rate=4e-3)
    rates = finetune(start(), items(), config, progress=False).log["learning_rate"].tolist()
    falling = [4e-3 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)]
    assert rates == pytest.approx([1e-3, 2e-3, 3e-3, *falling])


def test_lower_blocks_learn_more_slowly_where_the_recipe_says_so(monkeypatch):
    made = {}
    monkeypatch.setattr(
        trainer_module.Trainer, "step", lambda self, *_: made.setdefault("trainer", self) and 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        finetune(start(), items(), changed(layer_decay=0.5), progress=False)
    scales = {}
    for group in made["trainer"].optimizer.param_groups:
        for parameter in group["params"]:
            scales[id(parameter)] = group["lr_scale"]
    named = {name: scales[id(each)] for name, each in made["trainer"].model.model.named_parameters()}
    assert (named["head.weight"], named["blocks.1.mlp.fc1.weight"]) == (1.0, 0.5)
    assert named["blocks.0.mlp.fc1.weight"] == 0.25
    assert named["patch_embed.proj.weight"] == 0.125


def test_the_average_is_what_comes_out_and_the_weights_as_trained_stay_in_the_checkpoint(tmp_path):
    plain = finetune(start(), items(), changed(steps=3), tmp_path / "plain", progress=False)
    config = changed(steps=3, ema_decay=0.75, snapshot_steps=(0, 3), checkpoint_every_steps=1)
    result = finetune(start(), items(), config, tmp_path / "ema", progress=False)
    last = vl.training.state.read_state(tmp_path / "ema" / "checkpoints" / "step-000003.safetensors")
    assert_same(last.parts["model"], weights(plain.model))
    # By hand, from the weights after each step.
    average = weights(start())
    trail = []

    step = trainer_module.Trainer.step

    def follow(self, *args):
        said = step(self, *args)
        trail.append(weights(self.model))
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "step", follow)
        finetune(start(), items(), changed(steps=3), progress=False)
    for passed in trail:
        average = {name: 0.75 * each + 0.25 * passed[name] for name, each in average.items()}
    for name, each in weights(result.model).items():
        torch.testing.assert_close(each, average[name], rtol=0, atol=1e-6)
    assert_same(weights(vl.load(result.path)), weights(result.model))
    assert_same(weights(vl.load(result.snapshots[3])), weights(result.model))
    assert_same(weights(vl.load(result.snapshots[0])), weights(start()))


@pytest.mark.parametrize("loss", [Adversarial(steps=2), Trades(steps=2), Consistency()])
def test_every_objective_runs_in_parts_and_lowers_its_loss(loss):
    config = changed(
        loss=loss, steps=12, batch_size=8, accumulation_steps=2, conditions=["contrast@2"], learning_rate=3e-3
    )
    log = finetune(start(**EXACT), items(8), config, progress=False).log
    assert log["loss"].iloc[-3:].mean() < log["loss"].iloc[:3].mean()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_float32_weights_to_nearly_the_same(precision):
    wanted = finetune(start(**EXACT), items(), changed(steps=4), progress=False)
    result = finetune(start(**EXACT), items(), changed(steps=4, precision=precision), progress=False)
    assert result.model.dtype == torch.float32
    assert result.log["loss"].tolist() == pytest.approx(wanted.log["loss"].tolist(), rel=0.05)
    assert result.log["loss"].tolist() != wanted.log["loss"].tolist()


def test_evaluations_are_made_at_the_start_in_between_and_at_the_end(tmp_path):
    config = changed(evaluate_every_steps=3, evaluation_conditions=("clean", "contrast@5"))
    result = finetune(start(), items(), config, tmp_path, evaluate_on=items(6), progress=False)
    assert result.evaluations["step"].tolist() == [0, 0, 3, 3, 6, 6, 7, 7]
    assert result.evaluations["condition"].tolist() == ["clean", "contrast@5"] * 4
    rows = vl.training.evaluating.read_evaluations(tmp_path)
    assert dict(rows.sizes) == {"step": 4, "condition": 2, "image": 6}
    ends = vl.run(result.model, items(6), [vl.Prediction()], progress=False)
    assert torch.equal(
        torch.tensor(rows["correct_probability"].sel(step=7, condition="clean").values),
        torch.tensor(ends["correct_probability"].isel(condition=0).values),
    )
    assert [row["step"] for row in log_rows(tmp_path, "evaluation")] == [0, 0, 3, 3, 6, 6, 7, 7]
    assert (tmp_path / "curves.html").exists()


def test_evaluating_does_not_change_what_is_trained():
    wanted = finetune(start(), items(), CONFIG, progress=False)
    seen = finetune(start(), items(), changed(evaluate_every_steps=1), evaluate_on=items(3), progress=False)
    assert_same(weights(seen.model), weights(wanted.model))


def test_the_result_needs_nothing_but_its_file(tmp_path):
    result = finetune(start(), items(), changed(drop_path_rate=0.5), tmp_path, progress=False)
    loaded = vl.load(result.path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), result.model(images))
    said = loaded.provenance["finetuned"]
    assert said["config"]["conditions"] == ["gaussian_noise@1-5", "contrast@2"]
    assert said["start"] == vl.models.weights_sha256(start())
    assert said["data"]["n_images"] == 11
    assert said["versions"].keys() == {"vitlens", "torch", "timm", "accelerate"}
    assert (said["step"], said["weights"]) == (7, "as trained")


def test_a_drop_path_rate_grows_with_depth_and_is_none_of_the_saved_model(tmp_path, monkeypatch):
    made = {}
    step = trainer_module.Trainer.step
    monkeypatch.setattr(
        trainer_module.Trainer, "step", lambda self, *a: step(made.setdefault("trainer", self), *a)
    )
    finetune(start(**EXACT), items(), changed(drop_path_rate=0.4), tmp_path, progress=False)
    blocks = made["trainer"].model.model.blocks
    rates = [[getattr(place, "drop_prob", 0.0) for place in (b.drop_path1, b.drop_path2)] for b in blocks]
    assert rates == [[0.0, 0.0], [0.4, 0.4]]
    assert isinstance(vl.load(tmp_path / "model.safetensors").model.blocks[1].drop_path1, torch.nn.Identity)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "eva02_tiny_patch14_224",
        "beit_base_patch16_224",
        "deit_tiny_distilled_patch16_224",
    ],
)
def test_a_new_head_is_made_by_choice_and_saved_with_the_model(tmp_path, name):
    smaller = {"img_size": 28 if "patch14" in name else 32}
    smaller |= {"embed_dim": 48, "depth": 1, "num_heads": 2} if "deit" not in name else {"depth": 1}
    model = vl.HookedViT(timm.create_model(name, num_classes=10, **smaller))
    dataset = [
        {"pixels": torch.rand(3, *model.cfg.image_size), "label": i, "image_id": f"{i}"} for i in range(3)
    ]
    config = FinetuneConfig(p_clean=1, steps=1, batch_size=2, new_head=3)
    result = finetune(model, dataset, config, tmp_path, progress=False)
    assert (result.model.cfg.n_classes, model.cfg.n_classes) == (3, 10)
    assert vl.load(result.path).cfg.n_classes == 3
    again = finetune(model, dataset, config, progress=False)
    assert_same(weights(again.model), weights(result.model))


class Classes(list):
    """Items that say how many classes there are."""

    classes = ("cat", "dog", "owl")


@pytest.mark.parametrize("place", ["dataset", "evaluate_on"])
def test_another_number_of_classes_is_refused_with_the_way_to_a_new_head(place, tmp_path):
    dataset = {"dataset": items(), "evaluate_on": items()} | {place: Classes(items(3))}
    message = r"has 3 classes, the model has 10 classes.*new_head=3"
    with pytest.raises(vl.errors.TrainingError, match=message):
        finetune(start(), config=CONFIG, output=tmp_path / "run", progress=False, **dataset)
    assert not (tmp_path / "run").exists()
    finetune(start(), Classes(items(3)), changed(new_head=3), progress=False)


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(vl.errors.TrainingError, match="the model has no classifier"):
        finetune(start(num_classes=0), items(), CONFIG, progress=False)


def test_a_label_outside_the_classes_is_refused_before_anything_is_written(tmp_path):
    dataset = items()
    dataset[7]["label"] = 10
    with pytest.raises(vl.errors.LabelError, match="10"):
        finetune(start(), dataset, CONFIG, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        ({"snapshot_steps": (1,)}, {}, "there is no output folder"),
        ({"evaluate_every_steps": 1}, {}, "nothing to evaluate on"),
        ({"steps": None, "epochs": 0.1}, {}, r"warmup_steps is 2. Expected: 0 to steps - 1 = 0"),
        ({"trainable": "haed"}, {}, "head"),
        ({}, {"log_with": ("tensorbored",)}, "tensorbored"),
        ({}, {"num_workers": -1}, "num_workers is -1"),
        (
            {"evaluation_conditions": ("contrast@3",)},
            {},
            "evaluation_conditions is .* nothing to evaluate on",
        ),
        ({"optimizer": "fusedadamw"}, {}, "timm cannot make the optimizer 'fusedadamw' here"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_run(change, kwargs, message):
    with pytest.raises(vl.errors.TrainingError, match=message):
        finetune(start(), items(), changed(**change), progress=False, **kwargs)


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_an_output_that_is_no_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(vl.errors.TrainingError, match="cannot be written"):
        finetune(start(), items(), CONFIG, tmp_path / place, progress=False)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.safetensors", "mine", "holds a model.safetensors that is not of this run"),
        ("config.json", '{"mine": 1}', "was not written by a fine-tuning run"),
    ],
)
def test_a_folder_with_anothers_files_is_refused_and_left_as_it_is(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(vl.errors.TrainingError, match=message):
        finetune(start(), items(), CONFIG, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]


class Unnamed(torch.utils.data.Dataset):
    """Items whose ids are known only when they are read; all have one name."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return items()[index] | {"image_id": "same"}


def test_two_images_of_one_name_are_refused_when_they_are_read():
    with pytest.raises(vl.errors.DatasetError, match="Two images of step 0 have the image_id 'same'"):
        finetune(start(), Unnamed(), CONFIG, progress=False)


class Streamed(torch.utils.data.IterableDataset):
    def __len__(self):
        return 11

    def __iter__(self):
        return iter(items())


def test_a_stream_that_knows_its_length_is_refused_too():
    with pytest.raises(vl.errors.TrainingError, match="Streamed without items by index"):
        finetune(start(), Streamed(), CONFIG, progress=False)


def test_what_cannot_be_evaluated_is_said_before_the_steps(monkeypatch, tmp_path):
    monkeypatch.setattr(trainer_module.Trainer, "step", lambda *_: pytest.fail("a step was made"))
    small = [item | {"pixels": item["pixels"][:, :16]} for item in items(4)]
    with pytest.raises(vl.errors.VitlensError, match="16"):
        finetune(start(), items(), CONFIG, evaluate_on=small, progress=False)
    broken = changed(evaluation_conditions=[{"nothing": lambda pixels: None}])
    with pytest.raises(vl.errors.ConditionError, match="nothing"):
        finetune(start(), items(), broken, tmp_path, evaluate_on=items(4), progress=False)


def test_a_recipe_that_cannot_be_trained_leaves_the_folder_to_its_correction(tmp_path):
    with pytest.raises(vl.errors.TrainingError, match="haed"):
        finetune(start(), items(), changed(trainable="haed"), tmp_path, progress=False)
    finetune(start(), items(), changed(trainable="head", steps=3), tmp_path, progress=False)


def test_a_single_step_is_made_without_a_word(caplog):
    result = finetune(start(), items(), changed(steps=1, warmup_steps=0), progress=False)
    assert result.log["learning_rate"].tolist() == [1e-3]
    assert not caplog.records


def test_what_was_done_is_remembered_without_a_file_too():
    result = finetune(start(), items(), changed(steps=3), progress=False)
    assert result.model.provenance["finetuned"]["config"]["steps"] == 3


def test_a_data_set_without_a_length_is_refused():
    with pytest.raises(vl.errors.TrainingError, match="generator without items by index"):
        finetune(start(), (item for item in items()), CONFIG, progress=False)


def test_a_loss_that_is_no_number_stops_the_run_says_the_step_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    step = trainer_module.Trainer.step

    def breaks(self, number, *args):
        if number == 5:
            with torch.no_grad():
                self.model.model.head.weight.fill_(math.nan)
        return step(self, number, *args)

    monkeypatch.setattr(trainer_module.Trainer, "step", breaks)
    with pytest.raises(
        vl.errors.TrainingError, match=r"The loss is nan at step 5\..*of step 4, is from before"
    ):
        finetune(start(), items(), CONFIG, tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists()
    state = vl.training.checkpoints.Checkpoints(tmp_path / "checkpoints").newest()
    assert state.step == 4
    assert all(each.isfinite().all() for each in state.parts["model"].values())
    assert [row["step"] for row in log_rows(tmp_path, "step")] == [0, 1, 2, 3, 4]


def test_weights_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch):
    step = trainer_module.Trainer.step

    def breaks(self, number, *args):
        said = step(self, number, *args)
        if number == 3:
            with torch.no_grad():
                self.model.model.head.weight[0, 0] = math.inf
        return said

    monkeypatch.setattr(trainer_module.Trainer, "step", breaks)
    with pytest.raises(vl.errors.TrainingError, match=r"no finite number after step 3\..*of step 2"):
        finetune(start(), items(), CONFIG, tmp_path, progress=False)


def test_a_finished_run_is_read_back_and_not_run_again(tmp_path, monkeypatch):
    config = changed(snapshot_steps=(2,), evaluate_every_steps=4)
    wanted = finetune(start(), items(), config, tmp_path, evaluate_on=items(4), progress=False)
    monkeypatch.setattr(trainer_module.Trainer, "step", lambda *_: pytest.fail("a step was made"))
    again = finetune(start(), items(), config, tmp_path, evaluate_on=items(4), progress=False)
    assert_same(weights(again.model), weights(wanted.model))
    assert again.log.equals(wanted.log)
    assert again.evaluations.equals(wanted.evaluations)
    assert (again.path, dict(again.snapshots)) == (wanted.path, dict(wanted.snapshots))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_finished_run_is_read_back_as_it_was_in_every_respect(tmp_path, dtype):
    model = start()
    model.model.to(dtype)
    model.model.blocks[0].requires_grad_(False)
    config = changed(drop_path_rate=0.5, p_clean=1, conditions=())
    results = [finetune(model, items(), config, tmp_path, progress=False).model for _ in range(2)]
    first, second = (each.model for each in results)
    assert vl.weights_sha256(first) == vl.weights_sha256(second)
    assert next(second.parameters()).dtype == dtype
    trained = [
        [name for name, each in model.named_parameters() if each.requires_grad] for model in (first, second)
    ]
    assert trained[0] == trained[1]
    assert first.blocks[1].drop_path1.drop_prob == second.blocks[1].drop_path1.drop_prob == 0.5


def test_weights_that_blew_up_in_the_last_step_are_not_returned():
    config = changed(
        steps=1, warmup_steps=0, optimizer="sgd", learning_rate=3e38, max_grad_norm=None, weight_decay=0
    )
    with pytest.raises(vl.errors.TrainingError, match="no finite number after step 0"):
        finetune(start(), items(), config, progress=False)


@pytest.mark.parametrize(
    "surroundings",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_what_surrounds_the_call_changes_nothing(surroundings, precision):
    config = changed(precision=precision, evaluate_every_steps=3)
    wanted = finetune(start(), items(), config, evaluate_on=items(4), progress=False)
    with surroundings():
        result = finetune(start(), items(), config, evaluate_on=items(4), progress=False)
    assert_same(weights(result.model), weights(wanted.model))
    assert result.evaluations.equals(wanted.evaluations)


class Cropping(torch.utils.data.Dataset):
    """Draws from the three generators that augmentations draw from."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        factor = (torch.rand(1).item() + np.random.rand() + random.random()) / 3  # noqa: NPY002
        item = items()[index]
        return item | {"pixels": item["pixels"] * factor}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_set_that_draws_is_drawn_from_alike_however_a_step_is_read(tmp_path, monkeypatch, num_workers):
    config = changed(steps=5)
    wanted = finetune(start(), Cropping(), config, progress=False)
    step = trainer_module.Trainer.step

    def stops(self, number, *args):
        if number == 3:
            raise ZeroDivisionError
        return step(self, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "step", stops)
        with pytest.raises(ZeroDivisionError):
            finetune(start(), Cropping(), config, tmp_path, progress=False, num_workers=num_workers)
    resumed = finetune(start(), Cropping(), config, tmp_path, progress=False, num_workers=num_workers)
    assert_same(weights(resumed.model), weights(wanted.model))


def test_what_a_data_set_draws_leaves_dropout_alone():
    class Drawing(Cropping):
        def __getitem__(self, index):
            super().__getitem__(index)
            return items()[index]

    wanted = finetune(start(), items(), CONFIG, progress=False)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    result = finetune(start(), Drawing(), CONFIG, progress=False)
    assert_same(weights(result.model), weights(wanted.model))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_all_generators_stand_where_they_stood():
    before = random.getstate(), torch.get_rng_state().tolist()
    with all_kept():
        seed_all(3)
        random.random(), torch.rand(1)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_the_model_of_any_checkpoint_can_be_loaded_and_the_best_is_named(tmp_path, ema_decay):
    config = changed(ema_decay=ema_decay, evaluate_every_steps=3, snapshot_steps=(3, 6, 7))
    result = finetune(start(), items(), config, tmp_path, evaluate_on=items(6), progress=False)
    step = int(result.best.stem.removeprefix("step-"))
    assert_same(weights(vl.load(result.best)), weights(vl.load(result.snapshots[step])))
    means = result.evaluations.groupby("step")["top1_accuracy"].mean()
    assert means[step] == means[means.index > 0].max()
    assert vl.load(result.best).provenance["finetuned"]["step"] == step
    assert finetune(start(), items(), CONFIG, progress=False).best is None


def test_a_run_that_was_stopped_has_its_curves(tmp_path, monkeypatch):
    step = trainer_module.Trainer.step

    def pressed(self, number, *args):
        if number == 4:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, *args)

    monkeypatch.setattr(trainer_module.Trainer, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        finetune(start(), items(), CONFIG, tmp_path, progress=False)
    assert "5 of 7" in (tmp_path / "curves.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: (start(), items(), changed(seed=4)), r"config.seed: 0 there, 4 now"),
        (lambda: (start(init_values=0.3), items(), CONFIG), "start:"),
        (lambda: (start(), items(12), CONFIG), "data.n_images: 11 there, 12 now"),
        (lambda: (start(), items(), changed(loss=Consistency())), "config.loss.kind: 'CrossEntropy' there"),
    ],
)
def test_the_folder_of_another_run_is_refused_with_the_differences(tmp_path, change, message):
    finetune(start(), items(), CONFIG, tmp_path, progress=False)
    with pytest.raises(vl.errors.TrainingError, match=message):
        finetune(*change(), tmp_path, progress=False)


def test_the_log_is_the_same_whether_or_not_it_is_kept(tmp_path):
    kept = finetune(start(), items(), CONFIG, tmp_path, progress=False)
    wanted = finetune(start(), items(), CONFIG, progress=False)
    assert without_times(kept.log).equals(without_times(wanted.log))
    assert dataclasses.is_dataclass(kept)
