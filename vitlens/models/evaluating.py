"""Evaluation mode for a while, each module's own mode kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn


@contextlib.contextmanager
def evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode; afterwards, after an error too, every module has its own mode again.

    Args:
        models: some may share modules.

    Returns:
        A context manager that yields nothing.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating([model]):
        ...     inside = [module.training for module in model]
        >>> inside, [module.training for module in model]
        ([False, False], [True, False])
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
