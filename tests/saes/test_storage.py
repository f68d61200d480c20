"""Saving and loading are inverse, whole or not at all."""

from __future__ import annotations

import json

import pytest
import sae_lens
import torch

from vitlens import saes
from vitlens.errors import CheckpointError, SAEError, SpaceError

from .conftest import TINY, make_sae

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


@pytest.fixture(params=["batch_topk", "vanilla"])
def sae(request, planted):
    return saes.train(planted.activations, kind=request.param, metadata={"hook_name": "h"}, **TINY)


def test_load_gives_back_what_was_saved(sae, planted, tmp_path):
    saes.save(sae, tmp_path / "deep" / "sae")
    state = torch.get_rng_state()
    loaded = saes.load(tmp_path / "deep" / "sae")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(sae)
    for name, weights in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weights), name
    assert loaded.cfg.to_dict() == sae.cfg.to_dict()
    assert saes.history(loaded).equals(saes.history(sae))
    assert torch.equal(loaded.encode(planted.activations), sae.encode(planted.activations))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_sae_lens_reads_what_was_saved(sae, planted, tmp_path):
    saes.save(sae, tmp_path / "sae")
    loaded = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    assert torch.equal(loaded.encode(planted.activations), sae.encode(planted.activations))
    assert torch.equal(loaded(planted.activations), sae(planted.activations))
    assert loaded.cfg.metadata.activation_scale == sae.cfg.metadata.activation_scale


def test_what_sae_lens_saves_is_read(tmp_path):
    sae = make_sae(torch.eye(3), threshold=0.25)
    sae.save_model(tmp_path)
    assert torch.equal(saes.load(tmp_path).threshold, sae.threshold)


def test_an_sae_is_replaced_and_nothing_else_is_left(tmp_path):
    first, second = make_sae(torch.eye(3)), make_sae(2 * torch.eye(3))
    saes.save(first, tmp_path / "sae")
    saes.save(second, tmp_path / "sae")
    assert torch.equal(saes.load(tmp_path / "sae").W_dec, second.W_dec)
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]
    assert sorted(path.name for path in (tmp_path / "sae").iterdir()) == [CONFIG, WEIGHTS]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "sae").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_empty_folder_may_be_filled(tmp_path):
    saes.save(make_sae(torch.eye(3)), tmp_path)
    assert torch.equal(saes.load(tmp_path).W_dec, torch.eye(3))


@pytest.mark.parametrize("name", ["notes.txt", "sae/notes.txt"])
def test_what_is_not_an_sae_is_never_overwritten(tmp_path, name):
    sae = make_sae(torch.eye(3))
    saes.save(sae, tmp_path / "sae")
    (tmp_path / name).write_text("mine")
    target = tmp_path / name if name == "notes.txt" else tmp_path / "sae"
    with pytest.raises(SAEError, match=r"holds something other than an SAE.*nothing was written"):
        saes.save(sae, target)
    assert (tmp_path / name).read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_sae(tmp_path, monkeypatch):
    old, new = make_sae(torch.eye(3)), make_sae(2 * torch.eye(3))
    saes.save(old, tmp_path / "sae")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vitlens.saes.storage._flush", full)
    with pytest.raises(SpaceError, match=r"no space left to write .*sae.*still stands"):
        saes.save(new, tmp_path / "sae")
    assert torch.equal(saes.load(tmp_path / "sae").W_dec, old.W_dec)
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]


def test_a_move_that_fails_puts_the_old_sae_back(tmp_path, monkeypatch):
    from pathlib import Path

    old, new = make_sae(torch.eye(3)), make_sae(2 * torch.eye(3))
    saes.save(old, tmp_path / "sae")
    rename = Path.rename

    def refuse_the_new_one(self, target):
        if self.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    with pytest.raises(PermissionError):
        saes.save(new, tmp_path / "sae")
    assert torch.equal(saes.load(tmp_path / "sae").W_dec, old.W_dec)
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]


def test_the_training_form_is_not_saved(tmp_path):
    config = sae_lens.StandardTrainingSAEConfig(d_in=3, d_sae=4)
    with pytest.raises(SAEError, match="The SAE is a StandardTrainingSAE"):
        saes.save(sae_lens.StandardTrainingSAE(config), tmp_path / "sae")
    assert not list(tmp_path.iterdir())


def remove_config(folder):
    (folder / CONFIG).unlink()


def remove_weights(folder):
    (folder / WEIGHTS).unlink()


def cut_config(folder):
    (folder / CONFIG).write_text((folder / CONFIG).read_text()[:100])


def list_config(folder):
    (folder / CONFIG).write_text("[]")


def change_config(folder, **entries):
    config = json.loads((folder / CONFIG).read_text())
    config.pop("cfg_sha256")  # as in a folder that sae-lens wrote
    (folder / CONFIG).write_text(json.dumps(config | entries))


def cut_weights(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


def flip_a_bit(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_config, r"cfg.json cannot be read as JSON"),
        (cut_config, r"cfg.json cannot be read as JSON"),
        (list_config, r"has no sae_weights.safetensors that goes with its cfg.json"),
        (remove_weights, r"has no sae_weights.safetensors that goes with its cfg.json"),
        (cut_weights, r"is damaged: its SHA-256"),
        (flip_a_bit, r"is damaged: its SHA-256"),
        (lambda folder: change_config(folder, d_sae=7), r"no SAE that sae-lens can build \(ValueError"),
        (lambda folder: change_config(folder, architecture="batchtopk"), r"can build \(KeyError"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path, damage, message):
    saes.save(make_sae(torch.eye(3)), tmp_path / "sae")
    damage(tmp_path / "sae")
    with pytest.raises(CheckpointError, match=message):
        saes.load(tmp_path / "sae")


def test_damage_to_what_sae_lens_saved_is_found_where_it_can_be(tmp_path):
    make_sae(torch.eye(3)).save_model(tmp_path)
    cut_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"can build \(SafetensorError"):
        saes.load(tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        saes.load(tmp_path / "nowhere")
