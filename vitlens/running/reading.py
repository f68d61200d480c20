"""How a data set is cut: into batches, and those into parts that are measured and kept together."""

from __future__ import annotations

from collections.abc import Callable

from ..images import ImageDataset, OnBadImage, n_images


class Reading:
    """Which batch belongs to which part, and how many images a part has.

    Args:
        dataset: what is read.
        batch_size: images in a batch.
        num_workers: processes that read ahead.
        part_images: images in a part, about; None for one part.
        on_bad_image: what becomes of an image that cannot be read, as in `run`.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        num_workers: int,
        part_images: int | None,
        on_bad_image: OnBadImage,
    ) -> None:
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers
        self.on_bad_image: OnBadImage = on_bad_image
        self.n_images = n_images(dataset)
        self._batches_per_part = None if part_images is None else max(1, part_images // max(1, batch_size))

    def part_of(self, batch_number: int) -> int:
        """The part that a batch belongs to."""
        return 0 if self._batches_per_part is None else batch_number // self._batches_per_part

    @property
    def n_parts(self) -> int | None:
        """How many parts there are, where the data set says how many images it has."""
        if self.n_images is None:
            return None
        n_batches = -(-self.n_images // max(1, self.batch_size))
        return self.part_of(n_batches - 1) + 1 if n_batches else 0

    def n_images_in(self, wanted: Callable[[int], bool]) -> int | None:
        """Images in the wanted parts, where the data set says how many it has."""
        if self.n_images is None:
            return None
        starts = range(0, self.n_images, self.batch_size)
        sizes = (min(self.batch_size, self.n_images - start) for start in starts)
        return sum(size for number, size in enumerate(sizes) if wanted(self.part_of(number)))
