"""The report's figures."""

from .collect import figures

__all__ = ["figures"]
