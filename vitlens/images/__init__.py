"""Images: data sets, corruptions, conditions and spectra."""

from .batches import Batch, ImageDataset, Item, batches, check, collate, n_images
from .conditions import Condition, ConditionSpec, parse_condition, parse_conditions
from .corruption import CORRUPTIONS, Corruption, corrupt
from .digits import digits
from .folder import folder
from .spectrum import Spectrum, spectrum

__all__ = [
    "CORRUPTIONS",
    "Batch",
    "Condition",
    "ConditionSpec",
    "Corruption",
    "ImageDataset",
    "Item",
    "Spectrum",
    "batches",
    "check",
    "collate",
    "corrupt",
    "digits",
    "folder",
    "n_images",
    "parse_condition",
    "parse_conditions",
    "spectrum",
]
