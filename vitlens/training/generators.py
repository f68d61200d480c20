"""The generators that all draw from, torch's, numpy's, Python's: seeded for a while, then as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Afterwards torch's generators, the CPU's and the device's, stand where they stood.

    Example:
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> with kept(torch.device("cpu")):
        ...     seed_torch(torch.device("cpu"), 1)
        >>> torch.default_generator.initial_seed()
        0
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_torch(device: torch.device, number: int) -> None:
    """Seed torch's generators of the CPU and of the device; those of other devices are left alone."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type != "cpu":
        torch.manual_seed(number)


@contextlib.contextmanager
def all_kept() -> Iterator[None]:
    """Afterwards torch's generator of the CPU, numpy's and Python's stand where they stood."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002 - data sets draw from it
    try:
        with kept(torch.device("cpu")):
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def seed_all(number: int) -> None:
    """Seed torch's generator of the CPU, numpy's and Python's.

    Args:
        number: 0 to 2³² - 1, all that numpy's takes.
    """
    torch.default_generator.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)
