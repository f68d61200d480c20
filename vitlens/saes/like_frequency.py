"""Drawing features of several groups so that the groups are used equally often."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from ..errors import SAEError


def drawn_alike(
    frequencies: Mapping[str, Float[np.ndarray, " member"]], n_per_group: int, seed: int
) -> dict[str, Int[np.ndarray, " drawn"]]:
    """As many members of each group, as many of them in each octave of frequency.

    A feature that is seldom active does little whatever it means, so that groups of unlike frequency would
    differ in effect without differing in kind. Members whose frequency is 0 are never drawn, and a group
    without any other is left empty. Of each octave the group that has fewest says how many are drawn of all;
    where that makes more than are asked for, octaves are cut in proportion.

    Args:
        frequencies: group -> how often each member is active, in any unit.
        n_per_group: how many to draw of each, at most.
        seed: of the draw.

    Returns:
        Group -> places of the drawn members, rising.

    Raises:
        SAEError: there is no member, or no octave has members of all groups.

    Example:
        >>> frequencies = {"a": np.array([0.0, 1.0, 9.0, 10.0]), "b": np.array([8.0, 300.0])}
        >>> {group: len(places) for group, places in drawn_alike(frequencies, 10, seed=0).items()}
        {'a': 1, 'b': 1}
    """
    live = {group: np.flatnonzero(each) for group, each in frequencies.items()}
    octaves = {
        group: np.floor(np.log2(each[live[group]])).astype(np.int64) for group, each in frequencies.items()
    }
    filled = [each for each in octaves.values() if len(each)]
    shared = set.intersection(*({*each.tolist()} for each in filled)) if filled else set()
    if not shared:
        counts = ", ".join(f"{len(each)} {group}" for group, each in live.items())
        raise SAEError(
            f"No octave of activation frequency has features of all groups (active here: {counts}).",
            expected="groups some of whose features are active about equally often",
            remedy="Take more images, or a match in which more features stay in each group.",
        )
    available = {octave: min(int((each == octave).sum()) for each in filled) for octave in sorted(shared)}
    quotas = _cut(available, n_per_group)
    drawn = {}
    for number, (group, places) in enumerate(live.items()):
        rng = np.random.default_rng([seed, number])
        chosen = [
            rng.choice(places[octaves[group] == octave], size=quota, replace=False)
            for octave, quota in quotas.items()
            if len(places)
        ]
        drawn[group] = np.sort(np.concatenate(chosen)) if chosen else places
    return drawn


def _cut(available: Mapping[int, int], n: int) -> dict[int, int]:
    """At most `n` in all, in proportion; what rounding leaves goes where most was cut off."""
    total = sum(available.values())
    if total <= n:
        return dict(available)
    quotas = {octave: count * n // total for octave, count in available.items()}
    by_rest = sorted(available, key=lambda octave: -(available[octave] * n % total))
    for octave in by_rest[: n - sum(quotas.values())]:
        quotas[octave] += 1
    return quotas
