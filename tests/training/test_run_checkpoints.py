"""What is on disk of a run: written whole, read exactly, damage noticed."""

import errno

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.training import state as state_module
from vitlens.training.checkpoints import Checkpoints
from vitlens.training.state import State, read_state, write_state

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    ),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
leaves = st.one_of(
    tensors,
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.booleans(),
    st.none(),
    st.sampled_from(DTYPES),
)
nested = st.recursive(
    leaves,
    lambda inside: st.one_of(
        st.lists(inside, max_size=3),
        st.lists(inside, max_size=2).map(tuple),
        st.dictionaries(st.one_of(st.integers(0, 9), st.text(max_size=3)), inside, max_size=3),
    ),
    max_leaves=8,
)


def alike(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b or (a != a and b != b)


@settings(max_examples=60, deadline=None)
@given(parts=st.dictionaries(st.text(max_size=3), nested, max_size=3), step=st.integers(0, 10**9))
def test_writing_and_reading_are_inverse(tmp_path_factory, parts, step):
    path = tmp_path_factory.mktemp("state") / "a.safetensors"
    write_state(path, State(step, {"seed": 0}, 3, parts))
    read = read_state(path)
    assert (read.step, read.run, read.n_parts) == (step, {"seed": 0}, 3)
    assert alike(parts, read.parts)


def test_names_that_could_be_taken_for_paths_stay_apart(tmp_path):
    parts = {"a.b": {"c": torch.zeros(1)}, "a": {"b.c": torch.ones(1), 1: torch.full((1,), 2.0), "1": 3}}
    write_state(tmp_path / "s", State(0, {}, 1, parts))
    assert alike(parts, read_state(tmp_path / "s").parts)


def test_weights_that_two_modules_share_and_views_are_written(tmp_path):
    shared = torch.arange(6.0)
    parts = {"a": shared, "b": shared, "c": shared[2:4], "d": shared.view(2, 3).T}
    write_state(tmp_path / "s", State(0, {}, 1, parts))
    assert alike(parts, read_state(tmp_path / "s").parts)


def test_what_no_file_can_hold_is_refused(tmp_path):
    with pytest.raises(vl.errors.TrainingError, match=r"keeps a Generator at 'optimizer\.rng'"):
        write_state(tmp_path / "s", State(0, {}, 1, {"optimizer": {"rng": torch.Generator()}}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_noticed(tmp_path, share):
    path = tmp_path / "s"
    write_state(path, State(3, {}, 1, {"w": torch.rand(1000)}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(vl.errors.CheckpointError, match="cannot be read"):
        read_state(path)


def test_a_changed_position_is_noticed(tmp_path):
    path = tmp_path / "s"
    write_state(path, State(3, {}, 1, {"w": torch.rand(10)}))
    path.write_bytes(path.read_bytes().replace(b'"step":"3"', b'"step":"4"'))
    with pytest.raises(vl.errors.CheckpointError, match="checksum"):
        read_state(path)


@pytest.mark.parametrize("place", [8, 200, -1, -2000])
def test_a_changed_byte_is_noticed(tmp_path, place):
    path = tmp_path / "s"
    write_state(path, State(3, {"seed": 0}, 1, {"w": torch.rand(1000)}))
    changed = bytearray(path.read_bytes())
    changed[place] ^= 1
    path.write_bytes(changed)
    with pytest.raises(vl.errors.CheckpointError, match="cannot be read"):
        read_state(path)


def of_step(step):
    return State(step, {}, 1, {"w": torch.full((100,), float(step))})


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    best = {1: None, 2: 1, 3: 2, 4: 2, 5: 2, 6: 5}
    kept = []
    for step, best_so_far in best.items():
        checkpoints.write(of_step(step), best_so_far)
        kept.append(checkpoints.steps())
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6]]


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "not there").newest() is None


def test_damaged_ones_are_passed_over_said_and_set_aside(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.write(of_step(step), best=1)
    for step in (2, 3):
        checkpoints.path(step).write_bytes(b"cut short")
    with pytest.warns(UserWarning, match="goes on from the checkpoint before it, of step 1") as warned:
        assert checkpoints.newest().step == 1
    assert len(warned) == 2
    assert checkpoints.steps() == [1]
    assert sorted(path.name for path in tmp_path.glob("*.damaged")) == [
        "step-000002.safetensors.damaged", "step-000003.safetensors.damaged",
    ]  # fmt: skip


def test_nothing_but_damaged_ones_is_refused_rather_than_begun_anew(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write(of_step(step))
        checkpoints.path(step).write_bytes(b"cut short")
    with pytest.raises(vl.errors.CheckpointError, match=r"None of the 2 checkpoints .* delete the folder"):
        checkpoints.newest()
    assert checkpoints.steps() == [1, 2]


def test_a_full_disk_says_what_is_needed_and_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(of_step(1))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_module, "save_file", full)
    large = State(2, {}, 1, {"w": torch.zeros(1_000_000)})
    with pytest.raises(vl.errors.SpaceError, match=r"needs 4\.0 MB, and .* MB are free.*from step 1"):
        checkpoints.write(large)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.safetensors"]
    assert checkpoints.newest().step == 1
