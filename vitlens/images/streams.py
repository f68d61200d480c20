"""One random stream per (seed, image, corruption, severity), and per step in training.

What a stream is named by is all it depends on: the noise is the same whatever the batch size, the order,
the worker, the process or the device.
"""

from __future__ import annotations

import hashlib
import json
import operator

import torch

from ..errors import ConditionError

_FORMAT = b"vitlens.stream.1"


def stream(
    seed: int, image_id: str, corruption: str, severity: int, step: int | None = None
) -> torch.Generator:
    """The random generator of one corruption of one image.

    The key is a format; changing it changes every published number that rests on noise. It is the JSON list
    `[seed, image_id, corruption, severity, step]` (Python's `json.dumps` with its defaults, `step` null
    outside training), hashed by BLAKE2b with a digest of 4 bytes and the personalization
    `vitlens.stream.1`, and read as a little-endian integer. Four bytes are all that torch's CPU generator
    takes in: two given images share a stream with a chance of 1 in 4.3 billion.

    Args:
        seed: the study's seed.
        image_id: the image's name in its data set.
        corruption: the corruption's name.
        severity: 1 to 5.
        step: the training step, where each step shall draw anew.

    Returns:
        A new generator on the CPU. Draw from it there, then move what was drawn.

    Raises:
        ConditionError: the seed is no whole number.

    Example:
        >>> stream(0, "digits/0042", "gaussian_noise", 3).initial_seed()
        4261907117
    """
    try:
        seed = int(operator.index(seed))
    except TypeError as error:
        raise ConditionError(
            f"The seed is {seed!r}.", expected="a whole number", remedy="Give seed=0, say."
        ) from error
    key = json.dumps([seed, image_id, corruption, severity, step]).encode()
    digest = hashlib.blake2b(key, digest_size=4, person=_FORMAT).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
