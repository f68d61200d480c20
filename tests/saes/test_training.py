"""Training: what it finds, what it holds out, what it leaves alone."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from vitlens import saes
from vitlens.errors import SAEError
from vitlens.models import weights_sha256
from vitlens.saes._sae_lens import SAETrainer
from vitlens.saes.recipe import Recipe
from vitlens.saes.tokens import InMemory

from .conftest import EASY, TINY, K


def recovered(sae, features) -> float:
    """Share of the planted features with a decoder row above cosine 0.9."""
    directions = torch.nn.functional.normalize(sae.W_dec, dim=1)
    return float(((features @ directions.T).amax(dim=1) > 0.9).float().mean())


@pytest.fixture
def seen(monkeypatch):
    """The batches that the trainer is given."""
    batches, step = [], SAETrainer.step

    def spy(self, batch):
        batches.append(batch.clone())
        return step(self, batch)

    monkeypatch.setattr(SAETrainer, "step", spy)
    return batches


def recipe(**settings):
    unset = dict.fromkeys(field.name for field in fields(Recipe))
    given = {"kind": "batch_topk", "d_sae": 40, "k_per_token": K, "l1_coefficient": 1.0}
    return Recipe(**{**unset, **given, "batch_size": 64, "seed": 0, "options": {}, **settings})


def rows(tensor):
    return {row.numpy().tobytes() for row in tensor}


def test_batch_topk_finds_the_planted_features(trained, planted):
    assert all(recovered(sae, planted.features) >= 0.95 for sae in trained)
    assert all(sae.cfg.metadata.fvu < 0.05 for sae in trained)


def test_two_seeds_find_the_same_features(trained, planted):
    result = saes.match(*trained, activations=(planted.activations, planted.activations))
    assert result.share_above(0.9) >= 0.9
    assert result.pairs.activation_correlation.median() > 0.9


def test_more_features_than_dimensions_of_unequal_use_are_found_by_every_seed():
    # Four of 128 features in 64 dimensions on each token, the last a hundredth as often wanted as the first.
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(128, 64, generator=generator), dim=1)
    weights = 1 / torch.arange(1.0, 129.0)
    chosen = torch.multinomial(weights.expand(20_000, -1), 4, generator=generator)
    strengths = 4 + 2 * torch.rand(20_000, 4, generator=generator)
    codes = torch.zeros(20_000, 128).scatter_(1, chosen, strengths)
    activations = codes @ features + torch.randn(64, generator=generator)
    settings = {"d_sae": 256, "k_per_token": 4, "batch_size": 256, "n_tokens": 200_000, "progress": False}
    trained = [saes.train(activations, seed=seed, **settings) for seed in (0, 1)]
    assert all(recovered(sae, features) >= 0.95 for sae in trained)
    first, second = ((features @ sae.W_dec.T).argmax(dim=1) for sae in trained)
    found = saes.match(*trained, activations=(activations, activations)).pairs
    both = set(zip(found.feature_a, found.feature_b, strict=True))
    planted = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(planted & both) >= 0.95 * 128


def test_vanilla_finds_the_planted_features_and_more_penalty_means_fewer_codes(planted):
    settings = EASY | {"kind": "vanilla", "n_tokens": 20_000}
    light, heavy = (saes.train(planted.activations, l1_coefficient=l1, **settings) for l1 in (0.2, 2.0))
    assert light.cfg.architecture() == "standard"
    assert recovered(heavy, planted.features) >= 0.95
    assert heavy.cfg.metadata.l0 < light.cfg.metadata.l0
    assert heavy.cfg.metadata.fvu > light.cfg.metadata.fvu


def test_what_is_returned_is_the_inference_form(trained):
    for sae in trained:
        assert sae.cfg.architecture() == "jumprelu"
        assert not sae.training
        assert not any(parameter.requires_grad for parameter in sae.parameters())
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.cfg.d_sae))


def test_mean_l0_is_k_on_the_tokens_that_were_never_trained_on(planted, seen):
    sae = saes.train(planted.activations, n_holdout_tokens=700, **TINY | {"n_tokens": 2 * 3300})
    held_out = rows(planted.activations) - rows(torch.cat(seen))
    assert len(held_out) == 700
    mask = torch.tensor([row.numpy().tobytes() in held_out for row in planted.activations])
    codes = sae.encode(planted.activations[mask])
    assert int(codes.count_nonzero()) == K * 700
    assert sae.cfg.metadata.l0 == K
    assert sae.cfg.metadata.n_holdout_tokens == 700


def test_an_epoch_shows_every_token_once(planted, seen):
    saes.train(planted.activations[:700], **TINY | {"n_tokens": 2 * 640}, n_holdout_tokens=60)
    first, second = torch.cat(seen).split(640)
    assert len(rows(first)) == len(rows(second)) == 640
    assert rows(first) == rows(second)
    assert not torch.equal(first, second)


def test_the_same_seed_gives_the_same_weights_and_touches_no_global_generator(planted):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = saes.train(planted.activations, seed=3, **TINY)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(123)
    second, other = (saes.train(planted.activations, seed=seed, **TINY) for seed in (3, 4))
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, second.state_dict()[name]), name
    assert not torch.equal(first.W_dec, other.W_dec)


@pytest.mark.parametrize("kind", ["batch_topk", "vanilla"])
def test_the_scale_is_folded_so_that_only_the_units_of_the_activations_change(planted, kind):
    # A power of two changes no mantissa: the training is the same to the last bit.
    plain = saes.train(planted.activations, kind=kind, **TINY)
    scaled = saes.train(planted.activations * 8, kind=kind, **TINY)
    assert scaled.cfg.metadata.activation_scale == plain.cfg.metadata.activation_scale / 8
    assert torch.equal(scaled.W_dec, plain.W_dec)
    assert torch.equal(scaled.b_dec, plain.b_dec * 8)
    assert torch.equal(scaled.encode(planted.activations * 8), plain.encode(planted.activations) * 8)
    assert scaled.cfg.metadata.fvu == plain.cfg.metadata.fvu


def test_the_fitted_scale_brings_the_mean_norm_to_the_root_of_the_width(planted):
    scale = saes.train(planted.activations, **TINY).cfg.metadata.activation_scale
    norms = np.linalg.norm(planted.activations.numpy().astype(np.float64), axis=1)
    assert scale * norms.mean() == pytest.approx(math.sqrt(planted.activations.shape[1]), rel=1e-12)


def test_a_given_scale_is_used_and_recorded(planted):
    fitted = saes.train(planted.activations, **TINY)
    scale = fitted.cfg.metadata.activation_scale
    given = saes.train(planted.activations, activation_scale=scale, **TINY)
    assert torch.equal(given.W_enc, fitted.W_enc)
    other = saes.train(planted.activations, activation_scale=2 * scale, **TINY)
    assert other.cfg.metadata.activation_scale == 2 * scale
    assert not torch.equal(other.W_enc, fitted.W_enc)


def test_the_metadata_say_how_it_was_trained(planted):
    sae = saes.train(planted.activations, seed=5, metadata={"hook_name": "blocks.1.hook_resid_post"}, **TINY)
    metadata = sae.cfg.metadata
    expected = {
        "kind": "batch_topk",
        "d_sae": 40,
        "k_per_token": K,
        "seed": 5,
        "n_tokens": 640,
        "batch_size": 64,
        "n_holdout_tokens": 400,
        "dead_window_tokens": 3600,  # one epoch
        "hook_name": "blocks.1.hook_resid_post",
    }
    assert {name: metadata[name] for name in expected} == expected
    assert "l1_coefficient" not in metadata
    assert metadata.learning_rate == 1e-2
    assert recipe(d_sae=4096).peak_learning_rate() == pytest.approx(3.2e-3)
    assert saes.train(planted.activations, kind="vanilla", **TINY).cfg.metadata.l1_coefficient == 1.0
    json.dumps(metadata.to_dict(), allow_nan=False)


def test_history_ends_at_the_last_token_and_shows_progress(trained):
    history = saes.history(trained[0])
    assert list(history) == ["n_tokens", "loss", "l0", "fvu", "n_dead", "learning_rate"]
    assert 90 <= len(history) <= 101
    assert history.n_tokens.iloc[-1] == trained[0].cfg.metadata.n_tokens
    assert history.n_tokens.is_monotonic_increasing
    assert history.fvu.iloc[-1] < history.fvu.iloc[0] / 4
    assert set(history.l0) == {float(K)}
    assert history.learning_rate.max() == EASY["learning_rate"]
    assert history.learning_rate.iloc[-1] < EASY["learning_rate"] / 10


def test_unused_features_are_counted_dead(trained):
    # 24 features are there to be found; the other 16 have nothing left to explain.
    assert saes.history(trained[0]).n_dead.iloc[-1] >= 12


@pytest.mark.parametrize("n_steps", [1, 2, 5, 19, 20, 41])
@pytest.mark.parametrize("kind", ["batch_topk", "vanilla"])
def test_few_steps_are_trained_too(planted, kind, n_steps):
    sae = saes.train(planted.activations[:400], kind=kind, **TINY | {"n_tokens": 64 * n_steps + 63})
    assert sae.cfg.metadata.n_tokens == 64 * n_steps
    assert len(saes.history(sae)) == n_steps


@pytest.mark.parametrize(
    ("n_train_tokens", "batch_size", "n_steps"),
    [(100_000, 32, 31_250), (50_000, 4096, 1000), (20_000, 4096, 488), (4096, 4096, 100)],
)
def test_the_default_is_ten_epochs_or_a_thousand_steps_but_no_more_than_a_hundred_epochs(
    n_train_tokens, batch_size, n_steps
):
    assert recipe(batch_size=batch_size).n_steps(n_train_tokens) == n_steps


def test_more_than_a_hundred_epochs_are_refused(planted, seen):
    with pytest.raises(SAEError, match=r"n_tokens is 27200: 101 epochs of the 270 tokens.*at most 100"):
        saes.train(planted.activations[:300], **TINY | {"n_tokens": 27_200})
    assert not seen


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_trained_in_float32(planted, dtype):
    activations = planted.activations.to(dtype)
    sae = saes.train(activations, **TINY)
    assert sae.W_dec.dtype == torch.float32
    if dtype != torch.float64:
        assert torch.equal(sae.W_dec, saes.train(activations.float(), **TINY).W_dec)


def test_images_are_held_out_whole_and_something_must_be_left(planted):
    one_image = InMemory(planted.activations, tokens_per_image=4000)
    with pytest.raises(SAEError, match=r"those not held out have 0 tokens.*64 tokens"):
        saes.train(one_image, **TINY)
    sae = saes.train(InMemory(planted.activations[:3900], tokens_per_image=300), **TINY)
    assert sae.cfg.metadata.n_holdout_tokens == 600


def test_the_tokens_of_all_conditions_are_trained_on_and_an_image_is_held_out_under_all(small_timm, seen):
    import vitlens as vl

    model = vl.HookedViT(small_timm)
    generator = torch.Generator().manual_seed(0)
    images = [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": 0, "image_id": str(i)}
        for i in range(30)
    ]
    hook_name, conditions = "blocks.1.hook_resid_post", ["clean", "contrast@3"]
    sae = saes.train((model, images, hook_name), conditions=conditions, **TINY | {"n_tokens": 2 * 864})
    assert sae.cfg.metadata.conditions == conditions
    trained_on = rows(torch.cat(seen))
    each = [
        vl.activations(model, images, hook_name, condition=name, progress=False).unflatten(0, (30, 16))
        for name in conditions
    ]
    used = [[bool(rows(image) & trained_on) for image in images] for images in each]
    assert used[0] == used[1]
    assert sum(used[0]) == 27


def test_activations_taken_in_inference_mode_can_be_trained_on(planted):
    with torch.inference_mode():
        activations = planted.activations.clone()
    assert torch.equal(saes.train(activations, **TINY).W_dec, saes.train(planted.activations, **TINY).W_dec)


def test_a_source_with_gradients_is_left_alone(planted):
    activations = planted.activations.clone().requires_grad_()
    saes.train(activations, **TINY)
    assert activations.grad is None


def test_one_feature_is_enough(planted):
    sae = saes.train(planted.activations, **TINY | {"d_sae": 1, "k_per_token": 1})
    assert sae.encode(planted.activations).shape == (4000, 1)


def test_a_model_is_a_source_and_leaves_its_hook_in_the_metadata(small_timm):
    import vitlens as vl

    model = vl.HookedViT(small_timm)
    generator = torch.Generator().manual_seed(0)
    images = [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": 0, "image_id": str(i)}
        for i in range(30)
    ]
    hook_name = "blocks.1.hook_resid_post"
    live = saes.train((model, images, hook_name), **TINY)
    taken = vl.activations(model, images, hook_name, progress=False)
    assert torch.equal(live.W_dec, saes.train(InMemory(taken, tokens_per_image=16), **TINY).W_dec)
    assert (live.cfg.metadata.hook_name, live.cfg.metadata.tokens) == (hook_name, "patch")
    assert live.cfg.metadata.conditions == ["clean"]
    assert live.cfg.metadata.model["config"]["d_model"] == 32
    assert live.cfg.metadata.model["weights_sha256"] == weights_sha256(model)
    json.dumps(live.cfg.metadata.to_dict())
    cls = saes.train((model, images, hook_name), tokens="cls", **TINY | {"batch_size": 16})
    assert cls.cfg.metadata.n_holdout_tokens == 3


def test_progress_is_shown_only_when_asked_for_and_no_file_is_written(planted, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saes.train(planted.activations, **TINY)
    assert capsys.readouterr() == ("", "")
    saes.train(planted.activations, **TINY | {"progress": True})
    out, err = capsys.readouterr()
    assert out == ""
    assert all(word in err for word in ("Training SAE", "loss=", "l0=", "fvu=", "n_dead="))
    assert not list(tmp_path.iterdir())


BAD_SETTINGS = [
    ({"kind": "batchtopk"}, r"kind is 'batchtopk'.*'batch_topk', 'vanilla', .*nearest is 'batch_topk'"),
    ({"options": {"aux_loss_coeficient": 1.0}}, r"no option of kind 'batch_topk'.*'aux_loss_coefficient'"),
    ({"options": {"k": 3}}, r"'k' is no option.*train has no argument for"),
    ({"options": {"aux_loss_coefficient": "1"}}, r"option 'aux_loss_coefficient' is '1'.*type float"),
    ({"options": {"rescale_acts_by_decoder_norm": 1}}, r"is 1.*type bool"),
    ({"kind": "jumprelu", "options": {"l0_coefficient": math.nan}}, r"is nan.*finite"),
    ({"kind": "jumprelu", "options": {"jumprelu_sparsity_loss_mode": "l0"}}, r"is 'l0'.*'step', 'tanh'"),
    ({"kind": "jumprelu", "options": {"jumprelu_sparsity_loss_mode": "quadratic"}}, r"refuses.*target_l0"),
    ({"kind": "matryoshka", "options": {"matryoshka_widths": [20, 10]}}, r"are \[20, 10\] and d_sae 40"),
    ({"kind": "matryoshka", "options": {"matryoshka_widths": [40]}}, r"at least one width below d_sae"),
    ({"d_sae": 0, "k_per_token": 0}, r"d_sae is 0.*1 or more"),
    ({"k_per_token": 41}, r"k_per_token is 41 and d_sae 40"),
    ({"k_per_token": 0}, r"k_per_token is 0"),
    ({"kind": "vanilla", "l1_coefficient": -1.0}, r"l1_coefficient is -1.0.*0 or more"),
    ({"kind": "vanilla", "l1_coefficient": math.nan}, r"l1_coefficient is nan"),
    ({"n_tokens": 63}, r"n_tokens is 63.*64 or more"),
    ({"n_tokens": -5}, r"n_tokens is -5"),
    ({"batch_size": 0}, r"batch_size is 0"),
    ({"learning_rate": 0.0}, r"learning_rate is 0.0.*above 0"),
    ({"activation_scale": math.inf}, r"activation_scale is inf.*above 0"),
    ({"seed": -1}, r"seed is -1"),
    ({"n_holdout_tokens": 1}, r"n_holdout_tokens is 1.*2 or more"),
    ({"dead_window_tokens": 0}, r"dead_window_tokens is 0"),
    ({"n_holdout_tokens": 3937}, r"4000 tokens, of which 3937 are held out.*64 tokens"),
    ({"batch_size": 3601, "n_tokens": None}, r"4000 tokens, of which 400 are held out.*3601 tokens"),
    ({"metadata": {"seed": 1, "l0": 2}}, r"entries 'l0', 'seed'"),
    ({"metadata": {"path": object()}}, r"cannot be written as JSON"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_a_setting_out_of_range_is_refused_before_the_first_step(planted, seen, settings, message):
    with pytest.raises(SAEError, match=message):
        saes.train(planted.activations, **TINY | settings)
    assert not seen


BAD_ACTIVATIONS = [
    (lambda x: x[0], r"shape \[32\]"),
    (lambda x: x[None], r"shape \[1, 4000, 32\]"),
    (lambda x: x[:0], r"shape \[0, 32\]"),
    (lambda x: x.long(), r"torch.int64"),
    (lambda x: x.index_fill(0, torch.tensor([3, 7]), math.nan), r"NaN or infinity in 2 of 4000 tokens"),
    (lambda x: x.index_fill(0, torch.tensor([3]), math.inf), r"NaN or infinity in 1 of 4000 tokens"),
    (lambda x: x[:1].expand(100, -1), r"All 100 tokens.*same activation"),
    (lambda x: x[:1], r"1 tokens, of which 2 are held out"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ACTIVATIONS)
def test_activations_that_cannot_be_trained_on_are_refused(planted, seen, change, message):
    with pytest.raises(SAEError, match=message):
        saes.train(change(planted.activations), **TINY)
    assert not seen


def test_a_training_that_diverges_says_so(planted):
    with pytest.raises(SAEError, match=r"The loss is (nan|inf) after \d+ tokens.*Lower learning_rate"):
        saes.train(planted.activations, **TINY | {"learning_rate": 1e30})


def test_an_sae_from_elsewhere_has_no_history(planted):
    from .conftest import make_sae

    with pytest.raises(SAEError, match="no history"):
        saes.history(make_sae(planted.features))
