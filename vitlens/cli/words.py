"""A command's words: errors that speak of Python's arguments, said of the command's options."""

from __future__ import annotations

import re

_SAID = {
    r'vitlens\.load\(path, architecture="([^"]+)"\)': r"--architecture \1",
    r"\barchitecture=": "--architecture",
    r"\bnum_classes=(\d+)": r"--num-classes \1",
    r"vitlens\.save wrote": "vitlens wrote",
    r"a folder for each class, or a mapping that says which they are": "a folder for each of them",
    r"Give classes=\{folder name: index\}\.": "Name a folder of images that has them.",
    r", or give classes=\{folder name: index\}\.": ".",
    r"\bmargins names\b": "--margin names",
    r"\bprimary names\b": "--primary names",
    r"^batch_size\b": "--batch-size",
    r"^num_workers\b": "--num-workers",
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
