"""Distances between weights, and models on the line between two checkpoints."""

import copy

import numpy as np
import pytest
import timm
import torch
import xarray as xr

import vitlens as vl
from vitlens.analyses.cka import CKA
from vitlens.analyses.representation import Representation
from vitlens.analyses.weight_space import interpolate, weight_distance
from vitlens.testing import randomize


def small(seed=0, **kwargs):
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 10}
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**shape | kwargs), seed))


def digits(n):
    dataset = vl.images.digits("test")
    return [dataset[index] for index in range(n)]


def relative(new, old):
    return float((new.double() - old.double()).norm() / old.double().norm())


# ---------------------------------------------------------------------- distances


@pytest.mark.parametrize("source", ["small", "real"])
def test_distances_are_those_of_the_state_dicts(source, request):
    if source == "small":
        base, tuned = small(0, init_values=0.5), small(1, init_values=0.5)
    else:
        model = request.getfixturevalue("deit_tiny")
        base, tuned = vl.HookedViT(model), vl.HookedViT(randomize(copy.deepcopy(model)))
    distance = weight_distance(base, tuned)
    old, new = (model.model.state_dict() for model in (base, tuned))
    cells = {
        ("W_Q", 0): lambda state: state["blocks.0.attn.qkv.weight"].chunk(3)[0],
        ("W_K", 1): lambda state: state["blocks.1.attn.qkv.weight"].chunk(3)[1],
        ("W_V", 0): lambda state: state["blocks.0.attn.qkv.weight"].chunk(3)[2],
        ("b_V", 1): lambda state: state["blocks.1.attn.qkv.bias"].chunk(3)[2],
        ("W_O", 1): lambda state: state["blocks.1.attn.proj.weight"],
        ("b_O", 1): lambda state: state["blocks.1.attn.proj.bias"],
        ("W_in", 0): lambda state: state["blocks.0.mlp.fc1.weight"],
        ("b_in", 1): lambda state: state["blocks.1.mlp.fc1.bias"],
        ("W_out", 1): lambda state: state["blocks.1.mlp.fc2.weight"],
        ("b_out", 0): lambda state: state["blocks.0.mlp.fc2.bias"],
    }
    for (matrix, layer), of in cells.items():
        got = float(distance["weight_distance"].sel(matrix=matrix, layer=layer))
        assert got == pytest.approx(relative(of(new), of(old)), rel=1e-6)
    parts = {
        "all": lambda name: True,
        "norm": lambda name: "norm" in name,
        "head": lambda name: name.startswith("head"),
        "blocks": lambda name: name.startswith("blocks") and "norm" not in name,
        "embedding": lambda name: not name.startswith(("blocks", "head", "norm")),
    }
    for part, belongs in parts.items():
        ours, theirs = (
            torch.cat([tensor.flatten() for name, tensor in state.items() if belongs(name)])
            for state in (new, old)
        )
        got = float(distance["weight_distance_of_part"].sel(part=part))
        assert got == pytest.approx(relative(ours, theirs), rel=1e-6)
    assert sorted(parts) == sorted(distance["part"].values)


def architectures():
    shape = {"img_size": 32, "depth": 1, "num_classes": 5}

    def built(name, **kwargs):
        return lambda: timm.create_model(name, **shape | kwargs)

    def of_blocks(name):
        block = getattr(timm.models.vision_transformer, name)
        tiny = {"patch_size": 16, "embed_dim": 32, "num_heads": 2}
        return lambda: timm.models.VisionTransformer(block_fn=block, **shape | tiny)

    vit = "vit_tiny_patch16_224"
    return {
        "class token": built(vit),
        "mean": built(vit, class_token=False, global_pool="avg"),
        "registers": built(vit, reg_tokens=2),
        "map": built(vit, class_token=False, global_pool="map"),
        "two heads": built("deit_tiny_distilled_patch16_224"),
        "none": built(vit, num_classes=0),
        "gated": built("eva02_tiny_patch14_224", img_size=28),
        "relative": built("beit_base_patch16_224", embed_dim=32, num_heads=2),
        "joint": of_blocks("ParallelScalingBlock"),
        "side by side": of_blocks("ParallelThingsBlock"),
        "differential": of_blocks("DiffParallelScalingBlock"),
    }


def part_of(name):
    if any("norm" in step for step in name.split(".")):
        return "norm"
    if name.startswith(("head", "attn_pool")):
        return "head"
    return "blocks" if name.startswith("blocks") else "embedding"


@pytest.mark.parametrize("kind", architectures())
def test_every_parameter_is_in_one_part_and_every_matrix_moves_with_its_parameter(kind):
    module = randomize(architectures()[kind]())
    base, other = vl.HookedViT(module), vl.HookedViT(randomize(copy.deepcopy(module), seed=1))
    parts = weight_distance(base, other)["weight_distance_of_part"]
    old, new = (dict(model.model.named_parameters()) for model in (base, other))
    kinds = {part_of(name) for name in old}
    assert set(parts["part"].values) == {*kinds, "all"}
    assert ("head" in kinds) == (kind != "none")
    for part in kinds:
        theirs, ours = (
            torch.cat([tensor.detach().flatten() for name, tensor in state.items() if part_of(name) == part])
            for state in (old, new)
        )
        assert float(parts.sel(part=part)) == pytest.approx(relative(ours, theirs), rel=1e-6)

    scaled = vl.HookedViT(copy.deepcopy(module))
    with torch.no_grad():
        for parameter in scaled.model.parameters():
            parameter *= 1.25
    distance = weight_distance(base, scaled)
    np.testing.assert_allclose(distance["weight_distance_of_part"], 0.25, rtol=1e-5)
    # BEiT and EVA-02 have no key bias but a row of zeros in its place.
    trained = distance["weight_distance"].dropna("matrix")
    assert set(distance["matrix"].values) - set(trained["matrix"].values) <= {"b_K"}
    np.testing.assert_allclose(trained, 0.25, rtol=1e-5)


def test_a_gated_mlp_has_its_gate_and_a_bias_that_is_not_there_is_left_out():
    gated = vl.HookedViT(randomize(architectures()["gated"]()))
    assert "W_gate" in weight_distance(gated, gated)["matrix"].values
    bare = small(qkv_bias=False)
    names = weight_distance(bare, bare)["matrix"].values.tolist()
    assert names == ["W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "b_O", "b_in", "b_out"]


def test_where_the_reference_is_zero_there_is_no_relative_distance():
    base, tuned = small(), small()
    with torch.no_grad():
        base.model.blocks[0].mlp.fc2.bias.zero_()
        base.model.blocks[1].mlp.fc2.bias.zero_()
        tuned.model.blocks[1].mlp.fc2.bias.zero_()
    b_out = weight_distance(base, tuned)["weight_distance"].sel(matrix="b_out")
    assert np.isposinf(b_out[0])
    assert np.isnan(b_out[1])


def test_different_architectures_have_no_distance():
    with pytest.raises(
        vl.errors.ArchitectureError,
        match=r"The models differ: of their parameters, 12 only in the second \(blocks.2.attn.proj.bias, ",
    ):
        weight_distance(small(), small(depth=3))
    with pytest.raises(
        vl.errors.ArchitectureError, match=r"2 of another shape \(head.bias \(10,\) and \(7,\)"
    ):
        weight_distance(small(), small(num_classes=7))


# ---------------------------------------------------------------------- the line between


def test_rows_are_those_of_a_model_made_by_hand_and_the_ends_are_the_checkpoints():
    base, tuned, items = small(0), small(1), digits(6)
    analyses = [vl.Prediction(), vl.LogitLens()]
    data = interpolate(
        base,
        tuned,
        items,
        alphas=(0, 0.3, 1),
        analyses=analyses,
        conditions=["clean", "contrast@3"],
        progress=False,
    )
    assert data["alpha"].values.tolist() == [0, 0.3, 1]
    assert data["correct_probability"].dims == ("alpha", "condition", "image")
    by_hand = small()
    mixed = {
        name: 0.7 * tensor + 0.3 * tuned.model.state_dict()[name]
        for name, tensor in base.model.state_dict().items()
    }
    by_hand.model.load_state_dict(mixed)
    for alpha, model in ((0, base), (0.3, by_hand), (1, tuned)):
        wanted = vl.run(model, items, analyses, conditions=["clean", "contrast@3"], progress=False)
        got = data.sel(alpha=alpha, drop=True)
        if alpha == 0.3:
            xr.testing.assert_allclose(got, wanted, rtol=1e-4)
        else:
            assert got.equals(wanted)


def test_the_two_checkpoints_are_left_as_they_were():
    base, tuned = small(0), small(1)
    base.train()
    before = [vl.weights_sha256(model) for model in (base, tuned)]
    interpolate(base, tuned, digits(3), progress=False)
    assert [vl.weights_sha256(model) for model in (base, tuned)] == before
    assert base.training
    assert base.model.training
    assert not tuned.model.training


def test_what_both_share_stays_equal_to_the_last_bit_all_along():
    base, tuned = small(0), small(0)
    base.model.register_buffer("mask", torch.tensor([float("-inf"), 0.1]))
    tuned.model.register_buffer("mask", torch.tensor([float("-inf"), 0.1]))
    data = interpolate(base, tuned, digits(3), alphas=(0, 0.1, 0.7), progress=False)
    for alpha in (0.1, 0.7):
        assert data.sel(alpha=alpha, drop=True).equals(data.sel(alpha=0, drop=True))


def test_analyses_with_a_reference_have_the_first_model_as_theirs():
    data = interpolate(
        small(0),
        small(1),
        digits(8),
        alphas=(0, 0.5, 1),
        analyses=[CKA("patch"), Representation()],
        progress=False,
    )
    assert (data["cka"].sel(alpha=0) == 1).all()
    distance = data["resid_relative_distance"].mean("image").sel(condition="clean")
    assert (distance.sel(alpha=0) == 0).all()
    assert (distance.sel(alpha=0.5)[0] < distance.sel(alpha=1)[0]).all()


def test_the_line_of_trained_weights_is_measured_on_photographs(deit_tiny, data_folder):
    base = vl.HookedViT(deit_tiny)
    module = copy.deepcopy(deit_tiny)
    with torch.no_grad():
        module.head.weight.copy_(module.head.weight.roll(1, 0))
        module.head.bias.copy_(module.head.bias.roll(1, 0))
    dataset = vl.images.folder(data_folder / "imagenet_samples", base)
    items = [dataset[index] for index in range(5, 1000, 250)]
    data = interpolate(base, vl.HookedViT(module), items, alphas=(0, 0.25, 1), progress=False)
    # Only the head differs, and it is linear: the logits of the line are on the line.
    with torch.no_grad():
        logits = deit_tiny(base.normalize(torch.stack([item["pixels"] for item in items])))
    mixed = (0.75 * logits + 0.25 * logits.roll(1, -1)).softmax(-1)
    labels = [item["label"] for item in items]
    np.testing.assert_allclose(
        data["correct_probability"].sel(alpha=0.25, condition="clean"),
        mixed[range(len(items)), labels],
        atol=1e-4,
    )


def test_models_with_no_model_between_them_are_refused():
    base, items = small(), digits(3)

    def other(**data_config):
        return vl.HookedViT(small(1).model, data_config=data_config)

    refused = [
        (small(depth=3), r"of their parameters, 12 only in the second"),
        (small(act_layer=torch.nn.ReLU), r"blocks.0.mlp.act GELU.* and ReLU\(\)"),
        (small(global_pool="avg", fc_norm=False), r"pool token and avg"),
        (other(mean=(0.1, 0.1, 0.1)), r"mean .* and \(0.1, 0.1, 0.1\)"),
    ]
    for model, reason in refused:
        with pytest.raises(vl.errors.ArchitectureError, match=reason):
            interpolate(base, model, items, progress=False)
    counted = small(1)
    base.model.register_buffer("steps", torch.tensor(3))
    with pytest.raises(vl.errors.ArchitectureError, match=r"of their buffers, 1 only in the first \(steps\)"):
        interpolate(base, counted, items, progress=False)
    counted.model.register_buffer("steps", torch.tensor(4))
    with pytest.raises(vl.errors.ArchitectureError, match=r"1 differences \(buffer steps\)"):
        interpolate(base, counted, items, progress=False)


def test_dropout_that_training_wanted_is_no_difference():
    base, tuned = small(0), small(1, drop_path_rate=0.2, proj_drop_rate=0.1)
    assert interpolate(base, tuned, digits(2), progress=False).sizes["alpha"] == 5


@pytest.mark.parametrize("alphas", [(), (0, 0), (0, float("nan")), (float("inf"),)])
def test_places_on_the_line_are_finite_numbers_each_once(alphas):
    with pytest.raises(vl.errors.AnalysisError, match=r"Expected: finite numbers, each once"):
        interpolate(small(), small(1), digits(2), alphas=alphas, progress=False)
