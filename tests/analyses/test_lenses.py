"""Logit lens, token lens and tuned lens, against plain torch hooks, by properties, and on held-out images."""

import numpy as np
import pytest
import scipy.stats
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.utils.data import Subset

import vitlens as vl
from vitlens.analyses import token_lens, tuned_lens_training
from vitlens.analyses.logit_lens import LogitLens
from vitlens.analyses.token_lens import TokenLens, token_logits
from vitlens.analyses.tuned_lens import Translators, TunedLens
from vitlens.functional.prediction import kl_nats
from vitlens.testing import randomize

SMALL = {"depth": 3, "img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "num_classes": 6}
KINDS = {
    "cls": {},
    "avg": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "avg, norm after": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 2},
    "registers, avg": {"reg_tokens": 2, "global_pool": "avg"},
    "map": {"class_token": False, "global_pool": "map"},
    "rectangle": {"img_size": (32, 48)},
}


def small(seed=0, **kwargs):
    return randomize(timm.models.VisionTransformer(**{**SMALL, **kwargs}), seed)


def drawn(n=7, size=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"pixels": torch.rand(3, *size, generator=generator), "label": i % 6, "image_id": f"{seed}/{i}"}
        for i in range(n)
    ]


def plain_stream(model, images):
    """The residual stream at every place, by torch's own hooks, and the logits."""
    stream = []
    handles = [model.blocks[0].register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0]))]
    handles += [
        block.register_forward_hook(lambda _, __, output: stream.append(output)) for block in model.blocks
    ]
    with torch.no_grad():
        logits = model(images)
    for handle in handles:
        handle.remove()
    return stream, logits


def close(got, wanted):
    np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), atol=1e-4, rtol=1e-4)


def of_labels(probabilities, labels):
    """The label's probability; [image place n_classes] -> [image place]."""
    return np.stack([row[..., label] for row, label in zip(probabilities, labels, strict=True)])


def run(model, items, *analyses, **kwargs):
    return vl.run(model, items, list(analyses), batch_size=4, progress=False, **kwargs).sel(condition="clean")


@pytest.fixture(params=[*KINDS, "real"], scope="module")
def case(request):
    """A timm model, its wrapper and items: small ones of each kind, or DeiT-tiny and photographs."""
    if request.param != "real":
        settings = KINDS[request.param]
        size = settings.get("img_size", (32, 32))
        model = small(**settings)
        return model, vl.HookedViT(model), drawn(size=size)
    model = request.getfixturevalue("deit_tiny")
    hooked = vl.HookedViT(model)
    dataset = vl.images.folder(request.getfixturevalue("data_folder") / "imagenet_samples", hooked)
    return model, hooked, [dataset[index] for index in range(3, 1000, 200)]


@pytest.fixture(scope="module")
def measured(case):
    model, hooked, items = case
    data = run(hooked, items, LogitLens(), TokenLens())
    stream, logits = plain_stream(model, hooked.normalize(torch.stack([item["pixels"] for item in items])))
    return model, data, stream, logits, np.array([item["label"] for item in items])


# ---------------------------------------------------------------------- the divergence


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(-50, 50))
def test_the_divergence_is_scipys_and_does_not_see_a_shift_of_the_logits(seed, n_classes, shift):
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 3, n_classes, generator=generator) * 3
    expected = scipy.stats.entropy(one.softmax(-1).numpy(), other.softmax(-1).numpy(), axis=-1)
    close(kl_nats(one, other), expected)
    close(kl_nats(one + shift, other - shift), expected)
    assert (kl_nats(one, other) >= -1e-6).all()
    assert (kl_nats(one, one) == 0).all()


def test_a_class_that_the_truth_excludes_adds_nothing_and_one_that_only_the_other_excludes_everything():
    excluded = torch.tensor([0.0, -torch.inf])
    assert kl_nats(excluded, excluded) == 0
    close(kl_nats(excluded, torch.zeros(2)), np.log(2))
    assert kl_nats(torch.zeros(2), excluded) == torch.inf


# ---------------------------------------------------------------------- the logit lens


def test_the_logit_lens_is_timms_own_head_on_the_stream(measured):
    model, data, stream, logits, labels = measured
    with torch.no_grad():
        lens = torch.stack([model.forward_head(model.norm(resid)) for resid in stream], dim=1)
    probabilities = lens.softmax(-1).numpy()
    close(data["lens_probability"], of_labels(probabilities, labels))
    close(data["lens_entropy_nats"], scipy.stats.entropy(probabilities, axis=-1))
    output = logits.softmax(-1).unsqueeze(1).expand(probabilities.shape).numpy()
    close(data["lens_kl_nats"], scipy.stats.entropy(output, probabilities, axis=-1))
    np.testing.assert_array_equal(data["lens_predicted"], lens.argmax(-1))
    np.testing.assert_array_equal(data["lens_rank"] == 0, data["lens_predicted"] == labels[:, None])


def test_at_the_last_place_the_lens_is_the_output(measured):
    _, data, _, logits, _ = measured
    last = data.isel(resid_layer=-1)
    np.testing.assert_array_equal(last["lens_kl_nats"], 0)
    np.testing.assert_array_equal(last["lens_predicted"], logits.argmax(-1))
    assert data["resid_layer"].values.tolist() == list(range(len(data["resid_layer"])))


def test_every_variable_says_its_unit_and_its_name():
    model = vl.HookedViT(small())
    data = run(model, drawn(), LogitLens(), TokenLens(), trained(model))
    assert len(data.data_vars) == 15
    for variable in data.data_vars.values():
        assert {"units", "long_name"} <= set(variable.attrs) <= {"units", "long_name", "description"}


# ---------------------------------------------------------------------- the token lens


def test_the_token_lens_is_head_of_norm_of_each_patch(measured):
    model, data, stream, _, labels = measured
    if model.attn_pool is not None:
        pytest.skip("attention pooling puts an MLP of its own between norm and head")
    tokens = torch.stack(stream, dim=1)[:, :, model.num_prefix_tokens :]
    with torch.no_grad():
        lens = model.head(model.fc_norm(model.norm(tokens)))
    dims = ("resid_layer", "patch_row", "patch_column")
    shape = tuple(data.sizes[dim] for dim in dims)
    assert shape[1:] == tuple(model.patch_embed.grid_size)
    close(data["token_lens_probability"], of_labels(lens.softmax(-1).numpy(), labels).reshape(-1, *shape))
    np.testing.assert_array_equal(
        data["token_lens_predicted"].values.reshape(lens.shape[:3]), lens.argmax(-1)
    )
    assert data["token_lens_predicted"].dims == ("image", *dims)


@pytest.mark.parametrize("kind", KINDS)
def test_where_all_tokens_say_the_same_a_token_is_read_as_the_whole_stream(kind):
    model = vl.HookedViT(small(**KINDS[kind]))
    token = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    stream = token.unsqueeze(1).expand(-1, model.cfg.n_pos, -1)
    with torch.no_grad():
        close(token_logits(model, token), model.readout(stream))


def test_two_heads_are_averaged_on_each_patch():
    model = randomize(
        timm.create_model("deit_tiny_distilled_patch16_224", depth=1, img_size=32, num_classes=4)
    )
    token = torch.randn(3, 192, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = (model.head(model.norm(token)) + model.head_dist(model.norm(token))) / 2
        close(token_logits(vl.HookedViT(model), token), expected)


def test_the_token_lens_reads_some_tokens_at_a_time_and_only_named_images(monkeypatch):
    model = vl.HookedViT(small())
    whole = run(model, drawn(), TokenLens())
    monkeypatch.setattr(token_lens, "N_CHUNK_LOGITS", 6 * 5)
    named = run(model, drawn(), TokenLens(image_ids=("0/5", "0/1")))
    rows = whole.sel(image=named["named_image"].values)
    for name in ("token_lens_probability", "token_lens_predicted"):
        close(named[name], rows[name])
    assert named.sizes["named_image"] == 2


def test_tokens_that_are_not_one_for_each_patch_are_refused_by_the_token_lens():
    model = vl.HookedViT(small())
    analysis = TokenLens()
    pixels = torch.rand(2, 3, 32, 32)
    logits, cache = model.run_with_cache(pixels, names_filter=list(analysis.hooks(model)))
    fewer = vl.ActivationCache({name: resid[:, :-1] for name, resid in cache.items()}, model)
    batch = vl.images.Batch(pixels, torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(vl.errors.AnalysisError, match=r"makes 15 patches .* Expected: 4 × 4 patches"):
        analysis(model, fewer, logits, batch)


# ---------------------------------------------------------------------- the tuned lens


def trained(model, items=None, **kwargs):
    recipe = {"n_steps": 5, "batch_size": 4, "progress": False, **kwargs}
    return TunedLens.train(model, items or drawn(12, seed=1), **recipe)


@pytest.mark.parametrize("kind", ["cls", "avg", "registers", "map"])
def test_the_tuned_lens_is_timms_own_head_on_the_translated_stream(kind):
    model = small(**KINDS[kind])
    hooked, items = vl.HookedViT(model), drawn()
    lens = trained(hooked)
    (translators,) = lens.translators
    assert translators.weight.abs().sum() > 0
    assert translators.bias.abs().sum() > 0
    data = run(hooked, items, lens)
    stream, logits = plain_stream(model, hooked.normalize(torch.stack([item["pixels"] for item in items])))
    with torch.no_grad():
        read = [
            model.forward_head(model.norm(resid + resid @ weight.T + bias))
            for resid, weight, bias in zip(stream[:-1], translators.weight, translators.bias, strict=True)
        ]
    probabilities = torch.stack([*read, logits], dim=1).softmax(-1).numpy()
    close(data["tuned_lens_probability"], of_labels(probabilities, [item["label"] for item in items]))
    close(data["tuned_lens_entropy_nats"], scipy.stats.entropy(probabilities, axis=-1))
    output = np.broadcast_to(probabilities[:, -1:], probabilities.shape)
    close(data["tuned_lens_kl_nats"], scipy.stats.entropy(output, probabilities, axis=-1))
    np.testing.assert_array_equal(data["tuned_lens_kl_nats"].isel(resid_layer=-1), 0)
    right = data["tuned_lens_rank"].values == 0
    expected = np.where(right.any(1), right.argmax(1), np.nan)
    np.testing.assert_array_equal(data["tuned_first_correct_layer"], expected)


def test_translators_of_zero_are_the_logit_lens():
    model = vl.HookedViT(small())
    (some,) = trained(model).translators
    nothing = Translators(
        torch.zeros_like(some.weight), torch.zeros_like(some.bias), some.model_sha256, some.cfg, some.recipe
    )
    data = run(model, drawn(), LogitLens(), TunedLens((nothing,)))
    for name in ("predicted", "probability", "rank", "entropy_nats", "kl_nats"):
        np.testing.assert_array_equal(data[f"tuned_lens_{name}"], data[f"lens_{name}"])
    np.testing.assert_array_equal(data["tuned_first_correct_layer"], data["first_correct_layer"])


def beats_the_plain_lens(model, lens, items):
    data = run(model, items, LogitLens(), lens).isel(resid_layer=slice(None, -1))
    plain, tuned = data["lens_kl_nats"].mean("image"), data["tuned_lens_kl_nats"].mean("image")
    assert (tuned < plain).all(), (plain.values, tuned.values)


@pytest.mark.parametrize("kind", ["cls", "avg", "map"])
def test_the_tuned_lens_beats_the_plain_one_on_held_out_images_of_a_small_model(kind):
    model = vl.HookedViT(small(num_classes=10, **KINDS[kind]))
    lens = trained(model, Subset(vl.images.digits("train"), range(200)), n_steps=40, batch_size=32)
    beats_the_plain_lens(model, lens, Subset(vl.images.digits("test"), range(50)))


def test_the_tuned_lens_beats_the_plain_one_on_held_out_photographs(deit_tiny, data_folder):
    model = vl.HookedViT(deit_tiny)
    train, held_out = (
        vl.images.folder(data_folder / "tiny_imagenet" / part, model) for part in ("train", "val")
    )
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(train), generator=generator)[:160].tolist()
    lens = TunedLens.train(model, Subset(train, some), n_steps=60, progress=False)
    others = torch.randperm(len(held_out), generator=generator)[:64].tolist()
    beats_the_plain_lens(model, lens, Subset(held_out, others))


def test_training_leaves_the_model_and_the_global_generator_alone():
    timm_model = small().train()
    model = vl.HookedViT(timm_model)
    before = vl.weights_sha256(model), torch.get_rng_state()
    with torch.no_grad():
        trained(model)
    assert vl.weights_sha256(model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert timm_model.training
    assert all(parameter.requires_grad for parameter in timm_model.parameters())
    assert all(parameter.grad is None for parameter in timm_model.parameters())


def test_a_seed_makes_the_same_lens_again_and_another_seed_another():
    model = vl.HookedViT(small())
    first, again, other = trained(model), trained(model), trained(model, seed=1)
    assert repr(first) == repr(again)
    assert repr(first) != repr(other)


def test_images_that_are_not_kept_are_run_again_to_the_same_end(monkeypatch):
    model = vl.HookedViT(small())
    (kept,) = trained(model, conditions=["clean", "contrast@3"]).translators
    monkeypatch.setattr(tuned_lens_training, "MAX_KEPT_BYTES", 0)
    (run_again,) = trained(model, conditions=["clean", "contrast@3"]).translators
    torch.testing.assert_close(kept.weight, run_again.weight, atol=1e-4, rtol=1e-3)
    (clean,) = trained(model).translators
    assert not torch.allclose(kept.weight, clean.weight, atol=1e-3)


def test_each_image_comes_once_in_an_epoch_under_each_condition():
    recipe = tuned_lens_training.Recipe(6, 4, None, 0.0, seed=3)
    stream = [index for batch in tuned_lens_training._order(8, recipe) for index in batch]
    assert sorted(stream[:8]) == sorted(stream[8:16]) == sorted(stream[16:]) == list(range(8))
    assert stream[:8] != stream[8:16]


def test_save_and_load_are_inverse(tmp_path):
    base, tuned = vl.HookedViT(small()), vl.HookedViT(small(seed=1))
    lens = TunedLens.train(
        {"base": base, "tuned": tuned, "base again": base}, drawn(8), n_steps=3, batch_size=4, progress=False
    )
    loaded = TunedLens.load(lens.save(tmp_path / "deep" / "lens.safetensors"))
    assert repr(loaded) == repr(lens)
    assert len(loaded.translators) == 2
    for mine, theirs in zip(lens.translators, loaded.translators, strict=True):
        assert torch.equal(mine.weight, theirs.weight)
        assert torch.equal(mine.bias, theirs.bias)
        assert (mine.cfg, mine.recipe) == (theirs.cfg, theirs.recipe)
    assert mine.recipe == {
        "n_steps": 3,
        "batch_size": 4,
        "learning_rate": 0.8 / 24,
        "weight_decay": 5.0,
        "seed": 0,
        "conditions": ["clean"],
        "n_images": 8,
    }
    assert mine.cfg["d_model"] == 24
    before, after = (run(tuned, drawn(), each) for each in (lens, loaded))
    assert before.equals(after)


def test_a_joined_lens_finds_each_checkpoints_translators_in_any_order():
    models = {"base": vl.HookedViT(small()), "tuned": vl.HookedViT(small(seed=1))}
    lenses = {name: trained(model) for name, model in models.items()}
    joined = TunedLens.join(lenses["tuned"], lenses["base"], lenses["tuned"])
    assert repr(joined) == repr(TunedLens.join(*lenses.values()))
    together = run(models, drawn(), joined)
    for name, model in models.items():
        alone = run(model, drawn(), lenses[name])
        for variable in alone:
            np.testing.assert_array_equal(together[variable].sel(checkpoint=name), alone[variable])


# ---------------------------------------------------------------------- what is refused


def test_a_model_with_other_weights_is_refused_and_both_are_named():
    model, other = vl.HookedViT(small()), vl.HookedViT(small(seed=1))
    lens = trained(model)
    theirs, mine = vl.weights_sha256(other)[:16], vl.weights_sha256(model)[:16]
    message = rf"no translators for a model with these weights \({theirs}\); it was trained on: {mine}\."
    with pytest.raises(vl.errors.AnalysisError, match=message):
        run(other, drawn(), lens)
    with pytest.raises(
        vl.errors.AnalysisError, match=r"trained on: none\. .* Train one with TunedLens\.train"
    ):
        run(model, drawn(), TunedLens())


def test_two_lenses_of_one_checkpoint_cannot_be_joined():
    model = vl.HookedViT(small())
    with pytest.raises(vl.errors.AnalysisError, match="two different sets of translators for the model"):
        TunedLens.join(trained(model), trained(model, seed=1))


def test_a_model_without_a_classifier_is_refused_by_every_lens():
    model = vl.HookedViT(small(num_classes=0))
    for analysis in (LogitLens(), TokenLens(), TunedLens()):
        with pytest.raises(vl.errors.AnalysisError, match=f"{type(analysis).__name__} needs classes"):
            analysis.hooks(model)
    with pytest.raises(vl.errors.AnalysisError, match="TunedLens needs classes"):
        trained(model)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_steps": 0}, r"n_steps is 0\. Expected: 1 or more"),
        ({"batch_size": 0}, r"batch_size is 0\. Expected: 1 or more"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0\. Expected: more than 0, or None"),
        ({"weight_decay": -1.0}, r"weight_decay is -1\.0\. Expected: 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(vl.errors.AnalysisError, match=message):
        trained(vl.HookedViT(small()), **wrong)


def test_images_without_an_index_are_refused():
    with pytest.raises(vl.errors.DatasetError, match="without items by index"):
        TunedLens.train(vl.HookedViT(small()), iter(drawn()), progress=False)


def test_training_that_diverges_says_so():
    with pytest.raises(vl.errors.AnalysisError, match=r"is nan\. .* Lower learning_rate, which is 1e\+30"):
        trained(vl.HookedViT(small()), learning_rate=1e30, n_steps=20)


def test_a_file_that_is_no_lens_or_a_damaged_one_is_refused(tmp_path):
    lens = trained(vl.HookedViT(small()))
    path = lens.save(tmp_path / "lens.safetensors")
    tensors = load_file(path)
    for made in ("missing", "cut", "bare", "changed"):
        spoilt = tmp_path / f"{made}.safetensors"
        if made == "cut":
            spoilt.write_bytes(path.read_bytes()[:-100])
        if made == "bare":
            save_file(tensors, spoilt)
        if made == "changed":
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            spoilt.write_bytes(content)
        with pytest.raises(vl.errors.CheckpointError, match="cannot be read as a tuned lens"):
            TunedLens.load(spoilt)
