"""The blurs that spread every pixel alike, beyond what `corrupt` shows of them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitlens.images.corruptions.blur import defocus_blur, disk_kernel, gaussian_blur


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


@pytest.mark.parametrize("size", [(70, 97), (3, 33), (1, 64)])
@pytest.mark.parametrize("sigma", [0.7, 2.0, 6.0])
def test_gaussian_blur_of_any_number_of_channels_is_scipys(size, sigma):
    planes = torch.rand(2, 1, *size, dtype=torch.float64)
    expected = [ndimage.gaussian_filter(p, sigma, mode="nearest", truncate=4) for p in planes[:, 0].numpy()]
    assert (
        largest_difference(gaussian_blur(planes, sigma)[:, 0], torch.from_numpy(np.stack(expected))) < 1e-12
    )


@pytest.mark.parametrize(("radius", "alias"), [(3, 0.1), (6, 0.5), (10, 0.5)])
@pytest.mark.parametrize("n_images", [1, 2])
def test_defocus_blur_is_the_disk_kernel_whether_planes_pair_up_or_not(radius, alias, n_images):
    pixels = torch.rand(n_images, 3, 50, 37, dtype=torch.float64)
    kernel = disk_kernel(radius, alias).numpy()
    expected = [ndimage.correlate(plane, kernel, mode="mirror") for plane in pixels.flatten(0, 1).numpy()]
    blurred = defocus_blur(pixels, radius, alias).flatten(0, 1)
    assert largest_difference(blurred, torch.from_numpy(np.stack(expected))) < 1e-12


def test_a_plane_that_shares_its_transform_with_another_keeps_its_values():
    pixels = torch.rand(1, 3, 40, 40)
    alone = defocus_blur(pixels, 6, 0.5)
    beside = defocus_blur(torch.cat([torch.ones(2, 3, 40, 40), pixels, torch.zeros(1, 3, 40, 40)]), 6, 0.5)
    assert largest_difference(beside[2:3], alone) < 1e-6


@pytest.mark.parametrize("blur", [lambda x: gaussian_blur(x, 1.5), lambda x: defocus_blur(x, 4, 0.5)])
def test_what_is_kept_from_inference_mode_serves_a_gradient_later(blur):
    size = (41, 43)  # seen nowhere else, so that the filter is made here
    with torch.inference_mode():
        blur(torch.rand(1, 3, *size))
    pixels = torch.rand(1, 3, *size, requires_grad=True)
    other = torch.rand(1, 3, *size)
    (gradient,) = torch.autograd.grad((blur(pixels) * other).sum(), pixels)
    # A linear map: its gradient against an image is its value at that image.
    probe = torch.rand(1, 3, *size)
    assert (gradient * probe).sum().item() == pytest.approx((blur(probe) * other).sum().item(), rel=1e-5)


def test_blurs_keep_a_flat_image_flat(photographs):
    flat = photographs[:1, :, :1, :1].expand(-1, -1, 61, 47)
    assert largest_difference(gaussian_blur(flat, 3.0), flat) < 1e-6
    assert largest_difference(defocus_blur(flat, 3, 0.1), flat) < 1e-6
