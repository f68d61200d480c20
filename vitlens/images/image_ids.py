"""What names the images of a batch has to bring for each to have a random stream of its own."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConditionError


def check_image_ids(image_ids: Sequence[str] | None, n_images: int, name: str, *, draws: bool) -> None:
    """Raise `ConditionError` where image ids do not fit the batch.

    Args:
        image_ids: one for each image; None where there are none.
        n_images: images of the batch.
        name: what is done to the images, for error messages.
        draws: whether it draws at random: it then needs ids, no two alike.

    Raises:
        ConditionError: ids are missing, too few or too many, or two images would share their noise.

    Example:
        >>> check_image_ids(["a", "b"], 2, "gaussian_noise", draws=True)
    """
    if image_ids is None and not draws:
        return
    if image_ids is None:
        given = f"'{name}' draws at random and no image_ids were given."
    elif isinstance(image_ids, str):
        given = f"image_ids is one string, {image_ids!r}."
    elif len(image_ids) != n_images:
        given = f"{len(image_ids)} image_ids were given for {n_images} images."
    elif draws and len(set(image_ids)) < n_images:
        ids = list(image_ids)
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        given = f"The image id '{twice}' is given twice: both images would share one stream of noise."
    else:
        return
    raise ConditionError(
        given,
        expected="a sequence of strings, one for each image, no two alike",
        remedy="Give the ids of the data set, so that every checkpoint sees the same pixels.",
    )
