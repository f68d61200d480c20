"""Linear probes against scikit-learn on features from plain torch hooks."""

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import Ridge

import vitlens as vl
from vitlens.analyses.linear_probe import LinearProbe
from vitlens.images.textured_shapes import textured_shapes
from vitlens.testing import randomize


def small(**kwargs):
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 4, "num_classes": 10}
    return randomize(timm.models.VisionTransformer(**shape | kwargs))


def digits(split, n):
    dataset = vl.images.digits(split)
    return [dataset[index] for index in range(n)]


def features(model, items, pool):
    """One row an image at every place, by torch's own hooks: [resid_layer image d_row]."""
    seen = []
    handles = [model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
    handles += [
        block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in model.blocks
    ]
    with torch.no_grad():
        model(vl.HookedViT(model).normalize(torch.stack([item["pixels"] for item in items])))
    for handle in handles:
        handle.remove()
    return torch.stack([pool(resid) for resid in seen]).double().numpy()


def wanted(x, labels, new, ridge):
    """What scikit-learn's ridge regression onto one-hot labels predicts of new rows."""
    classes = np.unique(labels)
    alpha = ridge * ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    fitted = Ridge(alpha=alpha, solver="svd").fit(x, (labels[:, None] == classes).astype(float))
    return classes[fitted.predict(new).argmax(-1)]


@pytest.fixture(params=["small", "real"], scope="module")
def case(request):
    """A model, and items to fit on and to measure on."""
    if request.param == "small":
        return small(), digits("train", 90), digits("test", 40)
    model = request.getfixturevalue("deit_tiny")
    folder = request.getfixturevalue("data_folder") / "imagenet_samples"
    dataset = vl.images.folder(folder, vl.HookedViT(model))
    items = [{**dataset[index], "label": index % 3} for index in range(0, 130, 10)]
    return model, items[:9], items[9:]


@pytest.mark.parametrize("tokens", ["patch", "cls"])
def test_predictions_are_those_of_scikit_learn(case, tokens):
    model, train, test = case
    hooked = vl.HookedViT(model)
    probe = LinearProbe.fit(hooked, train, tokens=tokens, ridge=0.1, batch_size=13, progress=False)
    data = vl.run(hooked, test, [probe], batch_size=11, progress=False).sel(condition="clean")

    def pool(resid):
        return resid[:, 0] if tokens == "cls" else resid[:, 1:].mean(1)

    labels = np.array([item["label"] for item in train])
    x, new = features(model, train, pool), features(model, test, pool)
    for place in range(tokens == "cls", len(x)):
        np.testing.assert_array_equal(
            data["probe_predicted"].isel(resid_layer=place), wanted(x[place], labels, new[place], 0.1)
        )
    truth = np.array([item["label"] for item in test])
    assert data["probe_correct"].dtype == bool
    np.testing.assert_array_equal(data["probe_correct"], data["probe_predicted"] == truth[:, None])
    assert data["resid_layer"].values.tolist() == list(range(len(model.blocks) + 1))


def test_weights_and_the_chosen_penalty_are_those_of_explicit_cross_validation():
    model, train = small(), digits("train", 60)
    probe = LinearProbe.fit(vl.HookedViT(model), train, tokens="patch", progress=False)
    x = features(model, train, lambda resid: resid[:, 1:].mean(1))
    labels = np.array([item["label"] for item in train])
    y = np.eye(10)[labels] - np.bincount(labels) / 60
    for place, rows in enumerate(x):
        rows = rows - rows.mean(0)
        gram, scale = rows.T @ rows, (rows**2).sum() / 24
        errors = {}
        for ridge in vl.functional.representation.RIDGES:
            hat = rows @ np.linalg.solve(gram + ridge * scale * np.eye(24), rows.T) + 1 / 60
            errors[ridge] = ((y - hat @ y) ** 2).sum() / (60 - np.trace(hat)) ** 2
        best = min(errors, key=errors.get)
        assert float(probe.ridge[place]) == pytest.approx(best)
        weights = np.linalg.solve(gram + best * scale * np.eye(24), rows.T @ y)
        np.testing.assert_allclose(probe.weights[place], weights, atol=1e-4)


def test_neither_batch_size_nor_order_changes_a_probe():
    hooked, train = vl.HookedViT(small()), digits("train", 50)
    probe = LinearProbe.fit(hooked, train, tokens="patch", progress=False)
    other = LinearProbe.fit(hooked, train[::-1], tokens="patch", batch_size=7, progress=False)
    assert torch.equal(probe.classes, other.classes)
    assert torch.equal(probe.ridge, other.ridge)
    torch.testing.assert_close(probe.weights, other.weights, rtol=1e-3, atol=1e-5)


def test_what_is_told_apart_by_its_brightness_is_read_at_every_place():
    generator = torch.Generator().manual_seed(0)
    items = [
        {
            "pixels": 0.1 * torch.rand(3, 32, 32, generator=generator) + 0.5 * (i % 2),
            "label": 2 * (i % 2) + 1,
            "image_id": f"{i}",
        }
        for i in range(60)
    ]
    for model in (
        small(reg_tokens=2),
        small(class_token=False, global_pool="avg"),
        small(num_classes=0),
    ):
        hooked = vl.HookedViT(model)
        probe = LinearProbe.fit(hooked, items[:40], tokens="patch", progress=False)
        assert probe.classes.tolist() == [1, 3]
        data = vl.run(hooked, items[40:], [probe], progress=False)
        assert data["probe_correct"].all()


def test_the_class_token_before_block_0_says_nothing():
    hooked = vl.HookedViT(small())
    items = [{**item, "label": int(item["label"] > 2)} for item in digits("train", 40)]
    probe = LinearProbe.fit(hooked, items, progress=False)
    data = vl.run(hooked, items, [probe], progress=False)
    assert (probe.weights[0] == 0).all()
    assert probe.ridge[0].isnan()
    assert (data["probe_predicted"].isel(resid_layer=0) == 1).all()


def test_each_condition_gives_a_row_an_image():
    hooked, train = vl.HookedViT(small()), digits("train", 30)
    both = LinearProbe.fit(
        hooked, train, tokens="patch", conditions=["clean", "contrast@3"], ridge=0.1, progress=False
    )
    clean = LinearProbe.fit(hooked, train, tokens="patch", ridge=0.1, progress=False)
    assert torch.equal(both.share, clean.share)
    assert not torch.allclose(both.mean, clean.mean)


def test_another_factor_is_read_from_a_data_set_whose_labels_are_that_factor():
    hooked = vl.HookedViT(small())
    shapes = textured_shapes("train", n=48, label="shape")
    probe = LinearProbe.fit(hooked, shapes, progress=False)
    assert probe.classes.tolist() == sorted(set(shapes.labels))
    data = vl.run(hooked, textured_shapes("test", n=8, label="shape"), [probe], progress=False)
    assert data["probe_predicted"].isin(probe.classes.numpy()).all()


def test_saving_and_loading_are_inverse_and_the_repr_tells_probes_apart(tmp_path):
    hooked, train = vl.HookedViT(small()), digits("train", 30)
    probe = LinearProbe.fit(hooked, train, tokens="patch", progress=False)
    loaded = LinearProbe.load(probe.save(tmp_path / "probe.safetensors"))
    assert repr(loaded) == repr(probe)
    assert repr(probe).startswith("LinearProbe(tokens='patch', n_classes=10, sha256='")
    assert repr(LinearProbe.fit(hooked, train[:29], tokens="patch", progress=False)) != repr(probe)
    before, after = (vl.run(hooked, train[:5], [each], progress=False) for each in (probe, loaded))
    assert before.identical(after)


def test_a_file_that_is_no_probe_is_refused(tmp_path):
    path = tmp_path / "probe.safetensors"
    with pytest.raises(vl.errors.CheckpointError, match=r"cannot be read as a probe \(FileNotFoundError"):
        LinearProbe.load(path)
    vl.save(vl.HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1)), path)
    with pytest.raises(vl.errors.CheckpointError, match=r"Expected: a file that LinearProbe.save wrote"):
        LinearProbe.load(path)


def test_what_cannot_be_fitted_or_measured_is_refused():
    hooked, train = vl.HookedViT(small()), digits("train", 12)
    for ridge in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(vl.errors.AnalysisError, match=r"ridge is .*Expected: a positive number"):
            LinearProbe.fit(hooked, train, ridge=ridge, progress=False)
    with pytest.raises(vl.errors.AnalysisError, match=r"LinearProbe is asked for tokens 'register'"):
        LinearProbe.fit(hooked, train, tokens="register", progress=False)
    alike = [{**item, "label": 4} for item in train]
    with pytest.raises(vl.errors.AnalysisError, match=r"All images have the label 4. Expected: at least two"):
        LinearProbe.fit(hooked, alike, progress=False)
    probe = LinearProbe.fit(hooked, train, progress=False)
    with pytest.raises(
        vl.errors.AnalysisError, match=r"reads 24 features at 3 places; this model has 24 at 4"
    ):
        vl.run(vl.HookedViT(small(depth=3)), train, [probe], progress=False)
