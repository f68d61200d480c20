"""The digits: what they are and how they are split."""

import hashlib
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vitlens.errors import DatasetError
from vitlens.images import batches, check, digits


@pytest.fixture(scope="module")
def parts():
    return {split: digits(split) for split in ("train", "test")}


def test_the_two_parts_make_up_the_whole_and_share_nothing(parts):
    train, test = parts["train"], parts["test"]
    assert (len(train), len(test)) == (1297, 500)
    assert sorted(train.image_ids + test.image_ids) == [f"digits/{number:04d}" for number in range(1797)]


def test_every_class_has_its_share_of_the_test_part(parts):
    whole = Counter(load_digits().target.tolist())
    for digit, count in Counter(parts["test"].labels).items():
        assert abs(count - whole[digit] * 500 / 1797) < 1


def test_the_split_is_fixed(parts):
    text = "\n".join(parts["test"].image_ids).encode()
    assert (
        hashlib.sha256(text).hexdigest() == "e95b2b3b41fba9f3603bc4f92f259a136a5d068c979a8e390d3a28c37ea303ce"
    )


def bicubic(scan: np.ndarray) -> np.ndarray:
    """Keys's interpolation with a = -0.75, the border's pixels repeated outward, by its definition."""
    enlarge = np.zeros((32, 8))
    for row in range(32):
        position = (row + 0.5) / 4 - 0.5
        for source in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            t = abs(position - source)
            near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            enlarge[row, np.clip(source, 0, 7)] += near if t <= 1 else far
    return np.clip(enlarge @ scan @ enlarge.T, 0, 1)


def test_each_item_is_the_scan_its_id_names_made_larger(parts):
    loaded = load_digits()
    for part in parts.values():
        for index in (0, 17, len(part) - 1):
            entry = part[index]
            number = int(entry["image_id"].removeprefix("digits/"))
            assert entry["label"] == part.labels[index] == loaded.target[number]
            expected = torch.from_numpy(bicubic(loaded.images[number] / 16)).expand(3, 32, 32)
            assert entry["pixels"].dtype == torch.float32
            assert (entry["pixels"] - expected).abs().max() < 1e-5


def test_items_pass_every_check_and_cannot_be_spoilt(parts):
    test = parts["test"]
    check(test, 10)
    assert sum(len(batch) for batch in batches(test, 128, n_classes=10, image_size=(32, 32))) == 500
    test[0]["pixels"].zero_()
    assert test[0]["pixels"].any()
    assert test.classes == {str(digit): digit for digit in range(10)}


def test_an_unknown_split_is_refused():
    with pytest.raises(DatasetError, match=r"split is 'val'\. Expected: 'train' or 'test'"):
        digits("val")


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DatasetError, match=r"pip install vitlens\[digits\]"):
        digits("test")
