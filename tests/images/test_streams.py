"""Random streams are a format."""

import hashlib
import inspect
import itertools
import json

import pytest
import torch

from vitlens.errors import ConditionError
from vitlens.images.streams import stream


@pytest.mark.parametrize(
    ("key", "seed"),
    [((0, "digits/0042", "gaussian_noise", 3), 4261907117), ((7, "é\udcff", "impulse_noise", 1, 12), None)],
)
def test_the_key_is_the_documented_hash(key, seed):
    text = json.dumps([*key, *([None] * (5 - len(key)))])
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=4, person=b"vitlens.stream.1").digest()
    assert stream(*key).initial_seed() == int.from_bytes(digest, "little")
    assert seed is None or stream(*key).initial_seed() == seed


def test_keys_that_read_alike_when_joined_have_streams_of_their_own():
    keys = [
        (0, "a", "b", 1, None),
        (0, "a", "b", 1, 1),
        (0, "a", "b", 11, None),
        (0, "ab", "", 1, None),
        (0, "", "ab", 1, None),
        (1, "a", "b", 1, None),
        (0, 'a", "b', "", 1, None),
    ]
    seeds = [stream(*key).initial_seed() for key in keys]
    assert len(set(seeds)) == len(keys)


def test_streams_of_many_images_are_uncorrelated():
    noise = torch.stack(
        [torch.randn(500, generator=stream(0, str(i), "gaussian_noise", 3)) for i in range(40)]
    )
    correlations = torch.corrcoef(noise)
    pairs = [correlations[i, j].item() for i, j in itertools.combinations(range(40), 2)]
    assert max(map(abs, pairs)) < 5 / 500**0.5


@pytest.mark.parametrize("seed", [0.0, None, "0"])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ConditionError, match=r"seed is .*a whole number"):
        inspect.unwrap(stream)(seed, "a", "gaussian_noise", 3)
