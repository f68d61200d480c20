"""Two checkpoints or more on the same images: one table, its statistics, its figures and its report."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from ..analyses import AttentionEntropy, LogitLens, Prediction
from ..errors import ComparisonError
from ..images import ImageDataset
from ..models import HookedViT, weights_sha256
from ..running import AnyAnalysis, run, same_architecture
from .examples import choose, show
from .features import match_features
from .summary import summarize

_N_EXAMPLE_CONDITIONS = 2


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was measured of several checkpoints on the same images, a value an image.

    Attributes:
        data: every analysis's variables, dims (checkpoint, condition, image, ...).
        reference: the checkpoint that the others are compared with.
        n_classes: the classifier's outputs.
        examples: a few images with attention maps and predictions; None where there were none.
        features: matched features of sparse autoencoders; None without SAEs.
        class_names: names of the classes, by index.
        provenance: versions, seeds, weights' hashes, data: what is needed to repeat it.
        seed: of the corruptions and of the resampling.
    """

    data: xr.Dataset
    reference: str
    n_classes: int
    examples: xr.Dataset | None = None
    features: pd.DataFrame | None = None
    class_names: Sequence[str] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def summary(
        self,
        *,
        level: float = 0.95,
        margins: Mapping[str, float] | None = None,
        primary: Sequence[str] | None = None,
        n_resamples: int = 2000,
    ) -> pd.DataFrame:
        """Each metric of each checkpoint against the reference, paired over images.

        Args:
            level: of the intervals.
            margins: metric -> the largest difference that counts as none, given before looking; without
                one, nothing is ever called equivalent.
            primary: the metrics whose p-values are corrected together.
            n_resamples: of the bootstrap.

        Returns:
            Columns metric, condition, layer, head, reference, checkpoint, value_reference, value,
            difference, ci_low, ci_high, p_adjusted, margin, verdict, n.
        """
        return summarize(
            self.data,
            reference=self.reference,
            n_classes=self.n_classes or None,
            n_resamples=n_resamples,
            level=level,
            margins=margins,
            primary=primary,
            seed=self.seed,
        )

    def figures(self) -> dict[str, Any]:
        """The figures of the report, by name: plotly figures."""
        from .. import report  # the one door upstairs: the report reads a comparison, and plotly is slow

        return report.figures(self)

    def report(
        self, path: str | PathLike[str], *, title: str | None = None, summary: pd.DataFrame | None = None
    ) -> Path:
        """Write the report: one HTML file that opens with no network.

        Args:
            path: where to write; made whole or not at all.
            title: of the page; by default, which checkpoints are compared.
            summary: the rows to report, from `summary(...)` with margins or primary metrics of your own.

        Returns:
            The path.
        """
        from .. import report

        return report.write(self, path, title=title, summary=summary)


def compare(
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    *,
    analyses: Sequence[AnyAnalysis] | None = None,
    conditions: Sequence[Any] = ("clean",),
    saes: Mapping[str, Sequence[Any]] | None = None,
    unrelated_model: HookedViT | None = None,
    class_names: Sequence[str] | None = None,
    n_examples: int = 4,
    batch_size: int = 32,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
) -> Comparison:
    """Measure several checkpoints of one architecture on the same images under the same conditions.

    Args:
        models: checkpoint name -> model; the first is the reference.
        dataset: items as `vitlens.run` takes them.
        analyses: what to measure; by default `Prediction`, `LogitLens` and `AttentionEntropy`.
        conditions: under which, as in `vitlens.run`. All checkpoints see the same pixels, but under an attack
            that names none (`pgd:on=base` does).
        saes: checkpoint name -> its SAEs, to be matched; `"unrelated"` may be there besides.
        unrelated_model: the random-weight model behind `saes["unrelated"]`.
        class_names: names of the classes, by index, for the figures.
        n_examples: images shown with their attention maps, spread evenly over the data set, besides those
            that an analysis names; 0 for none at all.
        batch_size: images in a forward pass.
        seed: of the corruptions and of the resampling.
        num_workers: processes that load images.
        progress: show bars.

    Returns:
        The comparison.

    Raises:
        ComparisonError: there are fewer than two checkpoints.
        ArchitectureError: their architectures differ.
        AnalysisError, ConditionError, DatasetError, LabelError, PixelError: as `vitlens.run`.

    Example:
        >>> import timm, vitlens as vl
        >>> base, tuned = (
        ...     vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        ...     for _ in range(2)
        ... )
        >>> images = [vl.images.digits("test")[i] for i in range(8)]
        >>> comparison = compare({"base": base, "tuned": tuned}, images, progress=False)
        >>> comparison.data["rank"].dims
        ('checkpoint', 'condition', 'image')
    """
    _check_models(models)
    reference, model = next(iter(models.items()))
    if analyses is None:
        has_classes = model.cfg.n_classes > 0 and model.cfg.pool != "none"
        classified: list[AnyAnalysis] = [Prediction(), LogitLens()] if has_classes else []
        analyses = [*classified, AttentionEntropy()]
    data = run(
        models,
        dataset,
        analyses,
        conditions=conditions,
        batch_size=batch_size,
        seed=seed,
        num_workers=num_workers,
        progress=progress,
    )
    named = {image for analysis in analyses for image in getattr(analysis, "image_ids", None) or ()}
    items = choose(dataset, n_examples, sorted(named)) if n_examples and model.cfg.n_classes else []
    shown = list(conditions)[:_N_EXAMPLE_CONDITIONS]
    return Comparison(
        data=data,
        reference=reference,
        n_classes=model.cfg.n_classes,
        examples=show(models, items, shown, seed=seed) if items else None,
        features=None
        if saes is None
        else match_features(
            models,
            saes,
            dataset,
            unrelated_model=unrelated_model,
            batch_size=batch_size,
            progress=progress,
        ),
        class_names=class_names,
        provenance=_provenance(models, dataset, data, seed),
        seed=seed,
    )


def _check_models(models: Mapping[str, HookedViT]) -> None:
    if len(models) < 2:
        raise ComparisonError(
            f"There are {len(models)} checkpoints.",
            expected="two or more",
            remedy='Pass {"base": ..., "tuned": ...}; for one model use vitlens.run.',
        )
    same_architecture(models)


def _provenance(
    models: Mapping[str, HookedViT], dataset: ImageDataset, data: xr.Dataset, seed: int
) -> dict[str, Any]:
    ids = "\n".join(str(image) for image in data["image"].values)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{
                name: importlib.metadata.version(name)
                for name in ("vitlens", "torch", "timm", "transformer-lens", "sae-lens")
            },
        },
        "seed": seed,
        "conditions": [str(condition) for condition in data["condition"].values],
        "images": {
            "data set": type(dataset).__name__,
            "n": int(data.sizes["image"]),
            "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        },
        "checkpoints": {
            name: {
                "weights_sha256": weights_sha256(model),
                "mean": [float(value) for value in model.data_config["mean"]],
                "std": [float(value) for value in model.data_config["std"]],
                **model.provenance,
            }
            for name, model in models.items()
        },
    }
