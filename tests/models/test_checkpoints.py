"""What is saved loads again with nothing else; what is damaged or does not fit is refused with a reason."""

import argparse
import json
import pickle

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import vitlens as vl
from vitlens.testing import randomize

BARE = {
    "plain": {},
    "mean pooling": {"global_pool": "avg", "class_token": False},
    "pre-norm, no norm at the end": {"pre_norm": True, "final_norm": False},
    "registers and layer scale": {"reg_tokens": 3, "init_values": 0.1, "no_embed_class": True},
    "norms and dropouts": {"qk_norm": True, "drop_path_rate": 0.2, "proj_drop_rate": 0.1, "drop_rate": 0.3},
    "two heads": {"distilled": True},
}


def bare(distilled=False, **kwargs):
    from timm.models.deit import VisionTransformerDistilled

    cls = VisionTransformerDistilled if distilled else timm.models.VisionTransformer
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 7}
    return randomize(cls(**sizes, **kwargs))


@torch.no_grad()
@pytest.mark.parametrize("kwargs", BARE.values(), ids=BARE.keys())
def test_a_bare_module_survives_saving_and_loading(tmp_path, kwargs):
    model = vl.HookedViT(bare(**kwargs), data_config={"mean": (0.4,) * 3, "std": (0.3,) * 3})
    loaded = vl.load(vl.save(model, tmp_path / "model.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))
    assert loaded.cfg == model.cfg
    assert torch.equal(loaded.normalize(images), model.normalize(images))
    assert str(loaded.model) == str(model.model)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("deit_tiny_patch16_224", {"num_classes": 10, "img_size": 32, "drop_path_rate": 0.1}),
        ("deit_tiny_distilled_patch16_224", {"img_size": 48, "depth": 2}),
        ("vit_base_patch16_clip_224", {"depth": 1, "num_classes": 3}),
    ],
)
def test_a_timm_model_survives_saving_and_loading(tmp_path, name, kwargs):
    model = vl.HookedViT(randomize(timm.create_model(name, **kwargs)), provenance={"from": "here"})
    loaded = vl.load(vl.save(model, tmp_path / "model.safetensors", provenance={"run": 3}))
    images = torch.randn(1, 3, *model.cfg.image_size)
    assert torch.equal(loaded(images), model(images))
    assert torch.equal(loaded.normalize(images), model.normalize(images))
    assert loaded.provenance == {"from": "here", "run": 3, "file": "model.safetensors"}


def test_the_file_holds_timms_own_state_dict(tmp_path):
    model = bare()
    path = vl.save(model, tmp_path / "model.safetensors")
    assert load_file(path).keys() == model.state_dict().keys()


def test_the_hash_of_weights_changes_with_any_weight_and_survives_saving(tmp_path):
    model = vl.HookedViT(bare())
    before = vl.weights_sha256(model)
    assert vl.weights_sha256(vl.load(vl.save(model, tmp_path / "model.safetensors"))) == before
    with torch.no_grad():
        model.model.head.bias[3] += 1e-3
    assert vl.weights_sha256(model) != before


@torch.no_grad()
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"epoch": 3, "state_dict": s, "args": argparse.Namespace(lr=1e-3, model="vit")},
    ],
    ids=["bare", "under model", "data-parallel", "compiled", "timm's training script"],
)
def test_a_state_dict_in_a_pth_loads_with_its_architecture(tmp_path, wrap):
    model = randomize(timm.create_model("vit_tiny_patch16_224", depth=1))
    torch.save(wrap(model.state_dict()), tmp_path / "weights.pth")
    loaded = vl.load(tmp_path / "weights.pth", "vit_tiny_patch16_224", depth=1)
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(loaded(images), model(images))


def test_the_average_goes_before_the_last_weights(tmp_path):
    last, average = (randomize(timm.create_model("vit_tiny_patch16_224", depth=1), seed=i) for i in (0, 1))
    kept = {"state_dict": last.state_dict(), "state_dict_ema": average.state_dict()}
    torch.save(kept, tmp_path / "m.pth.tar")
    loaded = vl.load(tmp_path / "m.pth.tar", "vit_tiny_patch16_224", depth=1)
    assert torch.equal(loaded.model.head.weight, average.head.weight)


def test_a_checkpoint_that_says_its_architecture_is_quoted(tmp_path):
    kept = {"arch": "deit_tiny_patch16_224", "state_dict": bare().state_dict()}
    torch.save(kept, tmp_path / "m.pth.tar")
    with pytest.raises(
        vl.errors.ArchitectureError, match=r'says "deit_tiny_patch16_224".*architecture="deit'
    ):
        vl.load(tmp_path / "m.pth.tar")


def test_half_precision_weights_load_into_float32(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    save_file(
        {name: tensor.half() for name, tensor in model.state_dict().items()}, tmp_path / "half.safetensors"
    )
    assert vl.load(tmp_path / "half.safetensors", "vit_tiny_patch16_224", depth=1).dtype == torch.float32


def test_a_bare_state_dict_wants_an_architecture(tmp_path):
    save_file(bare().state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(vl.errors.ArchitectureError, match=r"bare state dict.*Expected: .*architecture="):
        vl.load(tmp_path / "bare.safetensors")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(vl.errors.CheckpointError, match=r"There is no file .*nowhere\.safetensors"):
        vl.load(tmp_path / "nowhere.safetensors")


def test_what_needs_no_loading_is_said_to_be_had_otherwise():
    load = getattr(vl.load, "__wrapped__", vl.load)  # past the tests' own type checker
    with pytest.raises(vl.errors.CheckpointError, match=r"path is a VisionTransformer\..*HookedViT\(module"):
        load(bare())
    with pytest.raises(vl.errors.CheckpointError, match=r'from_timm\("vit_tiny_patch16_224", pretrained='):
        vl.load("vit_tiny_patch16_224")


def test_a_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(vl.errors.CheckpointError, match=r"is a folder\. .*Name the file in it"):
        vl.load(tmp_path)


@pytest.mark.parametrize("content", [b"junk" * 10, b"hello there", b"x", b"c__builtin__\nprint\n."])
@pytest.mark.parametrize("name", ["model.pth", "notes.txt"])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(vl.errors.CheckpointError, match=r"cannot be read: it is no checkpoint\.") as refused:
        vl.load(tmp_path / name)
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_refused(tmp_path, damage, suffix):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(bare().state_dict(), path)
    else:
        vl.save(bare(), path)
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "text": b"hello", "empty": b""}[damage]
    )
    with pytest.raises(vl.errors.CheckpointError, match="cannot be read"):
        vl.load(path)


def test_a_pickle_is_never_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Harmful()))
    torch.save({"model": Harmful()}, tmp_path / "evil2.pth")
    (tmp_path / "evil3.pth").write_bytes(pickle.dumps(Harmful(), protocol=4))
    for name in ("evil.pth", "evil2.pth", "evil3.pth"):
        with pytest.raises(vl.errors.CheckpointError, match="holds other objects than tensors") as refused:
            vl.load(tmp_path / name, "vit_tiny_patch16_224")
        # torch's own words advise to run the pickle, in several lines and in bold.
        assert "weights_only" not in str(refused.value)
        assert str(refused.value).isprintable()
    assert not (tmp_path / "harm").exists()


def test_metadata_cannot_name_anything_but_known_classes(tmp_path):
    description = json.dumps({"kind": "class", "name": "os.system", "kwargs": {}})
    save_file(bare().state_dict(), tmp_path / "evil.safetensors", metadata={"architecture": description})
    with pytest.raises(vl.errors.ArchitectureError, match=r"described as class 'os.system'"):
        vl.load(tmp_path / "evil.safetensors")


def test_weights_that_do_not_fit_are_listed(tmp_path):
    state = bare().state_dict()
    state["surplus.weight"] = torch.zeros(1)
    del state["blocks.1.mlp.fc1.bias"]
    save_file(state, tmp_path / "odd.safetensors", metadata=_metadata(tmp_path))
    with pytest.raises(
        vl.errors.CheckpointError,
        match=r"1 missing \(blocks.1.mlp.fc1.bias\); 1 not in the architecture \(surplus.weight\)",
    ):
        vl.load(tmp_path / "odd.safetensors")


def _metadata(folder):
    from safetensors import safe_open

    with safe_open(vl.save(bare(), folder / "whole.safetensors"), framework="pt") as file:
        return file.metadata()


def test_another_number_of_classes_says_which(tmp_path):
    save_file(
        timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=202).state_dict(),
        tmp_path / "m.safetensors",
    )
    with pytest.raises(vl.errors.CheckpointError, match="pass num_classes=202"):
        vl.load(tmp_path / "m.safetensors", "vit_tiny_patch16_224", depth=1)
    model = vl.load(tmp_path / "m.safetensors", "vit_tiny_patch16_224", depth=1, num_classes=202)
    assert model.cfg.n_classes == 202


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"img_size": 128}, r"128×128 pixels: pass img_size=128\."),
        (
            {"img_size": 96, "num_classes": 10},
            r"and its head has 10 classes: pass img_size=96, num_classes=10",
        ),
    ],
)
def test_another_size_of_image_says_which(tmp_path, kwargs, said):
    state = timm.create_model("vit_tiny_patch16_224", depth=1, **kwargs).state_dict()
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(vl.errors.CheckpointError, match=said):
        vl.load(tmp_path / "m.safetensors", "vit_tiny_patch16_224", depth=1)
    model = vl.load(tmp_path / "m.safetensors", "vit_tiny_patch16_224", depth=1, **kwargs)
    assert model.cfg.image_size == (kwargs["img_size"],) * 2


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda name: f"net.backbone.{name}", "All but the prefix 'net.backbone.' fits"),
        (lambda name: f"vit.encoder.layer.0.{name}", "Hugging Face's names"),
    ],
)
def test_names_that_others_give_are_recognized(tmp_path, rename, said):
    state = timm.create_model("vit_tiny_patch16_224", depth=1).state_dict()
    save_file({rename(name): tensor for name, tensor in state.items()}, tmp_path / "m.safetensors")
    with pytest.raises(vl.errors.CheckpointError, match=said):
        vl.load(tmp_path / "m.safetensors", "vit_tiny_patch16_224", depth=1)


def test_two_architectures_of_one_shape_are_told_apart_by_their_means(tmp_path):
    save_file(timm.create_model("deit_tiny_patch16_224").state_dict(), tmp_path / "m.safetensors")
    said = r"'vit_tiny_patch16_224' \(mean 0.5, 0.5, 0.5\) or 'deit_tiny_patch16_224' \(mean 0.485, 0.456, "
    with pytest.raises(vl.errors.CheckpointError, match=said):
        vl.load(tmp_path / "m.safetensors", "vit_small_patch16_224")


def test_the_right_name_without_its_arguments_says_so(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(vl.errors.CheckpointError, match="Pass what the model was built with besides"):
        vl.load(tmp_path / "m.safetensors", "vit_tiny_patch16_224", depth=11)


def test_a_module_that_cannot_be_described_is_refused_before_anything_is_written(tmp_path):

    model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=4, act_layer=torch.nn.ReLU
    )
    with pytest.raises(
        vl.errors.ArchitectureError, match="cannot be told how this VisionTransformer was built"
    ):
        vl.save(model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = vl.save(bare(), tmp_path / "model.safetensors")
    before = path.read_bytes()

    def half_way(state, target, metadata):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("vitlens.models.checkpoints.save_file", half_way)
    with pytest.raises(OSError, match="no space"):
        vl.save(bare(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "beit_base_patch16_224"]
)
def test_weights_of_another_architecture_say_which_they_look_like(tmp_path, name):
    save_file(timm.create_model(name).state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(vl.errors.CheckpointError, match=rf"look like those of '{name}'"):
        vl.load(tmp_path / "m.safetensors", "vit_small_patch32_224")
