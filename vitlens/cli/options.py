"""What options' values are made of: whole numbers, refused with a sentence."""

from __future__ import annotations

import argparse


def number(text: str) -> int:
    """A whole number, 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> number("12")
        12
    """
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number such as 0 or 32")
    return int(text)


def positive(text: str) -> int:
    """A whole number, 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> positive("12")
        12
    """
    value = number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return value
