"""How a job ends that is asked to: SIGTERM unwinds it, as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TERMINATED = 143
"""The exit status of a process that SIGTERM ended, as shells count it."""


class Terminated(SystemExit):
    """The process was asked to end, by SIGTERM; where nothing catches it, it ends with status 143.

    Args:
        said: what is to be told of it.

    Example:
        >>> Terminated("what was done is in run").code, str(Terminated())
        (143, '')
    """

    def __init__(self, said: str = "") -> None:
        super().__init__(TERMINATED)
        self._said = said

    def __str__(self) -> str:
        return self._said


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the block, so that files and workers are seen to.

    Where SIGTERM has another effect than its usual one, or in another thread than the first, nothing changes.

    Example:
        >>> with ending_in_order():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
            ...
        vitlens.signals.Terminated
    """
    if not _is_first_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    # A second one shall not break into the tidying up; who has no patience has SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _is_first_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Interrupt:
    """Whether Ctrl-C was pressed, or SIGTERM came, while it was kept waiting.

    Example:
        >>> interrupt = Interrupt()
        >>> with interrupt.kept_waiting():
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupt.asked
        True
    """

    def __init__(self) -> None:
        self.asked = False
        self._error: type[BaseException] = KeyboardInterrupt

    def error(self) -> BaseException:
        """What to raise once the job may end."""
        return self._error()

    @contextlib.contextmanager
    def kept_waiting(self) -> Iterator[None]:
        """Note the first Ctrl-C or SIGTERM in the block, and let the second have its usual effect.

        Where Ctrl-C does not raise KeyboardInterrupt, or SIGTERM not `Terminated` (see `ending_in_order`), or
        in another thread than the first, nothing changes.
        """
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _end}
        held = {each: does for each, does in usual.items() if signal.getsignal(each) is does}
        if not held or not _is_first_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.asked:
                usual[signal.Signals(number)](number, frame)
            self.asked = True
            self._error = Terminated if number == signal.SIGTERM else KeyboardInterrupt

        for each in held:
            signal.signal(each, note)
        try:
            yield
        finally:
            for each, does in held.items():
                if signal.getsignal(each) is note:
                    signal.signal(each, does)


def not_in_workers(_: int) -> None:
    """For a loader's workers: a signal to the whole group reaches them as well, and the job still needs them.

    A second SIGTERM ends a worker: that is how the job itself ends one that does not answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _pass_once)


def _pass_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
