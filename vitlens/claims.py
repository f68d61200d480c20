"""An output folder is one process's own for as long as it works there."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BusyError
from .signals import ending_in_order

LOCK_NAME = ".vitlens.lock"
"""A folder has this file while a process works in it."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)
_PATIENCE_SECONDS = 0.1


@contextlib.contextmanager
def claimed(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Have a folder to oneself in the block; another process that wants it is refused at once.

    The system holds the lock: it goes with its process, however that ends. SIGTERM unwinds the block (see
    `vitlens.signals.ending_in_order`), so that what it was writing is tidied up.

    A folder in which no file can be made is not claimed: nothing can be written there, and what stands there
    can be read. Nor is one of a file system without locks, with a warning.

    Args:
        folder: the folder, made if need be; None claims nothing.

    Raises:
        BusyError: another process has it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with claimed(folder), claimed(folder):
        ...     pass
        Traceback (most recent call last):
            ...
        vitlens.errors.BusyError: ... is in use by process ... on host ... since ...
        >>> with claimed(folder):
        ...     os.listdir(folder)
        ['.vitlens.lock']
        >>> os.listdir(folder)
        []
    """
    if folder is None:
        yield
        return
    path = Path(folder)
    with ending_in_order():
        is_new = not path.exists()
        lock = _locked(path)
        if lock is None:
            yield
            return
        try:
            yield
        finally:
            # First the file and then the lock: who waits for a file that is gone looks for another.
            with contextlib.suppress(OSError):
                (path / LOCK_NAME).unlink()
            lock.release()
            if is_new:
                with contextlib.suppress(OSError):  # something was written, as is usual
                    path.rmdir()


def _locked(folder: Path) -> FileLock | None:
    """The lock of a folder; None where there can be none."""
    path = folder / LOCK_NAME
    lock = FileLock(path, timeout=_PATIENCE_SECONDS, poll_interval=0.02, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise _busy(folder, path) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            warnings.warn(
                f"{folder} is on a file system without locks ({error}): a second process that works in it at "
                "the same time is not noticed.",
                UserWarning,
                stacklevel=5,
            )
        # What is the matter with the folder is said by whoever comes to write there.
        return None
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    with contextlib.suppress(OSError):  # a full disk, say: the lock holds without its words
        path.write_text(json.dumps([os.getpid(), socket.gethostname(), since]), encoding="utf-8")
    return lock


def _busy(folder: Path, lock: Path) -> BusyError:
    who = "another process"
    with contextlib.suppress(OSError, ValueError, TypeError):
        process, host, since = json.loads(lock.read_text(encoding="utf-8"))
        who = f"process {process} on host {host} since {since}"
    return BusyError(
        f"{folder} is in use by {who}.",
        expected="a folder in which no other process works",
        remedy="Wait for that process to end, or name another folder.",
    )
