"""An error or Ctrl-C inside a hook or an analysis leaves the user's models and torch as they were."""

import multiprocessing
import os
from dataclasses import dataclass

import pytest
import torch
from small import items, model

import vitlens as vl
from vitlens import analyses
from vitlens.images import batches
from vitlens.saes import ActivationStore

PLACE = "blocks.1.hook_resid_post"
NAMES = ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"]


class Stopped(Exception):  # noqa: N818  # what a user may call it
    """What a user's own code raises."""


def state(*models):
    """All that a run might have changed of models and of torch."""
    modules = [module for each in models for module in each.modules()]
    return {
        "modes": [module.training for module in modules],
        "hooks": [len(getattr(module, name)) for module in modules for name in NAMES],
        "observers": [len(point.observers) for each in models for point in each.hook_dict.values()],
        "guards": [(each._guard.active, len(each._guard.storages)) for each in models],
        "attributes": [sorted(vars(module)) for each in models for module in each.model.modules()],
        "wants gradients": [parameter.requires_grad for each in models for parameter in each.parameters()],
        "gradients": [parameter.grad is None for each in models for parameter in each.parameters()],
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "generator": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@dataclass(frozen=True)
class Stops:
    """An analysis that is stopped in its second batch, where it is told to be."""

    where: str
    error: type[BaseException]

    def hooks(self, model):
        def reduce(activation):
            if self.where == "reduction":
                raise self.error("stopped")
            return activation

        return {PLACE: reduce, "blocks.0.attn.hook_pattern": None}

    def __call__(self, model, cache, logits, batch):
        if self.where == "analysis" and "image 2" in batch.image_ids:
            raise self.error("stopped")
        return vl.table({"norm": ((), cache[PLACE].flatten(1).norm(dim=1))})


@dataclass(frozen=True)
class StopsInGradients:
    """A gradient analysis that is stopped."""

    error: type[BaseException]

    def gradient_hooks(self, model):
        return [PLACE]

    def attribute(self, model, cache, gradients, batch):
        raise self.error("stopped")


ERRORS = [Stopped, KeyboardInterrupt, MemoryError]
CALLS = {
    "run, in an analysis": lambda both, error: vl.run(
        both["a"], items(4), [Stops("analysis", error)], batch_size=2, precision="bfloat16", progress=False
    ),
    "run, in a reduction": lambda both, error: vl.run(
        both, items(4), [Stops("reduction", error)], precision="float16", progress=False
    ),
    "run, in gradients": lambda both, error: vl.run(
        both, items(4), [vl.Prediction(), StopsInGradients(error)], precision="bfloat16", progress=False
    ),
    "compare, in an analysis": lambda both, error: vl.compare(
        both,
        items(4),
        analyses=[Stops("analysis", error)],
        batch_size=2,
        precision="bfloat16",
        progress=False,
    ),
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_measurement_that_is_stopped_leaves_everything_as_it_was(call, error):
    both = {"a": model(0), "b": model(1)}
    for each in both.values():
        each.train()
        each.model.blocks[0].eval()  # modes that differ by module come back as they were
    before = state(*both.values())
    with pytest.raises(error):
        call(both, error)
    assert state(*both.values()) == before
    # And the models are as good as ever.
    data = vl.run(both["a"], items(4), [vl.Prediction()], progress=False)
    fresh = vl.run(model(0), items(4), [vl.Prediction()], progress=False)
    assert data.identical(fresh)


READS = {
    "activations": lambda made, _: vl.activations(made, items(4), PLACE, progress=False),
    "store": lambda made, folder: ActivationStore.write(
        folder, made, items(4), hook_names=[PLACE], progress=False
    ),
    "probe": lambda made, _: analyses.LinearProbe.fit(made, items(20), progress=False),
    "attack": lambda made, _: vl.pgd(
        made,
        torch.stack([item["pixels"] for item in items(2)]),
        torch.tensor([0, 1]),
        eps_pixel=4 / 255,
        alpha_pixel=1 / 255,
        steps=2,
    ),
    "transplant": lambda made, _: vl.transplant(
        made, made, torch.stack([item["pixels"] for item in items(2)]), [PLACE]
    ),
    "integrated gradients": lambda made, _: vl.run(
        made, items(2), [vl.analyses.IntegratedGradients(n_steps=2)], precision="bfloat16", progress=False
    ),
    "ablation": lambda made, _: vl.run(
        made, items(2), [vl.analyses.Ablation()], precision="bfloat16", progress=False
    ),
    "cache": lambda made, _: made.run_with_cache(torch.zeros(2, 3, 32, 32)),
    "hooks": lambda made, _: made.run_with_hooks(
        torch.zeros(2, 3, 32, 32), fwd_hooks=[(PLACE, lambda x, hook: x)]
    ),
}


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_model_whose_own_hook_fails_is_left_with_that_hook_alone(read, error, tmp_path):
    made = model()

    def fail(module, given):
        raise error("stopped")

    handle = made.model.blocks[0].mlp.fc1.register_forward_pre_hook(fail)
    made.train()
    before = state(made)
    with pytest.raises(error):
        read(made, tmp_path / "store")
    assert state(made) == before
    handle.remove()
    assert sum(state(made)["hooks"]) == 0


WORKERS = {
    "run": lambda made, folder: vl.run(
        made, items(12), [vl.Prediction()], batch_size=2, num_workers=2, progress=False
    ),
    "store": lambda made, folder: ActivationStore.write(
        folder, made, items(12), hook_names=[PLACE], batch_size=2, num_workers=2, progress=False
    ),
    "fine-tuning": lambda made, folder: vl.training.finetune(
        made,
        items(12),
        vl.training.FinetuneConfig(p_clean=1, steps=6, batch_size=2),
        num_workers=2,
        progress=False,
    ),
}


@pytest.mark.parametrize("call", WORKERS.values(), ids=WORKERS)
def test_workers_end_with_the_error_though_its_traceback_is_kept(call, monkeypatch, tmp_path):
    made = model()
    before = set(multiprocessing.active_children())
    forward = torch.nn.Linear.forward

    def fails(module, given):
        if set(multiprocessing.active_children()) <= before:  # not yet at work
            return forward(module, given)
        raise Stopped("stopped")

    monkeypatch.setattr(torch.nn.Linear, "forward", fails)
    with pytest.raises(Stopped) as kept:
        call(made, tmp_path / "store")
    assert kept.value.__traceback__ is not None
    assert set(multiprocessing.active_children()) <= before


def test_workers_end_with_an_error_of_their_loader():
    class Dies(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            if torch.utils.data.get_worker_info() is not None and index == 5:
                os._exit(1)
            return items(8)[index]

    before = set(multiprocessing.active_children())
    with pytest.raises(RuntimeError, match="worker") as kept:
        list(batches(Dies(), 2, num_workers=2))
    assert kept.value.__traceback__ is not None
    assert set(multiprocessing.active_children()) <= before
