"""A comparison in a file: everything comes back, bit for bit, and damage is noticed."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, safe_open, save_file

from vitlens.comparison import Comparison, storing
from vitlens.comparison.stored_values import pack, unpack
from vitlens.errors import CheckpointError, ComparisonError, SpaceError, VitlensError
from vitlens.saes.gallery_data import Exhibit, FeatureProfile, Gallery, ShownImage


def data():
    rng = np.random.default_rng(0)
    cells = (2, 1, 3)
    dims = ("checkpoint", "condition", "image")
    return xr.Dataset(
        {
            "rank": (dims, rng.integers(0, 9, cells), {"units": "places", "long_name": "Rank"}),
            "correct_probability": (dims, rng.random(cells, dtype=np.float32)),
            "is_odd": (dims, rng.random(cells) < 0.5),
            "with_gaps": (dims, np.where(rng.random(cells) < 0.5, np.nan, -0.0)),
            "half": (dims, rng.random(cells).astype(np.float16)),
            "byte": (dims, rng.integers(0, 255, cells).astype(np.uint8)),
            "pair": (dims, rng.random(cells) + 1j),
            "other_order": (dims, rng.random(cells).astype(">f4")),
            "total": ((), np.int64(3)),
            "nothing": (("image", "empty"), np.empty((3, 0))),
        },
        coords={
            "checkpoint": ["base", "tünéd"],
            "condition": np.array(["clean"], dtype=object),
            "image": ["a/1.png", "", "猫"],
            "family": ("condition", np.array([None], dtype=object)),
            "kind": ("image", pd.array(["x", None, "y"], dtype="str")),
            "seen": ("image", np.array(["2024-05-01", "NaT", "1969-01-01"], dtype="datetime64[ns]")),
        },
        attrs={
            "level": 0.95,
            "none": None,
            "sizes": (1, [2, 3.5], {"a": True}),
            "limits": [math.nan, math.inf, -math.inf],
            "mean": np.float32(0.1),
            "table": np.arange(6.0).reshape(2, 3),
            "odd": {"$": "array", "name": "0"},
        },
    )


def features():
    frame = pd.DataFrame(
        {
            "kind": ["vanilla", "batch_topk", None],
            "seed_a": pd.array([1, None, 3], dtype="Int64"),
            "feature": np.array([1, 2, 3]),
            "decoder_cosine": [0.1, math.nan, -0.0],
            "mutual": [True, False, True],
            "object": np.array(["a", 1, None], dtype=object),
        }
    )
    frame.attrs["level"] = 0.9
    return frame


def galleries():
    """Two, with a picture in common, tokens without a grid, and what is no number."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)

    def image(number, n_checkpoints, heat):
        return ShownImage(
            image_id=f"a/{number}.png",
            label=number,
            picked="top" if number else "middle",
            pixels=pixels[number],
            activation=rng.random(n_checkpoints, dtype=np.float32),
            heat=rng.random((n_checkpoints, 2, 3), dtype=np.float32) if heat else None,
            prefix=rng.random((n_checkpoints, 2), dtype=np.float32),
        )

    def profile(feature):
        return FeatureProfile(
            feature=feature,
            n_tokens={"cls": 3, "patch": 18},
            n_active_tokens={"cls": 0, "patch": 7},
            n_active_images=2,
            largest=0.1,
            counts=np.array([6, 1]),
            edges=np.array([0.0, 0.5, 1.0]),
            classes=pd.DataFrame({"label": [1, 0], "n_images": [2, 1], "lift": [1.5, 0.1]}),
        )

    def gallery(numbers, checkpoints, heat, class_names):
        exhibit = Exhibit(
            features=tuple(profile(at) for at, _ in enumerate(checkpoints)),
            images=tuple(image(number, len(checkpoints), heat) for number in numbers),
            similarity={"decoder_cosine": 0.75, "activation_correlation": math.nan},
        )
        return Gallery(
            exhibits=(exhibit,),
            checkpoints=checkpoints,
            prefix_kinds=("cls", "cls"),
            n_images=3,
            n_top_images=1,
            n_middle_images=1,
            class_names=class_names,
            provenance={"seed": 3, "checkpoints": {name: {"model": {}} for name in checkpoints}},
        )

    return {
        "shared, of base and tünéd": gallery([0, 2], ("base", "tünéd"), True, ["cat", "dög", "猫"]),
        "lost": gallery([2], ("base",), False, None),
        "none": dataclasses.replace(gallery([], ("base",), True, None), exhibits=()),
    }


def comparison():
    return Comparison(
        data=data(),
        reference="base",
        n_classes=10,
        examples=data()[["byte", "half"]],
        features=features(),
        class_names=["cat", "dög"],
        provenance={"versions": {"torch": "2"}, "seed": 3, "mean": [0.1, 0.2], "n": None},
        seed=3,
        galleries=galleries(),
    )


def same(one, other):
    xr.testing.assert_identical(one, other)
    assert list(one.variables) == list(other.variables)
    for name, variable in one.variables.items():
        assert variable.dtype == other[name].dtype, name
        if isinstance(variable.dtype, np.dtype) and variable.dtype.kind != "O":
            assert variable.values.tobytes() == other[name].values.tobytes(), name
    np.testing.assert_equal(one.attrs, other.attrs)
    assert {key: type(value) for key, value in one.attrs.items()} == {
        key: type(value) for key, value in other.attrs.items()
    }


@pytest.fixture
def path(tmp_path):
    return comparison().save(tmp_path / "comparison.safetensors")


def test_everything_comes_back_bit_for_bit(path):
    made, found = comparison(), Comparison.load(path)
    same(made.data, found.data)
    same(made.examples, found.examples)
    pd.testing.assert_frame_equal(made.features, found.features)
    assert found.features.attrs == {"level": 0.9}
    exactly(found.galleries, galleries())
    for name in ("reference", "n_classes", "class_names", "provenance", "seed"):
        assert getattr(found, name) == getattr(made, name)


def test_what_was_not_there_is_not_there(tmp_path):
    bare = Comparison(data=data(), reference="base", n_classes=0)
    found = Comparison.load(bare.save(tmp_path / "a"))
    assert (found.examples, found.features, found.class_names) == (None, None, None)
    assert found.galleries is None


def test_a_picture_of_two_galleries_is_kept_once(path):
    pictures = [array for array in load_file(path).values() if array.shape == (8, 9, 3)]
    assert len(pictures) == 2
    loaded = Comparison.load(path).galleries
    one, other = (loaded[heading].exhibits[0].images[-1] for heading in list(loaded)[:2])
    assert one.pixels is other.pixels


def test_a_comparison_without_galleries_is_read_and_kept_without_sae_lens(tmp_path):
    bare = dataclasses.replace(comparison(), galleries=None).save(tmp_path / "bare")
    program = (
        "import sys, vitlens as vl; made = vl.Comparison.load(sys.argv[1]); made.save(sys.argv[1]); "
        "print('sae_lens' in sys.modules)"
    )
    call = [sys.executable, "-c", program, str(bare)]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_folder_with_the_file_in_it_is_read(path):
    assert Comparison.load(path.parent).seed == 3


def test_what_is_read_is_the_callers_own(path):
    found = Comparison.load(path)
    found.data["rank"].values[:] = 7
    assert (found.data["rank"] == 7).all()
    same(comparison().data, Comparison.load(path).data)


def test_other_readers_of_the_format_can_open_it(path):
    with safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["content"])
    (rank,) = (each for each in content["data"]["variables"] if each["name"] == "rank")
    np.testing.assert_array_equal(load_file(path)[rank["values"]["name"]], data()["rank"])


ARRAYS = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
        hnp.unicode_string_dtypes(endianness="=", max_len=5),
        hnp.datetime64_dtypes(endianness="?"),
    ),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text())
VALUES = st.recursive(
    NUMBERS | ARRAYS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def exactly(one, other):
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        exactly(*(dict(vars(each)) for each in (one, other)))
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            exactly(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            exactly(each, its)
    elif isinstance(one, float):
        assert np.float64(one).tobytes() == np.float64(other).tobytes() or (one != one and other != other)
    else:
        assert one == other


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_any_nesting_of_what_can_be_kept_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value"
    exactly(storing.read(storing.write(path, {"value": value}))["value"], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provenance": {"a": [1, {2}]}}, r"provenance\['a'\]\[1\] is set"),
        ({"provenance": {"a": {1: 2}}}, r"provenance\['a'\] is a mapping with the key 1, which is no text"),
        ({"provenance": {"a": b"b"}}, r"provenance\['a'\] is bytes"),
        ({"galleries": {"a": [1]}}, r"galleries\['a'\] is list"),
        (
            {"data": data().assign(x=("image", np.ones(3, dtype=np.longdouble)))},
            r"data\['x'\] is an array of",
        ),
        ({"data": data().assign_attrs(x=object())}, r"data\.attrs\['x'\] is object"),
        (
            {"data": data().stack(cell=("checkpoint", "condition"))},
            r"data\['cell'\] is an index of several levels",
        ),
        ({"features": features().astype({"kind": "category"})}, r"features\['kind'\] is a column of categor"),
        ({"features": features().set_index(["kind", "feature"])}, "features is a table with an index of"),
        ({"features": features().rename(columns={"kind": 0})}, "a table with the name 0 in it"),
    ],
)
def test_what_cannot_be_kept_is_named_and_leaves_no_file(tmp_path, change, message):
    made = Comparison(**({"data": data(), "reference": "base", "n_classes": 3} | change))
    with pytest.raises(ComparisonError, match=rf"cannot be kept: .*{message}.*Expected.*Take it out"):
        made.save(tmp_path / "comparison.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(storing, "save_file", full)
    with pytest.raises(SpaceError, match="no space left to write"):
        comparison().save(path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_folder_is_no_name_for_a_file(tmp_path):
    with pytest.raises(ComparisonError, match=r"is a folder.*comparison\.safetensors"):
        comparison().save(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no file .*nothing.*Check the path"):
        Comparison.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"There is no file .*comparison\.safetensors"):
        Comparison.load(tmp_path)


def test_weights_are_no_comparison(tmp_path):
    save_file({"head.weight": np.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no comparison.*vitlens\.load"):
        Comparison.load(tmp_path / "model.safetensors")


def rewritten(path, *, content=None, **metadata):
    """The file with other metadata, and a checksum that is right for them."""
    with safe_open(path, framework="numpy") as file:
        said = file.metadata()
    arrays = load_file(path)
    said |= metadata
    if content is not None:
        said |= {"content": content, "sha256": storing._checksum(content, arrays)}
    save_file(arrays, path, metadata=said)


def test_a_later_format_is_refused(path):
    rewritten(path, vitlens="vitlens.comparison.2")
    with pytest.raises(CheckpointError, match=r"format 2.*format 1.*or a later one"):
        Comparison.load(path)


def test_a_comparison_without_its_parts_is_refused(path):
    rewritten(path, content='{"reference": "base"}')
    with pytest.raises(CheckpointError, match=r"holds reference.*Expected: data, reference, n_classes"):
        Comparison.load(path)


@pytest.mark.parametrize(
    "content",
    ["", "3", "[]", '{"data": {"$": "dragon"}}', '{"data": {"$": "array", "name": "no", "dtype": "<f4"}}',
     '{"data": {"$": "text", "name": "1", "dtype": "<U3", "shape": [5]}}', "[" * 5000]
)  # fmt: skip
def test_nonsense_with_a_right_checksum_is_refused_too(path, content):
    rewritten(path, content=content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Comparison.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: 3,
        lambda kept: {},
        lambda kept: kept | {"pictures": []},
        lambda kept: kept | {"galleries": {"a": 1}},
        lambda kept: kept | {"galleries": {"a": {"exhibits": []}}},
        lambda kept: kept | {"galleries": {"a": kept["galleries"]["lost"] | {"exhibits": [{"images": []}]}}},
        lambda kept: kept | {"galleries": {"a": kept["galleries"]["lost"] | {"more": 1}}},
    ],
)
def test_galleries_that_are_none_are_refused(path, change):
    with safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["content"])
    rewritten(path, content=json.dumps(content | {"galleries": change(content["galleries"])}))
    with pytest.raises(CheckpointError, match=r"cannot be read \(galleries: "):
        Comparison.load(path)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_noticed_or_changes_nothing(path, data):
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, min(len(whole), 3000) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    other = path.with_name("damaged")
    other.write_bytes(damaged)
    try:
        found = Comparison.load(other)
    except VitlensError:
        return
    same(found.data, comparison().data)
    pd.testing.assert_frame_equal(found.features, comparison().features)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"cannot be read.*Copy it again"):
        Comparison.load(path)


def test_a_number_that_is_missing_in_pandas_way_comes_back():
    arrays = {}
    assert unpack(pack([pd.NA, 1], arrays, "x"), arrays)[0] is pd.NA
