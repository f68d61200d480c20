"""Sparse autoencoders: train, save and load, evaluate, match between checkpoints."""

from .evaluation import dead_features, figures, fvu, l0
from .matching import FeatureMatch, match
from .storage import load, save
from .threshold import set_threshold
from .training import history, train

__all__ = [
    "FeatureMatch",
    "dead_features",
    "figures",
    "fvu",
    "history",
    "l0",
    "load",
    "match",
    "save",
    "set_threshold",
    "train",
]
