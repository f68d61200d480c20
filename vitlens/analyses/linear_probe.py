"""Linear probes: what a linear map can read from the residual stream, place by place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AnalysisError, CheckpointError
from ..files import check_version, sort_metadata, whole
from ..functional import is_distribution
from ..functional.representation import RIDGES, ridge_regression, varies
from ..images import Batch, ImageDataset, batches, check, n_images, parse_conditions
from ..models import ActivationCache, HookedViT
from ..names import resid_hooks
from ..running.analysis import Reduction
from ..running.passes import forward, measuring
from ..running.showing import shown
from ..running.table import table, where_known
from .representation import row_of

_FORMAT = "1"
_TENSORS = ("mean", "weights", "share", "classes", "ridge")


@dataclass(frozen=True, eq=False, repr=False)
class LinearProbe:
    """One linear classifier for each place on the residual stream, fitted with `LinearProbe.fit`.

    As an analysis it gives, (image, resid_layer), `probe_predicted` and `probe_correct`. Measured on images
    that it was not fitted on, the share correct says how much of the label a linear map can read there. A
    probe belongs to the checkpoint that it was fitted on: on another one it says whether the same directions
    still carry the label. Labels are those of the data set, and need not be the model's classes; for another
    factor of the images, use a data set whose labels are that factor.

    Attributes:
        tokens: what is read, as in `fit`.
        mean: of the features.
        weights: from centered features to scores.
        share: of each class among the images it was fitted on, the score at the mean.
        classes: the labels, ascending.
        ridge: the penalty at each place, in units of the mean variance of a feature; NaN where no feature
            varies, as in the class token before block 0.

    Example:
        >>> import timm, vitlens as vl
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
        >>> model = vl.HookedViT(vit)
        >>> images = [vl.images.digits("train")[i] for i in range(60)]
        >>> probe = LinearProbe.fit(model, images[:40], tokens="patch", progress=False)
        >>> vl.run(model, images[40:], [probe], progress=False)["probe_correct"].dims
        ('condition', 'image', 'resid_layer')
    """

    tokens: str
    mean: Float[Tensor, "resid_layer d_row"]
    weights: Float[Tensor, "resid_layer d_row n_classes"]
    share: Float[Tensor, " n_classes"]
    classes: Int[Tensor, " n_classes"]
    ridge: Float[Tensor, " resid_layer"]

    @classmethod
    def fit(
        cls,
        model: HookedViT,
        dataset: ImageDataset,
        *,
        tokens: str = "pooled",
        ridge: float | None = None,
        conditions: Sequence[Any] = ("clean",),
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        progress: bool = True,
    ) -> LinearProbe:
        """Fit the probes of all places in one pass: ridge regression onto one-hot labels, in closed form.

        Nothing is drawn and nothing is iterated: sums in float64 over the images give the exact solution,
        whatever the batch size but for rounding. The sums take 8 d² bytes a place. Where features are few, a
        class that lies between two others on a line can be masked by them, as in any regression onto classes.

        Args:
            model: the model; it is run in evaluation mode and left as it was.
            dataset: items as in `run`; their labels are what is read.
            tokens: `pooled`, what the model's own pooling hands to its head; or the mean over `all` tokens
                or over those of one kind: `cls`, `patch`, `register`, `distillation`.
            ridge: the penalty, in units of the mean variance of a feature. None takes, for each place, the
                one of `vitlens.functional.representation.RIDGES` with the least generalized
                cross-validation error, which the same sums give: features differ by orders of magnitude in
                scale and spectrum between places and models, and no one value is fair to all.
            conditions: what is done to the images; each image is one row under each condition.
            batch_size: images in a forward pass.
            seed: of the corruptions.
            num_workers: processes that load images.
            progress: show a bar.

        Returns:
            The probes, on the CPU.

        Raises:
            AnalysisError: the model has no such tokens, the penalty is not positive, or all labels are one.
            ConditionError, DatasetError, LabelError, PixelError: what is asked for or given cannot be used.

        Source: Alain & Bengio (2016), "Understanding intermediate layers using linear classifier probes"; the
        penalty by Golub, Heath & Wahba (1979), "Generalized cross-validation as a method for choosing a good
        ridge parameter".
        """
        if ridge is not None and not 0 < ridge < float("inf"):
            raise AnalysisError(
                f"ridge is {ridge}.",
                expected="a positive number, in units of the mean variance of a feature, or None",
                remedy="Leave it out: cross-validation then chooses it.",
            )
        reduce = row_of(model, tokens, "LinearProbe")
        names = resid_hooks(model.cfg.n_layers)
        asked, models = parse_conditions(conditions), {"model": model}
        for condition in asked:
            condition.check(models)
        check(dataset)
        total = n_images(dataset)
        size = model.cfg.required_image_size
        bar = tqdm(
            total=None if total is None else total * len(asked),
            desc="probing",
            unit="image",
            disable=not progress,
        )
        sums = _Sums()
        with bar, measuring([model]):
            for clean in batches(dataset, batch_size, image_size=size, num_workers=num_workers):
                for condition in asked:
                    seen = shown(condition, clean, models, seed=seed)["model"]
                    _, (view,) = forward(model, seen.pixels, [dict.fromkeys(names, reduce)])
                    sums.add(torch.stack([view[name] for name in names]), clean.labels)
                    bar.update(len(clean))
        return sums.solved(tokens, RIDGES if ridge is None else (ridge,))

    # ------------------------------------------------------------------ measuring

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream, reduced to the probe's class as it streams by."""
        reduce, names = row_of(model, self.tokens, "LinearProbe"), resid_hooks(model.cfg.n_layers)
        d_row = reduce(torch.zeros(1, model.cfg.n_prefix_tokens + 1, model.cfg.d_model)).shape[-1]
        if (len(names), d_row) != tuple(self.mean.shape):
            raise AnalysisError(
                f"The probe reads {self.mean.shape[1]} features at {self.mean.shape[0]} places; this model "
                f"has {d_row} at {len(names)}.",
                expected="a model of the shape that the probe was fitted on",
                remedy="Fit a probe on this model.",
            )
        return {name: self._reader(reduce, place, model.device) for place, name in enumerate(names)}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        predicted = torch.stack([cache[name] for name in resid_hooks(model.cfg.n_layers)], dim=1)
        by_place = ("resid_layer",)
        return table(
            {
                "probe_predicted": (
                    by_place,
                    predicted,
                    {"units": "class", "long_name": "Class that the probe reads"},
                ),
                "probe_correct": (
                    by_place,
                    where_known(predicted == batch.labels.unsqueeze(1), ~predicted.isnan()),
                    {"units": "share", "long_name": "Images that the probe reads correctly"},
                ),
            },
            resid_layer=range(predicted.shape[1]),
        )

    def _reader(self, reduce: Callable[[Tensor], Tensor], place: int, device: torch.device) -> Reduction:
        mean, weights, share, classes = (
            tensor.to(device) for tensor in (self.mean[place], self.weights[place], self.share, self.classes)
        )

        def read(resid: Tensor) -> Tensor:
            scores = (reduce(resid) - mean) @ weights + share
            return where_known(classes[scores.argmax(-1)], is_distribution(scores))

        return read

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.tokens.encode())
        for tensor in self._tensors().values():
            digest.update(tensor.numpy().tobytes())
        return (
            f"LinearProbe(tokens='{self.tokens}', n_classes={len(self.classes)}, "
            f"sha256='{digest.hexdigest()[:16]}')"
        )

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the probe to one safetensors file.

        Args:
            path: where to write; made whole or not at all.

        Returns:
            The path.
        """
        with whole(path) as temporary:
            save_file(self._tensors(), temporary, metadata={"vitlens_probe": _FORMAT, "tokens": self.tokens})
            sort_metadata(temporary)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LinearProbe:
        """Read a probe that `save` wrote.

        Args:
            path: the file.

        Returns:
            The probe, equal to the saved one.

        Raises:
            CheckpointError: the file is missing, damaged or no probe.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                check_version(metadata.get("vitlens_probe"), _FORMAT, path)
                # Copies lie where memory is aligned: elsewhere products may round otherwise.
                tensors = {name: file.get_tensor(name).clone() for name in _TENSORS}
                return cls(tokens=metadata["tokens"], **tensors)
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(
                f"{os.fspath(path)} cannot be read as a probe ({type(error).__name__}: {error}).",
                expected="a file that LinearProbe.save wrote",
                remedy="Check the path, or fit the probe anew.",
            ) from error

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).contiguous() for name in _TENSORS}


class _Sums:
    """Products of features, and sums of features by class, about the first batch's mean."""

    def __init__(self) -> None:
        self._n_of: dict[int, int] = {}
        self._sum_of: dict[int, Tensor] = {}
        self._shift: Tensor | None = None
        self._products = torch.zeros(())

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Add [resid_layer batch d_row] features."""
        rows = rows.cpu().double() if rows.device.type == "mps" else rows.double()
        if not bool(rows.isfinite().all()):
            raise AnalysisError(
                "Some features that the probe would be fitted on are NaN or infinite.",
                expected="finite activations",
                remedy="Look for overflow in the model (half precision?) or for damaged weights.",
            )
        if self._shift is None:
            # Features far from 0 would lose digits in their squares.
            self._shift = rows.mean(1, keepdim=True)
            self._products = rows.new_zeros(len(rows), rows.shape[-1], rows.shape[-1])
        rows = rows - self._shift
        self._products += rows.transpose(1, 2) @ rows
        for label in labels.unique().tolist():
            of_class = rows[:, (labels == label).to(rows.device)]
            self._n_of[label] = self._n_of.get(label, 0) + of_class.shape[1]
            self._sum_of[label] = self._sum_of.get(label, 0) + of_class.sum(1)

    def solved(self, tokens: str, ridges: Sequence[float]) -> LinearProbe:
        """The probes of all places."""
        assert self._shift is not None  # a data set without images was refused
        labels = sorted(self._n_of)
        if len(labels) < 2:
            raise AnalysisError(
                f"All images have the label {labels[0]}.",
                expected="at least two labels",
                remedy="Give images of several classes, in any order.",
            )
        counts = torch.tensor([self._n_of[label] for label in labels], dtype=torch.float64)
        n = int(counts.sum())
        target_squares = n - float(counts.square().sum()) / n
        by_class = torch.stack([self._sum_of[label] for label in labels], dim=-1).cpu()
        means, weights, taken = [], [], []
        for place, products in enumerate(self._products):
            shift = self._shift[place, 0].cpu()
            mean = by_class[place].sum(-1) / n
            centered = products.cpu() - n * torch.outer(mean, mean)
            # Features that are one and the same for every image have rounding errors to offer, nothing else.
            centered = centered * varies(centered.trace(), shift + mean, n)
            crossed = by_class[place] - torch.outer(mean, counts)
            fitted, ridge = ridge_regression(centered, crossed, target_squares, n, ridges)
            means.append(shift + mean)
            weights.append(fitted)
            taken.append(ridge)
        return LinearProbe(
            tokens=tokens,
            mean=torch.stack(means).float(),
            weights=torch.stack(weights).float(),
            share=(counts / n).float(),
            classes=torch.tensor(labels),
            ridge=torch.tensor(taken, dtype=torch.float64),
        )
