"""Each analysis against values computed here from plain torch hooks on the timm module."""

import numpy as np
import pytest
import scipy.stats
import timm
import torch
from torch import nn

import vitlens as vl
from vitlens.testing import randomize


def plain(model, images):
    """Residual stream at every place and every attention pattern, by torch's own hooks."""
    stream, patterns, handles = [], [], []
    handles.append(model.blocks[0].register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0])))
    for block in model.blocks:
        handles.append(block.register_forward_hook(lambda _, __, output: stream.append(output)))

        def attend(module, _, output, n_heads=block.attn.num_heads):
            batch, n_pos, _ = output.shape
            q, k, _ = output.view(batch, n_pos, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
            patterns.append(torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1))

        handles.append(block.attn.qkv.register_forward_hook(attend))
    logits = model(images)
    for handle in handles:
        handle.remove()
    return logits, stream, patterns


@pytest.fixture(params=["small", "real"], scope="module")
def case(request):
    """A model, its wrapper, and items: drawn ones, or DeiT-tiny and photographs."""
    if request.param == "small":
        model = randomize(timm.create_model("vit_tiny_patch16_224", depth=3, img_size=48, num_classes=6))
        generator = torch.Generator().manual_seed(0)
        items = [
            {"pixels": torch.rand(3, 48, 48, generator=generator), "label": i % 6, "image_id": f"{i}"}
            for i in range(9)
        ]
        return model, vl.HookedViT(model), items
    model = request.getfixturevalue("deit_tiny")
    hooked = vl.HookedViT(model)
    folder = request.getfixturevalue("data_folder") / "imagenet_samples"
    dataset = vl.images.folder(folder, hooked)
    return model, hooked, [dataset[index] for index in range(5, 1000, 90)]


@pytest.fixture(scope="module")
def measured(case):
    model, hooked, items = case
    analyses = [vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy(), vl.AttentionMap()]
    data = vl.run(hooked, items, analyses, batch_size=4, progress=False).sel(condition="clean")
    images = hooked.normalize(torch.stack([item["pixels"] for item in items]))
    with torch.no_grad():
        expected = plain(model, images)
    return model, items, data, expected


def close(got, wanted):
    np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), atol=1e-4, rtol=1e-4)


def test_images_and_labels_come_in_order(measured):
    _, items, data, _ = measured
    assert data["image"].values.tolist() == [item["image_id"] for item in items]
    assert data["label"].values.tolist() == [item["label"] for item in items]


def test_prediction(measured):
    _, items, data, (logits, _, _) = measured
    probabilities = torch.softmax(logits, -1).numpy()
    labels = np.array([item["label"] for item in items])
    assert data["predicted"].values.tolist() == logits.argmax(-1).tolist()
    close(data["correct_probability"], probabilities[np.arange(len(labels)), labels])
    close(data["predicted_probability"], probabilities.max(-1))
    close(data["entropy_nats"], scipy.stats.entropy(probabilities, axis=-1))
    order = (-logits).argsort(dim=-1, stable=True).tolist()
    assert data["rank"].values.tolist() == [
        row.index(label) for row, label in zip(order, labels, strict=True)
    ]


def test_logit_lens(measured):
    model, items, data, (_, stream, _) = measured
    labels = np.array([item["label"] for item in items])
    with torch.no_grad():
        lens = torch.stack([model.head(model.norm(resid)[:, 0]) for resid in stream], dim=1)
    probabilities = torch.softmax(lens, -1).numpy()
    close(data["lens_probability"], probabilities[np.arange(len(labels)), :, labels])
    close(data["lens_entropy_nats"], scipy.stats.entropy(probabilities, axis=-1))
    right = lens.argmax(-1).numpy() == labels[:, None]
    for image, row in enumerate(right):
        first = data["first_correct_layer"].values[image]
        assert np.isnan(first) if not row.any() else first == row.tolist().index(True)
        predictions = lens.argmax(-1)[image].tolist()
        last = int(data["last_change_layer"].values[image])
        assert set(predictions[last:]) == {predictions[-1]}
        assert last == 0 or predictions[last - 1] != predictions[-1]
    assert data["resid_layer"].values.tolist() == list(range(len(model.blocks) + 1))


def test_the_lens_at_the_last_place_is_the_prediction(measured):
    _, _, data, _ = measured
    last = data.isel(resid_layer=-1)
    np.testing.assert_array_equal(last["lens_rank"], data["rank"])
    close(last["lens_probability"], data["correct_probability"])
    close(last["lens_entropy_nats"], data["entropy_nats"])


def test_attention_entropy(measured):
    _, _, data, (_, _, patterns) = measured
    entropies = np.stack([scipy.stats.entropy(pattern.numpy(), axis=-1) for pattern in patterns], axis=1)
    close(data["attention_entropy_nats"].sel(query_kind="cls"), entropies[..., 0])
    close(data["attention_entropy_nats"].sel(query_kind="patch"), entropies[..., 1:].mean(-1))
    assert data["query_kind"].values.tolist() == ["cls", "patch"]


def test_attention_map(measured):
    _, _, data, (_, _, patterns) = measured
    rows = torch.stack(patterns, dim=1)[..., 0, 1:]
    side = int(rows.shape[-1] ** 0.5)
    close(data["attention_map"], rows.unflatten(-1, (side, side)))


def test_registers_and_distillation_tokens_are_kinds_of_their_own():
    settings = {"depth": 1, "img_size": 32, "num_classes": 4}
    item = {"pixels": torch.rand(3, 32, 32), "label": 1, "image_id": "a"}
    for name, kwargs, kinds in (
        ("vit_tiny_patch16_224", {"reg_tokens": 2}, ["cls", "register", "patch"]),
        ("deit_tiny_distilled_patch16_224", {}, ["cls", "distillation", "patch"]),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, ["patch"]),
    ):
        model = vl.HookedViT(timm.create_model(name, **settings, **kwargs))
        data = vl.run(model, [item], [vl.AttentionEntropy(), vl.AttentionMap()], progress=False)
        assert data["query_kind"].values.tolist() == kinds
        assert data["attention_map"].shape == (1, 1, 1, 3, 2, 2)


def test_a_model_without_a_classifier_is_refused_by_what_needs_classes_and_by_nothing_else():
    model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=0))
    item = {"pixels": torch.rand(3, 32, 32), "label": 7, "image_id": "a"}
    for analysis in (vl.Prediction(), vl.LogitLens()):
        with pytest.raises(vl.errors.AnalysisError, match=r"needs classes; this model has no classifier"):
            vl.run(model, [item], [analysis], progress=False)
    assert (
        vl.run(model, [item], [vl.AttentionEntropy()], progress=False)["attention_entropy_nats"]
        .notnull()
        .all()
    )


def test_uniform_attention_has_entropy_log_n():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=4)
    nn.init.zeros_(model.blocks[0].attn.qkv.weight)
    nn.init.zeros_(model.blocks[0].attn.qkv.bias)
    item = {"pixels": torch.rand(3, 32, 32), "label": 1, "image_id": "a"}
    data = vl.run(vl.HookedViT(model), [item], [vl.AttentionEntropy()], progress=False)
    close(data["attention_entropy_nats"], np.full((1, 1, 1, 3, 2), np.log(5)))
