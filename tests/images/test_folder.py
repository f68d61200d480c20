"""Folders of images: what is found, how it is labelled and shown, and files of every kind."""

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import Subset

from vitlens.errors import DatasetError, LabelError
from vitlens.images import batches, check, folder
from vitlens.images.decoding import read_rgb
from vitlens.models import HookedViT

from .conftest import textured


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    levels = (textured(1, height, width, seed)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels)


def write(root, *names: str):
    for index, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(40, 50, seed=index).save(path)
    return root


def model_of(n_classes: int, **data_config) -> HookedViT:
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=8, depth=1, num_heads=2, num_classes=n_classes
    )
    return HookedViT(module.eval(), data_config=data_config)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width"), [(40, 50), (90, 33), (20, 70)])
def test_normalized_pixels_are_those_of_timms_evaluation_transform(
    tmp_path, crop_mode, interpolation, height, width
):
    (tmp_path / "a").mkdir()
    image = photograph(height, width)
    image.save(tmp_path / "a" / "1.png")
    model = model_of(
        1,
        input_size=(3, 32, 32),
        crop_mode=crop_mode,
        interpolation=interpolation,
        crop_pct=0.8,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.25),
    )
    expected = create_transform(**model.data_config, is_training=False)(image)
    pixels = folder(tmp_path, model)[0]["pixels"]
    assert pixels.dtype == torch.float32
    assert (model.normalize(pixels) - expected).abs().max() < 1e-6


def test_photographs_are_shown_as_timm_shows_them(data_folder, deit_tiny):
    dataset = folder(data_folder / "imagenet_samples", HookedViT(deit_tiny))
    transform = create_transform(**resolve_model_data_config(deit_tiny), is_training=False)
    assert len(dataset) == 1000
    # Folder order is class order, for WordNet ids.
    assert dataset.labels == list(range(1000))
    for index in (0, 500, 999):
        expected = transform(Image.open(dataset.paths[index]).convert("RGB"))
        normalized = HookedViT(deit_tiny).normalize(dataset[index]["pixels"])
        assert (normalized - expected).abs().max() < 1e-6


def test_the_size_is_that_of_the_module_not_of_its_pretrained_weights(tmp_path):
    module = timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), num_classes=1)
    pixels = folder(write(tmp_path, "a/1.png"), HookedViT(module))[0]["pixels"]
    assert pixels.shape == (3, 64, 96)


def test_images_are_found_at_any_depth_in_order_and_nothing_else_is(tmp_path, small_model):
    write(
        tmp_path,
        "b/2.png",
        "b/deep/er/1.JPG",
        "b/10.webp",
        "a/x.bmp",
        "a/.hidden.png",
        ".git/y.png",
        "a/.cache/z.png",
    )
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "list.csv").write_text("not a class")
    photograph(40, 40).save(tmp_path / "stray.png")
    dataset = folder(tmp_path, small_model, classes={"a": 4, "b": 2, "absent": 9})
    assert dataset.image_ids == ["a/x.bmp", "b/10.webp", "b/2.png", "b/deep/er/1.JPG"]
    assert dataset.labels == [4, 2, 2, 2]
    assert dataset.classes == {"a": 4, "b": 2}
    assert dataset.paths[3] == tmp_path / "b" / "deep" / "er" / "1.JPG"
    assert dataset[3]["image_id"] == "b/deep/er/1.JPG"


def test_linked_class_folders_are_followed(tmp_path, small_model):
    write(tmp_path / "store", "a/1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "store" / "a", target_is_directory=True)
    assert folder(tmp_path / "data", small_model, classes={"a": 0}).image_ids == ["a/1.png"]


def test_without_a_mapping_folders_are_counted_in_order(tmp_path):
    write(tmp_path, "cat/1.png", "ant/1.png", "bee/1.png")
    assert folder(tmp_path, model_of(3)).classes == {"ant": 0, "bee": 1, "cat": 2}
    # A model without a classifier has no order to keep to.
    assert folder(tmp_path, model_of(0)).labels == [0, 1, 2]
    with pytest.raises(
        DatasetError, match=r"There are 3 class folders \(ant, bee, cat\), and the model has 10 classes\."
    ):
        folder(tmp_path, model_of(10))
    with pytest.raises(DatasetError, match=r"cat\), and the model has 1 class\."):
        folder(tmp_path, model_of(1))


def test_the_folder_above_the_parts_of_a_data_set_names_a_part(tmp_path):
    write(tmp_path, "train/ant/1.png", "val/ant/1.png")
    with pytest.raises(DatasetError, match=r"2 class folders \(train, val\).*Name one of the parts: .*val"):
        folder(tmp_path, model_of(10))


def test_one_folder_is_spoken_of_as_one(tmp_path):
    write(tmp_path, "zero/1.png")
    with pytest.raises(
        DatasetError, match=r"There is 1 class folder \(zero\), and the model has 10 classes\."
    ):
        folder(tmp_path, model_of(10))


def test_wordnet_ids_have_their_imagenet_index(tmp_path):
    write(tmp_path, "n15075141/1.png", "n01440764/1.png")
    assert folder(tmp_path, model_of(1000)).classes == {"n01440764": 0, "n15075141": 999}
    # Of a model of two classes they are folders like any other.
    assert folder(tmp_path, model_of(2)).classes == {"n01440764": 0, "n15075141": 1}
    write(tmp_path, "n01440765/1.png")
    with pytest.raises(
        DatasetError, match=r"class folder 'n01440765' is none of the 1000 known classes.*'n01440764'"
    ):
        folder(tmp_path, model_of(1000))


def test_a_mapping_is_held_to(tmp_path, small_model):
    write(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(
        DatasetError, match=r"class folder 'dog' is none of the 2 known classes.*nearest: 'dogs'"
    ):
        folder(tmp_path, small_model, classes={"cat": 0, "dogs": 1})
    with pytest.raises(LabelError, match=r"class folder 'dog' has the index 10\. Expected: 0 to 9"):
        folder(tmp_path, small_model, classes={"cat": 0, "dog": 10})


def test_missing_and_empty_folders_are_named(tmp_path, small_model):
    with pytest.raises(DatasetError, match=r"folder .*nowhere does not exist"):
        folder(tmp_path / "nowhere", small_model)
    with pytest.raises(DatasetError, match=r"has no folders in it.*PATH/CLASS/IMAGE"):
        folder(tmp_path, small_model)
    photograph(9, 9).save(tmp_path / "1.png")
    with pytest.raises(DatasetError, match="has no folders in it"):
        folder(tmp_path, small_model)
    with pytest.raises(DatasetError, match=r"^\S+1\.png is no folder, but a file\."):
        folder(tmp_path / "1.png", small_model)
    write(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("none")
    with pytest.raises(DatasetError, match=r"class folder .*b has no images.*\.jpg"):
        folder(tmp_path, small_model, classes={"a": 0, "b": 1})


def test_a_damaged_file_is_named_when_it_is_read(tmp_path, small_model):
    write(tmp_path, "a/1.png", "a/2.png", "a/3.jpg")
    whole = (tmp_path / "a" / "3.jpg").read_bytes()
    (tmp_path / "a" / "2.png").write_bytes(b"no image at all")
    (tmp_path / "a" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    dataset = folder(tmp_path, small_model, classes={"a": 0})
    assert dataset[0]["pixels"].shape == (3, 32, 32)
    with pytest.raises(DatasetError, match=r"a/2\.png cannot be read as an image \(UnidentifiedImageError"):
        dataset[1]
    with pytest.raises(DatasetError, match=r"a/3\.jpg cannot be read as an image .*truncated"):
        dataset[2]
    with pytest.raises(DatasetError, match=r"a/2\.png cannot be read"):
        list(batches(dataset, num_workers=2, on_bad_image="raise"))
    dataset.paths[0].unlink()
    with pytest.raises(DatasetError, match=r"a/1\.png cannot be read as an image \(FileNotFoundError"):
        dataset[0]


def test_subsets_and_workers_read_folders(tmp_path, small_model):
    write(tmp_path, *(f"{name}/{index}.png" for name in "ab" for index in range(3)))
    dataset = folder(tmp_path, small_model, classes={"a": 0, "b": 1})
    check(dataset, 10)
    part = Subset(dataset, [5, 0])
    check(part, 10)
    (batch,) = batches(part, n_classes=10, num_workers=1)
    assert batch.image_ids == ("b/2.png", "a/0.png")
    assert batch.labels.tolist() == [1, 0]
    assert torch.equal(batch.pixels[1], dataset[0]["pixels"])


def saved(image: Image.Image, suffix: str, tmp_path, **keywords):
    path = tmp_path / f"image{suffix}"
    image.save(path, **keywords)
    return np.asarray(read_rgb(path)).astype(int)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grey_bilevel_and_palette_images_keep_their_levels(tmp_path):
    grey = Image.fromarray(RAMP)
    assert (saved(grey, ".png", tmp_path) == RAMP[..., None]).all()
    assert (
        saved(grey.convert("1"), ".png", tmp_path) == np.asarray(grey.convert("1"))[..., None] * 255
    ).all()
    color = photograph(16, 16)
    indexed = color.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert (saved(indexed, ".png", tmp_path) == np.asarray(indexed.convert("RGB"))).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    assert (saved(Image.fromarray(levels), suffix, tmp_path) == RAMP[..., None]).all()


def test_sixteen_bits_in_a_pgm_are_scaled_too(tmp_path):
    levels = np.linspace(0, 65535, 256).round().astype(">u2").reshape(16, 16)
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5 16 16 65535\n" + levels.tobytes())
    assert (np.asarray(read_rgb(path)) == RAMP[..., None]).all()


@pytest.mark.parametrize("levels", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)])
def test_values_without_an_agreed_range_are_refused(tmp_path, levels):
    with pytest.raises(
        DatasetError, match=r"image\.tif cannot be read as an image .*grey levels are .*of 8 or 16 bits"
    ):
        saved(Image.fromarray(levels), ".tif", tmp_path)


def test_cmyk_is_converted(tmp_path):
    color = photograph(16, 16)
    assert (
        saved(color.convert("CMYK"), ".tif", tmp_path) == np.asarray(color.convert("CMYK").convert("RGB"))
    ).all()


def test_transparency_is_dropped_without_a_warning(tmp_path):
    color = photograph(16, 16)
    clear = color.copy()
    clear.putalpha(0)
    assert (saved(clear, ".png", tmp_path) == np.asarray(color)).all()
    indexed = color.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    opaque = np.asarray(indexed.convert("RGB"))
    assert (saved(indexed, ".png", tmp_path, transparency=bytes(range(0, 256, 16))) == opaque).all()


def test_an_animation_shows_its_first_frame(tmp_path):
    black, white = (Image.new("L", (8, 8), level) for level in (0, 255))
    assert (saved(black, ".gif", tmp_path, save_all=True, append_images=[white]) == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(tmp_path, orientation):
    upright = RAMP
    # How a camera in each position stores the upright picture (EXIF tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[274] = orientation
    assert (saved(image, ".png", tmp_path, exif=exif) == upright[..., None]).all()


def test_bytes_that_only_look_like_an_image_are_named(tmp_path):
    buffer = io.BytesIO()
    photograph(16, 16).save(buffer, "PNG")
    path = tmp_path / "torn.png"
    path.write_bytes(buffer.getvalue()[:60])
    with pytest.raises(DatasetError, match=r"torn\.png cannot be read as an image"):
        read_rgb(path)
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"torn\.png cannot be read as an image"):
        read_rgb(path)


def test_imagenets_classes_have_a_name_each_and_other_folders_their_own(tmp_path):
    write(tmp_path, "n02012849/1.png", "n03126707/1.png")
    names = folder(tmp_path, model_of(1000)).class_names
    assert len(set(names)) == 1000
    assert (names[0], names[134], names[517]) == ("tench", "crane (n02012849)", "crane (n03126707)")
    mapping = {"n02012849": 3, "n03126707": 1}
    some = folder(tmp_path, model_of(4), classes=mapping).class_names
    assert some == ["class 0", "n03126707", "class 2", "n02012849"]
