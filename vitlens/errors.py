"""The error tree: every mistake a caller can make, in one place.

    VitlensError
    ├── ShapeError          a tensor has the wrong axes
    ├── PixelError          pixels are not images in [0, 1] of the model's size
    ├── LabelError          a label is none of the model's classes
    ├── DatasetError        a folder, an item or an image id is unusable
    ├── ConditionError      a condition or corruption is unknown or misspelt
    ├── HookError           a hook name does not exist, or a hook returned another shape
    ├── FamilyError         a module is no supported Vision Transformer
    ├── ArchitectureError   architectures are unknown, or differ where they must agree
    ├── CheckpointError     a file of weights is missing, damaged or does not fit
    ├── SpaceError          the disk is full
    ├── BusyError           an output folder is in use by another process
    ├── AnalysisError       an analysis broke the protocol or cannot run on this model
    ├── SAEError            a sparse autoencoder does not fit what it is given
    ├── ComparisonError     a comparison cannot be made as asked
    └── TrainingError       a fine-tuning run cannot go on

Each says what was given, what was expected and what to do.
"""

from __future__ import annotations


class VitlensError(Exception):
    """Base of all errors that vitlens raises for a caller's mistake.

    Args:
        given: what was given, as a sentence.
        expected: what was expected, as a phrase.
        remedy: what to do now, as a sentence.

    Example:
        >>> print(VitlensError("eps_pixel is 4.", expected="a value in [0, 1]", remedy="Did you mean 4/255?"))
        eps_pixel is 4. Expected: a value in [0, 1]. Did you mean 4/255?
    """

    def __init__(self, given: str, *, expected: str, remedy: str) -> None:
        super().__init__(f"{given} Expected: {expected}. {remedy}")
        self.given = given
        self.expected = expected
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are lost by Exception's own pickling, which data-loading workers use.
        return (_rebuild, (type(self), self.given, self.expected, self.remedy))


def _rebuild(cls: type[VitlensError], given: str, expected: str, remedy: str) -> VitlensError:
    return cls(given, expected=expected, remedy=remedy)


class ShapeError(VitlensError, ValueError):
    """A tensor has the wrong axes."""


class PixelError(VitlensError, ValueError):
    """Pixels are not images in [0, 1] of the size that the model takes."""


class LabelError(VitlensError, ValueError):
    """A label is none of the model's classes."""


class DatasetError(VitlensError, ValueError):
    """A folder, an item of a data set or an image id cannot be used."""


class ConditionError(VitlensError, ValueError):
    """A condition or a corruption is unknown, misspelt or out of range."""


class HookError(VitlensError, ValueError):
    """A hook name does not exist, or a hook returned something of another shape."""


class FamilyError(VitlensError, TypeError):
    """A module is no Vision Transformer that vitlens knows how to open."""


class ArchitectureError(VitlensError, ValueError):
    """An architecture is unknown, or two differ that have to agree."""


class CheckpointError(VitlensError, ValueError):
    """A file of weights is missing, damaged, or does not fit the architecture."""


class SpaceError(VitlensError, OSError):
    """The disk is full; what was written before is kept."""


class BusyError(VitlensError, RuntimeError):
    """An output folder is in use by another process."""


class AnalysisError(VitlensError, ValueError):
    """An analysis broke the protocol, or cannot run on this model."""


class SAEError(VitlensError, ValueError):
    """A sparse autoencoder does not fit what it is given."""


class ComparisonError(VitlensError, ValueError):
    """A comparison cannot be made as asked."""


class TrainingError(VitlensError, ValueError):
    """A fine-tuning run cannot start, resume or go on."""
