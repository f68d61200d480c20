"""What a command that was stopped tells: where what was done is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..signals import Terminated


@contextlib.contextmanager
def telling(kept: str) -> Iterator[None]:
    """Give Ctrl-C and SIGTERM in the block words of their own.

    Args:
        kept: what to tell.

    Example:
        >>> with telling("what was done is in run"):
        ...     raise Terminated
        Traceback (most recent call last):
            ...
        vitlens.signals.Terminated: what was done is in run
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(kept) from None
    except Terminated:
        raise Terminated(kept) from None
