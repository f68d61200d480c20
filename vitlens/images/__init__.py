"""Images: data sets, corruptions, conditions and spectra."""

from .attacks import ActivationChange, Attack, AttackObjective, AttackReport, fgsm, pgd
from .bad_images import BAD_IMAGES, OnBadImage, first_readable, readable, without
from .batches import batches, numbered_batches
from .condition_strings import ConditionSpec, parse_condition, parse_conditions
from .conditions import Condition, WhiteBox
from .corruptions import (
    CORRUPTIONS,
    Corruption,
    corrupt,
    frequency_group,
    frequency_groups,
    frost,
    measured_frequency,
    register_corruption,
)
from .digits import digits
from .fingerprint import as_far_as_known, fingerprint, texts_sha256
from .folder import folder
from .fourier import FourierNoise, FourierWave, fourier_noise
from .frequency import measure_frequency
from .items import Batch, ImageDataset, Item, check, collate, known, n_images
from .spectrum import Spectrum, spectrum
from .spread import spread
from .textured_shapes import textured_shapes

__all__ = [
    "BAD_IMAGES",
    "CORRUPTIONS",
    "ActivationChange",
    "Attack",
    "AttackObjective",
    "AttackReport",
    "Batch",
    "Condition",
    "ConditionSpec",
    "Corruption",
    "FourierNoise",
    "FourierWave",
    "ImageDataset",
    "Item",
    "OnBadImage",
    "Spectrum",
    "WhiteBox",
    "as_far_as_known",
    "batches",
    "check",
    "collate",
    "corrupt",
    "digits",
    "fgsm",
    "fingerprint",
    "first_readable",
    "folder",
    "fourier_noise",
    "frequency_group",
    "frequency_groups",
    "frost",
    "known",
    "measure_frequency",
    "measured_frequency",
    "n_images",
    "numbered_batches",
    "parse_condition",
    "parse_conditions",
    "pgd",
    "readable",
    "register_corruption",
    "spectrum",
    "spread",
    "texts_sha256",
    "textured_shapes",
    "without",
]
