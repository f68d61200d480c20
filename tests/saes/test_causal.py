"""Features taken out of a model, against plain torch on timm's own modules and against calculus."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.errors import SAEError
from vitlens.saes.attribution_agreement import attribution_agreement
from vitlens.saes.causal import ablation_hook, steering_hook
from vitlens.saes.causal_analyses import FeatureAttribution, FeatureEffect

from .conftest import items, make_sae
from .test_splicing import POINTS, a_sae, by_hand

HOOK = "blocks.1.hook_resid_post"
D_IN, D_SAE = 32, 12


@pytest.fixture
def model(small_timm):
    return vl.HookedViT(small_timm)


@pytest.fixture
def sae():
    return sparse_sae()


def sparse_sae(hook_name=HOOK, tokens="patch", d_in=D_IN, seed=0):
    """An SAE some of whose features are active, on some tokens, and whose last one never is."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(D_SAE, d_in, generator=generator)
    decoder[-1] = 0
    return make_sae(decoder, threshold=6.0, hook_name=hook_name, tokens=tokens)


def normalized(model, n_images=4):
    return model.normalize(torch.stack([item["pixels"] for item in items(n_images)]))


def at_tokens(change, tokens="patch"):
    """A change of [batch token d_in] as one of [batch pos d_in]."""
    chosen = {"patch": slice(1, None), "cls": slice(0, 1), "all": slice(None)}[tokens]

    def changed(x):
        x = x.clone()
        x[:, chosen] = change(x[:, chosen])
        return x

    return changed


def linear_model(pool="avg"):
    """A model whose logits are linear in the last residual stream: no final norm, average pooling."""
    made = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=D_IN, depth=2, num_heads=4, num_classes=10,
        global_pool=pool, class_token=pool == "token", fc_norm=False, final_norm=False,
    )  # fmt: skip
    return vl.HookedViT(vl.testing.randomize(made))


# ---------------------------------------------------------------------- hooks


@torch.no_grad()
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("tokens", ["patch", "cls", "all"])
def test_ablation_is_what_torch_gives_by_hand(small_timm, model, point, tokens):
    sae = sparse_sae(f"blocks.1.{point}", tokens)

    def ablate(x):
        kept = sae.encode(x)
        kept[..., :8] = 0
        return sae.decode(kept) + (x - sae(x))

    x = normalized(model)
    expected = by_hand(small_timm, x, point, at_tokens(ablate, tokens))
    ablated = model.run_with_hooks(x, fwd_hooks=[ablation_hook(sae, model, range(8))])
    torch.testing.assert_close(ablated, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(ablated, model(x))


@torch.no_grad()
def test_without_an_active_feature_the_pass_is_the_models_own_to_the_last_bit(model, sae):
    x = normalized(model)
    logits = model(x)
    for hook in (ablation_hook(sae, model, [D_SAE - 1]), steering_hook(sae, model, [2, 5], scale=1.0)):
        assert torch.equal(model.run_with_hooks(x, fwd_hooks=[hook]), logits)
    assert torch.equal(model(x), logits)


@torch.no_grad()
def test_ablating_all_features_leaves_the_bias_and_the_error(model, sae):
    sae.b_dec.copy_(torch.linspace(-1, 1, D_IN))
    x = normalized(model)

    def replace(value, hook):
        return at_tokens(lambda tokens: sae.b_dec + (tokens - sae(tokens)))(value)

    expected = model.run_with_hooks(x, fwd_hooks=[(HOOK, replace)])
    ablated = model.run_with_hooks(x, fwd_hooks=[ablation_hook(sae, model, range(D_SAE))])
    torch.testing.assert_close(ablated, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("how", ["mean", "scale", "value", "strength"])
def test_what_a_hook_writes_is_the_change_of_codes_times_rows(model, sae, how):
    features, numbers = [5, 1], torch.tensor([0.5, 2.0])
    hook = {
        "mean": lambda: ablation_hook(sae, model, features, means=numbers),
        "scale": lambda: steering_hook(sae, model, features, scale=3.0),
        "value": lambda: steering_hook(sae, model, features, value=-1.5),
        "strength": lambda: steering_hook(sae, model, features, strength=4.0),
    }[how]()
    x = normalized(model)
    _, cache = model.run_with_cache(x, names_filter=HOOK)
    before = cache[HOOK]
    with model.hooks(fwd_hooks=[hook]):
        _, cache = model.run_with_cache(x, names_filter=HOOK)
    after = cache[HOOK]
    assert torch.equal(after[:, 0], before[:, 0])
    codes, rows = sae.encode(before[:, 1:])[..., features], sae.W_dec[features]
    wanted = {
        "mean": (numbers - codes) @ rows,
        "scale": 2 * codes @ rows,
        "value": (-1.5 - codes) @ rows,
        "strength": 4 * (rows / rows.norm(dim=1, keepdim=True)).sum(0).expand_as(before[:, 1:]),
    }[how]
    torch.testing.assert_close(after[:, 1:] - before[:, 1:], wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_steering_keeps_to_the_positions_that_it_is_given(model, sae):
    x = normalized(model)
    _, cache = model.run_with_cache(x, names_filter=HOOK)
    with model.hooks(fwd_hooks=[steering_hook(sae, model, [1], strength=2.0, positions=[3, 16])]):
        _, steered = model.run_with_cache(x, names_filter=HOOK)
    moved = (steered[HOOK] - cache[HOOK]).norm(dim=-1)
    torch.testing.assert_close(moved[:, [3, 16]], torch.full((4, 2), 2.0), rtol=1e-4, atol=1e-4)
    assert moved.count_nonzero() == 8


@torch.no_grad()
def test_codes_of_a_topk_with_rescaled_rows_are_taken_out_whole(model):
    import sae_lens

    config = sae_lens.TopKSAEConfig(d_in=D_IN, d_sae=D_SAE, k=3, rescale_acts_by_decoder_norm=True)
    sae = sae_lens.TopKSAE(config)
    sae.cfg.metadata.hook_name, sae.cfg.metadata.tokens = HOOK, "patch"
    sae.W_dec.mul_(torch.linspace(1, 9, D_SAE)[:, None])
    x = normalized(model)

    def replace(value, hook):
        return at_tokens(lambda tokens: sae.b_dec + (tokens - sae(tokens)))(value)

    expected = model.run_with_hooks(x, fwd_hooks=[(HOOK, replace)])
    ablated = model.run_with_hooks(x, fwd_hooks=[ablation_hook(sae, model, range(D_SAE))])
    torch.testing.assert_close(ablated, expected, rtol=1e-4, atol=1e-4)


def test_bad_features_and_settings_are_refused(model, sae):
    with pytest.raises(SAEError, match=r"features has 12\. Expected: one or more of 0 to 11, each once"):
        ablation_hook(sae, model, [1, 12])
    with pytest.raises(SAEError, match="features has 4 twice"):
        ablation_hook(sae, model, [4, 1, 4])
    with pytest.raises(SAEError, match="There are no features"):
        FeatureEffect(sae, features=[])
    with pytest.raises(SAEError, match="There are no groups"):
        FeatureEffect(sae, features={})
    with pytest.raises(SAEError, match=r"means has shape \(3,\), for 2 features"):
        ablation_hook(sae, model, [1, 2], means=torch.zeros(3))
    with pytest.raises(SAEError, match="2 of scale, value and strength are given"):
        steering_hook(sae, model, [1], scale=0.0, value=1.0)
    with pytest.raises(SAEError, match="The decoder row of feature 11 is 0"):
        steering_hook(sae, model, [3, 11], strength=1.0)
    with pytest.raises(SAEError, match="rows_per_pass is 0"):
        FeatureEffect(sae, features=[1], rows_per_pass=0)
    hook = steering_hook(sae, model, [1], value=1.0, positions=[0])
    with pytest.raises(SAEError, match=r"positions has 0, where there is no token.*from 1 to 16"):
        model.run_with_hooks(normalized(model), fwd_hooks=[hook])
    with pytest.raises(vl.errors.HookError, match="not a hook of this model"):
        ablation_hook(a_sae(hook_name="blocks.1.hook_nothing", tokens="patch"), model, [1])
    with pytest.warns(UserWarning, match=r"is used at 'blocks.0.hook_resid_post'"):
        FeatureEffect(sae, "blocks.0.hook_resid_post", features=[1])
    with pytest.warns(UserWarning, match=r"is used at 'blocks.0.hook_resid_post'"):
        ablation_hook(sae, model, [1], hook_name="blocks.0.hook_resid_post")


def test_an_sae_that_scales_at_run_time_is_refused(model):
    import sae_lens

    config = sae_lens.StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, normalize_activations="layer_norm")
    sae = sae_lens.StandardSAE(config)
    sae.cfg.metadata.hook_name, sae.cfg.metadata.tokens = HOOK, "patch"
    with pytest.raises(SAEError, match="normalize_activations 'layer_norm'"):
        ablation_hook(sae, model, [1])
    with pytest.raises(SAEError, match="normalize_activations 'layer_norm'"):
        vl.run(model, items(2), [FeatureAttribution(sae)], progress=False)


def test_a_model_without_a_classifier_is_refused():
    model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=2))
    sae = sparse_sae("blocks.0.hook_resid_post", d_in=192)
    with pytest.raises(SAEError, match=r"no classifier \(n_classes 0"):
        vl.run(model, items(2), [FeatureEffect(sae, features=[1])], progress=False)


# ---------------------------------------------------------------------- analyses


def changes_by_hooks(model, sae, ablated, images):
    """Changes of the correct class's logit and probability [image ablated], one pass over all for each."""
    x = model.normalize(torch.stack([item["pixels"] for item in images]))
    own = range(len(images)), [item["label"] for item in images]
    intact = model(x)
    changes = []
    for features in ablated:
        logits = model.run_with_hooks(x, fwd_hooks=[ablation_hook(sae, model, features)])
        changes.append((logits[own] - intact[own], logits.softmax(-1)[own] - intact.softmax(-1)[own]))
    return [torch.stack(each, dim=1).numpy() for each in zip(*changes, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("hook_name", [*(f"blocks.1.{point}" for point in POINTS), "hook_embed"])
def test_an_effect_is_that_of_the_hook(model, hook_name):
    sae, images = sparse_sae(hook_name), items(5)
    features = range(D_SAE)
    data = vl.run(model, images, [FeatureEffect(sae, features=features)], batch_size=3, progress=False)
    logit, probability = changes_by_hooks(model, sae, [[feature] for feature in features], images)
    data = data.isel(condition=0)
    assert data["feature"].values.tolist() == list(features)
    np.testing.assert_allclose(data["sae_ablated_logit_change"], logit, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(data["sae_ablated_probability_change"], probability, rtol=1e-3, atol=1e-5)
    assert abs(logit).max() > 0.01


@torch.no_grad()
def test_groups_are_ablated_together(model, sae):
    groups = {"one": [3], "some": [0, 4, 7], "all": range(D_SAE), "none active": [D_SAE - 1]}
    data = vl.run(model, items(5), [FeatureEffect(sae, features=groups)], progress=False).isel(condition=0)
    logit, _ = changes_by_hooks(model, sae, groups.values(), items(5))
    assert data["group"].values.tolist() == list(groups)
    np.testing.assert_allclose(data["sae_ablated_logit_change"], logit, rtol=1e-3, atol=2e-5)


def test_a_feature_that_is_not_active_on_an_image_has_exactly_no_effect(model, sae):
    x = normalized(model, 6)
    with torch.no_grad():
        _, cache = model.run_with_cache(x, names_filter=HOOK)
    is_active = (sae.encode(cache[HOOK][:, 1:]) > 0).any(dim=1).numpy()
    assert 0 < is_active.sum() < is_active.size
    assert not is_active[:, -1].any()
    analyses = [FeatureEffect(sae, features=range(D_SAE)), FeatureAttribution(sae)]
    data = vl.run(model, items(6), analyses, progress=False).isel(condition=0)
    for name in data.data_vars:
        assert ((data[name].values != 0) == is_active).all(), name


@pytest.mark.parametrize("settings", [{"rows_per_pass": 1}, {"rows_per_pass": 3}, {}])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_no_effect_depends_on_how_images_and_ablations_are_batched(model, sae, settings, batch_size):
    def measured(batch_size, **settings):
        analyses = [FeatureEffect(sae, features=range(D_SAE), **settings), FeatureAttribution(sae)]
        return vl.run(model, items(7), analyses, batch_size=batch_size, progress=False)

    xr.testing.assert_allclose(measured(batch_size, **settings), measured(7), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("tokens", ["patch", "all"])
def test_where_the_logit_is_linear_the_estimate_is_the_effect(tokens):
    model = linear_model()
    sae = sparse_sae(tokens=tokens)
    analyses = [FeatureEffect(sae, features=range(D_SAE)), FeatureAttribution(sae)]
    data = vl.run(model, items(6), analyses, progress=False)
    np.testing.assert_allclose(
        data["sae_ablated_logit_change"], data["sae_estimated_logit_change"], rtol=1e-3, atol=1e-4
    )
    row = attribution_agreement(data).iloc[0]
    assert (row["n"], row["n_features"]) == (6, D_SAE)
    assert row["n_pairs"] == int((data["sae_ablated_logit_change"] != 0).sum())
    assert row[["pearson", "pearson_ci_low", "same_sign_share"]].min() > 0.999


def test_the_estimate_is_the_derivative_of_the_ablated_logit(model, sae):
    """Central differences of the logit in how much of a feature is taken out, in float64."""
    model.double()
    sae.double()
    images = items(4)
    data = vl.run(model, images, [FeatureAttribution(sae)], progress=False).isel(condition=0)
    x, labels = normalized(model), [item["label"] for item in images]
    step = 1e-5
    with torch.no_grad():
        for feature in (0, 3, 8):
            less, more = (
                model.run_with_hooks(x, fwd_hooks=[steering_hook(sae, model, [feature], scale=scale)])
                for scale in (1 - step, 1 + step)
            )
            slope = (less - more)[range(4), labels] / (2 * step)
            np.testing.assert_allclose(
                data["sae_estimated_logit_change"].sel(d_sae=feature), slope, rtol=1e-4, atol=1e-6
            )


def test_two_saes_are_read_in_one_run(model):
    analyses = [
        FeatureEffect(sparse_sae(), name="one", features=[1, 2]),
        FeatureEffect(sparse_sae(seed=1), name="other", features=[4]),
    ]
    data = vl.run({"a": model, "b": model}, items(3), analyses, progress=False)
    assert data["one_ablated_logit_change"].dims == ("checkpoint", "condition", "image", "one_feature")
    assert data["other_ablated_probability_change"].sizes["other_feature"] == 1


def test_a_stored_run_is_read_back(model, sae, tmp_path):
    effect = FeatureEffect(sae, features=[1, 2])
    first, again = (
        vl.run(model, items(3), [effect], output=tmp_path / "run", progress=False) for _ in range(2)
    )
    xr.testing.assert_identical(first, again)
    other = FeatureEffect(sae, features=[1, 3])
    with pytest.raises(vl.errors.AnalysisError, match="another run"):
        vl.run(model, items(3), [other], output=tmp_path / "run", progress=False)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 6))
def test_agreement_is_the_correlation_over_pairs_in_which_something_happens(seed, n_images, n_features):
    from scipy import stats

    rng = np.random.default_rng(seed)
    is_active = rng.random((n_images, n_features)) < 0.6
    is_active[0, 0] = is_active[1, 0] = True
    effect = rng.normal(size=is_active.shape) * is_active
    estimate = (0.5 * effect + rng.normal(size=is_active.shape)) * is_active
    data = xr.Dataset(
        {
            "sae_ablated_logit_change": (("condition", "image", "feature"), effect[None]),
            "sae_estimated_logit_change": (("condition", "image", "d_sae"), estimate[None]),
        },
        coords={"condition": ["clean"], "feature": range(n_features), "d_sae": range(n_features)},
    )
    row = attribution_agreement(data, n_resamples=100).iloc[0]
    assert row["n_pairs"] == is_active.sum()
    pairs = estimate[is_active], effect[is_active]
    assert row["pearson"] == pytest.approx(stats.pearsonr(*pairs).statistic)
    assert row["spearman"] == pytest.approx(stats.spearmanr(*pairs).statistic)
    assert row["same_sign_share"] == np.mean(np.sign(pairs[0]) == np.sign(pairs[1]))


def test_agreement_without_both_measurements_is_refused(model, sae):
    groups = FeatureEffect(sae, features={"some": [1, 2]})
    for analyses in ([FeatureAttribution(sae)], [groups, FeatureAttribution(sae)]):
        data = vl.run(model, items(3), analyses, progress=False)
        with pytest.raises(SAEError, match="The data do not have both 'sae_ablated_logit_change' along"):
            attribution_agreement(data)


def test_the_estimate_tells_the_effects_of_features_of_deit_tiny(deit_tiny, data_folder):
    model = vl.HookedViT(deit_tiny)
    dataset = vl.images.folder(data_folder / "tiny_imagenet" / "val", model)
    images = [dataset[int(place)] for place in np.random.default_rng(0).permutation(len(dataset))[:40]]
    source = (model, images[:24], "blocks.9.hook_resid_post")
    settings = {"d_sae": 256, "k_per_token": 16, "batch_size": 1024, "n_tokens": 40_000, "progress": False}
    sae = vl.saes.train(source, **settings)
    analyses = [FeatureEffect(sae, features=range(0, 256, 16)), FeatureAttribution(sae)]
    data = vl.run(model, images[24:], analyses, progress=False)
    row = attribution_agreement(data).iloc[0]
    assert row["n_pairs"] > 50
    assert row["pearson_ci_low"] > 0.8
    assert row["spearman"] > 0.9
