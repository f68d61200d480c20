"""Attention analyses against patterns and gradients that torch's hooks read off timm's unfused attention."""

import copy
import math

import numpy as np
import pytest
import timm
import torch
from scipy.spatial.distance import cdist

import vitlens as vl
from vitlens.analyses.artifacts import ArtifactTokens, AttentionShare
from vitlens.analyses.attention import AttentionEntropy, AttentionMap
from vitlens.analyses.attention_distance import AttentionDistance
from vitlens.analyses.rollout import AttentionRollout, GradientRollout
from vitlens.testing import randomize

SMALL = {
    "class token": {},
    "registers": {"reg_tokens": 2},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "no class token, registers": {"class_token": False, "global_pool": "avg", "reg_tokens": 3},
    "oblong patches": {"patch_size": (8, 16)},
}


def small(**kwargs):
    settings = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return randomize(timm.models.VisionTransformer(**{**settings, "num_classes": 6, **kwargs}))


def drawn(n=5, size=(32, 48)):
    generator = torch.Generator().manual_seed(0)
    return [
        {"pixels": torch.rand(3, *size, generator=generator), "label": i % 6, "image_id": f"image {i}"}
        for i in range(n)
    ]


def plain(model, images, labels):
    """Patterns and gradients by layer, and the residual stream at every place, by torch's own hooks."""
    model = copy.deepcopy(model)
    patterns, stream = [], []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0].detach()))
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: patterns.append(output))
        block.register_forward_hook(lambda _, __, output: stream.append(output.detach()))
    logits = model(images)
    correct = logits[torch.arange(len(labels)), labels].sum()
    gradients = torch.autograd.grad(correct, patterns)
    detached = np.stack([pattern.detach().double().numpy() for pattern in patterns])
    return detached, np.stack([g.double().numpy() for g in gradients]), torch.stack(stream).double().numpy()


class Case:
    def __init__(self, model, items):
        self.hooked, self.items = vl.HookedViT(model), items
        pixels = torch.stack([item["pixels"] for item in items])
        labels = torch.tensor([item["label"] for item in items])
        # [layer image head query key], and [place image pos d_model].
        self.patterns, self.gradients, self.stream = plain(model, self.hooked.normalize(pixels), labels)
        self.prefix = self.hooked.cfg.n_prefix_tokens
        self.has_cls = "cls" in self.hooked.cfg.prefix_kinds
        size, patch = np.array(pixels.shape[-2:]), np.array(self.hooked.cfg.patch_size)
        self.patch, self.grid = patch, tuple((size // patch).tolist())

    def run(self, *analyses, **kwargs):
        data = vl.run(self.hooked, self.items, list(analyses), batch_size=3, progress=False, **kwargs)
        return data.sel(condition="clean")

    def picture(self, rows):
        """From [image pos pos], what the class token (or the mean patch) has of each patch."""
        rows = rows[:, :1] if self.has_cls else rows[:, self.prefix :]
        return rows.mean(1)[:, self.prefix :].reshape(-1, *self.grid)


@pytest.fixture(scope="module", params=[*SMALL, "DeiT-tiny"])
def case(request):
    if request.param in SMALL:
        return Case(small(**SMALL[request.param]), drawn())
    model = request.getfixturevalue("deit_tiny")
    folder = request.getfixturevalue("data_folder") / "imagenet_samples"
    dataset = vl.images.folder(folder, vl.HookedViT(model))
    return Case(model, [dataset[index] for index in (5, 300, 620, 940)])


def close(got, wanted, atol=1e-4):
    np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), atol=atol, rtol=1e-4)


# ------------------------------------------------------------------ against plain hooks


def test_entropy_and_its_share_of_the_largest(case):
    with np.errstate(divide="ignore"):
        terms = np.where(case.patterns > 0, -case.patterns * np.log(case.patterns), 0)
    entropy = np.moveaxis(terms.sum(-1), 0, 1)
    data = case.run(AttentionEntropy(), AttentionEntropy(normalized=True))
    nats, share = data["attention_entropy_nats"], data["attention_entropy_share"]
    close(nats.sel(query_kind="patch"), entropy[..., case.prefix :].mean(-1))
    if case.has_cls:
        close(nats.sel(query_kind="cls"), entropy[..., 0])
    close(share, nats / math.log(case.patterns.shape[-1]))
    assert 0 <= float(share.min()) <= float(share.max()) <= 1 + 1e-6
    assert (nats.attrs["units"], share.attrs["units"]) == ("nats", "share")


def test_distance_in_patches_and_in_pixels(case):
    data = case.run(AttentionDistance())
    among = case.patterns[..., case.prefix :, case.prefix :]
    weights = among / among.sum(-1, keepdims=True)
    centers = np.indices(case.grid).reshape(2, -1).T.astype(float)
    for unit, points in (("patches", centers), ("pixels", centers * case.patch)):
        wanted = (weights * cdist(points, points)).sum(-1).mean(-1)
        got = data[f"attention_distance_{unit}"]
        close(got, np.moveaxis(wanted, 0, 1))
        assert got.dims == ("image", "layer", "head")
        assert got.attrs["units"] == unit


def test_map_shows_the_class_token_or_the_mean_patch(case):
    data = case.run(AttentionMap())["attention_map"]
    for layer, head in ((0, 0), (2, 1)):
        close(data.sel(layer=layer, head=head), case.picture(case.patterns[layer, :, head]))
    assert data.dims == ("image", "layer", "head", "patch_row", "patch_column")


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_rollout_by_the_papers_recurrence(case, fusion):
    wanted = np.eye(case.patterns.shape[-1])
    for pattern in getattr(case.patterns, fusion)(2):
        mixed = 0.5 * pattern + 0.5 * np.eye(pattern.shape[-1])
        wanted = (mixed / mixed.sum(-1, keepdims=True)) @ wanted
    data = case.run(AttentionRollout(head_fusion=fusion))["attention_rollout"]
    close(data, case.picture(wanted), atol=1e-6)
    assert data.dims == ("image", "patch_row", "patch_column")


def test_rollout_with_discarded_weights(case):
    fused = case.patterns.mean(2)
    first = 1 if case.has_cls else 0
    wanted = np.eye(fused.shape[-1])
    for layer in fused:
        kept = layer.copy()
        for image in kept:
            weights = image[:, first:]
            weights[weights <= np.sort(weights, axis=None)[int(0.8 * weights.size) - 1]] = 0
        mixed = 0.5 * kept + 0.5 * np.eye(layer.shape[-1])
        wanted = (mixed / mixed.sum(-1, keepdims=True)) @ wanted
    data = case.run(AttentionRollout(discard_ratio=0.8))["attention_rollout"]
    close(data, case.picture(wanted), atol=1e-4 * float(data.max()))


def test_gradient_rollout_by_the_papers_recurrence(case):
    wanted = np.eye(case.patterns.shape[-1])
    for pattern, gradient in zip(case.patterns, case.gradients, strict=True):
        wanted = wanted + (pattern * gradient).clip(min=0).mean(1) @ wanted
    wanted = wanted - np.eye(wanted.shape[-1])
    data = case.run(GradientRollout())["gradient_rollout"]
    close(data, case.picture(wanted), atol=1e-4 * wanted.max())
    assert float(data.max()) > 0


@pytest.mark.parametrize("settings", [{}, {"norm_ratio": 1.2}, {"norm_threshold": 9.0}])
def test_artifacts_are_counted_at_every_place(case, settings):
    norms = np.linalg.norm(case.stream[:, :, case.prefix :], axis=-1)
    # torch's median: the lower of the two in the middle.
    middle = np.sort(norms, -1)[..., (norms.shape[-1] - 1) // 2]
    threshold = settings.get("norm_threshold", settings.get("norm_ratio", 4.0) * middle[..., None])
    data = case.run(ArtifactTokens(**settings))["n_artifact_tokens"]
    np.testing.assert_array_equal(data, (norms > threshold).sum(-1).T)
    assert data["resid_layer"].values.tolist() == list(range(case.hooked.cfg.n_layers + 1))
    assert data.attrs["units"] == "tokens"


@pytest.mark.parametrize("resid_layer", [-1, 1])
def test_attention_is_shared_out_among_kinds_of_key(case, resid_layer):
    data = case.run(AttentionShare(norm_ratio=1.1, resid_layer=resid_layer))
    kinds = np.array([*case.hooked.cfg.prefix_kinds, *["patch"] * math.prod(case.grid)])
    received = case.patterns[..., np.isin(kinds, ["cls", "patch"]), :].mean(-2)  # [layer image head key]
    norms = np.linalg.norm(case.stream[resid_layer][:, kinds == "patch"], axis=-1)
    middle = np.sort(norms, -1)[:, (norms.shape[-1] - 1) // 2]
    is_artifact = norms > 1.1 * middle[:, None]
    assert is_artifact.any()
    to_patches = received[..., kinds == "patch"]
    wanted = {
        "artifacts": (to_patches * is_artifact[None, :, None]).sum(-1),
        "patches": (to_patches * ~is_artifact[None, :, None]).sum(-1),
        "cls": received[..., kinds == "cls"].sum(-1),
        "registers": received[..., kinds == "register"].sum(-1),
    }
    if not case.has_cls:
        del wanted["cls"]
    if "register" not in kinds:
        del wanted["registers"]
    assert set(data) == {f"attention_to_{keys}_share" for keys in wanted}
    for keys, share in wanted.items():
        close(data[f"attention_to_{keys}_share"], np.moveaxis(share, 0, 1))
    close(sum(data.values()), np.ones((len(case.items), case.hooked.cfg.n_layers, case.hooked.cfg.n_heads)))


# ------------------------------------------------------------------ named images, sizes, kinds of model


def test_named_images_have_rows_of_their_own():
    case = Case(small(), drawn())
    ids = ("image 3", "image 1")
    named = (AttentionMap(ids), AttentionRollout(ids), GradientRollout(ids))
    data = case.run(AttentionEntropy(), *named)
    everything = case.run(AttentionMap(), AttentionRollout(), GradientRollout())
    for name in ("attention_map", "attention_rollout", "gradient_rollout"):
        for image in ids:
            got = data[name].sel(named_image=image)
            np.testing.assert_allclose(got, everything[name].sel(image=image), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (16, 96)])
def test_a_model_of_any_size_has_the_grid_of_its_images(size):
    case = Case(small(img_size=32, dynamic_img_size=True), drawn(2, size))
    test_distance_in_patches_and_in_pixels(case)
    test_map_shows_the_class_token_or_the_mean_patch(case)
    data = case.run(AttentionRollout(), GradientRollout())
    assert (
        data["attention_rollout"].shape == data["gradient_rollout"].shape == (2, size[0] // 8, size[1] // 8)
    )


def test_a_model_that_fills_up_its_last_patches_has_the_larger_grid():
    model = vl.HookedViT(small(img_size=32, dynamic_img_size=True, dynamic_img_pad=True))
    data = vl.run(model, drawn(1, (30, 41)), [AttentionMap(), AttentionDistance()], progress=False)
    assert data["attention_map"].shape[-2:] == (4, 6)
    assert data["attention_distance_patches"].notnull().all()


def test_shared_keys_have_a_pattern_for_each_head():
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    settings |= {"num_classes": 6, "qkv_fused": False, "attn_type": "rope", "num_kv_heads": 2}
    model = timm.models.eva.Eva(**settings)
    analyses = [AttentionEntropy(), AttentionDistance(), AttentionRollout(), AttentionShare()]
    data = vl.run(vl.HookedViT(randomize(model)), drawn(2, (32, 32)), analyses, progress=False)
    assert data.sizes["head"] == 4
    assert all(data[name].notnull().all() for name in data)


def test_attentions_side_by_side_show_the_heads_of_both():
    model = small(block_fn=timm.models.vision_transformer.ParallelThingsBlock)
    data = vl.run(vl.HookedViT(model), drawn(2), [AttentionEntropy(), AttentionDistance()], progress=False)
    assert data.sizes["head"] == 8


def test_attention_that_is_made_uniform_or_local_has_the_known_values():
    model = small(pos_embed="none", depth=1)
    torch.nn.init.zeros_(model.blocks[0].attn.qkv.weight)
    torch.nn.init.zeros_(model.blocks[0].attn.qkv.bias)
    case = Case(model, drawn(2))
    data = case.run(
        AttentionEntropy(normalized=True), AttentionDistance(), AttentionRollout(), AttentionShare()
    )
    centers = np.indices(case.grid).reshape(2, -1).T.astype(float)
    close(data["attention_entropy_share"], np.ones((2, 1, 4, 2)))
    close(data["attention_distance_patches"], np.full((2, 1, 4), cdist(centers, centers).mean()))
    close(data["attention_rollout"], np.full((2, 4, 6), 0.5 / 25))
    close(data["attention_to_cls_share"], np.full((2, 1, 4), 1 / 25))


def test_rows_do_not_depend_on_the_batch():
    case = Case(small(reg_tokens=1), drawn())
    analyses = [
        AttentionEntropy(),
        AttentionDistance(),
        AttentionRollout(discard_ratio=0.5),
        ArtifactTokens(),
        AttentionShare(),
        GradientRollout(),
    ]
    together = vl.run(case.hooked, case.items, analyses, batch_size=5, progress=False)
    alone = vl.run(case.hooked, case.items[::-1], analyses, batch_size=1, progress=False)
    for name in together:
        np.testing.assert_allclose(
            together[name], alone[name].sel(image=together["image"]), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@torch.no_grad()
def test_the_pattern_is_the_same_to_the_last_bit_whether_or_not_scores_and_gradients_are_wanted(precision):
    model, images = vl.HookedViT(small()), torch.stack([item["pixels"] for item in drawn(2)])
    name = "blocks.1.attn.hook_pattern"
    both = [name, "blocks.1.attn.hook_attn_scores"]
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        logits, alone = model.run_with_cache(images, names_filter=name)
        _, with_scores = model.run_with_cache(images, names_filter=both)
        with torch.enable_grad():
            with_graph, recorded = model.run_with_cache(images, names_filter=name)
    assert torch.equal(alone[name], with_scores[both[1]].softmax(-1, dtype=alone[name].dtype))
    assert torch.equal(alone[name], with_scores[name])
    assert torch.equal(alone[name], recorded[name])
    assert torch.equal(logits, with_graph)


# ------------------------------------------------------------------ refusals


def test_differential_attention_is_refused_before_the_run():
    model = vl.HookedViT(small(attn_layer="diff"))
    for analysis in (
        AttentionEntropy(),
        AttentionMap(),
        AttentionDistance(),
        AttentionRollout(),
        GradientRollout(),
        AttentionShare(),
    ):
        match = rf"{type(analysis).__name__} needs one attention pattern a head; block 0 has differential"
        with pytest.raises(vl.errors.AnalysisError, match=match):
            vl.run(model, drawn(1), [analysis], progress=False)
    assert vl.run(model, drawn(1), [ArtifactTokens()], progress=False)["n_artifact_tokens"].notnull().all()


def test_gradient_rollout_needs_classes():
    model = vl.HookedViT(small(num_classes=0))
    with pytest.raises(vl.errors.AnalysisError, match="GradientRollout needs"):
        GradientRollout().gradient_hooks(model)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(vl.errors.AnalysisError, match=r"discard_ratio 1\.0.*a ratio in \[0, 1\)"):
        AttentionRollout(discard_ratio=1.0)
    with pytest.raises(vl.errors.AnalysisError, match=r"norm_ratio -1\.0.*values above 0"):
        ArtifactTokens(norm_ratio=-1.0)
    with pytest.raises(vl.errors.AnalysisError, match=r"norm_threshold is 0\.0"):
        AttentionShare(norm_threshold=0.0)
    with pytest.raises(vl.errors.AnalysisError, match=r"resid_layer is 4.*-4 to 3 for this model"):
        AttentionShare(resid_layer=4).hooks(vl.HookedViT(small()))
    # Past the run-time checker of the tests, which would refuse it first.
    by_median = object.__new__(AttentionRollout)
    object.__setattr__(by_median, "head_fusion", "median")
    with pytest.raises(vl.errors.AnalysisError, match=r"head_fusion is 'median'.*mean, max, min"):
        by_median.__post_init__()


def test_patches_that_do_not_tile_the_images_are_refused():
    case = Case(small(), drawn(1))
    batch = vl.images.Batch(case.items[0]["pixels"][None], torch.tensor([0]), ("a",))
    _, cache = case.hooked.run_with_cache(batch.pixels, names_filter=[*AttentionMap().hooks(case.hooked)])
    fewer = {name: pattern[:, :, 0, 1:-1] for name, pattern in cache.items()}
    with pytest.raises(vl.errors.AnalysisError, match=r"makes 23 patches of \(32, 48\).*4 × 6 patches of"):
        AttentionMap()(case.hooked, vl.ActivationCache(fewer, case.hooked), torch.zeros(1, 6), batch)
