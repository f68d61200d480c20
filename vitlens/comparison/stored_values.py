"""Values as JSON beside named arrays, and back: what a kept comparison is written as.

JSON says what it can say. The rest is an object whose key `$` names its kind:

    {"$": "array", "name": ..., "dtype": ...}       an array of numbers, in the arrays under that name
    {"$": "text", "name": ..., "dtype": ..., "shape": ...}   an array of text or objects, as JSON in bytes
    {"$": "scalar", "of": ...}                      a numpy number: an array without axes
    {"$": "float", "of": "nan" | "inf" | "-inf"}    what JSON has no number for
    {"$": "tuple" | "mapping", "of": [...]}         a tuple; a mapping that has a key `$` itself
    {"$": "na"}                                     pandas' missing value
    {"$": "dataset", ...}, {"$": "frame", ...}      an xarray Dataset; a pandas DataFrame
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import ComparisonError

Arrays = dict[str, np.ndarray]
"""Name -> array of numbers or truth values, in the machine's own byte order."""

_PLAIN_KINDS = "biuf"
_VIEWED_AS = {"M": "i8", "m": "i8", "c": "f"}
"""Kinds that the arrays have no type for -> what their bytes are kept as."""


def pack(value: Any, arrays: Arrays, where: str) -> Any:
    """Write a value as JSON.

    Args:
        value: numbers, text, truth values, None, numpy's and pandas' and xarray's tables of them, and lists,
            tuples and mappings of all these.
        arrays: what JSON should not hold is added to them.
        where: what the value is called in an error.

    Returns:
        What `json.dumps` takes.

    Raises:
        ComparisonError: it is nothing of that kind.

    Example:
        >>> arrays = {}
        >>> packed = pack({"n": 2, "low": math.nan, "values": np.ones(3)}, arrays, "mine")
        >>> packed["low"], packed["values"]["name"], list(arrays)
        ({'$': 'float', 'of': 'nan'}, '0', ['0'])
        >>> unpack(packed, arrays)
        {'n': 2, 'low': nan, 'values': array([1., 1., 1.])}
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$": "float", "of": repr(value)}
    if value is pd.NA:
        return {"$": "na"}
    for kind, write in _WRITERS.items():
        if isinstance(value, kind):
            return write(value, arrays, where)
    raise _cannot_be_kept(where, type(value).__name__)


def unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `pack` wrote.

    Args:
        packed: from JSON.
        arrays: those that `pack` added to.
    """
    if isinstance(packed, list):
        return [unpack(each, arrays) for each in packed]
    if not isinstance(packed, dict):
        return packed
    if "$" not in packed:
        return {key: unpack(each, arrays) for key, each in packed.items()}
    return _READERS[packed["$"]](packed, arrays)


def _cannot_be_kept(where: str, what: str) -> ComparisonError:
    return ComparisonError(
        f"The comparison cannot be kept: {where} is {what}.",
        expected="numbers, text, truth values, None, arrays and tables, and lists and mappings of them",
        remedy="Take it out, or turn it into one of these.",
    )


def _pack_mapping(value: Mapping[Any, Any], arrays: Arrays, where: str) -> Any:
    strange = next((key for key in value if type(key) is not str), None)
    if strange is not None:
        raise _cannot_be_kept(where, f"a mapping with the key {strange!r}, which is no text")
    if "$" in value:
        items = [[key, pack(each, arrays, f"{where}[{key!r}]")] for key, each in value.items()]
        return {"$": "mapping", "of": items}
    return {key: pack(each, arrays, f"{where}[{key!r}]") for key, each in value.items()}


def _pack_list(value: list[Any], arrays: Arrays, where: str) -> list[Any]:
    return [pack(each, arrays, f"{where}[{place}]") for place, each in enumerate(value)]


def _pack_tuple(value: tuple[Any, ...], arrays: Arrays, where: str) -> Any:
    return {"$": "tuple", "of": _pack_list(list(value), arrays, where)}


def _pack_scalar(value: np.generic, arrays: Arrays, where: str) -> Any:
    return {"$": "scalar", "of": _pack_array(np.asarray(value), arrays, where)}


def _pack_array(value: np.ndarray, arrays: Arrays, where: str) -> Any:
    name, dtype = str(len(arrays)), value.dtype
    if dtype.kind in "OU":
        flat = [pack(each, arrays, f"{where}[{place}]") for place, each in enumerate(value.ravel().tolist())]
        name = str(len(arrays))  # objects may have brought arrays of their own
        arrays[name] = np.frombuffer(json.dumps(flat).encode("ascii"), dtype=np.uint8)
        return {"$": "text", "name": name, "dtype": dtype.str, "shape": list(value.shape)}
    if not _is_kept_exactly(dtype):
        raise _cannot_be_kept(where, f"an array of {dtype}")
    # Not ascontiguousarray, which would give a number an axis.
    native = np.asarray(value, dtype=dtype.newbyteorder("="), order="C")
    if dtype.kind in _VIEWED_AS:
        # A complex number has the bytes of two real ones.
        bare = f"f{dtype.itemsize // 2}" if dtype.kind == "c" else "i8"
        native = native.reshape(*native.shape, 1).view(bare)
    arrays[name] = native
    return {"$": "array", "name": name, "dtype": dtype.str}


def _is_kept_exactly(dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "c":
        return dtype.itemsize <= 16
    return dtype.kind in "Mm" or (dtype.kind in _PLAIN_KINDS and dtype.itemsize <= 8)


def _unpack_array(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    values, dtype = arrays[packed["name"]], np.dtype(packed["dtype"])
    if dtype.kind in _VIEWED_AS:
        values = values.view(dtype.newbyteorder("=")).reshape(values.shape[:-1])
    return values.astype(dtype, copy=False)


def _unpack_text(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    flat = unpack(json.loads(arrays[packed["name"]].tobytes()), arrays)
    values = np.empty(len(flat), dtype=packed["dtype"])
    values[:] = flat
    return values.reshape(packed["shape"])


def _pack_dataset(value: xr.Dataset, arrays: Arrays, where: str) -> Any:
    if several := [name for name, index in value.indexes.items() if isinstance(index, pd.MultiIndex)]:
        raise _cannot_be_kept(f"{where}[{several[0]!r}]", "an index of several levels")
    return {
        "$": "dataset",
        "variables": [
            {
                "name": _text(name, where),
                "is_coord": name in value.coords,
                "dims": [_text(dim, where) for dim in variable.dims],
                **_pack_column(variable, arrays, f"{where}[{name!r}]"),
                "attrs": pack(dict(variable.attrs), arrays, f"{where}[{name!r}].attrs"),
            }
            for name, variable in value.variables.items()
        ],
        "attrs": pack(dict(value.attrs), arrays, f"{where}.attrs"),
    }


def _unpack_dataset(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    variables: dict[bool, dict[str, xr.Variable]] = {False: {}, True: {}}
    for each in packed["variables"]:
        variables[each["is_coord"]][each["name"]] = xr.Variable(
            each["dims"], _unpack_column(each, arrays), unpack(each["attrs"], arrays)
        )
    return xr.Dataset(variables[False], variables[True], unpack(packed["attrs"], arrays))


def _pack_frame(value: pd.DataFrame, arrays: Arrays, where: str) -> Any:
    if isinstance(value.index, pd.MultiIndex) or isinstance(value.columns, pd.MultiIndex):
        raise _cannot_be_kept(where, "a table with an index of several levels")
    if not value.columns.is_unique:
        raise _cannot_be_kept(where, "a table with two columns of one name")
    is_counted = isinstance(value.index, pd.RangeIndex) and value.index.equals(pd.RangeIndex(len(value)))
    return {
        "$": "frame",
        "columns": [
            {"name": _text(name, where), **_pack_column(value[name], arrays, f"{where}[{name!r}]")}
            for name in value.columns
        ],
        "n_rows": len(value),
        "index": None if is_counted else _pack_column(value.index, arrays, f"{where}.index"),
        "index_name": pack(value.index.name, arrays, f"{where}.index.name"),
        "attrs": pack(dict(value.attrs), arrays, f"{where}.attrs"),
    }


def _pack_column(value: pd.Series | pd.Index | xr.Variable, arrays: Arrays, where: str) -> dict[str, Any]:
    dtype: Any = value.dtype
    if isinstance(dtype, np.dtype):
        return {"values": _pack_array(np.asarray(value), arrays, where)}
    if isinstance(dtype, pd.CategoricalDtype):
        raise _cannot_be_kept(where, "a column of categories")
    # pandas' own types, for text and for whole numbers that may be missing, are restored from their values.
    values = _pack_array(np.asarray(value, dtype=object), arrays, where)
    return {"values": values, "dtype": str(dtype)}


def _unpack_frame(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    index = pd.RangeIndex(packed["n_rows"]) if packed["index"] is None else None
    if index is None:
        values = _unpack_column(packed["index"], arrays)
        index = pd.Index(values, dtype=values.dtype)
    index.name = unpack(packed["index_name"], arrays)
    columns = {}
    for each in packed["columns"]:
        values = _unpack_column(each, arrays)
        # Without its type said, pandas would take an array of text objects for its own type of text.
        columns[each["name"]] = pd.Series(values, index=index, dtype=values.dtype)
    frame = pd.DataFrame(columns, index=index)
    frame.attrs.update(unpack(packed["attrs"], arrays))
    return frame


def _unpack_column(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    values = unpack(packed["values"], arrays)
    return pd.array(values, dtype=packed["dtype"]) if "dtype" in packed else values


def _text(name: object, where: str) -> str:
    if type(name) is not str:
        raise _cannot_be_kept(where, f"a table with the name {name!r} in it, which is no text")
    return name


_WRITERS: Mapping[type, Callable[[Any, Arrays, str], Any]] = {
    xr.Dataset: _pack_dataset,
    pd.DataFrame: _pack_frame,
    np.ndarray: _pack_array,
    np.generic: _pack_scalar,
    Mapping: _pack_mapping,
    list: _pack_list,
    tuple: _pack_tuple,
}

_READERS: Mapping[str, Callable[[Any, Mapping[str, np.ndarray]], Any]] = {
    "dataset": _unpack_dataset,
    "frame": _unpack_frame,
    "array": _unpack_array,
    "text": _unpack_text,
    "scalar": lambda packed, arrays: unpack(packed["of"], arrays)[()],
    "float": lambda packed, arrays: float(packed["of"]),
    "na": lambda packed, arrays: pd.NA,
    "tuple": lambda packed, arrays: tuple(unpack(packed["of"], arrays)),
    "mapping": lambda packed, arrays: {key: unpack(each, arrays) for key, each in packed["of"]},
}
