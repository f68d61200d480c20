"""The batch of a step: which images, and what is done to each, from (seed, image, step) alone."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Sampler

from ..errors import DatasetError, TrainingError
from ..images import Attack, Batch, Condition, WhiteBox
from ..images.fourier import FourierPerturbation
from ..images.streams import stream
from ..models import HookedViT, evaluating
from .generators import kept, seed_torch


class Place(NamedTuple):
    """Where an item stands in a run.

    Attributes:
        step: the optimizer step.
        item: its index in the data set.
        occurrence: how often it came earlier in the step.
    """

    step: int
    item: int
    occurrence: int


class StepOrder:
    """Which items make up each step: epochs of fresh permutations, cut into steps across their ends.

    A step's items can be shared out in parts that follow one another, among processes and accumulated
    batches; the sizes of two parts differ by one at most.

    Args:
        n_items: size of the data set.
        batch_size: items of an optimizer step, over all its parts.
        seed: of the permutations.

    Example:
        >>> order = StepOrder(n_items=5, batch_size=3, seed=0)
        >>> sorted(order.part(0) + order.part(1)[:2])
        [0, 1, 2, 3, 4]
        >>> order.part(0, n_parts=2, part=0) + order.part(0, n_parts=2, part=1) == order.part(0)
        True
    """

    def __init__(self, n_items: int, batch_size: int, seed: int) -> None:
        self.n_items, self.batch_size, self.seed = n_items, batch_size, seed
        # Two: a step that begins in one epoch may end in the next, and is read part by part.
        self._epoch = lru_cache(maxsize=2)(self._drawn_epoch)

    def part(self, step: int, n_parts: int = 1, part: int = 0) -> list[int]:
        """The items of one part of a step, by their index in the data set.

        Args:
            step: the optimizer step, from 0.
            n_parts: into how many parts the step is shared out.
            part: which of them, from 0.
        """
        bounds = [number * self.batch_size // n_parts for number in (part, part + 1)]
        return self._items(step, *bounds)

    def occurrences(self, step: int, n_parts: int = 1, part: int = 0) -> list[int]:
        """How often each of these items came earlier in the step: 0, but where epochs meet.

        Args:
            step: as for `part`.
            n_parts: as for `part`.
            part: as for `part`.
        """
        before = self._items(step, 0, part * self.batch_size // n_parts)
        return _earlier([*before, *self.part(step, n_parts, part)])[len(before) :]

    def sampler(self, steps: range, n_parts: int = 1, parts: Sequence[int] = (0,)) -> PartSampler:
        """Batches of places for a `DataLoader`: for each step, the parts that are one process's own.

        Args:
            steps: the steps, in order.
            n_parts: into how many parts each is shared out.
            parts: which of them are wanted.
        """
        return PartSampler(self, steps, n_parts, tuple(parts))

    def _items(self, step: int, first: int, end: int) -> list[int]:
        start = step * self.batch_size
        return [self._item(position) for position in range(start + first, start + end)]

    def _item(self, position: int) -> int:
        epoch, place = divmod(position, self.n_items)
        return self._epoch(epoch)[place]

    def _drawn_epoch(self, epoch: int) -> list[int]:
        generator = stream(self.seed, f"epoch {epoch}", "order", 0)
        order: list[int] = torch.randperm(self.n_items, generator=generator).tolist()
        return order


@dataclass(frozen=True)
class PartSampler(Sampler[list[Place]]):
    """Some parts of some steps, one batch of places each; what `StepOrder.sampler` gives."""

    order: StepOrder
    steps: range
    n_parts: int = 1
    parts: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.steps) * len(self.parts)

    def __iter__(self) -> Iterator[list[Place]]:
        for step in self.steps:
            for part in self.parts:
                shared = (step, self.n_parts, part)
                items = zip(self.order.part(*shared), self.order.occurrences(*shared), strict=True)
                yield [Place(step, *item) for item in items]


@dataclass(frozen=True)
class Mix:
    """What is done to the images: clean with a stated probability, else through a condition that is drawn.

    Attributes:
        choices: the entries to draw from, evenly; within an entry its conditions, such as the severities of
            a range, are drawn evenly. Without any, all images stay clean.
        p_clean: probability that an image stays clean, for each image by itself.
        seed: of the draws, and of the corruptions.

    Raises:
        TrainingError: the probability is none, or an attack names a checkpoint to be attacked.

    Example:
        >>> from vitlens.images import parse_conditions
        >>> mix = Mix((parse_conditions(["gaussian_noise@1-5"]),), p_clean=0.5, seed=0)
        >>> batch = Batch(torch.full((4, 3, 8, 8), 0.5), torch.zeros(4).long(), ("a", "b", "c", "d"))
        >>> drawn = mix.batch(batch, step=0).drawn()
        >>> (drawn == batch.pixels).flatten(1).all(1)
        tensor([ True, False, False,  True])
    """

    choices: tuple[tuple[Condition, ...], ...] = ()
    p_clean: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.p_clean <= 1:
            raise TrainingError(
                f"p_clean is {self.p_clean!r}.", expected="a probability, 0 to 1", remedy="Correct it."
            )
        for condition in self.conditions:
            if condition.attacked_checkpoint is not None:
                raise TrainingError(
                    f"The condition '{condition.name}' attacks the checkpoint "
                    f"'{condition.attacked_checkpoint}', and in training there is one model.",
                    expected="an attack without on=",
                    remedy="Leave out on= to attack the model in training as it is at each step.",
                )

    @property
    def conditions(self) -> list[Condition]:
        """The conditions of all entries."""
        return [condition for entry in self.choices for condition in entry]

    def check(self, model: HookedViT) -> None:
        """Refuse, before the run, what cannot be done to this model or to images of its size.

        Args:
            model: the model that will be trained.

        Raises:
            ConditionError: an attack finds no classifier, or a Fourier band no frequency.
            HookError: an attack aims at a hook that the model lacks.
        """
        size = None if model.cfg.any_image_size else model.cfg.image_size
        for condition in self.conditions:
            if isinstance(condition.corruption, Attack):
                condition.corruption.check(model)
            if isinstance(condition.corruption, FourierPerturbation) and size is not None:
                condition.corruption.check_size(*size)

    def batch(
        self,
        batch: Batch,
        *,
        step: int,
        occurrences: Sequence[int] | None = None,
        model: HookedViT | None = None,
    ) -> StepBatch:
        """One part of a step, with what the mix makes of it.

        Args:
            batch: the clean images and their labels, on the device where they are to be corrupted.
            step: the optimizer step.
            occurrences: how often each image came earlier in the step, in other parts as well
                (`StepOrder.occurrences`); None counts within the batch, which is right for a whole step.
            model: the model in training, for conditions that look inside it.

        Returns:
            The part; nothing is drawn yet.

        Raises:
            DatasetError: two images have one name.
        """
        if occurrences is None:
            occurrences = _earlier(batch.image_ids)
        apart = tuple(
            f"{image_id}\n{before + 1}" if before else image_id
            for image_id, before in zip(batch.image_ids, occurrences, strict=True)
        )
        twice = next((name for name, before in zip(apart, _earlier(apart), strict=True) if before), None)
        if twice is not None:
            raise DatasetError(
                f"Two images of step {step} have the image_id {twice!r}.",
                expected="a name for each image that no other has, as corruptions are drawn by it",
                remedy="Give each item an image_id of its own, such as its path in the data set.",
            )
        return StepBatch(batch.pixels, batch.labels, apart, self.seed, step, self, model)

    def draw(self, stream_id: str, step: int) -> tuple[int, int] | None:
        """What one image goes through: entry and condition within it; None where it stays clean.

        Args:
            stream_id: the image's name, and which of its versions (`StepBatch.stream_ids`).
            step: the optimizer step.
        """
        generator = stream(self.seed, stream_id, "mix", 0, step)
        # Double: in float32 a probability would be rounded to 24 bits.
        clean, entry, within = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        if not self.choices or clean < self.p_clean:
            return None
        chosen = int(entry * len(self.choices))
        return chosen, int(within * len(self.choices[chosen]))


@dataclass(frozen=True)
class StepBatch:
    """Some images of a step: clean, and as often as one likes through the mix.

    What is drawn for an image depends on the seed, its id, the step and the number of the version alone: not
    on the other images of the batch, nor on their order. So a step may be split into any parts.

    Attributes:
        clean: the pixels, in [0, 1].
        labels: the correct classes, on the device of `clean`.
        image_ids: the images' names, no two alike: an image's second and further times in the step are
            marked.
        seed: of the draws.
        step: the optimizer step.
        mix: what the images go through.
        model: the model as it is now, for conditions that look inside it.

    Example:
        See `Consistency`, whose `views` asks one for two versions.
    """

    clean: Float[Tensor, "batch 3 height width"]
    labels: Int64[Tensor, " batch"]
    image_ids: tuple[str, ...]
    seed: int
    step: int
    mix: Mix = field(default_factory=Mix, repr=False)
    model: HookedViT | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    def stream_ids(self, version: str = "") -> list[str]:
        """What the images' random streams are named by, for one version of them.

        Args:
            version: a name of the version; the step's own has none.

        Returns:
            A name an image.
        """
        return [f"{image_id}\n{version}" if version else image_id for image_id in self.image_ids]

    def drawn(self, k: int = 0) -> Float[Tensor, "batch 3 height width"]:
        """A version of each image through the mix, independent of the others.

        An operation of one's own sees, in one batch, those images of the part that drew it. What it does to
        one must not hang on the others, or the result depends on how a step is split. What it draws from
        torch's own generators is drawn from a stream of the step and these images, and the generators are
        left as they were.

        Args:
            k: which version; 0 is the step's own.

        Returns:
            Pixels in [0, 1], without a graph, of the dtype and on the device of `clean`.

        Raises:
            ConditionError: one's own operation gave no such pixels, or a condition needs a model and there
                is none.
            PixelError: the pixels cannot be corrupted.
        """
        ids = self.stream_ids(f"version {k}" if k else "")
        groups: dict[tuple[int, int], list[int]] = {}
        # By name, so that an operation of one's own sees the same batch in whatever order images come.
        for place in sorted(range(len(ids)), key=ids.__getitem__):
            choice = self.mix.draw(ids[place], self.step)
            if choice is not None:
                groups.setdefault(choice, []).append(place)
        pixels = self.clean.detach().clone()
        for (entry, within), places in groups.items():
            rows = torch.tensor(places, device=pixels.device)
            changed = self._changed(
                self.mix.choices[entry][within], self.clean[rows], [ids[i] for i in places], self.labels[rows]
            )
            pixels[rows] = changed
        return pixels

    def _changed(self, condition: Condition, pixels: Tensor, stream_ids: list[str], labels: Tensor) -> Tensor:
        with (
            torch.no_grad(),
            torch.autocast(pixels.device.type, enabled=False),
            self._evaluating(condition),
            _own_draws(condition, pixels.device, self.seed, stream_ids[0], self.step),
        ):
            return condition.apply(
                pixels, stream_ids, seed=self.seed, step=self.step, model=self.model, labels=labels
            )

    def _evaluating(self, condition: Condition) -> contextlib.AbstractContextManager[None]:
        """Evaluation mode for what looks inside the model."""
        if condition.needs_model and self.model is not None:
            return evaluating([self.model])
        return contextlib.nullcontext()


def _earlier(names: Sequence[Hashable]) -> list[int]:
    """For each of `names`, how often it comes before."""
    seen: Counter[Hashable] = Counter()
    counted = []
    for name in names:
        counted.append(seen[name])
        seen[name] += 1
    return counted


@contextlib.contextmanager
def _own_draws(
    condition: Condition, device: torch.device, seed: int, stream_id: str, step: int
) -> Iterator[None]:
    """Generators of torch seeded for an operation of one's own, and afterwards as they were."""
    if not (callable(condition.corruption) or isinstance(condition.corruption, WhiteBox)):
        yield
        return
    with kept(device):
        seed_torch(device, stream(seed, stream_id, condition.name, 0, step).initial_seed())
        yield
