"""The kinds of SAE: what they find, what they become, and that sae-lens reads them."""

from __future__ import annotations

import warnings

import pytest
import sae_lens
import torch

from vitlens import saes

from .conftest import TINY, K

OPTIONS = {
    "batch_topk": [{}, {"rescale_acts_by_decoder_norm": False}],
    "vanilla": [{}, {"lp_norm": 2.0}],
    "topk": [{}, {"rescale_acts_by_decoder_norm": False}],
    "jumprelu": [{}, {"jumprelu_sparsity_loss_mode": "tanh"}],
    "matryoshka": [{}, {"matryoshka_widths": [8, 24]}, {"rescale_acts_by_decoder_norm": False}],
}
CASES = [(kind, options) for kind, each in OPTIONS.items() for options in each]
FORM = {"vanilla": "standard", "topk": "topk"}


@pytest.fixture(scope="module")
def short(planted):
    """A few steps of one kind."""

    def train(kind, options=None, **settings):
        return saes.train(planted.activations, kind=kind, options=options, **TINY | settings)

    return train


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_sae_lens_reads_what_was_saved_and_encodes_the_same(kind, options, short, planted, tmp_path):
    sae = short(kind, options, output=tmp_path / "run", metadata={"hook_name": "blocks.1.hook_resid_post"})
    saes.save(sae, tmp_path / "sae")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for path in ("run", "sae"):
            read = sae_lens.SAE.load_from_disk(tmp_path / path)
            assert type(read) is type(sae)
            assert torch.equal(read.encode(planted.activations), sae.encode(planted.activations))
            assert torch.equal(read(planted.activations), sae(planted.activations))
            assert read.cfg.metadata.kind == kind
            assert read.cfg.metadata.options == options
            assert read.cfg.metadata.hook_name == "blocks.1.hook_resid_post"


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_codes_and_reconstruction_are_the_training_forms_in_raw_units(
    kind, options, short, planted, monkeypatch
):
    kept = []
    make = saes.training.inference_form

    def spy(trained, scale):
        x = planted.activations[:64] * scale
        trained.eval()
        codes = trained.encode(x)
        kept.append((trained.W_dec.norm(dim=1), codes, trained.decode(codes) / scale, scale))
        return make(trained, scale)

    monkeypatch.setattr(saes.training, "inference_form", spy)
    sae = short(kind, options)
    ((norms, codes, reconstruction, scale),) = kept
    assert sae.cfg.architecture() == FORM.get(kind, "jumprelu")
    rescaled = kind in ("batch_topk", "topk", "matryoshka") and options.get(
        "rescale_acts_by_decoder_norm", True
    )
    keeps_norms = kind == "topk" and not rescaled
    if not keeps_norms:
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.cfg.d_sae))
    if sae.cfg.architecture() == "jumprelu" and kind != "jumprelu":
        return  # its active codes are no longer counted over the batch
    expected = codes.to_dense() * (1 if rescaled or keeps_norms else norms)
    if not keeps_norms:
        expected = expected / scale
    torch.testing.assert_close(sae.encode(planted.activations[:64]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(planted.activations[:64]), reconstruction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["batch_topk", "matryoshka"])
@pytest.mark.parametrize("rescales", [True, False])
def test_mean_l0_is_k_whatever_the_norms_of_the_decoder(kind, rescales, short):
    sae = short(kind, {"rescale_acts_by_decoder_norm": rescales})
    assert sae.cfg.metadata.l0 == pytest.approx(K, abs=0.01)
    assert (len(sae.threshold.unique()) == 1) is rescales


def test_a_topk_has_at_most_k_active_features_on_every_token(short, planted):
    assert int(short("topk").encode(planted.activations).count_nonzero(dim=1).max()) == K


def test_the_first_features_of_a_matryoshka_reconstruct_alone(planted):
    settings = TINY | {"n_tokens": 36_000, "learning_rate": 1e-2, "batch_size": 128}
    first = {}
    for kind in ("matryoshka", "batch_topk"):
        sae = saes.train(planted.activations, kind=kind, **settings)
        codes = sae.encode(planted.activations)
        codes[:, 20:] = 0
        first[kind] = saes.fvu(planted.activations, sae.decode(codes))
    assert first["matryoshka"] < first["batch_topk"]


def test_a_larger_l0_coefficient_leaves_fewer_active_features(planted):
    settings = TINY | {"n_tokens": 36_000, "learning_rate": 1e-2, "batch_size": 128}
    l0 = [
        saes.train(
            planted.activations, kind="jumprelu", options={"l0_coefficient": coefficient}, **settings
        ).cfg.metadata.l0
        for coefficient in (0.1, 2.0)
    ]
    assert l0[0] > l0[1] > 0


def test_only_a_kinds_own_arguments_are_in_its_metadata(short):
    for kind in OPTIONS:
        metadata = short(kind).cfg.metadata
        assert ("k_per_token" in metadata) is (kind in ("batch_topk", "topk", "matryoshka"))
        assert ("l1_coefficient" in metadata) is (kind == "vanilla")
