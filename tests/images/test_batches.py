"""Reading data sets of every kind, and what is said of bad ones."""

import inspect
import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset, Subset

from vitlens.errors import DatasetError, LabelError, PixelError
from vitlens.images import batches, check, collate, n_images, numbered_batches

from .conftest import textured

PIXELS = textured(7, 8, 6)


def item(index: int, **changes):
    return {"pixels": PIXELS[index % 7], "label": index % 3, "image_id": f"image {index}", **changes}


class MapStyle(Dataset):
    def __init__(self, items):
        self.items = items
        self.labels = [entry["label"] for entry in items]
        self.image_ids = [entry["image_id"] for entry in items]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Iterated(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        yield from self.items


class Broken(MapStyle):
    """Its item 4 fails as files do."""

    def __getitem__(self, index):
        if index == 4:
            raise OSError("disk on fire")
        return super().__getitem__(index)


class Unsized(Dataset):
    """Read by the old protocol: positions until an IndexError."""

    def __getitem__(self, index):
        if index >= 7:
            raise IndexError(index)
        return item(index)


KINDS = {
    "map-style": MapStyle,
    "iterable": Iterated,
    "list": list,
    "tuple": tuple,
    "generator": lambda items: (entry for entry in items),
    "unsized": lambda items: Unsized(),
}


def read(dataset, batch_size=3, **keywords):
    return list(batches(dataset, batch_size, **keywords))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_set_is_read_once_and_in_order(kind):
    found = read(KINDS[kind]([item(index) for index in range(7)]))
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert torch.equal(torch.cat([batch.pixels for batch in found]), PIXELS)
    assert torch.cat([batch.labels for batch in found]).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert all(batch.labels.dtype == torch.int64 for batch in found)
    assert sum((batch.image_ids for batch in found), ()) == tuple(f"image {index}" for index in range(7))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 20), batch_size=st.integers(1, 25))
def test_any_batch_size_gives_the_same_rows(n, batch_size):
    found = read([item(index) for index in range(n)], batch_size)
    assert sum((batch.image_ids for batch in found), ()) == tuple(f"image {index}" for index in range(n))
    assert torch.cat([batch.labels for batch in found]).tolist() == [index % 3 for index in range(n)]


def test_workers_give_what_reading_here_gives_and_leave_the_random_state_alone():
    dataset = MapStyle([item(index) for index in range(7)])
    state = torch.get_rng_state()
    found = read(dataset, num_workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    for here, there in zip(read(dataset), found, strict=True):
        assert torch.equal(here.pixels, there.pixels)
        assert torch.equal(here.labels, there.labels)
        assert here.image_ids == there.image_ids


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_item_that_fails_to_load_is_named_by_its_position(num_workers):
    dataset = Broken([item(index) for index in range(7)])
    before = set(multiprocessing.active_children())
    reader = batches(dataset, 3, num_workers=num_workers, on_bad_image="raise")
    assert len(next(reader)) == 3
    with pytest.raises(
        DatasetError, match=r"Item 4 of the data set cannot be loaded \(OSError: disk on fire\)"
    ) as caught:
        next(reader)
    if num_workers == 0:
        assert isinstance(caught.value.__cause__, OSError)
    assert set(multiprocessing.active_children()) <= before  # though a traceback is still there


def test_an_iterable_that_fails_is_named_by_its_position():
    def failing():
        yield item(0)
        raise OSError("cut off")

    with pytest.raises(DatasetError, match=r"Item 1 of the data set cannot be loaded \(OSError: cut off\)"):
        read(failing())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_that_speaks_for_itself_is_left_as_it_is(num_workers):
    class Speaking(MapStyle):
        def __getitem__(self, index):
            raise DatasetError("cat.png is torn.", expected="a whole file", remedy="Repair it.")

    with pytest.raises(DatasetError, match=r"^cat\.png is torn\. Expected: a whole file\. Repair it\.$"):
        read(Speaking([item(0)]), num_workers=num_workers, on_bad_image="raise")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"pixels": PIXELS[0].double()},
            PixelError,
            r"pixels of image 'image 1' are torch\.float64.*pixels\.float\(\)",
        ),
        ({"pixels": PIXELS[0].half()}, PixelError, r"pixels of image 'image 1' are torch\.float16"),
        ({"pixels": (PIXELS[0] * 255).byte()}, PixelError, r"are torch\.uint8.*/ 255"),
        ({"pixels": PIXELS[0] * 255}, PixelError, r"pixels of image 'image 1' go from"),
        ({"pixels": PIXELS[0] / 0 * 0}, PixelError, r"pixels of image 'image 1' hold NaN"),
        ({"pixels": PIXELS[0][0]}, PixelError, r"have shape \[8, 6\].*\[3 height width\]"),
        ({"pixels": PIXELS[0][:1]}, PixelError, r"have shape \[1, 8, 6\]"),
        ({"pixels": PIXELS[0].permute(1, 2, 0)}, PixelError, r"have shape \[8, 6, 3\]"),
        ({"pixels": PIXELS[0].numpy()}, PixelError, "are a ndarray, not a tensor"),
        ({"pixels": PIXELS[0][:, :4]}, PixelError, r"Image 'image 1' has 4 × 6 pixels.*8 × 6"),
        ({"label": 3}, LabelError, r"label of image 'image 1' is 3\. Expected: a whole number from 0 to 2"),
        ({"label": -1}, LabelError, "label of image 'image 1' is -1"),
        ({"label": 1.0}, LabelError, r"label of image 'image 1' is 1\.0"),
        ({"label": "cat"}, LabelError, "label of image 'image 1' is 'cat'"),
        ({"label": None}, LabelError, "label of image 'image 1' is None"),
        ({"image_id": 1}, DatasetError, r"image id of item 1 of the data set is 1\. Expected: a string"),
        ({"image_id": "image 0"}, DatasetError, "image id 'image 0' is found twice"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_bad_item_is_named(changes, error, message, batch_size):
    with pytest.raises(error, match=f"(?s){message}"):
        read([item(0), item(1, **changes), item(2)], batch_size, n_classes=3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((PIXELS[0], 1), "Item 1 of the data set is a tuple"),
        (None, "Item 1 of the data set is a NoneType"),
        ({"image": PIXELS[0], "label": 1}, r"Item 1 of the data set has the keys \['image', 'label'\]"),
    ],
)
def test_what_is_no_item_is_named_by_its_position(bad, message):
    with pytest.raises(DatasetError, match=rf"{message}.*'pixels', 'label' and 'image_id'"):
        read([item(0), bad])


def test_labels_may_be_any_whole_number_type_and_are_unchecked_without_classes():
    labels = [np.int64(2), torch.tensor(1), 7]
    (batch,) = read([item(index, label=label) for index, label in enumerate(labels)])
    assert batch.labels.tolist() == [2, 1, 7]
    with pytest.raises(LabelError, match=r"is 2\.5\. Expected: a whole number\. "):
        read([item(0, label=2.5)])


def test_further_keys_are_left_alone():
    (batch,) = read([item(0, factors={"shape": "square"})])
    assert batch.image_ids == ("image 0",)


def test_the_models_size_is_asked_of_the_first_image_too():
    with pytest.raises(PixelError, match=r"'image 0' has 8 × 6 pixels.*Expected: 32 × 32"):
        read([item(0)], image_size=(32, 32))


def test_an_id_found_twice_far_apart_is_caught():
    with pytest.raises(DatasetError, match="'image 0' is found twice"):
        read([item(index) for index in (0, 1, 2, 3, 4, 5, 0)], 2)


@pytest.mark.parametrize("empty", [[], iter(()), Iterated([]), MapStyle([])])
def test_a_data_set_without_images_is_an_error(empty):
    with pytest.raises(DatasetError, match=r"has no images.*a generator is used up after one pass"):
        read(empty)


def test_a_generator_read_twice_is_an_error_the_second_time():
    generator = (item(index) for index in range(3))
    assert len(read(generator)) == 1
    with pytest.raises(DatasetError, match="has no images"):
        read(generator)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_read(keywords, message):
    with pytest.raises(DatasetError, match=message):
        batches([item(0)], **keywords)


def test_what_is_no_data_set_is_refused():
    unchecked = inspect.unwrap(batches)
    with pytest.raises(DatasetError, match="data set is a int"):
        unchecked(5)


def test_an_iterable_cannot_be_shared_among_workers():
    with pytest.raises(DatasetError, match=r"num_workers is 2, and the data set is an iterable \(Iterated\)"):
        batches(Iterated([item(0)]), num_workers=2)


def test_n_images_is_known_only_where_it_is_said():
    items = [item(index) for index in range(4)]
    assert n_images(items) == n_images(MapStyle(items)) == 4
    assert n_images(Subset(MapStyle(items), [0, 2])) == 2
    assert n_images(Iterated(items)) is None
    assert n_images(iter(items)) is None
    assert n_images(Unsized()) is None


def test_collate_serves_a_loader_of_ones_own_and_lets_an_image_come_twice():
    batch = collate([item(0), item(1), item(0)])
    assert batch.image_ids == ("image 0", "image 1", "image 0")
    with pytest.raises(PixelError, match="Image 'image 1' has 8 × 4 pixels"):
        collate([item(0), item(1, pixels=PIXELS[1][..., :4])])
    with pytest.raises(DatasetError, match="Item 1 of the batch is a NoneType"):
        collate([item(0), None])


class Unloadable(MapStyle):
    def __getitem__(self, index):
        raise AssertionError("pixels must not be loaded")


def test_check_finds_a_label_outside_the_classes_without_loading_pixels():
    dataset = Unloadable([item(index) for index in range(5)])
    check(dataset, 3)
    check(dataset)
    with pytest.raises(
        LabelError, match=r"label of image 'image 2' is 2\. Expected: a whole number from 0 to 1"
    ):
        check(dataset, 2)
    check(Subset(dataset, [0, 1, 3]), 2)
    with pytest.raises(LabelError, match="'image 2'"):
        check(Subset(Subset(dataset, [4, 2, 1]), [1]), 2)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_check_reads_labels_of_any_kind_and_leaves_alone_what_is_not_one_for_each_image(kind):
    dataset = Unloadable([item(index) for index in range(5)])
    dataset.labels = kind(dataset.labels)
    check(dataset, 3)
    with pytest.raises(LabelError, match="label of image 'image 2' is"):
        check(dataset, 2)
    dataset.labels = ["cat", "dog"]
    check(dataset, 2)
    del dataset.image_ids
    dataset.labels = [0, 1, 2, 0, 1]
    with pytest.raises(LabelError, match="label of image 'number 2' is 2"):
        check(dataset, 2)


def test_check_finds_ids_that_come_twice():
    with pytest.raises(DatasetError, match="'image 1' is found twice"):
        check(Subset(Unloadable([item(index) for index in range(3)]), [1, 2, 1]))


def test_check_finds_an_empty_data_set_and_passes_what_knows_nothing_of_itself():
    with pytest.raises(DatasetError, match="has no images"):
        check(Subset(MapStyle([item(0)]), []))
    check(iter(()), 3)
    check(iter([item(0, label=99)]), 3)


def test_check_looks_into_the_items_of_a_list():
    check([item(0, label=2)], 3)
    with pytest.raises(LabelError, match="99"):
        check([item(0), item(1, label=99)], 3)
    with pytest.raises(DatasetError, match="found twice"):
        check((item(0), item(0)))


@pytest.mark.parametrize("kind", ["map-style", "generator"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_is_the_same_whichever_others_are_read(kind, num_workers):
    if kind == "generator" and num_workers:
        pytest.skip("an iterable cannot be shared out among workers")
    everything = list(numbered_batches(MapStyle([item(index) for index in range(10)]), 3))
    chosen = KINDS[kind]([item(index) for index in range(10)])
    found = list(numbered_batches(chosen, 3, wanted=lambda n: n in (1, 3), num_workers=num_workers))
    assert [number for number, *_ in found] == [1, 3]
    for number, batch, _ in found:
        assert batch.image_ids == everything[number][1].image_ids
        assert torch.equal(batch.pixels, everything[number][1].pixels)


def test_items_of_other_batches_are_not_loaded():
    dataset = Broken([item(index) for index in range(7)])  # item 4 cannot be
    assert [number for number, *_ in numbered_batches(dataset, 3, wanted=lambda n: n != 1)] == [0, 2]
