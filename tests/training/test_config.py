"""The recipe: what makes no sense is refused when it is written down."""

import json

import pytest
from small_runs import changed

import vitlens as vl
from vitlens.training.config import FinetuneConfig
from vitlens.training.losses import Trades


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_clean": 1.5}, r"p_clean is 1.5. Expected: a probability"),
        ({"conditions": ()}, "p_clean is 0.5.*1, as there are no conditions"),
        ({"steps": 0}, "steps is 0"),
        ({"epochs": 2}, "steps is 7. Expected: None, as epochs is given"),
        ({"steps": None, "epochs": 0}, "epochs is 0"),
        ({"accumulation_steps": 5}, "accumulation_steps is 5. Expected: at most batch_size = 4"),
        ({"warmup_steps": 7}, r"warmup_steps is 7. Expected: 0 to steps - 1 = 6"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"layer_decay": 0.0}, "layer_decay is 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1"),
        ({"ema_decay": 1.0}, "ema_decay is 1"),
        ({"precision": "fp8"}, "precision is 'fp8'. Expected: None, 'bfloat16', 'float16'"),
        ({"new_head": 0}, "new_head is 0"),
        ({"snapshot_steps": (3, 8)}, r"snapshot_steps is \(3, 8\).*above the run's 7 steps"),
        ({"evaluate_every_steps": 0}, "evaluate_every_steps is 0"),
        ({"optimizer": "adamww"}, "optimizer is 'adamww'.*nearest: 'adamw'"),
        ({"optimizer": "adahessian"}, "optimizer is 'adahessian'.*gradients alone"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"steps": True}, "steps is True. Expected: a whole number or None"),
        ({"trainable": ()}, r"trainable is \(\)"),
        ({"conditions": "gaussian_blur@3"}, "conditions is .*Expected: a list or tuple of conditions"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(vl.errors.TrainingError, match=message):
        changed(**change)


def test_an_unknown_condition_is_refused_before_anything_is_run():
    with pytest.raises(vl.errors.ConditionError, match="gaussian_noise"):
        FinetuneConfig(conditions=["gausian_noise@3"])
    with pytest.raises(vl.errors.ConditionError, match="gaussian_noise"):
        FinetuneConfig(p_clean=1, evaluation_conditions=["gausian_noise@3"])


def test_a_recipe_is_its_own_and_does_not_change():
    names = ["gaussian_noise@1-5"]
    config = changed(conditions=names, trainable=("head",), snapshot_steps=(2, 0, 2))
    names.append("contrast@2")
    assert config.conditions == ("gaussian_noise@1-5",)
    assert config == changed(conditions=names[:1], trainable="head", snapshot_steps=(0, 2))
    assert len({config, changed(conditions=names[:1], trainable="head", snapshot_steps=(0, 2))}) == 1


@pytest.mark.parametrize(
    ("epochs", "n_items", "n_steps"),
    [(1, 8, 2), (1, 9, 3), (0.5, 16, 2), (3, 10, 8), (1.1, 40, 11), (2.2, 40, 22), (0.55, 80, 11)],
)
def test_epochs_end_with_a_whole_step(epochs, n_items, n_steps):
    assert FinetuneConfig(p_clean=1, epochs=epochs, batch_size=4).n_steps(n_items) == n_steps


def test_a_thousand_steps_are_made_where_nothing_is_said():
    assert FinetuneConfig(p_clean=1).n_steps(5) == 1000


def test_a_warm_up_longer_than_the_epochs_is_refused_once_the_data_are_known():
    config = FinetuneConfig(p_clean=1, epochs=1, batch_size=4, warmup_steps=3)
    assert config.n_steps(16) == 4
    with pytest.raises(vl.errors.TrainingError, match="0 to steps - 1 = 2"):
        config.n_steps(12)


def test_a_recipe_is_described_in_json_that_tells_it_from_others():
    own = {"half": lambda pixels: pixels / 2}
    config = changed(conditions=["contrast@1-5", own], loss=Trades(beta=3.0), trainable=("norm", "head"))
    said = json.loads(json.dumps(config.described()))
    assert said["conditions"] == ["contrast@1-5", "half"]
    assert said["loss"]["kind"] == "Trades"
    assert said["loss"]["beta"] == 3.0
    assert said["trainable"] == ["norm", "head"]
    assert said != changed(conditions=["contrast@1-5", own], loss=Trades()).described()


def test_a_group_of_corruptions_is_one_entry_with_many_conditions():
    (blurs, noise) = changed(conditions=["removes_high_frequency@3", "gaussian_noise@1-2"]).choices()
    assert len(blurs) > 1
    assert [condition.name for condition in noise] == ["gaussian_noise@1", "gaussian_noise@2"]
