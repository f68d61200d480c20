"""One batch through all checkpoints and analyses, under every condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..errors import AnalysisError
from ..images import Batch, Condition
from ..models import ActivationCache, HookedViT
from ..names import nearest
from .analysis import (
    Analysis,
    GradientAnalysis,
    PairedAnalysis,
    Pass,
    Reduction,
    SetStatistic,
    State,
)
from .finiteness import Notice, Watch, place_of
from .passes import check_hooks, forward, forward_and_backward, mixed
from .rows import Owner, Rows, checked, set_table
from .showing import moved, shown

_KINDS = {
    GradientAnalysis: ("gradient_hooks", "attribute"),
    PairedAnalysis: ("hooks", "compare"),
    SetStatistic: ("hooks", "update", "merge", "finish"),
    Analysis: ("hooks", "__call__"),
}


class Measurement:
    """What is measured of each batch. Everything that can be refused before the first batch is refused here.

    Args:
        models: checkpoint name -> model.
        conditions: under which.
        analyses: of any kind; what is none is refused.
        precision: as in `run`.
        seed: as in `run`.

    Raises:
        AnalysisError: an analysis cannot run as asked.
        ConditionError, HookError: a condition attacks a checkpoint that is not there, or cannot be attacked.
    """

    def __init__(
        self,
        models: Mapping[str, HookedViT],
        conditions: Sequence[Condition],
        analyses: Sequence[Any],
        precision: str | None,
        seed: int,
    ) -> None:
        self.models, self.conditions = dict(models), tuple(conditions)
        self.precision, self._seed = precision, seed
        self.reference = next(iter(self.models))
        cfg = self.models[self.reference].cfg
        self.n_classes: int | None = cfg.n_classes or None
        self.image_size = cfg.required_image_size
        for condition in self.conditions:
            condition.check(self.models)
        for analysis in analyses:
            if isinstance(getattr(analysis, "image_ids", None), str):
                raise AnalysisError(
                    f"image_ids is {analysis.image_ids!r}.",
                    expected="a tuple of image ids, or None for all",
                    remedy=f"Write image_ids=({analysis.image_ids!r},).",
                )
        asked = [_Asked(analysis, _kind(analysis), place) for place, analysis in enumerate(analyses)]
        of_all = [each for each in asked if each.image_ids is None]
        of_named = [each for each in asked if each.image_ids is not None]
        self.named = _one_set(of_named)
        self._of_all = _Work(of_all, self.models)
        self._of_named = _Work(of_named, self.models)
        self.set_statistics = self._of_all.statistics
        _check_pairs([*self._of_all.pairing, *self._of_named.pairing], self.models, self.conditions)

    def rows(self) -> Rows:
        """Empty rows."""
        return Rows(list(self.models), [condition.name for condition in self.conditions])

    def check_named(self, image_ids: Sequence[str]) -> None:
        """Raise `AnalysisError` for named images that the data set has not, where its ids are known."""
        there = set(image_ids)
        missing = [image for image in self.named if there and image not in there]
        if missing:
            raise AnalysisError(
                f"An analysis names the image '{missing[0]}', which the data set has not.",
                expected=f"ids of its {len(image_ids)} images (nearest: {nearest(missing[0], image_ids)})",
                remedy="See image_id of the data set's items.",
            )

    def measure(self, clean: Batch, rows: Rows, sums: Sums | None, bar: Any) -> None:
        """Add the rows of one batch, and what it adds to the sums.

        Args:
            clean: the images as they are.
            rows: where values per image go.
            sums: where set statistics are added up; None where they have this batch already.
            bar: tqdm's; it advances by the batch for each condition.
        """
        device = self.models[self.reference].device
        clean = moved(clean, device)
        places = [place for place, image in enumerate(clean.image_ids) if image in self.named]
        few = _few(clean, places) if places and self._of_named else None
        rows.add_images(clean.image_ids)
        if few is not None:
            rows.add_images(few.image_ids, "named_image")
        for condition in self.conditions:
            seen = shown(condition, clean, self.models, seed=self._seed)
            self._of_all.do(seen, condition.name, self.precision, rows, sums, "image")
            if few is not None:
                chosen = {name: _few(batch, places) for name, batch in seen.items()}
                self._of_named.do(chosen, condition.name, self.precision, rows, None, "named_image")
            bar.set_postfix_str(condition.name, refresh=False)
            bar.update(len(clean))


class _Asked:
    """An analysis, of which kind it is, and where it stands among those of the run."""

    def __init__(self, analysis: Any, kind: Any, place: int) -> None:
        # Any: the kind says which methods there are.
        self.analysis, self.kind = analysis, kind
        self.owner = Owner(place, type(analysis).__name__)
        self.image_ids: Sequence[str] | None = getattr(analysis, "image_ids", None)


class _Work:
    """Analyses that look at the same images."""

    def __init__(self, asked: Sequence[_Asked], models: Mapping[str, HookedViT]) -> None:
        self._models = models
        self._gradients = [each for each in asked if each.kind is GradientAnalysis]
        self._readers = [each for each in asked if each.kind is not GradientAnalysis]
        self.statistics = [each for each in asked if each.kind is SetStatistic]
        self.pairing = [each for each in asked if each.kind in (PairedAnalysis, SetStatistic)]
        self._wanted: dict[str, list[Mapping[str, Reduction]]] = {}
        self._gradient_hooks: dict[str, list[Sequence[str]]] = {}
        for name, model in models.items():
            self._wanted[name] = [_hooks(each, model) for each in self._readers]
            self._gradient_hooks[name] = [_gradient_hooks(each, model) for each in self._gradients]

    def __bool__(self) -> bool:
        return bool(self._readers or self._gradients)

    def do(
        self,
        shown: Mapping[str, Batch],
        condition: str,
        precision: str | None,
        rows: Rows,
        sums: Sums | None,
        dim: str,
    ) -> None:
        """Make all analyses of one batch under one condition; their rows stand along `dim`."""
        references: dict[int, Pass] = {}
        for checkpoint, model in self._models.items():
            batch = shown[checkpoint]
            with mixed(model, precision):
                notice = rows.not_finite.notices(checkpoint, condition, batch.image_ids)
                made = [
                    *self._read(checkpoint, batch, references, condition, sums, notice),
                    *self._differentiate(checkpoint, batch, notice),
                ]
            for owner, table in made:
                taken = checked(table, owner.who, len(batch))
                rows.add(checkpoint, condition, owner, taken if dim == "image" else taken.rename(image=dim))

    def _read(
        self,
        checkpoint: str,
        batch: Batch,
        references: dict[int, Pass],
        condition: str,
        sums: Sums | None,
        notice: Notice,
    ) -> Iterator[tuple[Owner, Any]]:
        """One forward pass for all that read activations."""
        if not self._readers:
            return
        model = self._models[checkpoint]
        logits, views = forward(
            model,
            batch.pixels,
            self._wanted[checkpoint],
            notice=notice,
            names=[asked.owner.who for asked in self._readers],
        )
        for asked, view in zip(self._readers, views, strict=True):
            if asked.kind is Analysis:
                yield asked.owner, asked.analysis(model, view, logits, batch)
                continue
            # Only what looks at two checkpoints keeps the first one's pass until the others have run.
            seen = Pass(model, view, logits)
            reference = references.setdefault(asked.owner.place, seen)
            if asked.kind is PairedAnalysis:
                yield asked.owner, asked.analysis.compare(reference, seen, batch)
            elif sums is not None:
                sums.update(asked.owner.place, checkpoint, condition, reference, seen, batch)

    def _differentiate(self, checkpoint: str, batch: Batch, notice: Notice) -> Iterator[tuple[Owner, Any]]:
        """One backward pass for all that read gradients."""
        if not self._gradients:
            return
        model, hooks = self._models[checkpoint], self._gradient_hooks[checkpoint]
        names = list(dict.fromkeys(name for each in hooks for name in each))
        passed = forward_and_backward(model, batch.pixels, batch.labels, names)
        watch = Watch(len(batch))
        for name in model.select_hooks(names):
            who = [
                each.owner.who for each, wanted in zip(self._gradients, hooks, strict=True) if name in wanted
            ]
            watch.look(place_of(name, who), passed.activations[name])
            watch.look(f"the gradient at {place_of(name, who)}", passed.gradients[name])
        watch.tell(notice)
        for asked, mine in zip(self._gradients, hooks, strict=True):
            caches = (
                ActivationCache({name: tensors[name] for name in mine}, model)
                for tensors in (passed.activations, passed.gradients)
            )
            yield asked.owner, asked.analysis.attribute(model, *caches, batch)


def _hooks(asked: _Asked, model: HookedViT) -> Mapping[str, Reduction]:
    hooks: Mapping[str, Reduction] = asked.analysis.hooks(model)
    check_hooks(model, hooks, asked.analysis)
    return hooks


def _gradient_hooks(asked: _Asked, model: HookedViT) -> Sequence[str]:
    if not model.cfg.has_classifier:
        raise AnalysisError(
            f"{asked.owner.who} needs the correct class's logit; this model has no classifier.",
            expected="a model with a classification head",
            remedy="Load the classifier's weights with the model, or leave this analysis out.",
        )
    names: Sequence[str] = asked.analysis.gradient_hooks(model)
    check_hooks(model, names, asked.analysis)
    return names


class Sums:
    """What the set statistics of a measurement have added up.

    Args:
        measurement: whose.
    """

    def __init__(self, measurement: Measurement) -> None:
        self._statistics = {each.owner.place: each for each in measurement.set_statistics}
        self._checkpoints = list(measurement.models)
        self._conditions = [condition.name for condition in measurement.conditions]
        self._states: dict[tuple[int, str, str], State] = {}

    def update(
        self,
        place: int,
        checkpoint: str,
        condition: str,
        reference: Pass,
        seen: Pass,
        batch: Batch,
    ) -> None:
        """Add one batch to the statistic that stands at `place`."""
        key = (place, checkpoint, condition)
        self._states[key] = self._statistics[place].analysis.update(
            self._states.get(key), reference, seen, batch
        )

    def packed(self) -> dict[str, np.ndarray]:
        """All sums as named arrays."""
        arrays: dict[str, np.ndarray] = {}
        for (index, checkpoint, condition), state in self._states.items():
            place = f"{index}.{self._checkpoints.index(checkpoint)}.{self._conditions.index(condition)}"
            arrays |= {f"{place}.{name}": tensor.cpu().numpy() for name, tensor in state.items()}
        return arrays

    def add(self, packed: Mapping[str, np.ndarray]) -> None:
        """Merge what `packed` gave, here or in another process."""
        states: dict[tuple[int, str, str], State] = {}
        for place, array in packed.items():
            index, checkpoint, condition, name = place.split(".", 3)
            key = (int(index), self._checkpoints[int(checkpoint)], self._conditions[int(condition)])
            states.setdefault(key, {})[name] = torch.from_numpy(array.copy())
        for key, state in states.items():
            mine = self._states.get(key)
            self._states[key] = (
                state if mine is None else self._statistics[key[0]].analysis.merge(mine, state)
            )

    def finished(self, data: xr.Dataset) -> xr.Dataset:
        """`data` with the set statistics beside the rows.

        Raises:
            AnalysisError: a statistic breaks the protocol, or gives a variable that is there already.
        """
        for place, asked in self._statistics.items():
            who = asked.owner.who
            made = {
                (checkpoint, condition): asked.analysis.finish(self._states[place, checkpoint, condition])
                for checkpoint in self._checkpoints
                for condition in self._conditions
            }
            table = set_table(made, who)
            taken = next((name for name in table.data_vars if name in data), None)
            if taken is not None:
                raise AnalysisError(
                    f"{who} gives the variable '{taken}', which another analysis gives too.",
                    expected="one owner for each variable",
                    remedy="Run them apart, or rename the variable in one of them.",
                )
            data = xr.merge([data, table], join="exact", compat="equals", combine_attrs="drop_conflicts")
        return data


def _kind(analysis: Any) -> Any:
    """Of which protocol an analysis is."""
    if isinstance(analysis, type):
        raise AnalysisError(
            f"{analysis.__name__} is a class.", expected="an analysis", remedy=f"Write {analysis.__name__}()."
        )
    for kind, methods in _KINDS.items():
        if all(hasattr(analysis, method) for method in methods):
            return kind
    raise AnalysisError(
        f"{type(analysis).__name__} is no analysis.",
        expected="the methods of one protocol: "
        + "; or ".join(f"{', '.join(methods)} ({kind.__name__})" for kind, methods in _KINDS.items()),
        remedy="See vitlens.Analysis for what the methods take and return.",
    )


def _check_pairs(
    pairing: Sequence[_Asked], models: Mapping[str, HookedViT], conditions: Sequence[Condition]
) -> None:
    paired = next((each for each in pairing if each.kind is PairedAnalysis), None)
    if paired is not None and len(models) < 2:
        raise AnalysisError(
            f"{paired.owner.who} looks at two checkpoints, and there is one.",
            expected="two or more",
            remedy='Pass {"base": model, "tuned": other} instead of one model.',
        )
    apart = next((condition for condition in conditions if not condition.shares_pixels), None)
    if pairing and apart is not None and len(models) > 1:
        raise AnalysisError(
            f"{pairing[0].owner.who} looks at two checkpoints on the same pixels, and under '{apart.name}' "
            "each checkpoint sees pixels of its own.",
            expected="conditions under which all checkpoints see the same",
            remedy="Run it without this condition, or attack one checkpoint and show its pixels to all: "
            f"'pgd:on={next(iter(models))}'.",
        )


def _one_set(asked: Sequence[_Asked]) -> tuple[str, ...]:
    """The images that all of these analyses name."""
    sets = [each.image_ids or () for each in asked]
    for each, ids in zip(asked, sets, strict=True):
        if isinstance(ids, str) or set(ids) != set(sets[0]):
            raise AnalysisError(
                f"{each.owner.who} names the images {ids!r}, {asked[0].owner.who} {sets[0]!r}.",
                expected="one tuple of image_ids for all analyses of a run",
                remedy="Give all of them the same tuple, or run them apart.",
            )
    return tuple(sets[0]) if sets else ()


def _few(batch: Batch, places: Sequence[int]) -> Batch:
    if len(places) == len(batch):
        return batch
    chosen = list(places)
    return Batch(batch.pixels[chosen], batch.labels[chosen], tuple(batch.image_ids[i] for i in chosen))
