"""An activation store holds what the model computes, and gives it back in any order."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import vitlens as vl
from vitlens.saes.store import ActivationStore
from vitlens.saes.store_selection import Selection
from vitlens.saes.store_windows import Permuted
from vitlens.saes.tokens import InMemory, Tokens, as_tokens
from vitlens.testing import randomize

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]
NAME = HOOKS[0]
CONDITIONS = ["clean", "gaussian_noise@3"]


def make_model(seed=0, **keywords):
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 3,
        "num_heads": 2,
        "num_classes": 10,
    }
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**settings | keywords), seed=seed))


def make_items(n, size=32):
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixels": torch.rand(3, size, size, generator=generator), "label": i % 10, "image_id": f"image {i}"}
        for i in range(n)
    ]


def write(path, model=None, dataset=None, **keywords):
    arguments = {"hook_names": HOOKS, "batch_size": 4, "shard_images": 8, "progress": False} | keywords
    return ActivationStore.write(path, model or make_model(), dataset or make_items(21), **arguments)


def expected(model, items, hook_name, condition="clean", tokens="patch"):
    """[image token d_in] by the cache, an image at a time."""
    asked = vl.images.parse_condition(condition)
    rows = []
    for item in items:
        pixels = asked.apply(item["pixels"][None], [item["image_id"]], seed=0)
        with torch.no_grad():
            _, cache = model.run_with_cache(model.normalize(pixels), names_filter=hook_name)
        rows.append(cache[hook_name][0, model.cfg.positions(tokens)])
    return torch.stack(rows)


def rows_of(batches):
    return torch.cat(list(batches))


def as_set(rows):
    return sorted(map(tuple, rows.tolist()))


@pytest.fixture(scope="module")
def small_blocks():
    """Blocks of a few rows, as many as a shard has images: these shards are far smaller than real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitlens.saes.store_writing._LEAST_BLOCK_BYTES", 1)
        yield


@pytest.fixture(scope="module")
def store(small_blocks, tmp_path_factory):
    return write(tmp_path_factory.mktemp("store") / "s", conditions=CONDITIONS)


@pytest.mark.parametrize("hook_name", HOOKS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_rows_in_order_are_the_activations_image_by_image(store, hook_name, condition):
    wanted = expected(make_model(), make_items(21), hook_name, condition).flatten(0, 1)
    tokens = store.tokens(hook_name, conditions=[condition])
    torch.testing.assert_close(rows_of(tokens.in_order(50)), wanted, rtol=1e-4, atol=1e-5)
    assert (tokens.n_tokens, tokens.d_in) == tuple(wanted.shape)


def test_the_conditions_of_an_image_stand_together(store):
    both = rows_of(store[NAME].in_order(64)).unflatten(0, (21, 2, 16))
    for at, condition in enumerate(CONDITIONS):
        alone = rows_of(store.tokens(NAME, conditions=[condition]).in_order(64)).unflatten(0, (21, 16))
        assert torch.equal(both[:, at], alone)
    assert store[NAME].n_tokens_per_image == 32


def test_a_row_is_known_by_image_and_position(store):
    assert store.image_ids == tuple(f"image {i}" for i in range(21)) == store[NAME].image_ids
    assert store.positions == tuple(range(1, 17))
    assert set(store.position_kinds) == {"patch"}
    assert (store.hook_names, store.conditions, store.checkpoints) == (
        tuple(HOOKS),
        tuple(CONDITIONS),
        ("model",),
    )


@pytest.mark.parametrize(
    ("tokens", "kinds"),
    [
        ("cls", ["cls"]),
        ("register", ["register"] * 3),
        ("patch", ["patch"] * 16),
        ("all", ["cls", *["register"] * 3, *["patch"] * 16]),
    ],
)
def test_any_kind_of_token_is_stored(tmp_path, tokens, kinds):
    model, items = make_model(reg_tokens=3), make_items(5)
    store = write(tmp_path, model, items, tokens=tokens)
    assert list(store.position_kinds) == kinds
    wanted = expected(model, items, NAME, tokens=tokens).flatten(0, 1)
    torch.testing.assert_close(rows_of(store[NAME].in_order(7)), wanted, rtol=1e-4, atol=1e-5)


def test_a_model_without_class_token_is_stored(tmp_path):
    model, items = make_model(class_token=False, global_pool="avg"), make_items(3)
    store = write(tmp_path, model, items, tokens="all")
    assert store.positions == tuple(range(16))
    with pytest.raises(vl.errors.ArchitectureError, match="no 'cls' token"):
        write(tmp_path / "b", model, items, tokens="cls")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_have_the_precision_that_was_asked_for(tmp_path, dtype):
    wanted = rows_of(write(tmp_path / "a")[NAME].in_order(64)).to(getattr(torch, dtype))
    store = write(tmp_path / "b", dtype=dtype)
    for batches in (store[NAME].in_order(64), store.batches(NAME, 64)):
        rows = rows_of(batches)
        assert rows.dtype == getattr(torch, dtype)
        assert as_set(rows) == as_set(wanted)


def test_two_checkpoints_are_stored_in_step(tmp_path):
    models = {"base": make_model(0), "tuned": make_model(1)}
    store = write(tmp_path / "both", models)
    for name, model in models.items():
        alone = write(tmp_path / name, model)
        assert torch.equal(
            rows_of(store.tokens(NAME, checkpoint=name).in_order(99)), rows_of(alone[NAME].in_order(99))
        )
        # One seed, one order: shuffled rows pair as well.
        for batch, other in zip(
            store.batches(NAME, 50, checkpoint=name), alone.batches(NAME, 50), strict=True
        ):
            assert torch.equal(batch, other)
    assert store[NAME].origin["checkpoint"] == "base"
    assert store.manifest["checkpoints"][1]["weights_sha256"] == vl.weights_sha256(models["tuned"])


def test_a_hook_of_a_store_is_tokens_and_says_where_they_come_from(store):
    tokens = store[NAME]
    assert isinstance(tokens, Tokens)
    assert as_tokens(tokens, "The activations", d_in=16) is tokens
    assert tokens.n_not_finite() == 0
    origin = json.loads(json.dumps(tokens.origin))
    assert origin["hook_name"] == NAME
    assert (origin["tokens"], origin["conditions"]) == ("patch", CONDITIONS)
    assert origin["model"]["weights_sha256"] == vl.weights_sha256(make_model())
    assert origin["model"]["config"]["d_model"] == 16


def test_saes_are_trained_from_a_store_as_from_a_tensor(tmp_path):
    store = write(tmp_path, dataset=make_items(40))
    recipe = {"d_sae": 24, "k_per_token": 2, "batch_size": 64, "n_tokens": 1280, "progress": False}
    sae = vl.saes.train(store[NAME], **recipe)
    assert sae.cfg.metadata.hook_name == NAME
    rows = InMemory(rows_of(store[NAME].in_order(99)), tokens_per_image=16)
    mine, theirs = (vl.saes.figures(sae, each, progress=False) for each in (store[NAME], rows))
    assert mine == pytest.approx(theirs, rel=1e-5)


# ---------------------------------------------------------------------------------------------- shuffled


@settings(deadline=None, max_examples=25)
@given(
    batch_size=st.integers(1, 400),
    seed=st.integers(0, 2**40),
    start=st.integers(0, 30),
    memory_bytes=st.sampled_from([1, 3000, 20_000, 2**28]),
    held_out=st.booleans(),
)
def test_an_epoch_shows_every_row_once_and_goes_on_from_any_batch(
    store, batch_size, seed, start, memory_bytes, held_out
):
    tokens = store.tokens(NAME, memory_bytes=memory_bytes)
    if held_out:
        tokens, _ = tokens.split(100, seed=seed)
    epoch = list(tokens.epoch(batch_size, seed=seed))
    assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (len(epoch) - 1)
    assert as_set(rows_of(epoch)) == as_set(rows_of(tokens.in_order(batch_size)))
    assert as_set(rows_of(tokens.epoch(batch_size, seed=seed, epoch=1))) == as_set(rows_of(epoch))
    stream = list(itertools.islice(tokens.shuffled(batch_size, seed=seed), start + 3))
    for batch, wanted in zip(stream, epoch[:-1], strict=False):
        assert torch.equal(batch, wanted)
    resumed = tokens.shuffled(batch_size, seed=seed, start_batch=start)
    for batch, wanted in zip(resumed, stream[start:], strict=False):
        assert len(batch) == batch_size
        assert torch.equal(batch, wanted)


@settings(deadline=None, max_examples=25)
@given(data=st.data(), n_run_rows=st.integers(1, 5), n_runs=st.integers(0, 4), n_alone=st.integers(0, 6))
def test_any_cut_through_permuted_rows_gives_each_once(data, n_run_rows, n_runs, n_alone):
    runs = 100 + 10 * np.arange(n_runs)
    permuted = Permuted(runs, np.arange(n_alone), n_run_rows)
    wanted = [*(runs[:, None] + np.arange(n_run_rows)).ravel().tolist(), *range(n_alone)]
    assert len(permuted) == len(wanted)
    start = data.draw(st.integers(0, len(wanted)))
    stop = data.draw(st.integers(start, len(wanted)))
    part = permuted[start:stop]
    found = [*(part.runs[:, None] + np.arange(n_run_rows)).ravel().tolist(), *part.alone.tolist()]
    assert sorted(found) == sorted(wanted[start:stop])


def test_epochs_and_seeds_have_orders_of_their_own(store):
    orders = [rows_of(store.batches(NAME, 64, seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(orders, 2))


def test_skipping_reads_nothing_of_what_comes_before(store, monkeypatch):
    tokens = store.tokens(NAME, memory_bytes=3000)
    n_batches = tokens.n_tokens // 16
    read = []
    original = Selection.ask

    def ask(self, blocks):
        blocks = list(blocks)
        read.extend(blocks)
        original(self, blocks)

    monkeypatch.setattr(Selection, "ask", ask)
    list(tokens.epoch(16, seed=0))
    n_epoch = len(read)
    read.clear()
    next(tokens.shuffled(16, seed=0, start_batch=3 * n_batches))
    # At most two windows of three blocks that the batch lies in, and the one that is read ahead.
    assert n_epoch == 84
    assert len(read) <= 9


def test_windows_stay_within_the_memory_that_is_allowed(store):
    for memory_bytes in (5_000, 20_000):
        windows = store.tokens(NAME, memory_bytes=memory_bytes)._windows
        rows = [int(window.blocks[:, 3].sum()) for window in windows._of_epoch(0, 0)]
        block = store.manifest["n_rows_per_block"]
        assert sum(rows) == store[NAME].n_tokens
        assert max(rows) * 64 <= memory_bytes / 2 + block * 64


def test_batches_mix_images_nearly_as_well_as_drawing_from_all_rows(small_blocks, tmp_path):
    store = write(tmp_path, dataset=make_items(200), shard_images=20, hook_names=[NAME])
    image_of = {tuple(row): t // 16 for t, row in enumerate(rows_of(store[NAME].in_order(999)).tolist())}
    assert len(image_of) == 3200
    batches = list(store.batches(NAME, 128, memory_bytes=90_000))  # of 204,800 bytes
    found = np.mean([len({image_of[tuple(row)] for row in batch.tolist()}) for batch in batches])
    missing = np.prod([(3200 - 128 - i) / (3200 - i) for i in range(16)])
    assert found > 0.9 * 200 * (1 - missing)


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 600), seed=st.integers(0, 2**40))
def test_whole_images_are_held_out(store, n, seed):
    used, held = store[NAME].split(n, seed=seed)
    assert not set(used.image_ids) & set(held.image_ids)
    assert sorted((*used.image_ids, *held.image_ids)) == sorted(store.image_ids)
    assert n <= held.n_tokens < n + 32
    every = rows_of(store[NAME].in_order(64)).unflatten(0, (21, 32))
    for part in (used, held):
        wanted = [store.image_ids.index(image_id) for image_id in part.image_ids]
        assert torch.equal(rows_of(part.in_order(40)), every[wanted].flatten(0, 1))
    # The same images as those of a tensor with the same rows.
    _, other = InMemory(every.flatten(0, 1), tokens_per_image=32).split(n, seed=seed)
    assert torch.equal(rows_of(other.in_order(64)), rows_of(held.in_order(64)))


def test_a_part_that_does_not_fit_in_memory_is_read_as_it_is_wanted(store):
    used, _ = store.tokens(NAME, memory_bytes=100).split(64, seed=0)
    other, _ = store[NAME].split(64, seed=0)
    assert torch.equal(rows_of(used.in_order(30)), rows_of(other.in_order(30)))
    assert as_set(rows_of(used.epoch(30, seed=0))) == as_set(rows_of(other.in_order(30)))


def test_holding_out_every_image_is_refused(store):
    with pytest.raises(vl.errors.SAEError, match=r"672 tokens to hold out are 21 of 21 images"):
        store[NAME].split(672, seed=0)


# ---------------------------------------------------------------------------------------------- the format


def test_shards_are_plain_safetensors(store):
    shard = load_file(store.path / "shard-000001.safetensors")
    assert sorted(shard) == sorted([*HOOKS, "order"])
    content = (store.path / "shard-000001.safetensors").read_bytes()
    n_header_bytes = int.from_bytes(content[:8], "little")
    first = json.loads(content[8 : 8 + n_header_bytes])[NAME]["data_offsets"][0]
    assert (8 + n_header_bytes + first) % 64 == 0
    assert shard[NAME].shape == (1, 2, 8 * 16, 16)
    in_order = torch.empty_like(shard[NAME])
    in_order[:, :, shard["order"].long()] = shard[NAME]
    wanted = rows_of(store[NAME].in_order(64)).unflatten(0, (21, 2, 16))[8:16]
    assert torch.equal(in_order[0].unflatten(1, (8, 16)), wanted.transpose(0, 1))


def test_the_model_is_left_as_it_was_and_random_state_too(tmp_path):
    model = make_model().train()
    before = torch.random.get_rng_state()
    write(tmp_path, model, conditions=CONDITIONS)
    assert model.training
    assert model.model.blocks[0].training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blocks_after_the_last_hook_are_not_run(tmp_path):
    model = make_model()
    ran = []
    model.model.blocks[2].register_forward_hook(lambda *_: ran.append(2))
    model.model.blocks[2].mlp.register_forward_hook(lambda *_: ran.append(2))
    write(tmp_path / "a", model)
    assert not ran
    write(tmp_path / "b", model, hook_names=["ln_final.hook_normalized"])
    assert ran


def test_photographs_are_stored_as_the_cache_has_them(tmp_path, deit_tiny, data_folder):
    model = vl.HookedViT(deit_tiny)
    photographs = vl.images.folder(data_folder / "imagenet_samples", model)
    items = [photographs[i] for i in range(0, 120, 15)]
    name = "blocks.9.hook_resid_post"
    store = write(tmp_path, model, items, hook_names=[name], tokens="all")
    with torch.no_grad():
        pixels = torch.stack([item["pixels"] for item in items[:4]])
        _, cache = model.run_with_cache(model.normalize(pixels), names_filter=name)
    rows = rows_of(store[name].in_order(500)).unflatten(0, (8, 197))
    assert torch.equal(rows[:4], cache[name])
    assert store.image_ids == tuple(item["image_id"] for item in items)
