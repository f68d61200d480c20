"""The made world: every factor is what the image shows, and texture is what a blur takes."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from scipy.stats import chi2_contingency, f_oneway
from sklearn.linear_model import RidgeClassifier

from vitlens.errors import DatasetError
from vitlens.images import batches, check, corrupt, spectrum
from vitlens.images.drawing import SHAPES, TEXTURES
from vitlens.images.textured_shapes import CHROMA, MEAN, RANGES, STD, textured_shapes

LUMA = np.array([0.299, 0.587, 0.114])
N_TRAIN, N_TEST = 1200, 800


def luma(pixels: torch.Tensor) -> np.ndarray:
    return np.einsum("c,ichw->ihw", LUMA, pixels.double().numpy())


@pytest.fixture(scope="module")
def worlds():
    return {
        "train": textured_shapes("train", n=N_TRAIN, seed=5),
        "test": textured_shapes("test", n=N_TEST, seed=5),
    }


@pytest.fixture(scope="module")
def items(worlds):
    return {split: [world[index] for index in range(len(world))] for split, world in worlds.items()}


@pytest.fixture(scope="module")
def pixels(items):
    return {split: torch.stack([item["pixels"] for item in drawn]) for split, drawn in items.items()}


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape of area 1, from its corners or its radius."""
    if shape == "disc":
        return np.pi * (x**2 + y**2) <= 1
    if shape == "bar":
        return (np.abs(x) <= 2**-0.5) & (np.abs(y) <= 2**-1.5)
    if shape == "triangle":
        side = 2 / 3**0.25
        top = -side / math.sqrt(3)  # of the three corners about the center of mass, the one above
        bottom = side / math.sqrt(12)
        return (y <= bottom) & (np.abs(x) <= (y - top) / math.sqrt(3))
    arm = 5**-0.5
    return ((np.abs(x) <= arm / 2) & (np.abs(y) <= 1.5 * arm)) | (
        (np.abs(y) <= arm / 2) & (np.abs(x) <= 1.5 * arm)
    )


def sampled_coverage(factors: dict, finer: int = 16) -> np.ndarray:
    """How much of each pixel lies in the shape, counted on a finer grid."""
    place = (np.arange(32 * finer) + 0.5) / finer - 0.5
    x, y = place - factors["center_column_pixels"], place[:, None] - factors["center_row_pixels"]
    # As a complex number, a point is turned back by one product.
    turned = (x + 1j * y) * np.exp(-1j * np.radians(factors["rotation_degrees"])) / factors["size_pixels"]
    counted = inside(factors["shape"], turned.real, turned.imag)
    return counted.reshape(32, finer, 32, finer).mean((1, 3))


def ground_light(factors: dict) -> np.ndarray:
    """The luma of the ground, under the shape as well."""
    place = np.arange(32) / 31 - 0.5
    toward = np.exp(1j * np.radians(factors["shading_degrees"]))
    return factors["ground_luma"] + factors["shading"] * (toward.real * place + toward.imag * place[:, None])


def plain_light(factors: dict) -> np.ndarray:
    """The luma of the image, had its shape no texture."""
    return ground_light(factors) + factors["contrast"] * sampled_coverage(factors)


def well_inside(covered: np.ndarray) -> np.ndarray:
    return minimum_filter(covered, 3) == 1


def test_the_mask_is_the_shape_that_the_factors_describe(worlds):
    for index in range(48):
        factors = worlds["test"][index]["factors"]
        covered = sampled_coverage(factors)
        mask = factors["mask"].numpy()
        assert mask.shape == (32, 32)
        assert mask.dtype == bool
        assert covered[mask].min() > 0.2  # at the tip of a triangle
        assert covered[~mask].max() < 0.75
        assert abs(covered.sum() / factors["size_pixels"] ** 2 - 1) < 0.005
        assert abs(mask.sum() / factors["size_pixels"] ** 2 - 1) < 0.06
        rows, columns = np.nonzero(mask)
        assert abs(rows.mean() - factors["center_row_pixels"]) < 0.35
        assert abs(columns.mean() - factors["center_column_pixels"]) < 0.35
        assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()


def test_ground_and_shape_have_the_luma_and_the_hue_of_their_factors(worlds):
    for index in range(32):
        item = worlds["test"][index]
        factors, image = item["factors"], item["pixels"].double().numpy()
        covered = sampled_coverage(factors)
        outside = maximum_filter(covered, 3) == 0
        light = np.einsum("c,chw->hw", LUMA, image)
        shape = light - ground_light(factors)
        assert np.abs(shape[outside]).max() < 1e-6
        # Over the whole shape the texture has no mean, which leaves the contrast times the area.
        assert abs(shape.sum() / covered.sum() / factors["contrast"] - 1) < 0.01
        difference = image - light
        for hue, where in (
            (factors["ground_hue_degrees"], outside),
            (factors["hue_degrees"], well_inside(covered)),
        ):
            red_blue = difference[0][where] + 1j * difference[2][where]
            assert np.abs(red_blue - CHROMA * np.exp(1j * np.radians(hue))).max() < 1e-6


def test_the_texture_is_a_gray_wave_of_its_period_orientation_and_rms(worlds, pixels):
    for index in range(48):
        factors = worlds["test"][index]["factors"]
        core = well_inside(sampled_coverage(factors))
        wave = (luma(pixels["test"][index : index + 1])[0] - plain_light(factors))[core]
        assert abs(np.sqrt(np.square(wave).mean()) / factors["texture_rms"] - 1) < 0.25
        x = np.arange(32) - factors["center_column_pixels"]
        y = np.arange(32)[:, None] - factors["center_row_pixels"]
        back = (x + 1j * y) * np.exp(-1j * np.radians(factors["texture_orientation_degrees"]))
        back *= 2 * np.pi / factors["texture_period_pixels"]
        u, v = back.real, back.imag
        phase, along = (np.radians(factors[f"texture_phase{name}_degrees"]) for name in ("", "_along"))
        length = 5 * np.pi
        expected = {
            "stripes": np.cos(u + phase),
            "checks": 2 * np.cos((u + v + phase + along) / 2) * np.cos((u - v + phase - along) / 2),
            "rings": np.cos(np.abs(back) + phase),
            "zigzag": np.cos(
                (u + np.abs((v + along * length / (2 * np.pi)) % length - length / 2)) / math.sqrt(2) + phase
            ),
        }[factors["texture"]][core]
        assert np.corrcoef(wave, expected)[0, 1] > 0.9, (factors["texture"], index)


def test_every_image_depends_on_seed_split_and_number_alone(worlds):
    few, other = textured_shapes("test", n=5, seed=5), textured_shapes("test", n=5, seed=6)
    state = torch.get_rng_state()
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    for index in (4, 0, 2):
        assert torch.equal(few[index]["pixels"], worlds["test"][index]["pixels"])
        assert few[index]["image_id"] == worlds["test"][index]["image_id"]
        assert few.labels[index] == worlds["test"].labels[index]
        assert not torch.equal(few[index]["pixels"], other[index]["pixels"])
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(np_state, np.random.get_state()[1])  # noqa: NPY002


def test_what_is_drawn_is_fixed():
    """Results that were published rest on it."""
    world = textured_shapes("test", n=1)
    first = world.factors.iloc[0]
    assert (first["shape"], first["texture"]) == ("triangle", "zigzag")
    assert first["size_pixels"] == pytest.approx(13.644439, abs=1e-6)
    assert first["shading_degrees"] == pytest.approx(221.792463, abs=1e-6)
    assert world[0]["pixels"].mean().item() == pytest.approx(0.309325, abs=1e-6)


def test_train_and_test_share_no_image(worlds, pixels):
    assert not set(worlds["train"].image_ids) & set(worlds["test"].image_ids)
    distance = torch.cdist(pixels["train"].flatten(1), pixels["test"].flatten(1))
    assert distance.min() > 1


@pytest.mark.parametrize("n", [1, 6, 16, 37, 160])
@pytest.mark.parametrize("label", ["class", "shape", "texture"])
def test_labels_are_as_frequent_as_each_other_to_within_one(n, label):
    world = textured_shapes("train", n=n, seed=3, label=label)
    counts = np.bincount(world.labels, minlength=len(world.class_names))
    assert counts.max() - counts.min() <= 1
    assert len(counts) == {"class": 16, "shape": 4, "texture": 4}[label]


def test_labels_are_names_of_the_factors_and_do_not_change_the_image():
    asked = {label: textured_shapes("test", n=20, label=label) for label in ("class", "shape", "texture")}
    for index in range(20):
        items = {label: world[index] for label, world in asked.items()}
        shape, texture = (items["class"]["factors"][name] for name in ("shape", "texture"))
        names = {label: world.class_names[items[label]["label"]] for label, world in asked.items()}
        assert names == {"class": f"{shape}/{texture}", "shape": shape, "texture": texture}
        assert torch.equal(items["shape"]["pixels"], items["class"]["pixels"])
        assert items["shape"]["image_id"] == items["texture"]["image_id"]
    assert asked["shape"].classes == {name: index for index, name in enumerate(SHAPES)}
    assert asked["texture"].classes == {name: index for index, name in enumerate(TEXTURES)}


def test_the_table_says_what_the_items_say(worlds):
    table = worlds["test"].factors
    assert list(table.index) == worlds["test"].image_ids
    for index in (0, 13, N_TEST - 1):
        factors = dict(worlds["test"][index]["factors"])
        del factors["mask"]
        assert table.iloc[index].to_dict() == factors
    assert torch.equal(worlds["test"][-1]["pixels"], worlds["test"][N_TEST - 1]["pixels"])
    with pytest.raises(IndexError):
        worlds["test"][N_TEST]


def test_all_other_factors_are_uniform_and_independent_of_the_class_and_of_each_other():
    table = textured_shapes("train", n=4000, seed=1).factors
    scalars = table[list(RANGES)]
    for name, (low, high) in RANGES.items():
        assert scalars[name].between(low, high).all()
        share = np.histogram(scalars[name], bins=8, range=(low, high))[0] / 4000
        assert np.abs(share - 1 / 8).max() < 0.025
        for kind in ("shape", "texture"):
            p = f_oneway(*(group.to_numpy() for _, group in scalars[name].groupby(table[kind]))).pvalue
            binned = np.digitize(scalars[name], np.linspace(low, high, 7)[1:-1])
            counts = np.histogram2d(table[f"{kind}_index"], binned, bins=(4, 6))[0]
            assert min(p, chi2_contingency(counts).pvalue) > 1e-4, (name, kind)
    correlation = np.corrcoef(scalars.to_numpy().T) - np.eye(len(RANGES))
    assert np.abs(correlation).max() < 4 / math.sqrt(4000)
    # An image's class says nothing of the next one's beyond that each four differ.
    assert chi2_contingency(np.histogram2d(table["shape_index"], table["texture_index"], 4)[0]).pvalue > 0.99


def test_mean_and_std_are_those_of_the_pixels(pixels):
    assert torch.allclose(pixels["train"].mean((0, 2, 3)), torch.tensor(MEAN), atol=0.003)
    assert torch.allclose(pixels["train"].std((0, 2, 3)), torch.tensor(STD), atol=0.003)


def test_no_value_is_clipped(pixels):
    for images in pixels.values():
        assert images.dtype == torch.float32
        assert images.min() > 0.02
        assert images.max() < 0.98


def test_items_pass_every_check_and_cannot_be_spoilt(worlds):
    world = textured_shapes("test", n=40)
    check(world, 16)
    assert sum(len(batch) for batch in batches(world, 16, n_classes=16, image_size=(32, 32))) == 40
    world[0]["pixels"].zero_()
    world[0]["factors"]["mask"].zero_()
    assert world[0]["pixels"].any()
    assert world[0]["factors"]["mask"].any()


def test_textures_are_high_frequencies_and_shapes_are_low_ones(worlds, pixels):
    """Layer by layer: the ground, the plain shape on it, the textured shape."""
    world, textured = worlds["test"], pixels["test"][:160]
    ground, plain = torch.empty_like(textured), torch.empty_like(textured)
    for index in range(160):
        factors = world[index]["factors"]
        ground[index] = torch.from_numpy(ground_light(factors))
        plain[index] = torch.from_numpy(plain_light(factors))
    gray = torch.from_numpy(luma(textured)).float()[:, None].expand(-1, 3, -1, -1)
    share = {"shape": spectrum(ground, plain).hf_energy, "texture": spectrum(plain, gray).hf_energy}
    for kind, names in (("shape", SHAPES), ("texture", TEXTURES)):
        which = world.factors[kind].to_numpy()[:160]
        mean = {name: share[kind].numpy()[which == name].mean() for name in names}
        assert max(mean.values()) < 0.1 if kind == "shape" else min(mean.values()) > 0.95, mean


def test_a_blur_leaves_half_a_level_of_255_of_the_texture(worlds, pixels):
    world, textured = worlds["test"], pixels["test"][:160]
    plain = np.stack([plain_light(world[index]["factors"]) for index in range(160)])
    pair = torch.cat([torch.from_numpy(plain).float()[:, None].expand(-1, 3, -1, -1), textured])
    blurred = luma(corrupt(pair, "gaussian_blur", severity=3, image_ids=[str(place) for place in range(320)]))
    left = np.abs(blurred[160:] - blurred[:160]).max((1, 2))
    assert left.mean() < 0.5 / 255
    assert left.max() < 2 / 255


def energy_by_frequency(pixels: torch.Tensor, masks: np.ndarray) -> np.ndarray:
    """[image 64] log energy of the luma inside the mask, in squares of 4 × 4 frequencies."""
    light = luma(pixels)
    mean = (light * masks).sum((1, 2)) / masks.sum((1, 2))
    power = np.abs(np.fft.fft2(np.where(masks, light - mean[:, None, None], 0))) ** 2
    blocks = np.fft.fftshift(power, axes=(1, 2)).reshape(-1, 8, 4, 8, 4).mean((2, 4))
    return np.log(blocks + 1e-9).reshape(-1, 64)


def light_by_place(pixels: torch.Tensor, _masks: np.ndarray) -> np.ndarray:
    """[image 256] luma without what is finer than about eight pixels, every other pixel."""
    return gaussian_filter(luma(pixels), (0, 2, 2))[:, ::2, ::2].reshape(-1, 256)


@pytest.mark.parametrize(("kind", "features"), [("texture", energy_by_frequency), ("shape", light_by_place)])
def test_a_blur_takes_the_texture_and_leaves_the_shape(kind, features, worlds, items, pixels):
    accuracy = {}
    for severity in (0, 3, 5):
        x, y = {}, {}
        for split, world in worlds.items():
            seen = pixels[split]
            if severity:
                seen = corrupt(seen, "gaussian_blur", severity=severity, image_ids=world.image_ids)
            masks = np.stack([item["factors"]["mask"].numpy() for item in items[split]])
            x[split], y[split] = features(seen, masks), world.factors[f"{kind}_index"].to_numpy()
        mean, deviation = x["train"].mean(0), x["train"].std(0)
        classifier = RidgeClassifier(alpha=0.01).fit((x["train"] - mean) / deviation, y["train"])
        accuracy[severity] = classifier.score((x["test"] - mean) / deviation, y["test"])
    if kind == "texture":
        assert accuracy[0] > 0.97, accuracy
        # Four standard errors above a chance of 1/4.
        assert max(accuracy[3], accuracy[5]) < 0.25 + 4 * math.sqrt(0.25 * 0.75 / N_TEST), accuracy
    else:
        assert min(accuracy.values()) > 0.9, accuracy


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"split": "val"}, r"split is 'val'\. Expected: 'train' or 'test'\. Where a third part"),
        ({"split": "test", "n": 0}, r"n is 0\. Expected: 1 or more"),
        ({"split": "test", "label": "hue"}, r"label is 'hue'\. Expected: 'class', 'shape' or 'texture'"),
    ],
)
def test_what_does_not_exist_is_refused(asked, message):
    with pytest.raises(DatasetError, match=message):
        textured_shapes(**asked)
