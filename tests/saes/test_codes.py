"""SAE codes as an analysis, against the definitions on activations that torch's own hooks take."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import vitlens as vl
from vitlens.errors import AnalysisError, ArchitectureError, HookError, SAEError
from vitlens.saes.codes import FeatureUse, SAECode, TokenMoments
from vitlens.saes.reading import Place

from .conftest import items, make_sae

HOOK = "blocks.1.hook_resid_post"
KINDS = {"cls": slice(0, 1), "patch": slice(1, None), "all": slice(None)}


def sae_of(tokens="all", hook_name=HOOK, d_in=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    encoder = torch.randn(d_in, 40, generator=generator) / 8
    sae = make_sae(
        torch.randn(40, d_in, generator=generator), encoder, threshold=0.8, hook_name=hook_name, tokens=tokens
    )
    sae.b_dec.copy_(torch.randn(d_in, generator=generator))
    return sae


def activations_of(vit, images, layer=1):
    seen = []
    handle = vit.blocks[layer].register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        vit(vl.HookedViT(vit).normalize(torch.stack([item["pixels"] for item in images])))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("n_block_codes", [2**24, 1])
@pytest.mark.parametrize("tokens", ["all", "patch", "cls"])
def test_codes_of_each_image_are_what_the_definitions_say(small_timm, tokens, n_block_codes, monkeypatch):
    monkeypatch.setattr("vitlens.saes.reading.N_BLOCK_CODES", n_block_codes)
    sae = sae_of(tokens)
    model = vl.HookedViT(small_timm)
    data = vl.run(model, items(5), [SAECode(sae), FeatureUse(sae)], batch_size=3, progress=False)
    data = data.isel(condition=0)
    x = activations_of(small_timm, items(5))
    assert data["token_kind"].values.tolist() == (list(KINDS) if tokens == "all" else [tokens])
    for kind in data["token_kind"].values:
        at = x[:, KINDS[kind]].double()
        codes = sae.encode(x[:, KINDS[kind]])
        active = (codes > 0).numpy()
        error = (at - sae.decode(codes).double()).square().sum((1, 2)).numpy()
        expected = {
            "sae_l0": active.sum(-1).mean(-1),
            "sae_n_active_features": active.any(1).sum(-1),
            "sae_squared_error": error,
            "sae_fvu": error / (at - sae.b_dec.double()).square().sum((1, 2)).numpy(),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(data[name].sel(token_kind=kind), values, rtol=1e-5)
        used = data["sae_n_active_tokens"].sel(token_kind=kind)
        assert used.values.tolist() == active.sum((0, 1)).tolist()
    assert data["sae_l0"].attrs == {"units": "features", "long_name": "Active features per token"}


def test_no_more_codes_are_alive_than_a_block_has(small_timm, monkeypatch):
    monkeypatch.setattr("vitlens.saes.reading.N_BLOCK_CODES", 2 * 17 * 40)
    sae = sae_of()
    shapes = []
    sae.hook_sae_input.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    vl.run(vl.HookedViT(small_timm), items(5), [SAECode(sae)], batch_size=5, progress=False)
    assert shapes == [(2, 17, 32), (2, 17, 32), (1, 17, 32)]


def test_an_sae_keeps_its_precision_where_the_model_is_run_in_a_mixed_one(small_timm):
    sae = sae_of()
    dtypes = set()
    sae.hook_sae_acts_pre.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    analyses = [SAECode(sae), FeatureUse(sae)]
    vl.run(vl.HookedViT(small_timm), items(2), analyses, precision="bfloat16", progress=False)
    assert dtypes == {torch.float32}


def test_moments_of_images_make_the_variance_of_any_set(small_timm):
    moments = TokenMoments(Place(HOOK, "all", 32))
    data = vl.run(vl.HookedViT(small_timm), items(6), [moments], batch_size=4, progress=False)
    x = activations_of(small_timm, items(6)).double()
    for kind, positions in KINDS.items():
        at, rows = x[:, positions], data.sel(token_kind=kind, condition="clean")
        assert (rows["n_tokens"] == at.shape[1]).all()
        np.testing.assert_allclose(rows["mean_activation"], at.mean(1), rtol=1e-5, atol=1e-6)
        spread = (at - at.mean(1, keepdim=True)).square().sum((1, 2))
        np.testing.assert_allclose(rows["squared_spread"], spread, rtol=1e-5, atol=1e-9)


def test_several_saes_are_read_in_one_run_by_their_names(small_timm):
    saes = [sae_of(seed=seed) for seed in (0, 1)]
    model = vl.HookedViT(small_timm)
    together = vl.run(
        model,
        items(3),
        [SAECode(sae, name=name) for sae, name in zip(saes, "ab", strict=True)],
        progress=False,
    )
    alone = vl.run(model, items(3), [SAECode(saes[1])], progress=False)
    assert (together["b_l0"].values == alone["sae_l0"].values).all()
    assert not (together["a_l0"].values == alone["sae_l0"].values).all()


def test_arguments_override_the_metadata_and_another_hook_is_warned_of(small_timm):
    sae = sae_of("patch")
    with pytest.warns(
        UserWarning, match=r"trained on 'blocks\.1\.hook_resid_post' and is used at 'blocks\.2"
    ):
        other = SAECode(sae, "blocks.2.hook_resid_post", "cls")
    x = activations_of(small_timm, items(2), layer=2)[:, :1]
    data = vl.run(vl.HookedViT(small_timm), items(2), [other], progress=False)
    assert data["sae_l0"].values.ravel().tolist() == (sae.encode(x) > 0).sum((1, 2)).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SAECode(sae, HOOK)
        SAECode(sae, "blocks.2.hook_resid_post", warns=False)


def test_an_sae_that_fits_no_place_is_refused(small_timm):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    model = vl.HookedViT(small_timm)
    unknown = make_sae(torch.eye(32))
    with pytest.raises(SAEError, match=r"metadata of the SAE does not say which hook_name.*Pass hook_name="):
        SAECode(unknown)
    with pytest.raises(SAEError, match=r"does not say which tokens it reads.*Pass tokens="):
        SAECode(unknown, HOOK)
    with pytest.raises(SAEError, match=r"activation at 'blocks.*' is \(2, 17, 32\), the SAE's d_in is 16"):
        vl.run(model, items(2), [SAECode(sae_of(d_in=16))], progress=False)
    with pytest.raises(SAEError, match=r"'hook_pooled' is \(2, 32\)"):
        vl.run(model, items(2), [SAECode(sae_of(hook_name="hook_pooled"))], progress=False)
    with pytest.raises(HookError, match=r"'blocks\.9\.hook_resid_post' is not a hook"):
        vl.run(model, items(2), [SAECode(sae_of(hook_name="blocks.9.hook_resid_post"))], progress=False)
    with pytest.raises(ArchitectureError, match="no 'register' token"):
        vl.run(model, items(2), [SAECode(sae_of("register"))], progress=False)
    in_training = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=32, d_sae=4, k=1))
    with pytest.raises(SAEError, match="TopKTrainingSAE"):
        SAECode(in_training, HOOK, "patch")


def test_a_stored_run_knows_the_saes_weights(small_timm, tmp_path):
    model = vl.HookedViT(small_timm)
    first, again, other = SAECode(sae_of()), SAECode(sae_of()), SAECode(sae_of(seed=1))
    assert repr(first) == repr(again) != repr(other)
    stored = vl.run(model, items(3), [first], output=tmp_path / "run", progress=False)
    assert vl.run(model, items(3), [again], output=tmp_path / "run", progress=False).identical(stored)
    with pytest.raises(AnalysisError, match="analyses"):
        vl.run(model, items(3), [other], output=tmp_path / "run", progress=False)
