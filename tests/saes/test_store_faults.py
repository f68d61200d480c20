"""What an activation store refuses, and what it says."""

from __future__ import annotations

import errno
import json
import re
import shutil

import pytest
import torch

import vitlens as vl
from vitlens.errors import CheckpointError, HookError, SAEError
from vitlens.saes import store_manifest
from vitlens.saes.store import ActivationStore

from .test_store import HOOKS, NAME, make_items, make_model, write


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"hook_names": NAME}, "hook_names is 'blocks.0.hook_resid_post'. Expected: a list of hooks"),
        ({"hook_names": []}, r"hook_names is \[\]"),
        ({"hook_names": [NAME, NAME]}, "each once"),
        ({"dtype": "int8"}, "dtype is 'int8'. Expected: one of 'float32', 'bfloat16', 'float16'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shard_images": 0}, "shard_images is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"hook_names": ["hook_pooled"]}, r"'hook_pooled' is \(2, 16\) for 2 images. Expected: \[batch, pos"),
        ({"hook_names": ["blocks.0.attn.hook_z"]}, "'blocks.0.attn.hook_z' is"),
    ],
)
def test_a_setting_that_is_none_is_refused_before_anything_is_made(tmp_path, keywords, message):
    with pytest.raises(SAEError, match=message):
        write(tmp_path / "s", **keywords)
    assert not (tmp_path / "s").exists()


def test_an_unknown_hook_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(HookError, match=r"nearest: .*blocks.0.hook_resid_post"):
        write(tmp_path, hook_names=["blocks.0.hook_resid_pots"])
    store = write(tmp_path)
    with pytest.raises(HookError, match=r"'blocks.2.hook_resid_post' is not in the store.*nearest"):
        store["blocks.2.hook_resid_post"]


def test_what_is_not_stored_cannot_be_chosen(tmp_path):
    store = write(tmp_path)
    with pytest.raises(SAEError, match=r"no checkpoint 'tuned'. Expected: one of 'model'"):
        store.tokens(NAME, checkpoint="tuned")
    with pytest.raises(SAEError, match=r"no condition 'jpeg@1'. Expected: one of 'clean'"):
        store.batches(NAME, conditions=["jpeg@1"])
    with pytest.raises(SAEError, match=r"conditions is \[\]"):
        store.tokens(NAME, conditions=[])
    with pytest.raises(SAEError, match="batch_size is 0"):
        store.batches(NAME, 0)
    with pytest.raises(SAEError, match="seed is -1"):
        store.batches(NAME, seed=-1)
    with pytest.raises(SAEError, match="start_batch is -1"):
        store[NAME].shuffled(4, seed=0, start_batch=-1)


def test_checkpoints_of_another_architecture_are_refused(tmp_path):
    with pytest.raises(vl.errors.ArchitectureError):
        write(tmp_path, {"base": make_model(), "other": make_model(depth=2)})


def test_a_condition_with_pixels_for_each_checkpoint_is_stored_for_one_alone(tmp_path):
    own = {"mine": vl.images.WhiteBox(lambda model, pixels, labels: pixels / 2)}
    with pytest.raises(SAEError, match="'mine' shows each of 2 checkpoints pixels of its own"):
        write(tmp_path / "s", {"a": make_model(0), "b": make_model(1)}, conditions=[own])
    assert write(tmp_path / "s", conditions=[own]).conditions == ("mine",)


def test_activations_that_are_not_finite_name_hook_and_images(tmp_path):
    model = make_model()

    def spoil(activation, hook):
        activation[1, 3] = float("nan")

    with (
        model.hooks(fwd_hooks=[(NAME, spoil)]),
        pytest.raises(SAEError, match=rf"'{NAME}' of checkpoint 'model' under 'clean'.*\('image 1'\)"),
    ):
        write(tmp_path, model)


def test_overflow_in_half_precision_is_refused(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.model.blocks[0].mlp.fc2.bias.fill_(1e6)
    with pytest.raises(SAEError, match=r"infinity in float16 for 4 of 4 .*Store them as float32 or bfloat16"):
        write(tmp_path / "half", model, dtype="float16")
    write(tmp_path / "bf", model, dtype="bfloat16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its seed is 0, now 1"),
        ({"dtype": "float16"}, "its dtype is 'float32', now 'float16'"),
        ({"tokens": "cls"}, "its tokens is 'patch', now 'cls'"),
        ({"hook_names": HOOKS[::-1]}, "its hooks is"),
        ({"conditions": ["contrast@1"]}, r"its conditions is \['clean'\], now \['contrast@1'\]"),
        ({"batch_size": 8}, "its batch_size is 4, now 8"),
        ({"shard_images": 4}, "its n_images_per_shard is 8, now 4"),
        ({"model": make_model(1)}, r"its checkpoints\[model\].weights_sha256 is"),
        ({"dataset": make_items(22)}, "its n_images is 21, now 22"),
        ({"dataset": make_items(22)[1:]}, "its image_ids_sha256 is"),
        (
            {"model": {"b": make_model(), "a": make_model()}},
            r"its checkpoints is \['model'\], now \['b', 'a'\]",
        ),
    ],
)
def test_other_activations_in_the_same_folder_are_refused(tmp_path, change, message):
    write(tmp_path)
    with pytest.raises(SAEError, match=rf"holds other activations: {message}.*Name another folder"):
        write(tmp_path, **change)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(SAEError, match=r"holds files and no manifest.json"):
        write(tmp_path)
    with pytest.raises(SAEError, match=r"holds files and no manifest.json"):
        write(tmp_path / "thesis.txt")


def test_every_flipped_byte_is_found(tmp_path):
    """One at a time, in every file; the manifest's white space is no content."""
    store = write(tmp_path / "s", dataset=make_items(9), batch_size=2, shard_images=4, hook_names=[NAME])
    generator = torch.Generator().manual_seed(0)
    paths = sorted(store.path.iterdir())
    assert len(paths) == 7
    for path in paths:
        content = path.read_bytes()
        draws = torch.randint(len(content), (12,), generator=generator).tolist()
        for place in [0, 8, len(content) - 2, *draws]:
            if content[place : place + 1].isspace():
                continue
            path.write_bytes(content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :])
            with pytest.raises(CheckpointError):
                ActivationStore.open(store.path, check=True)
        path.write_bytes(content)
    ActivationStore.open(store.path, check=True)


def test_a_damaged_shard_is_named_when_it_is_read_and_written_again_once_deleted(tmp_path):
    store = write(tmp_path)
    before = rows(store)
    path = tmp_path / "shard-000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    damaged = ActivationStore.open(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"shard-000001.safetensors cannot be read: the checksum of block"
    ):
        list(damaged.batches(HOOKS[1]))
    with pytest.raises(CheckpointError, match=r"Delete both files of its number"):
        list(damaged[HOOKS[1]].in_order(64))
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"bytes, and .* were written"):
        list(ActivationStore.open(tmp_path)[NAME].in_order(64))
    path.unlink()
    with pytest.raises(SAEError, match="is not complete: shard 1 is gone"):
        ActivationStore.open(tmp_path)
    path.with_suffix(".json").unlink()
    assert torch.equal(rows(write(tmp_path)), before)


def test_a_shard_that_became_shorter_while_it_is_open_is_told(tmp_path):
    store = write(tmp_path)
    before = rows(store)
    path = tmp_path / "shard-000001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-5000])
    for read in (lambda: store[NAME].in_order(64), lambda: store.batches(NAME)):
        with pytest.raises(
            CheckpointError, match=rf"it has {len(content) - 5000} bytes, and {len(content)} w"
        ):
            list(read())
    path.write_bytes(content)
    assert torch.equal(rows(store), before)


def test_a_store_that_may_not_be_written_to_is_read(tmp_path):
    store = write(tmp_path)
    before = rows(store)
    for path in tmp_path.iterdir():
        path.chmod(0o444)
    assert torch.equal(rows(ActivationStore.open(tmp_path)), before)


def rows(store):
    return torch.cat(list(store[NAME].in_order(64)))


def test_another_protocol_is_refused(tmp_path):
    write(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"protocol": "vitlens.activations.2"}))
    for door in (ActivationStore.open, write):
        with pytest.raises(
            CheckpointError, match=r"protocol 'vitlens.activations.2'. Expected: 'vitlens.a.*1'"
        ):
            door(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        ActivationStore.open(tmp_path / "nowhere")


def test_a_disk_that_is_too_small_is_noticed_before_the_first_image(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("vitlens.saes.store_writing.shutil.disk_usage", lambda path: usage)

    class Untouched(list):
        def __getitem__(self, index):
            raise AssertionError

    # 21 images × 16 tokens × (16 + 64) float32 = 107,520 bytes.
    with pytest.raises(vl.errors.SpaceError, match=r"1e-06 GB are free. Expected: 0.000113 GB of space"):
        write(tmp_path, dataset=Untouched(make_items(21)))


def test_a_disk_that_fills_up_keeps_what_was_written(tmp_path, monkeypatch):
    wanted = write(tmp_path / "wanted")
    original = store_manifest.written_shards
    folder = tmp_path / "s"

    def full(folder_, number, *rest):
        if number == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_shard(folder_, number, *rest)

    from vitlens.saes.store_writing import write_shard

    with monkeypatch.context() as patch:
        patch.setattr("vitlens.saes.store_writing.write_shard", full)
        with pytest.raises(
            vl.errors.SpaceError, match=r"no space left for .*: it is full. Expected: 6.99e-05 GB of space"
        ):
            write(folder)
    assert original(folder)[:1] == [0]
    with pytest.raises(SAEError, match=r"is not complete: . of 3 shards are there.*as before"):
        ActivationStore.open(folder)
    assert torch.equal(rows(write(folder)), rows(wanted))


def test_an_image_id_that_comes_twice_is_refused(tmp_path):
    items = make_items(21)
    items[20] = items[20] | {"image_id": "image 0"}
    with pytest.raises(vl.errors.DatasetError, match=re.escape("'image 0' is found twice")):
        write(tmp_path / "a", dataset=items)
    with pytest.raises(vl.errors.DatasetError, match=re.escape("'image 0' is found twice")):
        write(tmp_path / "b", dataset=iter(items))
    with pytest.raises(vl.errors.DatasetError, match="no images"):
        write(tmp_path / "c", dataset=iter([]))
