"""The embedded default data set: scans of handwritten digits, with no download."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..errors import DatasetError
from .items import Item

SPLIT_SEED = 0
"""Which images are for testing is drawn from this seed."""

N_TEST = 500
"""Of 1,797 images; the other 1,297 are for training."""

IMAGE_SIZE = 32
"""Height and width in pixels."""


class Digits(Dataset[Item]):
    """One part of scikit-learn's digits, as images of three equal channels.

    Attributes:
        labels: the digit of each image.
        image_ids: "digits/0042" is number 42 in scikit-learn's order.
        classes: name of a class -> index.
    """

    def __init__(
        self, scans: Float[Tensor, "image height width"], labels: list[int], numbers: list[int]
    ) -> None:
        self._scans = scans
        self.labels = labels
        self.image_ids = [f"digits/{number:04d}" for number in numbers]
        self.classes = {str(digit): digit for digit in range(10)}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        return Item(
            pixels=self._scans[index].repeat(3, 1, 1),
            label=self.labels[index],
            image_id=self.image_ids[index],
        )


def digits(split: str) -> Digits:
    """Scikit-learn's scanned digits at 32 × 32 pixels, for training or for testing.

    The scans are 8 × 8 pixels of 17 levels, each the count of black dots in a square of 4 × 4 of a 32 × 32
    original. They are brought back to that size by bicubic interpolation and clipped to [0, 1], so that a
    small Vision Transformer has patches to look at. What lies above 1/8 cycle per pixel is therefore the
    interpolation's and not the scanner's.

    Every class has the same share in both parts. Which images are for testing depends on `SPLIT_SEED` and on
    the images' numbers alone, not on any library's random generator.

    Args:
        split: "train" (1,297 images) or "test" (500 images).

    Returns:
        A torch data set of items with `labels`, `image_ids` and `classes`.

    Raises:
        DatasetError: `split` is neither, or scikit-learn is not installed.

    Source: Alpaydin & Kaynak (1998), Optical recognition of handwritten digits, UCI; the test part, as
    scikit-learn's `load_digits` ships it.

    Example:
        >>> test = digits("test")
        >>> len(test), test[0]["pixels"].shape, test[0]["label"], test[0]["image_id"]
        (500, torch.Size([3, 32, 32]), 1, 'digits/0001')
    """
    if split not in ("train", "test"):
        raise DatasetError(
            f"The split is {split!r}.",
            expected="'train' or 'test'",
            remedy="Hold images back from 'train' where a third part is needed.",
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DatasetError(
            "The digits come with scikit-learn, which is not installed.",
            expected="scikit-learn 1.5 or later",
            remedy="Run: pip install vitlens[digits]",
        ) from error
    loaded = load_digits()
    labels = torch.from_numpy(loaded.target).long()
    numbers = torch.tensor(_numbers(labels, split))
    scans = torch.from_numpy(loaded.images[numbers.numpy()]).float() / 16
    resized = F.interpolate(
        scans[:, None], size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False
    )
    return Digits(resized[:, 0].clamp(0, 1), labels[numbers].tolist(), numbers.tolist())


def _numbers(labels: Int64[Tensor, " image"], split: str) -> list[int]:
    """The images of one part, in scikit-learn's order."""
    n = len(labels)
    shuffled = sorted(range(n), key=lambda number: (int(labels[number]), _draw(number)))
    # Every 3.6th image of each class in turn is for testing: the shares of the classes are kept to one image.
    test = {
        number for place, number in enumerate(shuffled) if (place + 1) * N_TEST // n > place * N_TEST // n
    }
    return [number for number in range(n) if (number in test) == (split == "test")]


def _draw(number: int) -> bytes:
    return hashlib.blake2b(f"{SPLIT_SEED}/{number}".encode(), digest_size=8).digest()
