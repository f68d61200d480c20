"""Similarity of codes, against a loop over images and tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.errors import SAEError
from vitlens.images import WhiteBox
from vitlens.saes.code_overlap import VARIABLES, similarity_of_codes
from vitlens.saes.code_similarity import code_similarity
from vitlens.saes.matching import match
from vitlens.testing import randomize

from .conftest import items, make_sae

HOOK = "blocks.1.hook_mlp_out"


def sae_of(seed=0, d_sae=40, tokens="patch", hook_name=HOOK):
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(d_sae, 32, generator=generator)
    # A high threshold, so that some tokens have no active feature.
    return make_sae(decoder, threshold=7.0, hook_name=hook_name, tokens=tokens)


@pytest.fixture
def two(small_timm):
    import copy

    tuned = copy.deepcopy(small_timm)
    moved = randomize(copy.deepcopy(small_timm), seed=5)
    with torch.no_grad():
        for mine, theirs in zip(tuned.parameters(), moved.parameters(), strict=True):
            mine.lerp_(theirs, 0.2)
    return {"base": vl.HookedViT(small_timm), "tuned": vl.HookedViT(tuned)}


def cosine(a, b):
    if not a.any() and not b.any():
        return np.nan
    if not a.any() or not b.any():
        return 0.0
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else np.nan


def by_loop(a, b):
    """The five values of one image, from its codes as numpy arrays [token, feature]."""
    sets = [({*np.flatnonzero(x)}, {*np.flatnonzero(y)}) for x, y in zip(a, b, strict=True)]
    some = [place for place, (x, y) in enumerate(sets) if x | y]
    mean = lambda values: float(np.mean(values)) if len(values) else np.nan  # noqa: E731
    return [
        mean([cosine(a[place], b[place]) for place in some]),
        cosine(a.mean(0), b.mean(0)),
        mean([jaccard(*sets[place]) for place in some]),
        jaccard(set().union(*(x for x, _ in sets)), set().union(*(y for _, y in sets))),
        len(some),
    ]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 0.6))
def test_the_values_of_an_image_are_those_of_a_loop(seed, density):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((3, 4, 6)) * (rng.random((3, 4, 6)) < density) for _ in range(2))
    b[0] = a[0]
    measured = similarity_of_codes(torch.tensor(a), torch.tensor(b)).numpy()
    np.testing.assert_allclose(measured, [by_loop(*pair) for pair in zip(a, b, strict=True)], rtol=1e-12)
    assert set(measured[0, :4].tolist()) <= {1.0} or np.isnan(measured[0]).any()
    swapped = similarity_of_codes(torch.tensor(b), torch.tensor(a)).numpy()
    np.testing.assert_array_equal(measured, swapped)


def test_every_comparison_is_that_of_a_loop_over_images(two):
    saes = {"base": sae_of(0), "tuned": sae_of(1, d_sae=30)}
    matched = match(saes["base"], saes["tuned"], progress=False)
    conditions = ["clean", "contrast@3", {"dark": lambda pixels: pixels / 4}]
    data = code_similarity(
        two, saes, items(5), conditions=conditions, matches=matched, batch_size=2, progress=False
    )
    assert dict(data.sizes) == {"condition": 3, "comparison": 3, "dictionary": 3, "image": 5}
    codes = {}
    for condition in ("clean", "contrast@3", "dark"):
        for checkpoint, model in two.items():
            for item in items(5):
                pixels = item["pixels"][None]
                if condition == "contrast@3":
                    pixels = vl.corrupt(pixels, "contrast", 3, image_ids=[item["image_id"]], seed=0)
                pixels = pixels / 4 if condition == "dark" else pixels
                _, cache = model.run_with_cache(model.normalize(pixels), names_filter=HOOK)
                for name, sae in saes.items():
                    made = sae.encode(cache[HOOK][0, 1:]).detach().numpy()
                    codes[condition, checkpoint, name, item["image_id"]] = made
    pairs = {"base": matched.pairs.feature_a.to_numpy(), "tuned": matched.pairs.feature_b.to_numpy()}
    assert len(pairs["base"]) > 3
    n_empty = 0
    for comparison in data["comparison"].values:
        at = data.sel(comparison=comparison)
        a, b = str(at["checkpoint_a"].item()), str(at["checkpoint_b"].item())
        for condition in data["condition"].values:
            before = condition if at["comparison_kind"] == "checkpoints" else "clean"
            for image in data["image"].values:
                for dictionary in ("base", "tuned", "matched"):
                    if dictionary == "matched":
                        code_a = codes[before, a, a, image][:, pairs[a]]
                        code_b = codes[condition, b, b, image][:, pairs[b]]
                    else:
                        code_a = codes[before, a, dictionary, image]
                        code_b = codes[condition, b, dictionary, image]
                    cell = at.sel(condition=condition, image=image, dictionary=dictionary)
                    expected = by_loop(code_a.astype(float), code_b.astype(float))
                    np.testing.assert_allclose([cell[name].item() for name in VARIABLES], expected, rtol=1e-4)
                    n_empty += expected[4] < 16
    assert n_empty  # tokens without a code are among what was tested
    assert data["comparison"].values.tolist() == [
        "base to tuned",
        "base, clean to shown",
        "tuned, clean to shown",
    ]
    assert data["code_cosine_token"].attrs["long_name"] == "Cosine of the codes, mean over tokens"


def test_a_checkpoint_has_exactly_its_own_codes(two):
    base = two["base"]
    saes = {"base": sae_of(0), "tuned": sae_of(0)}
    matches = {"tuned": match(saes["base"], saes["tuned"], progress=False)}
    data = code_similarity(
        {"base": base, "tuned": base},
        saes,
        items(4),
        conditions=["contrast@1"],
        matches=matches,
        progress=False,
    )
    same = data.sel(comparison="base to tuned")
    clean = data.sel(condition="clean", comparison=["base, clean to shown", "tuned, clean to shown"])
    for name in list(VARIABLES)[:4]:
        assert (same[name].sel(condition="clean") == 1).all()
        assert ((same[name] == 1) | same["code_n_compared_tokens"].isin([0])).all()
        assert (clean[name] == 1).all()
    assert (
        data["code_cosine_token"].sel(condition="contrast@1", comparison="base, clean to shown") < 1
    ).all()


def test_no_value_depends_on_the_batch_or_the_block(two, monkeypatch):
    saes = {"base": sae_of(0, tokens="all"), "tuned": sae_of(1, tokens="all")}
    runs = []
    for batch_size, n_block_codes in ((5, 2**24), (2, 2**24), (3, 1)):
        monkeypatch.setattr("vitlens.saes.reading.N_BLOCK_CODES", n_block_codes)
        runs.append(code_similarity(two, saes, items(5), batch_size=batch_size, progress=False))
    for run in runs[1:]:
        for name in VARIABLES:
            np.testing.assert_allclose(run[name], runs[0][name], rtol=1e-4)
        assert run["image"].values.tolist() == runs[0]["image"].values.tolist()


def test_each_checkpoint_is_run_once_a_batch_and_condition_and_no_further_than_needed(two):
    n_calls = {name: [0, 0] for name in two}
    handles = []
    for name, model in two.items():
        for layer, block in ((0, model.model.blocks[1].mlp), (1, model.model.blocks[2].mlp)):

            def count(module, inputs, output, name=name, layer=layer):
                n_calls[name][layer] += 1

            handles.append(block.register_forward_hook(count))
    saes = {"base": sae_of(0), "tuned": sae_of(1)}
    code_similarity(two, saes, items(5), conditions=["contrast@2"], batch_size=2, progress=False)
    for handle in handles:
        handle.remove()
    assert n_calls == {"base": [6, 0], "tuned": [6, 0]}


def test_what_cannot_be_compared_is_refused(two):
    sae = sae_of(0)
    images = items(2)
    with pytest.raises(SAEError, match="There is no SAE"):
        code_similarity(two, {}, images, progress=False)
    elsewhere = {"base": sae, "tuned": sae_of(1, tokens="cls")}
    with pytest.raises(SAEError, match=r"'base' reads patch tokens.*'tuned' cls tokens.*one place"):
        code_similarity(two, elsewhere, images, progress=False)
    white_box = {"mine": WhiteBox(lambda model, pixels, labels: pixels)}
    with pytest.raises(SAEError, match="'mine' looks inside the model"):
        code_similarity(two, {"base": sae}, images, conditions=[white_box], progress=False)
    matched = match(sae, sae_of(1), progress=False)
    with pytest.raises(SAEError, match="has 40 and 40 features, their SAEs have 40 and None"):
        code_similarity(two, {"base": sae}, images, matches=matched, progress=False)
    saes = {"base": sae, "tuned": sae}
    with pytest.raises(SAEError, match=r"matches of the first checkpoint with \['other'\]"):
        code_similarity(two, saes, images, matches={"other": matched}, progress=False)
    with pytest.raises(SAEError, match="There is an SAE named 'matched'"):
        code_similarity(two, saes | {"matched": sae}, images, matches=matched, progress=False)
    with pytest.raises(SAEError, match="one match for each checkpoint after the first"):
        code_similarity({"base": two["base"]}, {"base": sae}, images, matches=matched, progress=False)
