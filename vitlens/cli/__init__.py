"""The command line: `vitlens COMMAND`."""

from .main import main

__all__ = ["main"]
