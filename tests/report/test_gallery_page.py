"""The gallery's page: whole, self-contained, its heat in the right places, and safe with any name."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from vitlens.report import gallery_page
from vitlens.report.charts.gallery import gallery_figures
from vitlens.report.charts.pictures import MOST_OPAQUE, heat_uri, picture_uri
from vitlens.report.galleries import galleries_html
from vitlens.report.histogram_svg import digits, histogram_svg
from vitlens.saes.gallery_data import Exhibit

from .made_gallery import made_gallery, made_image, made_profile
from .test_page import read

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def gallery():
    return made_gallery()


@pytest.fixture(scope="module")
def page(gallery, tmp_path_factory):
    return gallery.report(tmp_path_factory.mktemp("page") / "gallery.html")


@pytest.fixture(scope="module")
def pair():
    return made_gallery(checkpoints=("base", "tuned"))


def words(path):
    return " ".join(" ".join(read(path).text).split())


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_page_asks_nothing_of_the_network(page):
    content = page.read_text(encoding="utf-8")
    for tag, attributes in read(page).tags:
        assert attributes.get("src", "data:").startswith("data:"), tag
        assert str(attributes.get("href", "#")).startswith("#"), tag
        assert tag not in ("link", "iframe", "object", "embed")
    assert all(url.startswith("data:") for url in re.findall(r"url\((.*?)\)", content))
    assert "http" not in content.replace("http-equiv", "")
    assert "default-src 'none'" in content


def test_every_picture_has_words_for_who_does_not_see_it(gallery, page):
    pictures = [attributes for tag, attributes in read(page).tags if tag == "img"]
    assert len(pictures) == 8
    for picture, image in zip(pictures, gallery.exhibits[0].images, strict=False):
        row, column = np.unravel_index(image.heat[0].argmax(), (14, 14))
        value = digits(float(image.activation[0]))
        assert picture["alt"] == (
            f"{gallery.class_name(image.label)}, image {image.image_id}: activation {value}, "
            f"largest at patch row {row}, column {column} (from 0) of 14 × 14"
        )
    assert all(
        attributes.get("aria-label") for tag, attributes in read(page).tags if attributes.get("role") == "img"
    )


def test_links_inside_the_page_lead_somewhere(page):
    tags = read(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links == ["#main", "#section-feature-0", "#section-feature-10", "#section-provenance"]
    assert all(link[1:] in ids for link in links)


def test_the_words_state_the_numbers(page):
    said = words(page)
    assert "Active on 0 % of class tokens (0 of 100) and 0.204 % of patches (40 of 19,600)" in said
    assert "in 11 of 100 images. Largest activation 1.50." in said
    assert "hen 9 of 10 4.50 × 1.25" in said
    assert "class token 0.250" in said
    assert "model.safetensors; BatchTopK SAE, 768 features, k = 16 per token; blocks.9, all tokens" in said
    assert "100, condition gaussian_blur@3" in said
    assert "2 of 768, named" in said
    assert "From the middle half" in said


def test_heat_is_opaque_in_its_own_cells_and_nowhere_else():
    heat = np.zeros((3, 4))
    heat[0, 3], heat[2, 1] = 2.0, 1.0
    opacity = np.asarray(decoded(heat_uri(heat, 2.0)).convert("RGBA"))[..., 3]
    side = opacity.shape[1] // 4
    assert opacity.shape == (3 * side, 4 * side)
    cells = opacity.reshape(3, side, 4, side)
    assert (cells == cells[:, :1, :, :1]).all()
    np.testing.assert_allclose(cells[:, 0, :, 0] / 255, MOST_OPAQUE * heat / 2, atol=1 / 64)
    assert (opacity > 0).sum() == 2 * side * side


def test_the_least_heat_is_seen_and_none_is_not():
    opacity = np.asarray(decoded(heat_uri(np.array([[1e-6, 0.0]]), 1.0)).convert("RGBA"))[..., 3]
    assert opacity[0, 0] > 0
    assert opacity[0, -1] == 0
    assert np.asarray(decoded(heat_uri(np.zeros((2, 2)), 0.0)).convert("RGBA"))[..., 3].max() == 0


def test_pictures_keep_their_colors_and_small_ones_every_pixel():
    pixels = made_image(1, side=600).pixels
    picture = decoded(picture_uri(pixels))
    assert picture.size == (320, 320)
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decoded(picture_uri(small)).convert("RGB")), small)


def test_one_picture_is_held_once(pair, tmp_path):
    content = pair.report(tmp_path / "pair.html").read_text(encoding="utf-8")
    assert content.count("url(data:image/webp") == 8
    assert content.count("<img ") == 16


def test_a_pair_names_both_checkpoints_at_every_picture(pair, tmp_path):
    path = pair.report(tmp_path / "pair.html")
    said = words(path)
    assert "2 matched features of base and tuned" in said
    assert "Features 0 ↔ 1" in said
    assert "Decoder cosine 0.750." in said
    alts = [attributes["alt"] for tag, attributes in read(path).tags if tag == "img"]
    assert [" in base" in alt for alt in alts] == [True, False] * 8
    assert [" in tuned" in alt for alt in alts] == [False, True] * 8


def test_the_same_gallery_gives_the_same_bytes(gallery, page, tmp_path):
    assert gallery.report(tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_names_from_data_are_harmless(gallery, page, tmp_path):
    first = gallery.exhibits[0]
    images = tuple(dataclasses.replace(image, image_id=f'{EVIL}"{i}') for i, image in enumerate(first.images))
    provenance = gallery.provenance | {"condition": EVIL, EVIL: EVIL}
    provenance["checkpoints"] = {EVIL: gallery.provenance["checkpoints"]["model"]}
    evil = dataclasses.replace(
        gallery,
        exhibits=(dataclasses.replace(first, images=images),),
        class_names=[EVIL] * 5,
        checkpoints=(EVIL,),
        provenance=provenance,
    )
    path = evil.report(tmp_path / "gallery.html", title=EVIL)
    assert "<script>alert" not in path.read_text(encoding="utf-8")
    n_scripts = [[tag for tag, _ in read(each).tags].count("script") for each in (path, page)]
    assert n_scripts[0] == n_scripts[1]
    (figure,) = gallery_figures(evil).values()
    assert "<script" not in figure.to_json().replace("\\u003c", "<")


def test_a_feature_that_is_never_active_is_said_to_be_so(gallery, tmp_path):
    silent = Exhibit(features=(made_profile(5, n_active=0),), images=(), similarity={})
    alone = dataclasses.replace(gallery, exhibits=(silent,))
    path = alone.report(tmp_path / "gallery.html")
    assert "Active on none of the 19,700 tokens of 100 images." in words(path)
    assert not any(tag in ("img", "svg") for tag, _ in read(path).tags)
    assert gallery_figures(alone) == {}


def test_pictures_without_a_grid_are_shown_without_heat(gallery, tmp_path):
    first = gallery.exhibits[0]
    images = tuple(dataclasses.replace(image, heat=None) for image in first.images)
    bare = dataclasses.replace(gallery, exhibits=(dataclasses.replace(first, images=images),))
    path = bare.report(tmp_path / "gallery.html")
    tags = read(path).tags
    assert sum(tag == "img" for tag, _ in tags) == 4
    assert not any(tag == "input" for tag, _ in tags)
    assert "largest at patch" not in path.read_text(encoding="utf-8")
    (figure,) = gallery_figures(bare).values()
    assert len(figure.layout.images) == 4


def test_one_image_a_class_is_no_table(gallery, tmp_path):
    first = gallery.exhibits[0]
    profile = first.features[0]
    once = dataclasses.replace(profile, classes=profile.classes.assign(n_images=1))
    alone = dataclasses.replace(gallery, exhibits=(dataclasses.replace(first, features=(once,)),))
    assert "One image a class is too few to say." in words(alone.report(tmp_path / "gallery.html"))


def test_many_galleries_of_a_report_stay_small_and_hold_a_picture_once():
    few = {"one": made_gallery(), "two": made_gallery(checkpoints=("base", "tuned"))}
    text, rules = galleries_html(few)
    assert rules.count("url(data:image/webp") == 8  # both show the same
    assert text.count("<img ") == 24
    (side, *_) = {decoded(uri).size for uri in re.findall(r"url\((.*?)\)", rules)}
    assert side == (224, 224)
    assert text.count("<details") == 4
    assert text.count(" open>") == 1

    same = made_gallery(n_features=4, n_images=6)
    many = {
        f"{number}": dataclasses.replace(
            same, exhibits=tuple(shifted(exhibit, number) for exhibit in same.exhibits)
        )
        for number in range(24)
    }
    text, rules = galleries_html(many)
    assert rules.count("url(data:image/webp") == 24 * 24
    assert len(text) + len(rules) < 3e6
    assert max(decoded(uri).width for uri in re.findall(r"url\((.*?)\)", rules)) < 160


def shifted(exhibit, by):
    """The same pictures in slightly other colors."""
    images = tuple(dataclasses.replace(image, pixels=image.pixels ^ np.uint8(by)) for image in exhibit.images)
    return dataclasses.replace(exhibit, images=images)


def test_a_page_of_many_features_stays_small(tmp_path):
    path = made_gallery(n_features=24, n_images=12).report(tmp_path / "gallery.html")
    assert path.stat().st_size < 6e6


def test_a_histogram_draws_each_count_at_its_height():
    svg = histogram_svg(np.array([100, 0, 1]), np.arange(4.0), "Histogram")
    bars = [
        {name: float(value) for name, value in re.findall(r'(x|y|width|height)="([\d.]+)"', bar)}
        for bar in re.findall(r'<rect class="bar"[^>]*>', svg)
    ]
    assert len(bars) == 2
    assert bars[0]["y"] + bars[0]["height"] == pytest.approx(bars[1]["y"] + bars[1]["height"], abs=0.2)
    # log10(100 / 0.5) and log10(1 / 0.5)
    assert bars[0]["height"] / bars[1]["height"] == pytest.approx(np.log10(200) / np.log10(2), rel=0.01)
    assert histogram_svg(np.array([1]), np.array([0.0, 1.0]), "One").count('class="bar"') == 1


def test_numbers_have_three_digits():
    assert [digits(value) for value in (0, 1, 12.345, 0.00123, 5678.0)] == [
        "0",
        "1.00",
        "12.3",
        "0.00123",
        "5,678",
    ]


def test_figures_hold_each_picture_under_its_heat(gallery, pair):
    figures = gallery_figures(gallery)
    assert list(figures) == ["feature_0", "feature_10"]
    for figure, exhibit in zip(figures.values(), gallery.exhibits, strict=True):
        assert len(figure.layout.images) == len(figure.data) == 4
        for trace, picture, image in zip(figure.data, figure.layout.images, exhibit.images, strict=True):
            np.testing.assert_allclose(np.array(trace.z), image.heat[0], atol=1e-4)
            assert picture.source == picture_uri(image.pixels)
            assert (picture.xref, picture.yref) == (trace.xaxis, trace.yaxis)
        assert figure.layout.coloraxis.cmax == pytest.approx(exhibit.largest_heat(0))
        assert figure.layout.yaxis.range == (13.5, -0.5)
        assert figure.layout.meta["section"] == "Features"
        assert figure.layout.meta["caption"]
    both = gallery_figures(pair)
    assert list(both) == ["features_0_1", "features_10_11"]
    assert all(len(figure.data) == 8 for figure in both.values())


def test_figures_stand_in_a_report(comparison, figures, gallery, tmp_path):
    from vitlens import report

    given = {"accuracy": figures["accuracy"], **gallery.figures()}
    content = report.write(comparison, tmp_path / "r.html", figures=given).read_text(encoding="utf-8")
    assert "<h2>Features</h2>" in content
    assert "Feature 10</h3>" in content


def test_the_door_and_the_page_write_alike(gallery, page, tmp_path):
    assert gallery_page.write(gallery, tmp_path / "g.html").read_bytes() == page.read_bytes()
