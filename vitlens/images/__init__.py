"""Images: data sets, corruptions, conditions and spectra."""

from .batches import batches, numbered_batches
from .conditions import Condition, ConditionSpec, WhiteBox, parse_condition, parse_conditions
from .corruption import CORRUPTIONS, Corruption, corrupt
from .digits import digits
from .folder import folder
from .items import Batch, ImageDataset, Item, check, collate, known, n_images
from .spectrum import Spectrum, spectrum
from .textured_shapes import textured_shapes

__all__ = [
    "CORRUPTIONS",
    "Batch",
    "Condition",
    "ConditionSpec",
    "Corruption",
    "ImageDataset",
    "Item",
    "Spectrum",
    "WhiteBox",
    "batches",
    "check",
    "collate",
    "corrupt",
    "digits",
    "folder",
    "known",
    "n_images",
    "numbered_batches",
    "parse_condition",
    "parse_conditions",
    "spectrum",
    "textured_shapes",
]
