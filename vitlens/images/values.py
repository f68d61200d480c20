"""What counts as a number where a caller gives one: numpy's too, and no bool."""

from __future__ import annotations

from numbers import Integral, Real


def is_real(value: object) -> bool:
    """Whether `value` is a real number.

    Example:
        >>> import numpy as np
        >>> [is_real(each) for each in (1, 0.5, np.float32(0.5), True, "0.5")]
        [True, True, True, False, False]
    """
    return not isinstance(value, bool) and isinstance(value, Real)


def is_whole(value: object) -> bool:
    """Whether `value` is a whole number.

    Example:
        >>> import numpy as np
        >>> [is_whole(each) for each in (1, np.int64(3), 1.0, True)]
        [True, True, False, False]
    """
    return not isinstance(value, bool) and isinstance(value, Integral)
