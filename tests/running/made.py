"""One small analysis of each kind, for the tests of this folder."""

from dataclasses import dataclass

import torch
import xarray as xr

import vitlens as vl

PLACE = "blocks.1.hook_resid_post"


@dataclass(frozen=True)
class Distance:
    """A paired analysis."""

    def hooks(self, model):
        return {PLACE: None}

    def compare(self, reference, checkpoint, batch):
        difference = checkpoint.cache[PLACE] - reference.cache[PLACE]
        return vl.table({"distance": ((), difference.flatten(1).norm(dim=1))})


@dataclass(frozen=True)
class Saliency:
    """A gradient analysis."""

    image_ids: tuple[str, ...] | None = None

    def gradient_hooks(self, model):
        return [PLACE]

    def attribute(self, model, cache, gradients, batch):
        return vl.table({"saliency": ((), (cache[PLACE] * gradients[PLACE]).sum((1, 2)))})


@dataclass(frozen=True)
class Mean:
    """A set statistic."""

    def hooks(self, model):
        return {PLACE: lambda x: x.mean((1, 2)).double()}

    def update(self, state, reference, checkpoint, batch):
        seen = {"sum": checkpoint.cache[PLACE].sum(), "n": torch.tensor(len(batch))}
        return seen if state is None else self.merge(state, seen)

    def merge(self, state, other):
        return {name: state[name] + other[name] for name in state}

    def finish(self, state):
        return xr.Dataset({"mean": float(state["sum"] / state["n"])})


@dataclass(frozen=True)
class Middle:
    """An analysis of named images."""

    image_ids: tuple[str, ...]

    def hooks(self, model):
        return {PLACE: None}

    def __call__(self, model, cache, logits, batch):
        assert set(batch.image_ids) <= set(self.image_ids)
        return vl.table({"middle": (("d_model",), cache[PLACE].mean(1))}, d_model=range(16))
