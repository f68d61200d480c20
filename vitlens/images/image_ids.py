"""What names the images of a batch has to bring for each to have a random stream of its own."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConditionError


def check_image_ids(image_ids: Sequence[str] | None, n_images: int, name: str, *, draws: bool) -> list[str]:
    """The image ids of a batch, if they fit it.

    Args:
        image_ids: one for each image; None where there are none.
        n_images: images of the batch.
        name: what is done to the images, for error messages.
        draws: whether it draws at random: it then needs ids, no two alike.

    Returns:
        The ids; none where none were given or they were not needed.

    Raises:
        ConditionError: ids are missing, no strings, too few or too many, or two images would share their
            noise.

    Example:
        >>> check_image_ids(("a", "b"), 2, "gaussian_noise", draws=True)
        ['a', 'b']
    """
    if image_ids is None and not draws:
        return []
    ids = [] if image_ids is None or isinstance(image_ids, str) else list(image_ids)
    other = next((each for each in ids if not isinstance(each, str)), None)
    if image_ids is None:
        given = f"'{name}' draws at random and no image_ids were given."
    elif isinstance(image_ids, str):
        given = f"image_ids is one string, {image_ids!r}."
    elif len(ids) != n_images:
        given = f"{len(ids)} image_ids were given for {n_images} images."
    elif other is not None:
        given = f"Among the image_ids is {other!r}, a {type(other).__name__}."
    elif draws and len(set(ids)) < n_images:
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        given = f"The image id '{twice}' is given twice: both images would share one stream of noise."
    else:
        return [str(each) for each in ids]
    raise ConditionError(
        given,
        expected="a sequence of strings, one for each image, no two alike",
        remedy="Give the ids of the data set, so that every checkpoint sees the same pixels.",
    )
