"""A comparison: one table of several checkpoints, its statistics, its figures, its report and its file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from ..errors import CheckpointError
from . import exporting, notebook, stored_galleries, storing
from .summary import summarize
from .transfer import transfer


@dataclass(frozen=True, eq=False, repr=False)
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
        similarity: how alike the checkpoints' dictionaries of features are; None without SAEs.
        transfer: what was gained on seen conditions and on unseen ones, from `with_transfer`.
        galleries: heading -> `vitlens.saes.Gallery`: matched, lost and new features with their images; None
            without any.

    Example:
        See `compare`, which makes one.
    """

    data: xr.Dataset
    reference: str
    n_classes: int
    examples: xr.Dataset | None = None
    features: pd.DataFrame | None = None
    class_names: Sequence[str] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    similarity: pd.DataFrame | None = None
    transfer: pd.DataFrame | None = None
    galleries: Mapping[str, Any] | None = None

    def summary(
        self,
        *,
        level: float = 0.95,
        margins: Mapping[str, float] | None = None,
        primary: Sequence[str] | None = None,
        pools: Mapping[str, Sequence[str]] | None = None,
        pools_only: bool = False,
        n_resamples: int = 2000,
    ) -> pd.DataFrame:
        """Each metric of each checkpoint against the reference, paired over images.

        Args:
            level: of the intervals.
            margins: metric -> the largest difference that counts as none, given before looking; without
                one, nothing is ever called equivalent.
            primary: the metrics whose p-values are corrected together.
            pools: name -> conditions taken together, each image counting once, as in `summarize`.
            pools_only: leave the single conditions out.
            n_resamples: of the bootstrap.

        Returns:
            Columns metric, condition, layer, head, reference, checkpoint, value_reference, value,
            difference, ci_low, ci_high, p_adjusted, margin, verdict, n, effect_size, effect_size_kind.
        """
        return summarize(
            self.data,
            reference=self.reference,
            n_classes=self.n_classes or None,
            n_resamples=n_resamples,
            level=level,
            margins=margins,
            primary=primary,
            pools=pools,
            pools_only=pools_only,
            seed=self.seed,
        )

    def with_transfer(
        self,
        *,
        seen: Sequence[str],
        unseen: Sequence[str],
        level: float = 0.95,
        metrics: Sequence[str] | None = None,
        n_resamples: int = 2000,
    ) -> Comparison:
        """The same comparison with the table `transfer`, which its report then shows.

        Args:
            seen: conditions that training has seen.
            unseen: conditions that it has not.
            level: of the intervals.
            metrics: as for `vitlens.comparison.transfer.transfer`.
            n_resamples: of the bootstrap.

        Returns:
            A new comparison; this one is left as it is. Where there is no condition `clean` the table has no
            shares of gaps closed.

        Raises:
            ComparisonError: a group is empty, or a condition is unknown or in both.
        """
        table = transfer(
            self.data,
            seen=seen,
            unseen=unseen,
            reference=self.reference,
            clean="clean" if "clean" in self.data["condition"].values else None,
            metrics=metrics,
            n_classes=self.n_classes or None,
            level=level,
            n_resamples=n_resamples,
            seed=self.seed,
        )
        return replace(self, transfer=table)

    def figures(self) -> dict[str, Any]:
        """The figures of the report, by name: plotly figures."""
        from .. import report  # the one door upstairs: the report reads a comparison, and plotly is slow

        return report.figures(self)

    def report(
        self, path: str | os.PathLike[str], *, title: str | None = None, summary: pd.DataFrame | None = None
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

    def export(
        self,
        folder: str | os.PathLike[str],
        formats: Sequence[str] = ("svg", "pdf"),
        *,
        figures: Mapping[str, Any] | None = None,
        scale: float = 2.0,
    ) -> list[Path]:
        """Write every figure as an image, named by its key, such as `accuracy.svg`.

        Args:
            folder: where to; made if need be.
            formats: some of `svg`, `pdf` and `png`.
            figures: what to write, by default all of `figures()`.
            scale: pixels of a PNG for each pixel of the figure's layout.

        Returns:
            The files.

        Raises:
            ComparisonError: a format is none of these, or kaleido, which draws them, is not installed.
        """
        # What would be refused is refused before the figures are drawn.
        exporting.check(folder, formats, scale)
        return exporting.export(self.figures() if figures is None else figures, folder, formats, scale=scale)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Keep all of it in one file, from which `load` makes it again, bit for bit.

        Args:
            path: where to write, such as "comparison.safetensors"; made whole or not at all.

        Returns:
            The path.

        Raises:
            ComparisonError: something in it is neither number, text nor a table of them, or `path` is a
                folder.
            SpaceError: the disk is full.

        Example:
            >>> import tempfile
            >>> data = xr.Dataset({"rank": (("checkpoint", "condition", "image"), [[[0, 3]], [[0, 0]]])})
            >>> path = Comparison(data, "base", 10).save(tempfile.mkdtemp() + "/comparison.safetensors")
            >>> Comparison.load(path).data.identical(data)
            True
        """
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.galleries is not None:
            parts["galleries"] = stored_galleries.plain(self.galleries)
        return storing.write(path, parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read what `save` kept, or what `compare` left in the folder of its `output`.

        Args:
            path: the file or the folder.

        Returns:
            The comparison; no model and no data set is needed.

        Raises:
            CheckpointError: the file is missing, damaged, or holds no comparison.
        """
        parts = storing.read(path)
        if parts.get("galleries") is not None:
            try:
                parts["galleries"] = stored_galleries.made(parts["galleries"])
            except Exception as error:  # whatever a content that was never written by `save` leads to
                raise storing.damaged(path, f"galleries: {type(error).__name__}: {error}") from error
        try:
            return cls(**parts)
        except TypeError as error:
            raise CheckpointError(
                f"{path} holds {', '.join(parts) or 'nothing'}.",
                expected=f"{', '.join(each.name for each in fields(cls))}: the parts of a comparison",
                remedy="Read it with the version of vitlens that wrote it.",
            ) from error

    def __repr__(self) -> str:
        return f"Comparison({notebook.subject(self.data, self.reference)})"

    def _repr_html_(self) -> str:
        # Maps over layers and heads have many rows, take longest, and are not shown.
        maps = [name for name, values in self.data.items() if {"layer", "head"} & {*values.dims}]
        rows = replace(self, data=self.data.drop_vars(maps)).summary()
        return notebook.html(self.data, self.reference, rows)
