"""Rows: what analyses return, batch by batch, checked and put together; every join is exact."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..errors import AnalysisError, DatasetError
from ..images import BAD_IMAGES
from ..names import some
from .finiteness import NOT_FINITE, NotFinite, joined_records

LEADING = ("checkpoint", "condition")
IMAGE_DIMS = ("image", "named_image")
"""Where rows stand: every image's, or those of the images that an analysis named."""


class Owner(NamedTuple):
    """Who gives a variable.

    Attributes:
        place: where the analysis stands among those of the run; two may be of one class.
        who: its class.
    """

    place: int
    who: str


class _Described(NamedTuple):
    dims: tuple[Hashable, ...]
    sizes: dict[Hashable, int]
    attrs: dict[str, Any]
    owner: Owner


class Rows:
    """The rows of some consecutive images under every condition, for every checkpoint.

    Args:
        checkpoints: their names.
        conditions: their names.

    Attributes:
        bad_images: images among these that could not be read, and so have no rows: id or position -> reason.
        not_finite: where images had numbers that are not finite; with the table as an attribute.
    """

    def __init__(self, checkpoints: Sequence[str], conditions: Sequence[str]) -> None:
        self._names = {"checkpoint": list(checkpoints), "condition": list(conditions)}
        self._ids: dict[str, list[str]] = {dim: [] for dim in IMAGE_DIMS}
        self._described: dict[str, _Described] = {}
        self._coords: dict[str, xr.Variable] = {}
        self._cells: dict[tuple[str, str, str], _Grown] = {}
        self.bad_images: dict[str, str] = {}
        self.not_finite = NotFinite()

    def __bool__(self) -> bool:
        return bool(self._ids["image"] or self.bad_images)

    def add_images(self, image_ids: Sequence[str], dim: str = "image") -> None:
        """The next rows along `dim` are those of these images."""
        self._ids[dim] += image_ids

    def add(self, checkpoint: str, condition: str, owner: Owner, table: xr.Dataset) -> None:
        """Take the checked table of one batch.

        Raises:
            AnalysisError: its variables, dims or coordinates are not those of the batches before, or
                another analysis gives the same variable.
        """
        for name, coord in table.coords.items():
            self._add_coord(str(name), coord.variable, owner.who)
        for name, variable in table.data_vars.items():
            self._add_variable(str(name), variable.variable, owner)
            self._cells.setdefault((str(name), checkpoint, condition), _Grown()).add(variable.values)

    def _add_coord(self, name: str, coord: xr.Variable, who: str) -> None:
        if name in IMAGE_DIMS:
            return
        known = self._coords.setdefault(name, coord)
        if known is not coord and not known.equals(coord):
            raise AnalysisError(
                f"{who} gives {name} = {_shown(coord)}, where it was {_shown(known)} before.",
                expected="one axis for all analyses, batches, conditions and checkpoints",
                remedy="Give a dim of another meaning a name of its own; leave out nothing in some batches.",
            )

    def _add_variable(self, name: str, variable: xr.Variable, giver: Owner) -> None:
        sizes = dict(zip(variable.dims[1:], variable.shape[1:], strict=True))
        described = self._described.setdefault(
            name, _Described(variable.dims, sizes, dict(variable.attrs), giver)
        )
        if described.owner != giver:
            raise AnalysisError(
                f"{giver.who} and {described.owner.who} both give the variable '{name}'.",
                expected="one owner for each variable",
                remedy="Run them apart, or rename the variable in one of them.",
            )
        if (described.dims, described.sizes) != (variable.dims, sizes):
            raise AnalysisError(
                f"{giver.who} gives '{name}' with {sizes} along {variable.dims}, and gave it with "
                f"{described.sizes} along {described.dims} before.",
                expected="the same axes in every batch, condition and checkpoint",
                remedy="Let the shape of a variable depend on the architecture alone.",
            )

    def table(self) -> xr.Dataset:
        """What was added, as one table with dims (checkpoint, condition, image, ...).

        Raises:
            AnalysisError: a variable is missing in some batches.
        """
        variables = {}
        for name, (dims, _, attrs, owner) in self._described.items():
            cells = [
                [
                    self._cells.get((name, checkpoint, condition), _Grown()).rows()
                    for condition in self._names["condition"]
                ]
                for checkpoint in self._names["checkpoint"]
            ]
            n_rows = len(self._ids[str(dims[0])])
            if any(len(cell) != n_rows for row in cells for cell in row):
                raise AnalysisError(
                    f"{owner.who} gives '{name}' in some batches and not in others.",
                    expected="the same variables in every batch, condition and checkpoint",
                    remedy="Return NaN where there is no value.",
                )
            variables[name] = ((*LEADING, *dims), np.array(cells), attrs)
        used = {dim for dims, _, _ in variables.values() for dim in dims}
        ids = {dim: self._ids[dim] for dim in IMAGE_DIMS if dim == "image" or dim in used}
        attrs = joined_records([{NOT_FINITE: self.not_finite.records()}])
        if self.bad_images:
            attrs[BAD_IMAGES] = self.bad_images
        return xr.Dataset(variables, coords={**self._names, **ids, **self._coords}, attrs=attrs)


class _Grown:
    """An array that grows by rows.

    Were each batch's small array kept by itself, they would lie scattered among the activations of all
    batches, and keep the memory between them from being used again.
    """

    def __init__(self) -> None:
        self._array = np.empty(0)
        self._n = 0

    def add(self, rows: np.ndarray) -> None:
        n = self._n + len(rows)
        if self._n == 0:
            self._array = rows.copy()
        elif n > len(self._array) or rows.dtype != self._array.dtype:
            grown = np.empty((max(n, 2 * self._n), *rows.shape[1:]), np.result_type(rows, self._array))
            grown[: self._n] = self._array[: self._n]
            self._array = grown
        self._array[self._n : n] = rows
        self._n = n

    def rows(self) -> np.ndarray:
        return self._array[: self._n]


def checked(table: object, who: str, n_images: int) -> xr.Dataset:
    """What an analysis returned for a batch, if it is what the protocol asks for.

    Raises:
        AnalysisError: it is no table, or a variable has not a row an image.
    """
    if not isinstance(table, xr.Dataset):
        raise AnalysisError(
            f"{who} returned {type(table).__name__}.",
            expected="an xarray.Dataset",
            remedy="Build it with vitlens.table.",
        )
    with_images = [name for name, coord in table.coords.items() if "image" in coord.dims and name != "image"]
    table = table.reset_coords(with_images) if with_images else table
    for name, variable in table.data_vars.items():
        if not variable.dims or variable.dims[0] != "image" or variable.sizes["image"] != n_images:
            raise AnalysisError(
                f"{who} returned '{name}' with axes {dict(variable.sizes)} for a batch of {n_images} images.",
                expected=f"'image' first, with {n_images} rows",
                remedy="An analysis gives values per image; means over images come later, with an interval.",
            )
        if variable.dtype.kind not in "biuf":
            raise AnalysisError(
                f"{who} returned '{name}' with values of type {variable.dtype}.",
                expected="numbers or truth values",
                remedy="Give the index of a name, and the names as an attribute or a coordinate.",
            )
    return table


def joined(tables: Iterable[xr.Dataset]) -> xr.Dataset:
    """Tables of consecutive images as one; what could not be read in any of them is an attribute.

    Raises:
        AnalysisError: their variables, dims or coordinates differ.
        DatasetError: an image is in two of them.
    """
    every = list(tables)
    bad = {image: why for part in every for image, why in part.attrs.get(BAD_IMAGES, {}).items()}
    # A part of which nothing could be read has no variables.
    parts = [part for part in every if part.sizes["image"]] or every
    variables: dict[str, Any] = {}
    coords = {name: coord for part in parts for name, coord in part.coords.items() if name not in IMAGE_DIMS}
    for part in parts:
        for name, coord in part.coords.items():
            if name not in IMAGE_DIMS and not coord.variable.equals(coords[name].variable):
                raise _differ(f"the axis '{name}'", _shown(coord.variable), _shown(coords[name].variable))
    for name in dict.fromkeys(name for part in parts for name in part.data_vars):
        having = [part[name] for part in parts if name in part]
        dims = having[0].dims
        odd = next((each for each in having if each.dims != dims), None)
        if odd is not None:
            raise _differ(f"'{name}'", odd.dims, dims)
        # Named images may be missing from a part; anything else is in every part.
        if dims[2] == "image" and len(having) < len(parts):
            raise _differ(f"the presence of '{name}'", "missing", "given")
        variables[str(name)] = (dims, np.concatenate([each.values for each in having], 2), having[0].attrs)
    ids = {
        dim: [str(image) for part in parts if dim in part.coords for image in part[dim].values]
        for dim in IMAGE_DIMS
        if any(dim in part.coords for part in parts)
    }
    seen: set[str] = set()
    twice = [image for image in ids["image"] if image in seen or seen.add(image)]  # type: ignore[func-returns-value]
    if twice:
        raise DatasetError(
            f"There are {', '.join(some('image ids that come twice', twice))}.",
            expected="ids that are unique in the data set",
            remedy="Name each image apart: two of one name would share noise, and could not be joined.",
        )
    attrs = {**parts[0].attrs, **joined_records(part.attrs for part in parts)}
    if bad:
        attrs[BAD_IMAGES] = bad
    return xr.Dataset(variables, coords={**coords, **ids}, attrs=attrs)


def set_table(made: Mapping[tuple[str, str], xr.Dataset], who: str) -> xr.Dataset:
    """A set statistic of every checkpoint under every condition, as one table.

    Raises:
        AnalysisError: a variable has the dim `image`, or the tables differ.
    """
    for table in made.values():
        named = next((name for name, each in table.data_vars.items() if "image" in each.dims), None)
        if named is not None:
            raise AnalysisError(
                f"{who} returned '{named}' with the dim 'image'.",
                expected="values of the set alone",
                remedy="Write an Analysis for what there is of every image.",
            )
    checkpoints = list(dict.fromkeys(checkpoint for checkpoint, _ in made))
    conditions = list(dict.fromkeys(condition for _, condition in made))
    try:
        columns = [
            xr.concat(
                [made[checkpoint, condition] for condition in conditions],
                xr.Variable("condition", conditions),
                join="exact",
            )
            for checkpoint in checkpoints
        ]
        return xr.concat(columns, xr.Variable("checkpoint", checkpoints), join="exact")
    except (ValueError, KeyError) as error:
        raise _differ(f"a table of {who}", str(error).splitlines()[0], "one axis for all") from error


def _differ(what: str, one: object, other: object) -> AnalysisError:
    return AnalysisError(
        f"Some rows have {what} as {one}, others as {other}.",
        expected="one shape for all",
        remedy="Let the shape of a variable depend on the architecture alone.",
    )


def _shown(coord: xr.Variable) -> str:
    text = ", ".join(map(str, coord.values.ravel()[:4]))
    return f"[{text}{', ...' if coord.size > 4 else ''}] ({coord.size} values)"
