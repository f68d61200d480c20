"""The pages on file formats: their readers read what vitlens wrote, and refuse what was changed since."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import vitlens as vl

PAGES = Path(__file__).parents[2] / "docs" / "formats"
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def readers():
    """What the pages define, the index first; nothing of vitlens is among it."""
    names = {}
    for page in [PAGES / "index.md", *sorted(set(PAGES.glob("*.md")) - {PAGES / "index.md"})]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        assert blocks, page
        for block in blocks:
            exec(compile(block, page.name, "exec"), names)
            assert set(re.findall(r"^(?:import|from) (\w+)", block, re.M)) <= {
                "hashlib", "json", "numpy", "pathlib", "zlib",
            }  # fmt: skip
    return type("Readers", (), {name: staticmethod(each) for name, each in names.items() if callable(each)})


def vit(seed):
    torch.manual_seed(seed)
    small = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10
    )
    return vl.HookedViT(vl.testing.randomize(small, seed))


@pytest.fixture(scope="module")
def models():
    return {"base": vit(0), "tuned": vit(1)}


@pytest.fixture(scope="module")
def images():
    return [vl.images.digits("test")[i] for i in range(8)]


@pytest.fixture(scope="module")
def x():
    return torch.randn(600, 8, generator=torch.Generator().manual_seed(0))


SAE = {"d_sae": 16, "batch_size": 64, "n_tokens": 2560, "progress": False}


def flipped(path, place=-1):
    """The file with the bits of one byte turned over."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def reworded(path, old, new):
    """The file with a text of the same length in place of another."""
    content = path.read_bytes()
    assert old in content
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new, 1))
    return path


def test_a_model_file_is_read_as_its_page_says(readers, models, tmp_path):
    path = vl.save(models["base"], tmp_path / "model.safetensors")
    assert readers.weights_sha256(path) == vl.weights_sha256(models["base"])
    weights, architecture, data_config = readers.read_model(path)
    state = models["base"].model.state_dict()
    assert {name: readers.array(each).tolist() for name, each in weights.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }
    assert architecture == vl.models.describe(models["base"].model)
    assert tuple(data_config["mean"]) == models["base"].data_config["mean"]


def test_the_hash_of_weights_is_the_pages_in_half_precision_too(readers, tmp_path):
    model = vit(0)
    path = vl.save(model.model.bfloat16(), tmp_path / "model.safetensors")
    assert readers.weights_sha256(path) == vl.weights_sha256(model)
    assert readers.weights_sha256(path) != vl.weights_sha256(vl.load(path))  # float32 by then


def test_a_stored_run_is_read_as_its_page_says(readers, models, images, tmp_path):
    conditions = ["clean", "gaussian_noise@1"]
    analyses = [vl.Prediction(), vl.LogitLens(), vl.CKA()]
    data = vl.run(
        models, images, analyses, conditions=conditions, batch_size=4, output=tmp_path, progress=False
    )
    manifest = readers.read_json(tmp_path / "manifest.json")
    assert manifest["format"] == "vitlens.rows.1"
    assert manifest["checkpoints"] == {name: vl.weights_sha256(model) for name, model in models.items()}
    assert [each.split()[0] for each in manifest["conditions"]] == conditions
    ids = "\n".join(data["image"].values)
    assert manifest["images"]["image_ids_sha256"] == readers.sha256(ids.encode())
    first = images[0]["pixels"].numpy().astype("<f4")
    assert manifest["images"]["pixels_sha256"]["0"] == readers.sha256(first.tobytes())

    variables, coords = readers.read_part(tmp_path, 0)
    assert coords["image"] == data["image"].values.tolist()
    for name, (dims, values) in variables.items():
        assert tuple(dims) == data[name].dims
        np.testing.assert_array_equal(values, data[name].values)
    sums, parts = readers.read_sums(tmp_path / "sums-0.safetensors")
    assert parts == [0]
    assert sums["2.1.0.0/n"] == len(images)

    for name in ("rows-000000.safetensors", "sums-0.safetensors"):
        flipped(tmp_path / name)
    with pytest.raises(ValueError, match=r"rows-000000.safetensors is damaged"):
        readers.read_part(tmp_path, 0)
    with pytest.raises(ValueError, match=r"sums-0.safetensors is damaged"):
        readers.read_sums(tmp_path / "sums-0.safetensors")
    reworded(tmp_path / "rows-000000.json", b"digits/0001", b"digits/9001")
    with pytest.raises(ValueError, match=r"rows-000000.json is damaged"):
        readers.read_part(tmp_path, 0)


def test_a_comparison_is_read_as_its_page_says(readers, models, images, tmp_path):
    settings = {"conditions": ["clean", "contrast@2"], "progress": False}
    comparison = vl.compare(
        models, images, analyses=[vl.Prediction(), vl.LogitLens()], output=tmp_path, **settings
    )
    path = tmp_path / "comparison.safetensors"
    parts = readers.read_comparison(path)
    assert parts["reference"] == "base"
    assert parts["provenance"] == comparison.provenance
    for name, variable in comparison.data.variables.items():
        np.testing.assert_array_equal(parts["data"][name], variable.values)
    flipped(path)
    with pytest.raises(ValueError, match="is damaged"):
        readers.read_comparison(path)


def test_every_kind_of_value_in_a_comparison_is_on_its_page(readers, tmp_path):
    import pandas as pd

    from vitlens.comparison import stored_values, storing

    page = (PAGES / "comparisons.md").read_text(encoding="utf-8")
    table = page.split("| `$` | value |")[1].split("\n\n")[0]
    kinds = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert kinds == set(stored_values._READERS)
    parts = {
        "missing": [float("nan"), float("-inf"), pd.NA, None, (1, "a")],
        "numbers": {"$": np.float32(0.5), "complex": np.array([1 + 2j]), "truth": np.array([True])},
        "dates": np.array(["2020-01-01"], dtype="datetime64[s]"),
        "table": pd.DataFrame({"name": ["a", "b"], "n": pd.array([1, None], dtype="Int64")}),
    }
    read = readers.read_comparison(storing.write(tmp_path / "a.safetensors", parts))
    assert str(read["missing"]) == "[nan, -inf, None, None, (1, 'a')]"
    assert read["numbers"]["$"] == np.float32(0.5)
    assert read["numbers"]["complex"].tolist() == [1 + 2j]
    assert read["numbers"]["truth"].tolist() == [True]
    assert read["dates"].tolist() == parts["dates"].tolist()
    assert {name: values.tolist() for name, values in read["table"].items()} == {
        "name": ["a", "b"],
        "n": [1, None],
    }


@pytest.mark.parametrize("kind", ["vanilla", "batch_topk", "topk"])
def test_an_sae_is_read_as_its_page_says(readers, x, tmp_path, kind):
    options = {"l1_coefficient": 0.1} if kind == "vanilla" else {"k_per_token": 2}
    sae = vl.saes.train(x, kind=kind, **options, **SAE)
    vl.saes.save(sae, tmp_path / "sae")
    cfg, weights = readers.read_sae(tmp_path / "sae")
    codes = sae.encode(x)
    z = (x.numpy() - weights["b_dec"] * cfg["apply_b_dec_to_input"]) @ weights["W_enc"] + weights["b_enc"]
    if kind == "batch_topk":
        found = readers.encode(cfg, weights, x.numpy())
    elif kind == "topk":
        least = np.sort(z, axis=-1)[:, [-cfg["k"]]]
        found = np.where(z >= least, np.maximum(z, 0), 0)
    else:
        found = np.maximum(z, 0)
    np.testing.assert_allclose(found, codes.numpy(), atol=1e-5)
    np.testing.assert_allclose(
        found @ weights["W_dec"] + weights["b_dec"], sae.decode(codes).numpy(), atol=1e-4
    )
    flipped(tmp_path / "sae" / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=r"sae_weights.safetensors is damaged"):
        readers.read_sae(tmp_path / "sae")
    reworded(tmp_path / "sae" / "cfg.json", b'"d_in": 8', b'"d_in": 9')
    with pytest.raises(ValueError, match=r"cfg.json is damaged"):
        readers.read_sae(tmp_path / "sae")


def test_a_crosscoder_is_read_as_its_page_says(readers, x, tmp_path):
    crosscoder = vl.saes.train_crosscoder({"base": x, "tuned": 2 * x}, k_per_token=2, **SAE)
    crosscoder.save(tmp_path / "crosscoder")
    cfg, weights, entry = readers.read_crosscoder(tmp_path / "crosscoder")
    assert entry["checkpoints"] == ["base", "tuned"]
    assert entry["latents"].keys() == set(crosscoder.latents.columns)
    both = np.concatenate([x.numpy() * entry["scales"][0], 2 * x.numpy() * entry["scales"][1]], axis=-1)
    codes = crosscoder.encode({"base": x, "tuned": 2 * x}).numpy()
    np.testing.assert_allclose(readers.encode(cfg, weights, both), codes, atol=1e-5)
    page = (PAGES / "saes.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in entry)


def test_the_state_of_an_sae_training_is_read_as_its_page_says(readers, x, tmp_path, monkeypatch):
    from vitlens.saes.resume import TrainingFolder

    monkeypatch.setattr(TrainingFolder, "is_due", lambda self: True)
    monkeypatch.setattr(TrainingFolder, "finish", lambda self, sae: None)  # as if killed just before
    vl.saes.train(x, k_per_token=2, output=tmp_path, **SAE)
    assert readers.read_json(tmp_path / "run.json")["format"] == "vitlens.sae-training.1"
    source = readers.read_json(tmp_path / "run.json")["source"]
    assert source["sha256"] == hashlib.sha256(x.numpy().astype("<f4").tobytes()).hexdigest()
    tensors, history = readers.read_sae_state(tmp_path / "state.safetensors")
    assert tensors["sae.W_dec"].shape == (16, 8)
    assert json.loads(tensors["progress"].tobytes())["n_training_samples"] == history[-1]["n_tokens"]
    flipped(tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        readers.read_sae_state(tmp_path / "state.safetensors")


def test_a_fine_tuning_run_is_read_as_its_page_says(readers, models, images, tmp_path):
    config = vl.training.FinetuneConfig(
        conditions=["contrast@1"], steps=2, batch_size=4, warmup_steps=0, checkpoint_every_steps=1,
        snapshot_steps=(1,), evaluate_every_steps=1, ema_decay=0.5,
    )  # fmt: skip
    result = vl.training.finetune(
        models["base"], images, config, output=tmp_path, evaluate_on=images, progress=False
    )
    assert readers.weights_sha256(tmp_path / "model.safetensors") == vl.weights_sha256(result.model)
    readers.read_model(tmp_path / "snapshots" / "step-000001.safetensors")
    said = readers.read_json(tmp_path / "config.json")
    assert said["start"] == vl.weights_sha256(models["base"])
    readers.read_part(tmp_path / "evaluations" / "step-000002", 0)

    log = readers.read_log(tmp_path / "log.jsonl")
    steps = [row for row in log if row["kind"] == "step"]
    assert [row["loss"] for row in steps] == result.log["loss"].tolist()
    page = (PAGES / "training.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for row in log for name in row)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert readers.read_log(tmp_path / "log.jsonl") == log

    path = tmp_path / "checkpoints" / "step-000002.safetensors"
    step, parts = readers.read_checkpoint(path)
    assert step == 2
    assert parts.keys() == {"model", "averaged", "optimizer", "scale"}
    averaged = {name: tensor.tolist() for name, tensor in result.model.model.state_dict().items()}
    assert {name: values.tolist() for name, values in parts["averaged"].items()} == averaged
    assert readers.weights_sha256(path) == vl.weights_sha256(vl.load(path))
    with pytest.raises(ValueError, match="is damaged"):
        readers.read_checkpoint(flipped(path))


def test_caches_probes_and_lenses_are_read_as_their_page_says(readers, models, images, tmp_path):
    model = models["base"]
    _, cache = model.run_with_cache(torch.rand(2, 3, 32, 32), names_filter=HOOK)
    tensors, has_batch_dim = readers.read_cache(cache.save(tmp_path / "cache.safetensors"))
    assert has_batch_dim is True
    np.testing.assert_array_equal(readers.array(tensors[HOOK]), cache[HOOK].detach().numpy())

    probe = vl.LinearProbe.fit(model, images, progress=False)
    arrays, tokens = readers.read_probe(probe.save(tmp_path / "probe.safetensors"))
    assert tokens == "pooled"
    rows = vl.run(model, images, [probe], progress=False)["probe_predicted"].values[0]
    pixels = torch.stack([item["pixels"] for item in images])
    _, cache = model.run_with_cache(model.normalize(pixels), names_filter=HOOK)
    features = cache.cls(HOOK).detach().numpy()
    scores = (features - arrays["mean"][-1]) @ arrays["weights"][-1] + arrays["share"]
    assert arrays["classes"][scores.argmax(-1)].tolist() == rows[:, -1].tolist()

    lens = vl.TunedLens.train(model, images, n_steps=1, progress=False)
    path = lens.save(tmp_path / "lens.safetensors")
    ((key, (weight, bias)),) = readers.read_tuned_lens(path).items()
    assert key == vl.weights_sha256(model)
    np.testing.assert_array_equal(weight, lens.translators[0].weight.numpy())
    np.testing.assert_array_equal(bias, lens.translators[0].bias.numpy())
    with pytest.raises(ValueError, match="are damaged"):
        readers.read_tuned_lens(flipped(path))


def test_the_activation_store_is_read_as_its_page_says(readers, models, images, tmp_path):
    store = vl.saes.ActivationStore.write(
        tmp_path, models, images, hook_names=[HOOK], tokens="patch", progress=False
    )
    manifest = readers.read_json(tmp_path / "manifest.json")
    assert manifest["protocol"] == "vitlens.activations.1"
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert readers.sha256(text.encode()) == manifest["sha256"]
    ids = "".join(f"{item['image_id']}\n" for item in images)
    assert readers.sha256(ids.encode()) == manifest["image_ids_sha256"]
    assert [each["weights_sha256"] for each in manifest["checkpoints"]] == [
        vl.weights_sha256(model) for model in models.values()
    ]

    (shard,) = manifest["shards"]
    description = tmp_path / "shard-000000.json"
    assert readers.sha256(description.read_bytes()) == shard["sha256"]
    described = readers.read_json(description)
    assert described["image_ids"] == [item["image_id"] for item in images]
    tensors, _ = readers.read_safetensors(tmp_path / "shard-000000.safetensors")
    order, stored = readers.array(tensors["order"]), readers.array(tensors[HOOK])
    n_rows, size = len(order), manifest["n_rows_per_block"]
    planes = {"order": order[None], HOOK: stored.reshape(-1, n_rows, stored.shape[-1])}
    for name, values in planes.items():
        blocks = [plane[at : at + size] for plane in values for at in range(0, n_rows, size)]
        assert [readers.sha256(block.tobytes()) for block in blocks] == described["blocks_sha256"][name]
    in_order = np.empty_like(stored[1, 0])
    in_order[order] = stored[1, 0]
    tokens = store.tokens(HOOK, checkpoint="tuned")
    np.testing.assert_array_equal(in_order, torch.cat([*tokens.in_order(64)]).numpy())


def of_version(path, key, version):
    """The file with another version in its metadata."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"][key] == "1"
    header["__metadata__"][key] = version
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return path


@pytest.mark.parametrize("kind", ["model", "cache", "probe", "lens"])
def test_a_file_of_a_version_that_is_not_known_is_refused(models, images, tmp_path, kind):
    model, path = models["base"], tmp_path / "file.safetensors"
    if kind == "model":
        key, read = "vitlens", vl.load
        vl.save(model, path)
    elif kind == "cache":
        key, read = "vitlens_cache", vl.ActivationCache.load
        model.run_with_cache(torch.rand(1, 3, 32, 32), names_filter=HOOK)[1].save(path)
    elif kind == "probe":
        key, read = "vitlens_probe", vl.LinearProbe.load
        vl.LinearProbe.fit(model, images, progress=False).save(path)
    else:
        key, read = "vitlens_tuned_lens", vl.TunedLens.load
        vl.TunedLens.train(model, images, n_steps=1, progress=False).save(path)
    read(path)
    with pytest.raises(vl.errors.CheckpointError, match=r"file.safetensors is of version '2' .* later one"):
        read(of_version(path, key, "2"))


def test_a_checkpoint_of_a_version_that_is_not_known_is_refused(tmp_path, monkeypatch):
    from vitlens.training import state

    path = tmp_path / "step-000001.safetensors"
    monkeypatch.setattr(state, "FORMAT_VERSION", "2")
    state.write_state(path, state.State(1, {}))
    monkeypatch.undo()
    with pytest.raises(vl.errors.CheckpointError, match="version '2'"):
        state.read_state(path)
