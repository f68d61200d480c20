"""Every kind of image file and folder: what each gives, or which error says what is wrong with it."""

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vitlens as vl
from vitlens.errors import DatasetError
from vitlens.images.decoding import read_rgb
from vitlens.testing import randomize

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
LEVELS = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 4, (6, 8), dtype=np.uint8)


def paletted():
    image = Image.fromarray(INDICES, "P")
    image.putpalette(PALETTE.tobytes())
    return image


def animated(path):
    first, second = paletted(), Image.new("P", (8, 6), 3)
    second.putpalette(PALETTE.tobytes())
    first.save(path, save_all=True, append_images=[second], loop=0)


def turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLORS).save(path, exif=exif)


def grey(values):
    return np.repeat(values[..., None], 3, axis=2)


READABLE = {
    # kind: (file, how it is written, the 8-bit RGB pixels that it holds)
    "grey": ("a.png", lambda path: Image.fromarray(GREY).save(path), grey(GREY)),
    "bilevel": (
        "a.png",
        lambda path: Image.fromarray(GREY > 127).save(path),
        grey(np.where(GREY > 127, 255, 0).astype(np.uint8)),
    ),
    "grey and alpha": (
        "a.png",
        lambda path: Image.fromarray(np.stack([GREY, ALPHA], 2), "LA").save(path),
        grey(GREY),
    ),
    "color and alpha: what lies beneath": (
        "a.png",
        lambda path: Image.fromarray(np.dstack([COLORS, ALPHA]), "RGBA").save(path),
        COLORS,
    ),
    "16-bit grey": (
        "a.png",
        lambda path: Image.fromarray(LEVELS).save(path),
        grey(np.rint(LEVELS / 257).astype(np.uint8)),
    ),
    "16-bit grey, TIFF": (
        "a.tiff",
        lambda path: Image.fromarray(LEVELS).save(path),
        grey(np.rint(LEVELS / 257).astype(np.uint8)),
    ),
    "palette": ("a.png", lambda path: paletted().save(path), PALETTE[INDICES]),
    "palette with transparency": (
        "a.png",
        lambda path: paletted().save(path, transparency=bytes([0, 99, 255, 255])),
        PALETTE[INDICES],
    ),
    "animated GIF: the first frame": ("a.gif", animated, PALETTE[INDICES]),
    "CMYK, TIFF": (
        "a.tif",
        lambda path: Image.fromarray(np.dstack([COLORS, GREY]), "CMYK").save(path),
        # Ink as Pillow takes it off: each color less the black.
        np.rint((255.0 - COLORS) * (255.0 - GREY[..., None]) / 255).astype(np.uint8),
    ),
    "turned by EXIF (6)": ("a.png", lambda path: turned(path, 6), np.rot90(COLORS, -1)),
    "mirrored by EXIF (2)": ("a.png", lambda path: turned(path, 2), COLORS[:, ::-1]),
    "upside down by EXIF (3)": ("a.png", lambda path: turned(path, 3), COLORS[::-1, ::-1]),
    "one pixel": ("a.png", lambda path: Image.fromarray(COLORS[:1, :1]).save(path), COLORS[:1, :1]),
    "an upper-case ending": ("A.PNG", lambda path: Image.fromarray(COLORS).save(path, "PNG"), COLORS),
    "another kind than it is called": (
        "a.jpg",
        lambda path: Image.fromarray(COLORS).save(path, "BMP"),
        COLORS,
    ),
    "a name in unicode": ("Ж 猫 🐈 é.png", lambda path: Image.fromarray(COLORS).save(path), COLORS),
    "a name of 255 bytes": ("a" * 251 + ".png", lambda path: Image.fromarray(COLORS).save(path), COLORS),
}


@pytest.mark.parametrize("kind", READABLE)
def test_a_file_gives_the_pixels_that_it_holds(kind, tmp_path):
    name, write, wanted = READABLE[kind]
    write(tmp_path / name)
    found = np.asarray(read_rgb(tmp_path / name))
    assert found.dtype == np.uint8
    # Of CMYK the rounding is Pillow's; of all others every value is.
    np.testing.assert_allclose(found.astype(int), wanted.astype(int), atol=1 if "CMYK" in kind else 0)


def png(width, height):
    """A PNG of zeros, whatever its size: a row compresses to nothing."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + -(-width // 8)) * 100) for _ in range(-(-height // 100)))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit a pixel, grey
    content = rows + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def whole():
    into = BytesIO()
    Image.fromarray(np.tile(COLORS, (20, 20, 1))).save(into, "JPEG")
    return into.getvalue()


BAD = {
    # kind: (file, its bytes, what is said of it)
    "cut short": ("a.jpg", lambda: whole()[:-400], "OSError: image file is truncated"),
    "cut short in its header": ("a.jpg", lambda: whole()[:15], "cannot be read as an image"),
    "of zero bytes": ("a.png", lambda: b"", "UnidentifiedImageError"),
    "zeros": ("a.png", lambda: bytes(5000), "UnidentifiedImageError"),
    "text called .jpg": ("a.jpg", lambda: b"These are the images of the cats.", "UnidentifiedImageError"),
    "a page called .png": ("a.png", lambda: b"<html>404</html>", "UnidentifiedImageError"),
    "over Pillow's limit": ("a.png", lambda: png(20_000, 10_000), "has more pixels than Pillow opens"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_image_is_named_with_the_reason(kind, tmp_path):
    name, content, said = BAD[kind]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(DatasetError, match=re.escape(said)) as caught:
        read_rgb(tmp_path / name)
    assert caught.value.given.startswith(str(tmp_path / name))


def test_a_bomb_says_what_the_limit_is_and_what_to_do(tmp_path):
    (tmp_path / "a.png").write_bytes(png(20_000, 10_000))
    said = (
        r"a\.png has more pixels than Pillow opens \(Image size \(200000000 pixels\) exceeds limit of "
        r"178956970 pixels.*\)\. Expected: at most 178,956,970 pixels: .* Make it smaller, or raise "
        r"PIL\.Image\.MAX_IMAGE_PIXELS for files that you trust\."
    )
    with pytest.raises(DatasetError, match=said):
        read_rgb(tmp_path / "a.png")


def test_a_huge_image_is_read_even_where_warnings_are_errors(tmp_path, monkeypatch):
    # Pillow warns above its limit and refuses above twice it: the limit is lowered rather than memory filled.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    Image.fromarray(COLORS).save(tmp_path / "a.png")  # 48 pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_rgb(tmp_path / "a.png"), COLORS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_rgb(tmp_path / "a.png")
    assert [each.category for each in caught] == [Image.DecompressionBombWarning]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23)
    with pytest.raises(DatasetError, match="more pixels than Pillow opens"):
        read_rgb(tmp_path / "a.png")


# ---------------------------------------------------------------------- folders


@pytest.fixture(scope="module")
def model():
    made = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=2
    )
    return vl.HookedViT(randomize(made))


@pytest.fixture
def root(tmp_path):
    """Two classes of eight images each."""
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for place in range(8):
            Image.fromarray(np.roll(COLORS, place, 0)).save(tmp_path / "data" / name / f"{place}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("kind", BAD)
def test_among_others_a_bad_file_is_skipped_and_reported(kind, root, model):
    name, content, said = BAD[kind]
    path = root / "cat" / f"z {name}"
    path.write_bytes(content())
    dataset = vl.images.folder(root, model)
    with pytest.warns(
        UserWarning, match=f"^1 of 17 images could not be read and is left out: 'cat/z {name}'"
    ):
        data = vl.run(model, dataset, [vl.Prediction()], progress=False)
    assert data.sizes["image"] == 16
    assert list(data.attrs["bad_images"]) == [f"cat/z {name}"]
    assert said in data.attrs["bad_images"][f"cat/z {name}"]
    with pytest.raises(DatasetError, match=re.escape(str(path))):
        vl.run(model, dataset, [vl.Prediction()], on_bad_image="raise", progress=False)


def test_one_pixel_and_long_thin_images_are_resized_and_cropped_like_all(root, model):
    Image.new("RGB", (1, 1), (255, 0, 0)).save(root / "cat" / "one.png")
    Image.new("RGB", (1, 40), (255, 0, 0)).save(root / "cat" / "thin.png")
    dataset = vl.images.folder(root, model)
    for name in ("cat/one.png", "cat/thin.png"):
        pixels = dataset[dataset.image_ids.index(name)]["pixels"]
        assert pixels.shape == (3, 32, 32)
        torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor([1.0, 0.0, 0.0]))


def test_a_file_that_vanishes_is_skipped(root, model):
    dataset = vl.images.folder(root, model)
    (root / "dog" / "3.png").unlink()
    with pytest.warns(UserWarning, match="'dog/3.png'"):
        data = vl.run(model, dataset, [vl.Prediction()], progress=False)
    assert "FileNotFoundError" in data.attrs["bad_images"]["dog/3.png"]


def test_what_is_no_image_and_what_is_hidden_is_left_alone(root, model):
    wanted = vl.images.folder(root, model).image_ids
    (root / "cat" / "labels.txt").write_text("cat")
    (root / "cat" / "README").write_text("cat")
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / "cat" / ".cache").mkdir()
    (root / "cat" / ".cache" / "a.png").write_bytes(b"")
    (root / ".git").mkdir()
    (root / "notes.txt").write_text("cats")
    assert vl.images.folder(root, model).image_ids == wanted


def test_a_folder_that_ends_like_an_image_is_a_folder(root, model):
    (root / "cat" / "more.png").mkdir()
    Image.fromarray(COLORS).save(root / "cat" / "more.png" / "a.png")
    assert "cat/more.png/a.png" in vl.images.folder(root, model).image_ids


def test_links_to_files_and_folders_are_followed(root, model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(COLORS).save(tmp_path / "elsewhere" / "a.png")
    (root / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "one.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    found = vl.images.folder(root, model)
    assert {"cat/linked/a.png", "cat/one.png"} <= set(found.image_ids)
    assert torch.equal(
        found[found.image_ids.index("cat/linked/a.png")]["pixels"],
        found[found.image_ids.index("cat/one.png")]["pixels"],
    )


def test_a_class_that_is_a_link_to_a_folder_is_a_class(root, model):
    (root / "dog").rename(root.parent / "dogs")
    (root / "dog").symlink_to(root.parent / "dogs")
    assert len(vl.images.folder(root, model)) == 16


def link_in_a_loop(root):
    (root / "cat" / "a.png").symlink_to(root / "cat" / "a.png")


def two_links_in_a_loop(root):
    (root / "cat" / "a.png").symlink_to(root / "cat" / "b.png")
    (root / "cat" / "b.png").symlink_to(root / "cat" / "a.png")


def folder_in_a_loop(root):
    (root / "cat" / "again").symlink_to(root / "cat")


def folder_of_all_in_a_loop(root):
    (root / "cat" / "all").symlink_to(root)


def link_to_nothing(root):
    (root / "cat" / "a.png").symlink_to(root / "nowhere.png")


def class_that_leads_nowhere(root):
    (root / "horse").symlink_to(root.parent / "horses")


def pipe(root):
    os.mkfifo(root / "cat" / "a.png")


FOLDERS = {
    link_in_a_loop: r"cat/a\.png is a link that leads nowhere\.",
    two_links_in_a_loop: r"cat/[ab]\.png is a link that leads nowhere\.",
    folder_in_a_loop: r"cat/again is a link to a folder that it lies in: its images would be found without",
    folder_of_all_in_a_loop: r"cat/all/cat is a link to a folder that it lies in",
    link_to_nothing: r"cat/a\.png is a link that leads nowhere\. Expected: files .* Mend or remove it\.",
    class_that_leads_nowhere: r"horse is a link that leads nowhere\.",
    pipe: r"cat/a\.png is no file, but a pipe or a device\.",
}


@pytest.mark.parametrize("spoil", FOLDERS, ids=lambda spoil: spoil.__name__)
def test_what_can_be_known_of_a_folder_stops_before_the_start(spoil, root, model):
    spoil(root)
    with pytest.raises(DatasetError, match=FOLDERS[spoil]):
        vl.images.folder(root, model)


def test_a_class_of_text_alone_has_no_images(root, model):
    for path in (root / "cat").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(DatasetError, match=r"The class folder .*cat has no images"):
        vl.images.folder(root, model)


# Root reads everything: the rights are given up in a process of its own.
WITHOUT_RIGHTS = """
import os, sys, warnings
import timm, vitlens as vl
model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2, depth=1))
root = sys.argv[1]
if os.geteuid() == 0:
    os.seteuid(65534)
def tried(call):
    try:
        print(call())
    except vl.errors.DatasetError as error:
        print(f"DatasetError: {error}")
tried(lambda: vl.images.folder(root, model))
os.seteuid(os.getuid())
os.chmod(f"{root}/cat", 0o755)
if os.geteuid() == 0:
    os.seteuid(65534)
dataset = vl.images.folder(root, model)
warnings.simplefilter("ignore")
tried(lambda: vl.run(model, dataset, [vl.Prediction()], progress=False).attrs["bad_images"])
os.seteuid(os.getuid())
os.chmod(root, 0o000)
if os.geteuid() == 0:
    os.seteuid(65534)
tried(lambda: vl.images.folder(root, model))
"""


@pytest.fixture
def open_root(root):
    """The images where every user could come; pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(root, Path(folder) / "data"))
        for path in (Path(folder) / "data", Path(folder) / "data" / "cat"):
            path.chmod(0o755)


def test_a_folder_or_file_without_the_right_to_read_is_named(open_root):
    (open_root / "dog" / "3.png").chmod(0)
    (open_root / "cat").chmod(0)
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, str(open_root)], capture_output=True, text=True, timeout=300
    )
    lines = said.stdout.splitlines()
    assert len(lines) == 3, said.stderr
    assert re.match(r"DatasetError: The folder .*cat cannot be listed \(PermissionError: ", lines[0])
    assert re.match(r"\{'dog/3\.png': .*dog/3\.png cannot be read as an image \(PermissionError: ", lines[1])
    assert re.match(r"DatasetError: The folder .*data cannot be listed \(PermissionError: ", lines[2])


def test_the_table_of_the_documentation_has_every_kind():
    docs = Path(__file__).parents[2] / "docs"
    page = "".join(path.read_text(encoding="utf-8") for path in docs.rglob("reliability*.md"))
    assert [kind for kind in (*READABLE, *BAD) if f"| {kind} |" not in page] == []
