"""Nothing that is read can run code, reach beyond its folder, ask the network, or take the memory."""

import ast
import contextlib
import json
import pickle
import re
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, safe_open, save_file

import vitlens as vl
from vitlens.comparison import Comparison
from vitlens.errors import ArchitectureError, VitlensError
from vitlens.testing import randomize
from vitlens.training.checkpoints import Checkpoints
from vitlens.training.evaluating import read_evaluations
from vitlens.training.log import Log
from vitlens.training.state import read_state

from .fuzz import for_want_of_memory, limited

SOURCES = sorted(Path(vl.__file__).parent.rglob("*.py"))
SHAPE = {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def small():
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**SHAPE)))


def evil_files(folder, mark):
    """A pickle in each of the shapes in which pickles come."""
    torch.save({"weight": Evil(mark)}, folder / "zip.pth")
    torch.save(Evil(mark), folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "bare.bin").write_bytes(pickle.dumps(Evil(mark)))
    (folder / "bare.safetensors").write_bytes(pickle.dumps(Evil(mark)))
    np.savez(folder / "arrays.npz", weight=np.array([Evil(mark)], dtype=object))
    return sorted(folder.iterdir())


READERS = {
    "a model": lambda path: vl.load(path, "vit_tiny_patch16_224", **SHAPE),
    "a model's metadata": vl.load,
    "a comparison": Comparison.load,
    "a training's checkpoint": read_state,
    "a training's log": Log,
    "an SAE": lambda path: vl.saes.load(path.parent / path.stem),
    "an activation store": lambda path: vl.saes.ActivationStore.open(path.parent / path.stem),
    "a run's evaluations": lambda path: read_evaluations(path.parent / path.stem),
    "a folder of Hugging Face": lambda path: vl.HookedViT.from_huggingface(path.parent / path.stem),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_runs_what_a_pickle_says(reader, tmp_path):
    mark, folder = tmp_path / "it ran", tmp_path / "files"
    folder.mkdir()
    for path in evil_files(folder, mark):
        # Readers of folders find the pickle under each name that they look for.
        inside = folder / path.stem
        inside.mkdir(exist_ok=True)
        for name in ("cfg.json", "sae_weights.safetensors", "manifest.json", "pytorch_model.bin"):
            (inside / name).write_bytes(path.read_bytes())
        (inside / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
        (inside / "evaluations" / "step-000001").mkdir(parents=True, exist_ok=True)
        (inside / "evaluations" / "step-000001" / "manifest.json").write_bytes(path.read_bytes())
        # A log's last line may be cut short: it is left out, and nothing is read.
        refused = contextlib.suppress(VitlensError) if "log" in reader else pytest.raises(VitlensError)
        with refused:
            READERS[reader](path)
        assert not mark.exists()


def test_the_pickles_of_these_tests_would_run(tmp_path):
    (bare,) = (path for path in evil_files(tmp_path, tmp_path / "ran") if path.name == "bare.bin")
    pickle.loads(bare.read_bytes()).close()
    assert (tmp_path / "ran").exists()


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_reads_a_pickle_or_runs_a_text(path):
    for name, words in calls(ast.parse(path.read_text(encoding="utf-8"))):
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "yaml.load"), name
        assert not re.match(r"(c?pickle|dill|joblib|marshal|shelve|cloudpickle)\.", name), name
        if name.endswith("torch.load"):
            assert words.get("weights_only") == "True", name
        assert words.get("allow_pickle", "False") == "False", name
        assert words.get("trust_remote_code", "False") == "False", name
        assert "shell" not in words, name


HEADERS = {
    "of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "of a tensor without end": None,
    "of brackets in brackets": struct.pack("<Q", 10**6) + b'{"a":' + b"[" * (10**6 - 5),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_lies_is_refused(header, tmp_path):
    content = HEADERS[header]
    if content is None:
        text = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        content = struct.pack("<Q", len(text)) + text
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (vl.load, Comparison.load, read_state):
        with pytest.raises(VitlensError):
            read(path)


@pytest.mark.parametrize("name", ["manifest.json", "cfg.json", "log.jsonl"])
def test_json_without_end_is_refused(name, tmp_path):
    for content in (
        "[" * 200_000,
        '{"a": ' * 100_000,
        "9" * 10_000,
        "\ud800".encode("utf-8", "surrogatepass"),
    ):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw + b"\n\n")
        (tmp_path / "sae_weights.safetensors").write_bytes(b"")
        reader = {"manifest.json": vl.saes.ActivationStore.open, "cfg.json": vl.saes.load}.get(name)
        with pytest.raises(VitlensError):
            reader(tmp_path) if reader else Log(tmp_path / name)


def forged(path, **changes):
    """The model's file with another architecture in its metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    described = json.loads(metadata["architecture"])
    described["kwargs"].update(changes.pop("kwargs", {}))
    metadata["architecture"] = json.dumps({**described, **changes})
    save_file(load_file(path), path, metadata=metadata)
    return path


FORGED = {
    "weights to fetch": {"kind": "timm", "name": "vit_tiny_patch16_224", "kwargs": {"pretrained": True}},
    "another file to read": {
        "kind": "timm", "name": "vit_tiny_patch16_224", "kwargs": {"checkpoint_path": "/etc/passwd"},
    },
    "where to fetch from": {"kind": "timm", "name": "hf-hub:somebody/something"},
    "a folder to read": {"kind": "timm", "name": "local-dir:/etc"},
    "a million blocks": {"kwargs": {"depth": 10**6}},
    "a width without end": {"kwargs": {"embed_dim": 2**20}},
    "another class": {"kind": "class", "name": "os.system"},
}  # fmt: skip


@pytest.fixture
def no_network(monkeypatch):
    """Any use of the network ends the test."""

    def refuse(*arguments, **keywords):
        raise AssertionError(f"the network was asked: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("what", FORGED)
def test_what_a_file_says_of_its_architecture_reaches_nothing_else(what, tmp_path, no_network):
    path = forged(vl.save(small(), tmp_path / "model.safetensors"), **FORGED[what])
    with pytest.raises(ArchitectureError):
        vl.load(path)


def test_a_state_dict_that_unpacks_to_much_more_is_refused(tmp_path):
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(2**22)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert bomb.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(VitlensError, match="unpacks to"):
        vl.load(bomb, "vit_tiny_patch16_224", **SHAPE)


def test_the_main_paths_ask_nothing_of_the_network(tmp_path, no_network):
    data = [{"pixels": torch.rand(3, 32, 32), "label": i % 3, "image_id": f"{i}"} for i in range(4)]
    base, tuned = vl.load(vl.save(small(), tmp_path / "a.safetensors")), small()
    made = vl.compare(
        {"base": base, "tuned": tuned}, data, conditions=["clean", "contrast@2"], progress=False
    )
    Comparison.load(made.save(tmp_path / "made")).report(tmp_path / "report.html")
    hook = "blocks.0.hook_resid_post"
    store = vl.saes.ActivationStore.write(
        tmp_path / "store", base, data, hook_names=[hook], shard_images=2, progress=False
    )
    tiny = {"d_sae": 12, "k_per_token": 2, "batch_size": 4, "n_tokens": 8, "progress": False}
    vl.saes.save(vl.saes.train(store[hook], n_holdout_tokens=4, **tiny), tmp_path / "sae")
    config = vl.training.FinetuneConfig(conditions=["contrast@2"], steps=1, batch_size=2)
    vl.training.finetune(base, data, config, tmp_path / "run", progress=False)


def test_a_pickle_that_claims_to_be_long_takes_no_memory(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02X\xff\xff\xff\xff")  # a text of 4 GiB, which does not follow
    with limited(), pytest.raises(VitlensError, match="cannot be read") as caught:
        vl.load(path, "vit_tiny_patch16_224", **SHAPE)
    assert not for_want_of_memory(caught.value)


def test_no_name_in_a_manifest_leads_out_of_its_folder(tmp_path):
    """Files are named by number, never by what a manifest says: other names are refused or not looked at."""
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    evaluation = tmp_path / "run" / "evaluations" / "step-000001"
    data = [{"pixels": torch.rand(3, 32, 32), "label": 0, "image_id": "../../x"}]
    vl.run(small(), data, [vl.Prediction()], output=evaluation, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert read_evaluations(tmp_path / "run")["image"].item() == "../../x"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (evaluation / "rows-..json").write_text("{}")
    with pytest.raises(VitlensError, match="no number"):
        read_evaluations(tmp_path / "run")


def test_a_link_in_a_loop_is_refused(tmp_path):
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    for read in (vl.load, Comparison.load, read_state, vl.saes.load, vl.saes.ActivationStore.open):
        with pytest.raises(VitlensError):
            read(loop)
    assert Checkpoints(loop).steps() == []
