"""Files that were damaged or made up: bytes, JSON and safetensors headers, drawn by hypothesis."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

STRANGE = (
    None, True, -1, 0, 1.5, 10**12, 2**63, 10**30, "", "x", "../x", "/etc/passwd", "nan", [], {}, [[]],
    [None],
    {"": None}, "\ud800", "\x00", "1" * 60, ["a", "a"], {"$": "no such kind"}, {"dtype": "load"},
)  # fmt: skip
"""What a reader of JSON does not expect."""


def damaged_bytes(draw: Callable[..., Any], content: bytes) -> tuple[bytes, str]:
    """The bytes of a file after an accident, and which kind of accident it was."""
    kind = draw(
        st.sampled_from(["flip", "flips", "cut", "zeros", "ones", "longer", "swapped", "empty", "noise"])
    )
    changed = bytearray(content)
    at = draw(st.integers(0, max(0, len(content) - 1)))
    # Half of all accidents strike the first bytes, where headers stand.
    near = at if draw(st.booleans()) else at % max(1, min(len(content), 256))
    if kind in ("flip", "flips") and content:
        for _ in range(1 if kind == "flip" else 8):
            changed[near] ^= 1 << draw(st.integers(0, 7))
            near = draw(st.integers(0, len(content) - 1))
    elif kind == "cut":
        del changed[at:]
    elif kind in ("zeros", "ones"):
        end = min(len(content), near + draw(st.integers(1, 512)))
        changed[near:end] = bytes([0 if kind == "zeros" else 255]) * (end - near)
    elif kind == "longer":
        changed += draw(st.binary(min_size=1, max_size=64))
    elif kind == "swapped":
        size = min(len(content) // 2, draw(st.integers(1, 64)))
        changed[:size], changed[-size:] = changed[-size:], changed[:size]
    elif kind == "empty":
        changed.clear()
    elif kind == "noise":
        changed = bytearray(draw(st.binary(max_size=128)))
        if draw(st.booleans()):
            changed = bytearray(content[: draw(st.integers(0, 16))]) + changed
    return bytes(changed), kind


def changed_json(draw: Callable[..., Any], value: Any) -> Any:
    """JSON in which one place, at any depth, holds something else, is gone, or is called differently."""
    places = list(_places(value))
    parent, key = draw(st.sampled_from(places)) if places else (None, None)
    if parent is None:
        return draw(st.sampled_from(STRANGE))
    how = draw(st.sampled_from(["strange", "strange", "gone", "renamed", "twice"]))
    if how == "gone":
        del parent[key]
    elif how == "renamed" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["", "$", f"{key} ", "x"]))] = parent.pop(key)
    elif how == "twice" and isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        parent[key] = draw(st.sampled_from(STRANGE))
    return value


def with_header(draw: Callable[..., Any], content: bytes, change: Callable[[Any], Any]) -> bytes:
    """A safetensors file whose header is changed and whose length is right again; or a lie about it."""
    size = int.from_bytes(content[:8], "little")
    header = change(json.loads(content[8 : 8 + size]))
    text = json.dumps(header).encode()
    claimed = draw(st.sampled_from([len(text)] * 6 + [2**60, len(text) + 1, 0]))
    return claimed.to_bytes(8, "little") + text + content[8 + size :]


def _places(value: Any) -> Any:
    """Each (container, key) inside a JSON value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
