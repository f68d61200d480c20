"""`corrupt`: what an image's result depends on, and what is refused."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitlens.errors import ConditionError, PixelError
from vitlens.images import CORRUPTIONS, corrupt

from ..conftest import textured

NAMES = st.sampled_from(sorted(CORRUPTIONS))
STOCHASTIC = sorted(name for name, spec in CORRUPTIONS.items() if spec.stochastic)
SEVERITIES = st.integers(1, 5)
IDS = [f"image {i}" for i in range(6)]


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def rms_of(perturbation: torch.Tensor) -> float:
    return perturbation.double().square().mean().sqrt().item()


@settings(max_examples=30, deadline=None)
@given(
    name=NAMES,
    severity=SEVERITIES,
    order=st.permutations(range(6)),
    cut=st.integers(0, 6),
    height=st.integers(16, 40),
    width=st.integers(16, 40),
)
def test_any_order_and_any_split_into_batches_give_the_same_pixels(name, severity, order, cut, height, width):
    pixels = textured(6, height, width)
    whole = corrupt(pixels, name, severity, image_ids=IDS, seed=3)
    parts = [
        corrupt(pixels[part], name, severity, image_ids=[IDS[i] for i in part], seed=3)
        for part in (order[:cut], order[cut:])
        if part
    ]
    # Sums are taken in another order in a batch of another size; noise is the same to the last bit.
    assert largest_difference(torch.cat(parts), whole[order]) < 2e-6


@settings(max_examples=30, deadline=None)
@given(name=NAMES, severity=SEVERITIES, height=st.integers(1, 40), width=st.integers(1, 40))
def test_shape_dtype_and_range_are_kept_at_every_size(name, severity, height, width):
    pixels = textured(2, height, width)
    before = pixels.clone()
    result = corrupt(pixels, name, severity, image_ids=["a", "b"])
    assert result.shape == pixels.shape
    assert result.dtype == pixels.dtype
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_dtype_sees_the_same_corruption(name, dtype):
    pixels = textured(2, 24, 24).to(dtype)
    result = corrupt(pixels, name, 3, image_ids=["a", "b"])
    assert result.dtype == dtype
    reference = corrupt(pixels.float(), name, 3, image_ids=["a", "b"])
    assert largest_difference(result, reference) < {torch.float16: 1e-3, torch.bfloat16: 4e-3}.get(
        dtype, 1e-5
    )


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_mixed_precision_around_it_changes_nothing(name):
    pixels = textured(2, 24, 24)
    plain = corrupt(pixels, name, 3, image_ids=["a", "b"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(corrupt(pixels, name, 3, image_ids=["a", "b"]), plain)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_an_empty_batch_stays_empty(name):
    assert corrupt(torch.zeros(0, 3, 16, 16), name, image_ids=[]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_draws_differ_by_seed_image_severity_and_step_and_repeat_otherwise(name):
    pixels = textured(1, 32, 32)

    def drawn(image_id="a", **keywords):
        return corrupt(pixels, name, image_ids=[image_id], **keywords)

    assert torch.equal(drawn(), drawn())
    results = [drawn(), drawn("b"), drawn(seed=1), drawn(step=0), drawn(step=1), drawn(severity=2)]
    for index, one in enumerate(results):
        assert all(not torch.equal(one, another) for another in results[:index])


def test_at_another_severity_the_noise_is_another_draw_and_not_the_same_made_stronger():
    grey = torch.full((1, 3, 16, 16), 0.5)
    mild, strong = (corrupt(grey, "impulse_noise", level, image_ids=["a"]) != 0.5 for level in (1, 2))
    assert not torch.equal(mild & strong, mild)


MONOTONE = sorted({*CORRUPTIONS} - {"elastic", "saturate", "spatter", "glass_blur", "fog"})
"""Elastic and saturate change in kind from severity to severity, and spatter from water to mud; glass blur
trades the reach of its moves for their number; fog's severities 3 and 4 differ by less than its draws."""


@pytest.mark.parametrize("name", MONOTONE)
def test_a_higher_severity_changes_photographs_more(photographs, name):
    pixels = photographs[::4]
    ids = [str(index) for index in range(len(pixels))]
    rms = [
        (corrupt(pixels, name, level, image_ids=ids) - pixels).square().mean().sqrt() for level in range(1, 6)
    ]
    assert rms == sorted(rms), rms


@pytest.mark.parametrize("name", ["gaussian_noise", "contrast"])
@pytest.mark.parametrize("quality", [85, 30])
def test_stored_as_jpeg_is_what_pillow_writes_and_reads(name, quality):
    pixels = textured(2, 24, 40)
    stored = corrupt(pixels, name, 2, image_ids=["a", "b"], jpeg_quality=quality)
    plain = corrupt(pixels, name, 2, image_ids=["a", "b"])
    for ours, before in zip(stored, plain, strict=True):
        content = io.BytesIO()
        levels = (before * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(content, "JPEG", quality=quality)
        expected = torch.from_numpy(np.array(Image.open(content))).permute(2, 0, 1)
        assert torch.equal((ours * 255).round().byte(), expected)


@pytest.mark.parametrize("quality", [0, 96, -1, True])
def test_a_quality_that_is_none_is_refused(quality):
    with pytest.raises(ConditionError, match="quality"):
        corrupt(textured(1, 16, 16), "contrast", jpeg_quality=quality)


def test_storing_softens_noise_as_the_official_files_are_softened(photographs):
    pixels = photographs[::4]
    ids = [str(index) for index in range(len(pixels))]
    in_memory, stored = (
        (corrupt(pixels, "gaussian_noise", 3, image_ids=ids, jpeg_quality=quality) - pixels)
        .square()
        .mean()
        .sqrt()
        for quality in (None, 85)
    )
    assert stored < 0.9 * in_memory


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_global_random_state_is_neither_read_nor_written(name):
    grey = textured(1, 16, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = corrupt(grey, name, image_ids=["a"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(corrupt(grey, name, image_ids=["a"]), first)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_gradients_reach_the_pixels_of_what_calls_itself_differentiable(name):
    pixels = textured(1, 16, 16).mul(0.5).add(0.25).requires_grad_()
    result = corrupt(pixels, name, 1, image_ids=["a"])
    if not CORRUPTIONS[name].differentiable:
        # Rounding has no slope.
        assert not torch.autograd.grad(result.sum(), pixels)[0].any()
        return
    (gradient,) = torch.autograd.grad(result.square().sum(), pixels)
    direction = textured(1, 16, 16, seed=1) - 0.5
    step = 1e-4
    ends = [
        corrupt((pixels.detach().double() + sign * step * direction), name, 1, image_ids=["a"]).square().sum()
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=0.02)


@pytest.mark.parametrize("severity", [0, 6, -1, True])
def test_a_severity_outside_one_to_five_is_refused(severity):
    with pytest.raises(
        ConditionError, match=rf"severity of 'contrast' is {severity}\. Expected: a whole number from 1"
    ):
        corrupt(textured(1, 16, 16), "contrast", severity)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(3, 16, 16), r"have shape \[3, 16, 16\].*\[batch 3 height width\]"),
        (torch.zeros(1, 1, 16, 16), r"have shape \[1, 1, 16, 16\].*three channels"),
        (torch.zeros(1, 3, 0, 16), r"have shape \[1, 3, 0, 16\]"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"are torch\.uint8.*float\(\) / 255"),
        (torch.full((1, 3, 16, 16), 1.5), r"go from 1\.5 to 1\.5.*normalization"),
        (torch.linspace(-2, 2, 768).view(1, 3, 16, 16), r"go from -2 to 2"),
        (torch.full((1, 3, 16, 16), float("inf")), r"go from inf to inf"),
        (torch.full((1, 3, 16, 16), float("nan")), r"hold NaN"),
    ],
)
def test_pixels_that_are_no_batch_of_images_are_refused(pixels, message):
    with pytest.raises(PixelError, match=rf"(?s)pixels to be corrupted by 'contrast' {message}"):
        corrupt(pixels, "contrast")


def test_one_bad_pixel_among_many_is_found():
    pixels = textured(2, 16, 16)
    pixels[1, 2, 7, 7] = float("nan")
    with pytest.raises(PixelError, match="hold NaN"):
        corrupt(pixels, "contrast")


@pytest.mark.parametrize(
    ("image_ids", "message"),
    [
        (None, "draws at random and no image_ids were given"),
        (["a"], "1 image_ids were given for 2 images"),
        ("ab", "image_ids is one string, 'ab'"),
        (["a", "b", "c"], "3 image_ids were given for 2"),
        (["a", "a"], "image id 'a' is given twice: both images would share one stream of noise"),
    ],
)
def test_noise_asks_for_one_id_an_image(image_ids, message):
    with pytest.raises(ConditionError, match=message):
        corrupt(textured(2, 16, 16), "gaussian_noise", image_ids=image_ids)


def test_what_draws_nothing_asks_for_no_ids():
    pixels = textured(2, 16, 16)
    plain = corrupt(pixels, "contrast")
    assert torch.equal(plain, corrupt(pixels, "contrast", image_ids=["a", "b"], seed=9))
    assert torch.equal(plain, corrupt(pixels, "contrast", image_ids=["a", "a"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_a_gpu_gives_the_pixels_of_the_cpu(name):
    pixels = textured(2, 32, 32)
    here = corrupt(pixels, name, 3, image_ids=["a", "b"])
    there = corrupt(pixels.cuda(), name, 3, image_ids=["a", "b"])
    assert there.is_cuda
    assert largest_difference(there.cpu(), here) < 1e-5
