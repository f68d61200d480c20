"""The calibration error, against a plain loop over bins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.errors import AnalysisError, ShapeError
from vitlens.functional.calibration import calibration_error, confidence_bin


def by_loop(confidence, correct, n_bins):
    """Guo et al.'s definition, a bin at a time."""
    total = 0.0
    for b in range(n_bins):
        inside = [
            i
            for i, value in enumerate(confidence)
            if b / n_bins < value <= (b + 1) / n_bins or (b == 0 and value == 0)
        ]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@settings(deadline=None, max_examples=60)
@given(
    images=st.lists(
        st.tuples(st.one_of(st.floats(0, 1), st.integers(0, 10).map(lambda n: n / 10)), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    n_bins=st.integers(1, 20),
)
def test_it_is_what_a_loop_over_bins_gives(images, n_bins):
    confidence, correct = (list(part) for part in zip(*images, strict=True))
    got = calibration_error(
        torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct), n_bins=n_bins
    )
    assert got.item() == pytest.approx(by_loop(confidence, correct, n_bins), abs=1e-12)


def test_one_bin_gives_the_distance_of_mean_confidence_from_accuracy():
    confidence, correct = torch.tensor([0.2, 0.4, 0.9]), torch.tensor([True, True, False])
    assert calibration_error(confidence, correct, n_bins=1).item() == pytest.approx(2 / 3 - 0.5)


def test_confidence_that_is_right_as_often_as_it_says_has_no_error():
    confidence = torch.tensor([0.8] * 5 + [0.25] * 4)
    correct = torch.tensor([True] * 4 + [False] + [True] + [False] * 3)
    assert calibration_error(confidence, correct).item() == pytest.approx(0, abs=1e-7)


def test_an_edge_belongs_to_the_bin_below():
    assert confidence_bin(torch.tensor([0.0, 0.5, 0.5001, 1.0, 1.000001]), 2).tolist() == [0, 0, 1, 1, 1]


def test_no_image_has_no_error():
    assert calibration_error(torch.empty(0), torch.empty(0, dtype=torch.bool)).isnan()


def test_what_is_no_confidence_is_refused():
    correct = torch.tensor([True, False])
    with pytest.raises(ShapeError, match="3 confidences and 2 answers"):
        calibration_error(torch.zeros(3), correct)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(AnalysisError, match=r"A confidence is .* Give the softmax of the logits"):
            calibration_error(torch.tensor([0.5, wrong]), correct)
    with pytest.raises(AnalysisError, match="n_bins is 0"):
        calibration_error(torch.zeros(2), correct, n_bins=0)
