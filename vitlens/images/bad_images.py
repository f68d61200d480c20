"""Images that cannot be read: left out, counted and named, or a reason to stop."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from torch.utils.data import Subset

from ..errors import DatasetError, VitlensError
from .items import known, n_images

OnBadImage: TypeAlias = Literal["skip", "raise"]
"""What becomes of an image that cannot be read: it is left out and reported, or the work stops."""

BAD_IMAGES = "bad_images"
"""The attribute of a table that says which images were left out: image id, or position -> reason."""

MOST_BAD_SHARE = 0.1
"""A data set of which more cannot be read has a fault of another kind."""

LEAST_IMAGES = 50
"""So many images are read before a share says anything."""

_N_FIRST = 8
"""Where none of so many can be read, or of a first batch that is larger, none is taken to be."""

_N_TRIED = 32
_N_NAMED = 3
_MOST_CHARACTERS = 300


class BadImage(NamedTuple):
    """An image that could not be read.

    Attributes:
        position: where it stands in the data set.
        error: what went wrong.
    """

    position: int
    error: VitlensError

    @property
    def reason(self) -> str:
        """What went wrong, in a line."""
        line = self.error.given.replace("\n", " ")
        return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 4]} ..."


class Policy:
    """Whether reading goes on after images that could not be read.

    Args:
        on_bad_image: `skip` or `raise`.
        n_read: images, bad ones included, that an earlier part of the same work has read.
        n_bad: of these, those that could not be.

    Raises:
        DatasetError: `on_bad_image` is neither.
    """

    def __init__(self, on_bad_image: str, n_read: int = 0, n_bad: int = 0) -> None:
        check_on_bad_image(on_bad_image)
        self._skips = on_bad_image == "skip"
        self._n_read, self._n_bad = n_read, n_bad
        self._first: tuple[str, str] | None = None

    def named(self, dataset: Any, bad: list[BadImage], n_read: int) -> dict[str, str]:
        """Image id, or position where ids are not known, -> reason; counted with all that were read.

        Args:
            dataset: where they stand.
            bad: what could not be read of some images.
            n_read: how many these were.

        Raises:
            VitlensError: the work shall stop, or nothing at all could be read so far.
            DatasetError: too many could not be.
        """
        if bad and not self._skips:
            raise bad[0].error
        self._n_read += n_read
        self._n_bad += len(bad)
        found: dict[str, str] = {}
        if bad:
            ids = known(dataset, "image_ids")
            found = {ids[each.position] if ids else str(each.position): each.reason for each in bad}
            self._first = self._first or next(iter(found.items()))
        is_none = self._n_bad == self._n_read and self._n_read >= _N_FIRST
        if is_none or (self._n_read >= LEAST_IMAGES and self._n_bad > MOST_BAD_SHARE * self._n_read):
            raise self._fault()
        return found

    def end(self) -> None:
        """Everything was read.

        Raises:
            DatasetError: nothing could be.
        """
        if self._n_bad and self._n_bad == self._n_read:
            raise self._fault()

    def _fault(self) -> DatasetError:
        if self._n_bad == self._n_read:
            said = f"None of the first {self._n_read} images can be read"
        else:
            said = f"{self._n_bad} of the first {self._n_read} images cannot be read"
        example = "." if self._first is None else "; here the first is '{}': {}".format(*self._first)
        return DatasetError(
            f"{said}{example}",
            expected=f"at most {MOST_BAD_SHARE:.0%} of them: a few are left out and reported, but so many "
            "have one cause",
            remedy="Look for it: a folder or disk that is gone, a permission, a kind of file. Then start "
            "again.",
        )


def check_on_bad_image(on_bad_image: object) -> None:
    """Raise `DatasetError` for what says neither to skip nor to stop.

    Example:
        >>> check_on_bad_image("skip")
    """
    if on_bad_image not in ("skip", "raise"):
        raise DatasetError(
            f"on_bad_image is {on_bad_image!r}.",
            expected="'skip' or 'raise'",
            remedy="Leave it out for 'skip': images that cannot be read are left out and reported.",
        )


def warn_of(bad: Mapping[str, str], n_good: int) -> None:
    """Warn of images that were left out.

    Args:
        bad: image id or position -> reason.
        n_good: how many could be read.

    Example:
        >>> warn_of({}, 10)
    """
    if bad:
        warnings.warn(f"{told(bad, n_good)} on_bad_image='raise' stops at the first.", stacklevel=3)


def told(bad: Mapping[str, str], n_good: int) -> str:
    """Which images were left out, and why, in a sentence or two.

    Example:
        >>> told({"a/1.png": "It is cut short."}, 9)
        "1 of 10 images could not be read and is left out: 'a/1.png'. The first: It is cut short."
    """
    names = [f"'{name}'" for name in itertools.islice(bad, _N_NAMED)]
    more = f" and {len(bad) - _N_NAMED:,} more" if len(bad) > _N_NAMED else ""
    left = "are left out" if len(bad) > 1 else "is left out"
    return (
        f"{len(bad):,} of {n_good + len(bad):,} images could not be read and {left}: "
        f"{', '.join(names)}{more}."
        f" The first: {next(iter(bad.values()))}"
    )


def refuse_kept(bad: Mapping[str, str], where: object) -> None:
    """Raise `DatasetError` where kept results lack images, and none shall be left out."""
    if bad:
        raise DatasetError(
            f"What {where} holds was made without {len(bad)} images that could not be read, such as "
            f"'{next(iter(bad))}'.",
            expected="results of all images, as on_bad_image='raise' asks",
            remedy="Allow on_bad_image='skip', or mend the files and name another folder.",
        )


def readable(dataset: Any, places: Iterable[int]) -> Iterator[Any]:
    """The items at some places of a data set, without those that cannot be loaded.

    Args:
        dataset: as for `batches`, with a length.
        places: positions in it, in the order wanted.

    Returns:
        The items, one at a time.

    Example:
        >>> list(readable(["a", "b"], [1, 2]))
        ['b']
    """
    for place in places:
        with contextlib.suppress(Exception):
            yield dataset[place]


def first_readable(dataset: Any) -> Any:
    """The first item of a data set that can be loaded.

    Args:
        dataset: as for `batches`, with a length.

    Returns:
        The item.

    Raises:
        DatasetError: none of the first images can be.

    Example:
        >>> first_readable(["a", "b"])
        'a'
    """
    n_tried = min(_N_TRIED, n_images(dataset) or 0)
    for item in readable(dataset, range(n_tried)):
        return item
    raise DatasetError(
        f"None of the first {n_tried} images can be read.",
        expected="some that can be",
        remedy="Load one by hand to see why: a folder or disk that is gone, a permission, a kind of file.",
    )


def without(dataset: Any, bad: Mapping[str, str]) -> Any:
    """A data set without the images that `bad` names.

    Args:
        dataset: as for `batches`.
        bad: image id, or position where ids are not known -> reason, as `attrs["bad_images"]` has it.

    Returns:
        The data set itself where `bad` is empty, else what is left of it.

    Example:
        >>> list(without(["a", "b", "c"], {"1": "It is cut short."}))
        ['a', 'c']
    """
    if not bad:
        return dataset
    ids = known(dataset, "image_ids") or [str(place) for place in range(len(dataset))]
    return Subset(dataset, list(itertools.compress(range(len(ids)), (name not in bad for name in ids))))
