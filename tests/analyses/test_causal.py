"""Transplants, ablations and their estimate, against plain torch hooks that replace outputs."""

import contextlib

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.analyses.ablation import Ablation
from vitlens.analyses.attribution_patching import AttributionPatching
from vitlens.analyses.interventions import block_by_block
from vitlens.analyses.transplant import Transplant, transplant
from vitlens.functional.attribution import correct_log_probability
from vitlens.testing import randomize

from .made import small


def tuned_from(model, share=0.3, seed=1):
    """Another checkpoint of the same architecture: each weight moved by a share of its tensor's spread."""
    import copy

    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += share * parameter.std(unbiased=False) * noise
    return other


def drawn(n=5, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"pixels": torch.rand(3, size, size, generator=generator), "label": i % 10, "image_id": f"{i}"}
        for i in range(n)
    ]


def stacked(items):
    return torch.stack([item["pixels"] for item in items]), torch.tensor([item["label"] for item in items])


@pytest.fixture(params=["small", "real"], scope="module")
def case(request):
    """Two checkpoints and items: drawn ones, or DeiT-tiny, a disturbed copy of it, and photographs."""
    if request.param == "small":
        base, items = small(), drawn()
        return vl.HookedViT(base), vl.HookedViT(tuned_from(base)), items
    base = request.getfixturevalue("deit_tiny")
    hooked = vl.HookedViT(base)
    dataset = vl.images.folder(request.getfixturevalue("data_folder") / "imagenet_samples", hooked)
    return hooked, vl.HookedViT(tuned_from(base, 0.1)), [dataset[index] for index in (5, 505)]


@contextlib.contextmanager
def torch_hooks(*handles):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def output_of(module, model, images, *, take_input=False):
    kept = []
    handle = module.register_forward_hook(
        lambda _, inputs, output: kept.append(inputs[0] if take_input else output)
    )
    with torch_hooks(handle), torch.no_grad():
        model(images)
    return kept[0]


def with_output(module, model, images, by):
    with torch_hooks(module.register_forward_hook(lambda *_: by)), torch.no_grad():
        return model(images)


def with_heads(model, layer, images, by, heads):
    """The logits with some heads replaced where they enter the output projection."""
    projection = model.blocks[layer].attn.proj

    def replace(_, inputs):
        flat = inputs[0].clone()
        d_head = flat.shape[-1] // model.blocks[layer].attn.num_heads
        for head in heads:
            here = slice(head * d_head, (head + 1) * d_head)
            flat[..., here] = by[..., here]
        return (flat,)

    with torch_hooks(projection.register_forward_pre_hook(replace)), torch.no_grad():
        return model(images)


def branch(block, kind):
    """The module whose output a branch adds."""
    name = {"attn": "ls1", "mlp": "ls2"}[kind]
    module = getattr(block, name)
    return module if not isinstance(module, torch.nn.Identity) else getattr(block, kind)


def run_pair(base, tuned, items, *analyses, **kwargs):
    models = {"base": base, "tuned": tuned}
    return vl.run(models, items, list(analyses), progress=False, **kwargs).sel(condition="clean")


# ------------------------------------------------------------------ starting at a layer


def test_starting_at_a_layer_with_its_stream_gives_the_logits_to_the_last_bit(case):
    hooked, _, items = case
    images = hooked.normalize(stacked(items)[0])
    with torch.no_grad():
        logits = hooked(images)
        for block in block_by_block(hooked, images):
            resumed = hooked(images, start_at_layer=block.layer, resid=block.resid_pre)
            assert torch.equal(resumed, logits)
        last = hooked(images, start_at_layer=hooked.cfg.n_layers, resid=block.resid_post)
        assert torch.equal(last, logits)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_starting_at_a_layer_keeps_what_blocks_get_beside_the_stream(name):
    shape = {"eva02_tiny_patch14_224": {"img_size": 28}, "beit_base_patch16_224": {"img_size": 32}}[name]
    sizes = {} if "eva" in name else {"embed_dim": 48, "num_heads": 3}
    hooked = vl.HookedViT(randomize(timm.create_model(name, depth=2, num_classes=5, **shape, **sizes)))
    images = torch.randn(2, 3, *[shape["img_size"]] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        resid = hooked(images, stop_at_layer=1)
        assert torch.equal(hooked(images, start_at_layer=1, resid=resid), hooked(images))
        assert torch.equal(hooked(images, start_at_layer=-1, resid=resid), hooked(images))


def test_a_start_without_a_stream_or_beyond_the_model_is_refused():
    hooked = vl.HookedViT(small())
    images, resid = torch.zeros(1, 3, 32, 32), torch.zeros(1, 17, 32)
    with pytest.raises(vl.errors.HookError, match=r"Only start_at_layer is given\. Expected: both"):
        hooked(images, start_at_layer=1)
    with pytest.raises(vl.errors.HookError, match=r"Only resid is given\."):
        hooked(images, resid=resid)
    with pytest.raises(vl.errors.HookError, match=r"start_at_layer is 4\. Expected: -3 to 3"):
        hooked(images, start_at_layer=4, resid=resid)


# ------------------------------------------------------------------ transplant


def test_a_transplant_is_what_torch_hooks_that_replace_give(case):
    base, tuned, items = case
    pixels, _ = stacked(items)
    images = base.normalize(pixels)
    for kind in ("attn", "mlp"):
        given_by = output_of(branch(tuned.model.blocks[1], kind), tuned.model, images)
        expected = with_output(branch(base.model.blocks[1], kind), base.model, images, given_by)
        got = transplant(tuned, base, pixels, f"blocks.1.hook_{kind}_out")
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    flat = output_of(tuned.model.blocks[1].attn.proj, tuned.model, images, take_input=True)
    expected = with_heads(base.model, 1, images, flat, [0, 2])
    got = transplant(tuned, base, pixels, {"blocks.1.attn.hook_z": [0, 2]})
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_transplanted_into_itself_changes_nothing():
    hooked, pixels = vl.HookedViT(small()), stacked(drawn())[0]
    with torch.no_grad():
        logits = hooked(hooked.normalize(pixels))
    rounds = ("hook_pattern", "hook_attn_scores", "hook_result", "hook_scale", "hook_normalized")
    for name in hooked.hook_names:
        got = transplant(hooked, hooked, pixels, name)
        if name.endswith(rounds):
            torch.testing.assert_close(got, logits, atol=1e-4, rtol=1e-4)
        else:
            assert torch.equal(got, logits), name
    assert torch.equal(transplant(hooked, hooked, pixels, {"blocks.2.attn.hook_q": [1]}), logits)


def test_transplanting_everything_into_the_recipient_gives_the_donor():
    base, tuned = vl.HookedViT(small()), vl.HookedViT(tuned_from(small()))
    tuned.model.head = base.model.head
    tuned.model.norm = base.model.norm
    tuned = vl.HookedViT(tuned.model)
    pixels = stacked(drawn())[0]
    got = transplant(tuned, base, pixels, "blocks.2.hook_resid_post")
    with torch.no_grad():
        torch.testing.assert_close(got, tuned(tuned.normalize(pixels)))


def test_transplanting_the_pooled_feature_gives_the_recipients_head_on_it(case):
    base, tuned, items = case
    pixels, _ = stacked(items)
    with torch.no_grad():
        feature = tuned.model.forward_head(
            tuned.model.forward_features(tuned.normalize(pixels)), pre_logits=True
        )
        expected = base.model.head(feature)
    torch.testing.assert_close(transplant(tuned, base, pixels, "hook_pooled"), expected)


def test_each_model_normalizes_its_own_way():
    base = vl.HookedViT(small())
    other = vl.HookedViT(base.model, data_config={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
    pixels = stacked(drawn())[0]
    with torch.no_grad():
        embedded = base.model.patch_embed(pixels)
        expected = base.model.forward_head(
            base.model.norm(base.model.blocks(base.model._pos_embed(embedded)))
        )
    got = transplant(other, base, pixels, "hook_embed")
    torch.testing.assert_close(got, expected)


def test_transplants_leave_modes_hooks_and_gradients_as_they_were():
    base, tuned = vl.HookedViT(small(proj_drop_rate=0.5)).train(), vl.HookedViT(small(1))
    pixels = stacked(drawn())[0]
    one, two = (transplant(tuned, base, pixels, "blocks.0.hook_mlp_out") for _ in range(2))
    assert torch.equal(one, two)
    assert base.training
    assert base.model.training
    assert not one.requires_grad
    assert not any(point.listens() for point in base.hook_dict.values())


@pytest.mark.parametrize(
    ("settings_of_timm", "name", "heads", "message"),
    [
        (
            {},
            "blocks.1.hook_mlp_out",
            [0],
            r"'blocks\.1\.hook_mlp_out' has no axis of heads\. Expected: a hook",
        ),
        (
            {},
            "blocks.1.attn.hook_z",
            [4],
            r"Head 4 of 'blocks\.1\.attn\.hook_z' was asked for\. Expected: 0 to 3",
        ),
        ({}, "blocks.9.attn.hook_z", None, r"'blocks\.9\.attn\.hook_z' is not a hook of this model\."),
    ],
)
def test_hooks_and_heads_that_are_not_there_are_refused(settings_of_timm, name, heads, message):
    hooked = vl.HookedViT(small(**settings_of_timm))
    with pytest.raises(vl.errors.HookError, match=message):
        transplant(hooked, hooked, torch.zeros(1, 3, 32, 32), {name: heads})


def test_heads_of_differential_attention_are_counted_by_hook():
    hooked = vl.HookedViT(small(attn_layer="diff"))
    pixels = stacked(drawn(2))[0]
    donor = vl.HookedViT(small(1, attn_layer="diff"))
    assert transplant(donor, hooked, pixels, {"blocks.0.attn.hook_pattern": [7]}).shape == (2, 10)
    with pytest.raises(vl.errors.HookError, match=r"Head 4 of 'blocks\.0\.attn\.hook_v' was asked for"):
        transplant(donor, hooked, pixels, {"blocks.0.attn.hook_v": [4]})


def test_models_of_another_shape_and_pixels_that_are_none_are_refused():
    base = vl.HookedViT(small())
    pixels = torch.zeros(1, 3, 32, 32)
    with pytest.raises(
        vl.errors.ArchitectureError,
        match=r"'donor' and 'recipient' are of different .* \(n_layers 2 and 3\)",
    ):
        transplant(vl.HookedViT(small(depth=2)), base, pixels, "hook_embed")
    with pytest.raises(vl.errors.PixelError, match=r"The pixels of the transplant go from 2 to 2\."):
        transplant(base, base, pixels + 2, "hook_embed")


# ------------------------------------------------------------------ the sweep


def test_the_sweep_is_the_transplants_one_by_one(case):
    base, tuned, items = case
    pixels, labels = stacked(items)
    deep = base.cfg.n_layers > 3
    # The whole sweep on the small model; on the other the kinds that say most for their time.
    kinds = ("attn", "feature", "classifier", "resid", *(() if deep else ("mlp", "head")))
    data = run_pair(base, tuned, items, Transplant(kinds)).sel(checkpoint="tuned")
    with torch.no_grad():
        images = base.normalize(pixels)
        expected = {"none": base(images), "all": tuned(images)}
    layers = (7,) if deep else range(3)
    for layer in layers:
        expected[f"{layer}_attn_out"] = transplant(tuned, base, pixels, f"blocks.{layer}.hook_attn_out")
        expected[f"{layer}_resid_post"] = transplant(tuned, base, pixels, f"blocks.{layer}.hook_resid_post")
        if not deep:
            expected[f"{layer}_mlp_out"] = transplant(tuned, base, pixels, f"blocks.{layer}.hook_mlp_out")
            expected[f"L{layer}H2"] = transplant(tuned, base, pixels, {f"blocks.{layer}.attn.hook_z": [2]})
    expected["feature"] = transplant(tuned, base, pixels, "hook_pooled")
    expected["classifier"] = transplant(base, tuned, pixels, "hook_pooled")
    for label, logits in expected.items():
        here = data.sel(transplant_component=label)
        wanted = correct_log_probability(logits, labels).numpy()
        np.testing.assert_array_equal(here["transplant_log_probability"], wanted, err_msg=label)
        np.testing.assert_array_equal(here["transplant_correct"], (logits.argmax(-1) == labels).numpy())
    n = base.cfg.n_layers * (2 if deep else 3 + base.cfg.n_heads) + 4
    assert data.sizes["transplant_component"] == n
    assert data["transplant_component"].values.tolist()[:3] == ["none", "all", "0_attn_out"]


def test_the_recipients_own_row_is_itself_throughout(case):
    base, tuned, items = case
    own = run_pair(base, tuned, items, Transplant(("feature",))).sel(checkpoint="base")
    none = own.isel(transplant_component=0)
    assert (own["transplant_log_probability"] == none["transplant_log_probability"]).all()
    assert own["transplant_correct"].dtype == bool


@pytest.mark.parametrize(
    "settings_of_timm",
    [
        {"reg_tokens": 2},
        {"class_token": False, "global_pool": "avg"},
        {"class_token": False, "global_pool": "map"},
    ],
)
def test_sweep_and_estimate_run_whatever_the_tokens(settings_of_timm):
    base = small(**settings_of_timm)
    data = run_pair(
        vl.HookedViT(base),
        vl.HookedViT(tuned_from(base, 1e-4)),
        drawn(3),
        Transplant(),
        AttributionPatching(),
    )
    assert_first_order(data.sel(checkpoint="tuned"))


def test_the_rows_do_not_depend_on_batch_size_or_order():
    base, items = small(), drawn(5)
    pair = vl.HookedViT(base), vl.HookedViT(tuned_from(base))
    analyses = Transplant(("resid", "head")), AttributionPatching(("mlp",)), Ablation(components=("head",))
    whole = run_pair(*pair, items, *analyses, batch_size=5)
    split = run_pair(*pair, items[::-1], *analyses, batch_size=2).sel(image=whole["image"])
    for name in whole.data_vars:
        np.testing.assert_allclose(whole[name].astype(float), split[name].astype(float), atol=1e-4)


def test_components_that_are_none_are_refused():
    for analysis in (Transplant, AttributionPatching):
        with pytest.raises(
            vl.errors.AnalysisError,
            match=rf"The components of {analysis.__name__} are \('heads',\)\. Expected: a tuple of some of "
            r"resid, attn, mlp, head, feature, classifier, each once\. .* Nearest to 'heads': 'head'",
        ):
            analysis(("heads",))
    with pytest.raises(vl.errors.AnalysisError, match=r"The components of Ablation are \(\)\."):
        Ablation(components=())


def test_without_classes_causal_analyses_are_refused():
    hooked = vl.HookedViT(small(num_classes=0))
    for analysis in (Transplant(), AttributionPatching(), Ablation()):
        with pytest.raises(vl.errors.AnalysisError, match=f"{type(analysis).__name__} needs classes"):
            analysis.hooks(hooked)


# ------------------------------------------------------------------ attribution patching


def assert_first_order(data):
    """Estimates agree with the exact changes as far as these are linear."""
    none = data["transplant_log_probability"].sel(transplant_component="none")
    exact = data["transplant_log_probability"] - none
    exact = exact.sel(transplant_component=data["patching_component"].values).values
    estimate = data["attribution_patching"].values
    # float32 log-probabilities are known to about 1e-6.
    np.testing.assert_allclose(estimate, exact, atol=2e-5 + 0.02 * np.abs(exact).max())
    assert np.abs(exact).max() > 1e-4


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(2, 1000))
def test_for_a_tiny_difference_the_estimate_is_the_effect(seed):
    base = small()
    pair = vl.HookedViT(base), vl.HookedViT(tuned_from(base, 3e-4, seed))
    data = run_pair(*pair, drawn(3), Transplant(), AttributionPatching())
    assert_first_order(data.sel(checkpoint="tuned"))


def test_the_estimate_is_gradient_times_difference_from_plain_hooks(case):
    base, tuned, items = case
    pixels, labels = stacked(items)
    data = run_pair(
        base, tuned, items, AttributionPatching(("mlp", "head", "resid", "feature", "classifier"))
    )
    estimate = data["attribution_patching"].sel(checkpoint="tuned")
    images, layer, head = base.normalize(pixels), 1, 2
    seen = {}
    model = base.model
    handles = [
        branch(model.blocks[layer], "mlp").register_forward_hook(lambda _, __, out: seen.update(mlp=out)),
        model.blocks[layer].attn.proj.register_forward_pre_hook(
            lambda _, inputs: seen.update(head=inputs[0])
        ),
        model.blocks[layer].register_forward_hook(lambda _, __, out: seen.update(resid=out)),
        model.head.register_forward_pre_hook(lambda _, inputs: seen.update(feature=inputs[0])),
    ]
    with torch_hooks(*handles):
        logits = model(images)
    score = logits.log_softmax(-1).gather(1, labels[:, None]).sum()
    gradients = dict(zip(seen, torch.autograd.grad(score, [*seen.values()]), strict=True))
    other = tuned.model
    donor = {
        "mlp": output_of(branch(other.blocks[layer], "mlp"), other, images),
        "head": output_of(other.blocks[layer].attn.proj, other, images, take_input=True),
        "resid": output_of(other.blocks[layer], other, images),
        "feature": output_of(other.head, other, images, take_input=True),
    }
    product = {kind: (donor[kind] - seen[kind]) * gradients[kind] for kind in seen}
    d_head = product["head"].shape[-1] // model.blocks[layer].attn.num_heads
    product["head"] = product["head"][..., head * d_head : (head + 1) * d_head]
    labels_of = {"mlp": "1_mlp_out", "head": "L1H2", "resid": "1_resid_post", "feature": "feature"}
    for kind, label in labels_of.items():
        wanted = product[kind].flatten(1).sum(1).detach()
        np.testing.assert_allclose(
            estimate.sel(patching_component=label), wanted, atol=1e-4 * max(1, wanted.abs().max())
        )
    by_logit = torch.softmax(logits, -1).neg().scatter_add(1, labels[:, None], torch.ones(len(labels), 1))
    exchanged = other.head(seen["feature"]) - logits
    np.testing.assert_allclose(
        estimate.sel(patching_component="classifier"), (exchanged * by_logit).sum(1).detach(), atol=1e-3
    )


def test_the_estimate_needs_no_parameter_that_can_be_trained():
    base = small().requires_grad_(False)
    data = run_pair(vl.HookedViT(base), vl.HookedViT(tuned_from(base)), drawn(2), AttributionPatching())
    assert (np.abs(data["attribution_patching"].sel(checkpoint="tuned")) > 0).any()
    assert (data["attribution_patching"].sel(checkpoint="base") == 0).all()


# ------------------------------------------------------------------ ablation


def test_zero_ablation_is_what_torch_hooks_give(case):
    hooked, _, items = case
    pixels, labels = stacked(items)
    deep = hooked.cfg.n_layers > 3
    components = ("mlp",) if deep else ("head", "attn", "mlp")
    data = vl.run(hooked, items, [Ablation(components=components)], progress=False).sel(condition="clean")
    model, images = hooked.model, hooked.normalize(pixels)
    with torch.no_grad():
        intact = correct_log_probability(model(images), labels)
    for layer in (1,) if deep else range(3):
        flat = torch.zeros_like(output_of(model.blocks[layer].attn.proj, model, images, take_input=True))
        every = range(hooked.cfg.n_heads)
        zero = torch.zeros_like(output_of(branch(model.blocks[layer], "mlp"), model, images))
        expected = {
            "ablated_mlp": with_output(branch(model.blocks[layer], "mlp"), model, images, zero),
        }
        if not deep:
            expected["ablated_attention"] = with_heads(model, layer, images, flat, every)
        here = data.sel(layer=layer)
        for name, logits in expected.items():
            change = correct_log_probability(logits, labels) - intact
            np.testing.assert_allclose(here[f"{name}_log_probability_change"], change, atol=1e-4)
            np.testing.assert_array_equal(here[f"{name}_correct"], logits.argmax(-1) == labels)
        for head in () if deep else every:
            logits = with_heads(model, layer, images, flat, [head])
            change = correct_log_probability(logits, labels) - intact
            np.testing.assert_allclose(
                here["ablated_log_probability_change"].sel(head=head), change, atol=1e-4
            )
            np.testing.assert_array_equal(here["ablated_correct"].sel(head=head), logits.argmax(-1) == labels)


def test_mean_ablation_puts_the_mean_over_the_data_set_at_each_position():
    model, items = small(), drawn(7)
    hooked = vl.HookedViT(model)
    images, labels = hooked.normalize(stacked(items)[0]), stacked(items)[1]
    mean = Ablation.mean(hooked, items, batch_size=3, progress=False)
    data = vl.run(hooked, items, [mean], progress=False, batch_size=2).sel(condition="clean")
    flat = output_of(model.blocks[1].attn.proj, model, images, take_input=True)
    expected = with_heads(model, 1, images, flat.mean(0, keepdim=True).expand_as(flat), [3])
    with torch.no_grad():
        change = correct_log_probability(expected, labels) - correct_log_probability(model(images), labels)
    np.testing.assert_allclose(data["ablated_log_probability_change"].sel(layer=1, head=3), change, atol=1e-4)
    added = output_of(branch(model.blocks[2], "mlp"), model, images)
    expected = with_output(branch(model.blocks[2], "mlp"), model, images, added.mean(0).expand_as(added))
    np.testing.assert_array_equal(data["ablated_mlp_correct"].sel(layer=2), expected.argmax(-1) == labels)


def test_mean_ablation_on_the_only_image_of_the_data_set_changes_nothing():
    hooked, items = vl.HookedViT(small()), drawn(1)
    data = vl.run(hooked, items, [Ablation.mean(hooked, items, progress=False)], progress=False)
    for name in ("ablated", "ablated_attention", "ablated_mlp"):
        np.testing.assert_allclose(data[f"{name}_log_probability_change"], 0, atol=1e-5)


def test_resampling_puts_another_images_activation_in_whatever_the_batch():
    model, items = small(), drawn(6)
    hooked = vl.HookedViT(model)
    ablation = Ablation.resample(hooked, items, n_source=4, seed=3, batch_size=3, progress=False)
    (bank,) = ablation.banks
    assert len(set(bank.source_ids)) == 4
    ids = tuple(item["image_id"] for item in items)
    sources = bank.sources(ids, 3)
    assert all(bank.source_ids[source] != image for source, image in zip(sources, ids, strict=True))
    assert [int(bank.sources((image,), 3)) for image in ids] == sources.tolist()
    data = vl.run(hooked, items, [ablation], batch_size=4, progress=False).sel(condition="clean")
    images, labels = hooked.normalize(stacked(items)[0]), stacked(items)[1]
    flat = output_of(model.blocks[0].attn.proj, model, images, take_input=True)
    partners = [ids.index(bank.source_ids[source]) for source in sources]
    expected = with_heads(model, 0, images, flat[partners], [1])
    with torch.no_grad():
        change = correct_log_probability(expected, labels) - correct_log_probability(model(images), labels)
    np.testing.assert_allclose(data["ablated_log_probability_change"].sel(layer=0, head=1), change, atol=1e-4)


def test_draws_depend_on_their_seed_alone():
    hooked, items = vl.HookedViT(small()), drawn(12)
    before = torch.random.get_rng_state()
    one, same, other = (
        Ablation.resample(hooked, items, n_source=4, seed=seed, components=("mlp",), progress=False)
        for seed in (0, 0, 1)
    )
    assert repr(one) == repr(same) != repr(other)
    assert one.banks[0].source_ids != other.banks[0].source_ids
    ids = tuple(f"image {i}" for i in range(200))
    counts = torch.bincount(one.banks[0].sources(ids, 0), minlength=4)
    assert counts.min() > 25
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_checkpoint_finds_its_own_bank_and_a_stranger_is_refused():
    base, tuned = vl.HookedViT(small()), vl.HookedViT(tuned_from(small()))
    items = drawn(4)
    both = Ablation.mean({"base": base, "tuned": tuned}, iter(items), components=("mlp",), progress=False)
    data = run_pair(base, tuned, items, both).drop_vars("checkpoint")
    for place, model in enumerate((base, tuned)):
        alone = Ablation.mean(model, items, components=("mlp",), progress=False)
        own = vl.run(model, items, [alone], progress=False).sel(condition="clean")
        np.testing.assert_allclose(
            data["ablated_mlp_log_probability_change"].isel(checkpoint=place),
            own["ablated_mlp_log_probability_change"],
            atol=1e-5,
        )
    alone = Ablation.mean(base, items, components=("mlp",), progress=False)
    with pytest.raises(
        vl.errors.AnalysisError,
        match=r"Ablation has banks of 1 checkpoints, none of this one \(weights [0-9a-f]",
    ):
        run_pair(base, tuned, items, alone)


def test_a_bank_no_longer_fits_once_the_weights_have_changed():
    hooked, items = vl.HookedViT(small()), drawn(3)
    ablation = Ablation.mean(hooked, items, components=("mlp",), progress=False)
    ablation.hooks(hooked)
    with torch.no_grad():
        hooked.model.head.bias += 1
    with pytest.raises(vl.errors.AnalysisError, match=r"none of this one"):
        ablation.hooks(hooked)


def test_a_bank_of_images_of_another_size_is_refused():
    model = randomize(
        timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=4, dynamic_img_size=True)
    )
    hooked = vl.HookedViT(model)
    items = [dict(item, label=1) for item in drawn(3)]
    ablation = Ablation.mean(hooked, items, components=("mlp",), progress=False)
    larger = [dict(item, label=1) for item in drawn(2, size=48)]
    with pytest.raises(
        vl.errors.AnalysisError,
        match=r"\(2, 5, 192\) was to replace 'blocks\.0\.hook_mlp_out', which is \(2, 10",
    ):
        vl.run(hooked, larger, [ablation], progress=False)


def test_ablations_that_make_no_sense_are_refused():
    hooked = vl.HookedViT(small())
    with pytest.raises(vl.errors.AnalysisError, match=r"The kind of Ablation is 'mean', with 0 banks\."):
        Ablation("mean")
    with pytest.raises(vl.errors.AnalysisError, match=r"The kind of Ablation is 'none', with 0 banks\."):
        Ablation("none")
    with pytest.raises(vl.errors.DatasetError, match=r"16 of 3 images are to be the source\. Expected: 2 or"):
        Ablation.resample(hooked, drawn(3), progress=False)
    with pytest.raises(
        vl.errors.DatasetError, match=r"16 of an unknown number of images are to be the source"
    ):
        Ablation.resample(hooked, iter(drawn(3)), progress=False)
    with pytest.raises(vl.errors.AnalysisError, match=r"Ablation is given no checkpoint\."):
        Ablation.mean({}, drawn(3), progress=False)
