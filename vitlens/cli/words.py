"""A command's words: errors that speak of Python's arguments, said of the command's options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_OF_AN_SAE = (
    "kind|d_sae|k_per_token|l1_coefficient|n_tokens|batch_size|learning_rate|n_holdout_tokens|"
    "dead_window_tokens"
)


def _as_option(match: re.Match[str]) -> str:
    value = match["value"]
    return f"--{match['name'].replace('_', '-')}" + (f" {value}" if value else "")


_SAID: Mapping[str, str | Callable[[re.Match[str]], str]] = {
    r'vitlens\.load\(path, architecture="([^"]+)"\)': r"--architecture \1",
    r"\barchitecture=": "--architecture",
    r"\bnum_classes=(\d+)": r"--num-classes \1",
    r"vitlens\.save wrote": "vitlens wrote",
    r"a folder for each class, or a mapping that says which they are": "a folder for each of them",
    r"Give classes=\{folder name: index\}\.": "Name a folder of images that has them.",
    r", or give classes=\{folder name: index\}\.": ".",
    r"\bmargins names\b": "--margin names",
    r"\bprimary names\b": "--primary names",
    r"^num_workers\b": "--num-workers",
    rf"^(?P<name>{_OF_AN_SAE})(?P<value>)(?= is )": _as_option,
    rf"(?<=ower |Pass )(?P<name>{_OF_AN_SAE})\b(?:=(?P<value>\d+))?": _as_option,
    r"^dtype is\b": "--store-dtype is",
    r"\bdtype='bfloat16'": "--store-dtype bfloat16",
    r"Write vitlens\.register_corruption\(.*\) first\.": "Name it with --frost.",
    r"See model\.hook_names\.": "In Python, vitlens.load(FILE).hook_names lists them.",
    r"\bName another output\b": "Name another --output",
    r"^precision\b|^The precision\b": "--precision",
}


def spoken(message: str) -> str:
    """A message with the command's options in it.

    Example:
        >>> spoken('Pass vitlens.load(path, architecture="deit_tiny_patch16_224").')
        'Pass --architecture deit_tiny_patch16_224.'
    """
    for pattern, words in _SAID.items():
        message = re.sub(pattern, words, message)
    return message
