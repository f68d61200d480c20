"""`measure_frequency`: means over images of what `spectrum` measures."""

import numpy as np
import pytest
import torch
from scipy import stats

from vitlens.errors import ConditionError
from vitlens.images import WhiteBox, corrupt, measure_frequency, spectrum

from .conftest import textured


def items(n=6, height=24, width=30):
    pixels = textured(n, height, width)
    return [{"pixels": each, "label": 0, "image_id": f"{index}"} for index, each in enumerate(pixels)]


def test_a_row_holds_means_and_t_intervals_of_the_spectra():
    dataset = items()
    table = measure_frequency(dataset, ["clean", "gaussian_noise@2"], batch_size=4, seed=3, progress=False)
    assert list(table.condition) == ["clean", "gaussian_noise@2"]
    assert list(table.n_images) == [6, 6]
    pixels = torch.stack([item["pixels"] for item in dataset])
    noisy = corrupt(pixels, "gaussian_noise", 2, image_ids=[item["image_id"] for item in dataset], seed=3)
    found = spectrum(pixels, (noisy * 255).round() / 255)
    for name in ("hf_energy", "delta_hf_db", "rms"):
        values = getattr(found, name).numpy()
        low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
        row = table.iloc[1]
        assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == pytest.approx(
            [values.mean(), low, high]
        )


def test_where_nothing_changes_there_is_no_share_and_no_warning():
    row = measure_frequency(items(), ["clean"], progress=False).iloc[0]
    assert np.isnan(row.hf_energy)
    assert row.rms < 1e-7
    assert row.delta_hf_db == pytest.approx(0, abs=1e-5)


def test_one_image_has_no_interval():
    row = measure_frequency(items(1), ["contrast@3"], progress=False).iloc[0]
    assert np.isfinite(row.rms)
    assert np.isnan(row.rms_low)


def test_a_condition_that_looks_at_a_model_is_refused():
    with pytest.raises(ConditionError, match="'mine' looks inside a model, and there is none here"):
        measure_frequency(items(), [{"mine": WhiteBox(lambda model, pixels, labels: pixels)}])
