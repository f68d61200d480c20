"""Zooms against scipy's, cropped and trimmed about the center."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vitlens.images.corruptions.separable import filter_lines
from vitlens.images.corruptions.zoom import cropped_length, zoom_blur, zoom_filter

from ..conftest import textured

PARAMETERS = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)]
CPU = torch.device("cpu")


def zoomed(plane: np.ndarray, zoom: float) -> np.ndarray:
    """The center of a plane, stretched by scipy and trimmed to the plane's size."""
    height, width = plane.shape
    crop_height, crop_width = math.ceil(height / zoom), math.ceil(width / zoom)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    stretched = ndimage.zoom(plane[top : top + crop_height, left : left + crop_width], zoom, order=1)
    trim_top, trim_left = (stretched.shape[0] - height) // 2, (stretched.shape[1] - width) // 2
    return stretched[trim_top : trim_top + height, trim_left : trim_left + width]


@pytest.mark.parametrize(("end", "step"), PARAMETERS)
@pytest.mark.parametrize("size", [(32, 32), (16, 45), (61, 24), (80, 100)])
def test_zoom_blur_is_the_mean_of_the_image_and_scipys_zooms(end, step, size):
    pixels = textured(2, *size)
    zooms = np.arange(1, end, step)
    expected = [
        (plane + sum(zoomed(plane, zoom) for zoom in zooms)) / (len(zooms) + 1)
        for plane in pixels.double().flatten(0, 1).numpy()
    ]
    blurred = zoom_blur(pixels, end, step).double().flatten(0, 1)
    assert (blurred - torch.from_numpy(np.stack(expected))).abs().max() < 1e-5


def test_photographs_agree_to_a_level(photographs):
    pixels = photographs[:1]
    zooms = np.arange(1, 1.21, 0.02)
    expected = [
        (plane + sum(zoomed(plane, zoom) for zoom in zooms)) / (len(zooms) + 1)
        for plane in pixels[0].double().numpy()
    ]
    blurred = zoom_blur(pixels, 1.21, 0.02)[0].double()
    assert (blurred - torch.from_numpy(np.stack(expected))).abs().max() < 1 / 255 / 100


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), zoom=st.sampled_from([1.0, 1.04, 1.3, 2.0, 2.5, 3.0, 4.0, 4.5]))
def test_a_zoom_filter_stretches_a_line_as_scipy_does(n, zoom):
    cropped = cropped_length(n, zoom)
    line = torch.rand(cropped, dtype=torch.float64)
    stretched = ndimage.zoom(line.numpy(), zoom, order=1)
    trimmed = (len(stretched) - n) // 2
    filters = zoom_filter(n, zoom, 0, torch.float64, CPU), zoom_filter(1, 1.0, 0, torch.float64, CPU)
    result = filter_lines(line.view(1, 1, cropped, 1), [filters]).flatten()
    assert np.abs(result.numpy() - stretched[trimmed : trimmed + n]).max() < 1e-9


def test_zooms_that_end_where_they_begin_change_nothing():
    pixels = textured(1, 16, 20)
    assert torch.equal(zoom_blur(pixels, 1.005, 0.01), pixels)


def test_its_gradient_is_the_transposed_blur():
    pixels = textured(1, 35, 40).requires_grad_()
    other = textured(1, 35, 40, seed=1)
    (gradient,) = torch.autograd.grad((zoom_blur(pixels, 1.31, 0.03) * other).sum(), pixels)
    probe = textured(1, 35, 40, seed=2)
    slope = (zoom_blur(probe, 1.31, 0.03) * other).sum()
    assert (gradient * probe).sum().item() == pytest.approx(slope.item(), rel=1e-5)
