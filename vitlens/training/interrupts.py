"""Ctrl-C in a run: the step in hand ends first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed while it was kept waiting.

    Example:
        >>> interrupt = Interrupt()
        >>> with interrupt.kept_waiting():
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupt.asked
        True
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def kept_waiting(self) -> Iterator[None]:
        """Note the first Ctrl-C in the block, and let the second have its usual effect.

        Where Ctrl-C does not raise KeyboardInterrupt, or in another thread than the first, nothing changes.
        """
        is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not is_usual or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def not_in_workers(_: int) -> None:
    """For a loader's workers: the terminal sends Ctrl-C to them as well, and the step needs them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
