"""A crosscoder tells what two checkpoints share from what one of them has alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sae_lens
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.errors import CheckpointError, SAEError
from vitlens.saes import storage
from vitlens.saes.bias_release import release_bias
from vitlens.saes.crosscoder import Crosscoder, measured_on
from vitlens.saes.crosscoder_training import train_crosscoder
from vitlens.saes.joined_tokens import Joined, check_orders, fitted_scale, in_step
from vitlens.saes.store import ActivationStore
from vitlens.saes.tokens import InMemory, Tokens
from vitlens.testing import randomize

from .conftest import items, make_sae

D_IN, K = 32, 3
KINDS = ["shared"] * 12 + ["turned"] * 6 + ["base only"] * 6 + ["tuned only"] * 6
N = len(KINDS)

EASY = {
    "d_sae": 48,
    "k_per_token": K,
    "batch_size": 128,
    "n_tokens": 36_000,
    "learning_rate": 1e-2,
    "progress": False,
}
TINY = {"d_sae": 16, "k_per_token": 2, "batch_size": 64, "n_tokens": 640, "progress": False}


def directions(n, generator):
    rows = torch.randn(n, D_IN, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True)


def planted(seed, gain=1.0):
    """Activations of two checkpoints around unlike centers: [2 N D_IN] features and name -> [token D_IN]."""
    generator = torch.Generator().manual_seed(seed)
    features = directions(N, generator).repeat(2, 1, 1)
    is_kind = {kind: torch.tensor([each == kind for each in KINDS]) for kind in set(KINDS)}
    features[1, is_kind["turned"]] = directions(6, generator)
    features[1, is_kind["base only"]] = 0
    features[0, is_kind["tuned only"]] = 0
    active = torch.rand(4000, N, generator=generator) < K / N
    codes = active * (3 + 4 * torch.rand(4000, N, generator=generator))
    x = codes @ features + torch.randn(2, 1, D_IN, generator=generator)
    x += 0.05 * torch.randn(2, 4000, D_IN, generator=generator)
    return features, {"base": x[0], "tuned": gain * x[1]}


def found(crosscoder, features):
    """For each planted feature, the nearest latent and its cosine, both checkpoints' rows side by side."""
    rows = torch.cat([features[0], features[1]], dim=1)
    decoder = crosscoder.sae.W_dec
    cosines = (rows / rows.norm(dim=1, keepdim=True)) @ (decoder / decoder.norm(dim=1, keepdim=True)).T
    best = cosines.max(dim=1)
    return best.indices.numpy(), best.values.numpy()


@pytest.fixture(scope="module")
def trained():
    features, activations = planted(0)
    return features, activations, train_crosscoder(activations, **EASY)


def tiny(n_tokens=400, d_in=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n_tokens, d_in, generator=generator) for name in ("base", "tuned")}


def by_hand(decoder, scales=(1.0, 1.0), x=None):
    """A crosscoder whose codes are the positive parts of the products with its rows."""
    sae = make_sae(decoder, threshold=0.0)
    x = torch.randn(50, decoder.shape[1]) if x is None else x
    return measured_on(sae, ("base", "tuned"), scales, InMemory(x), 16, False)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shared_and_exclusive_planted_features_are_told_apart(seed, trained):
    if seed == 0:
        features, _, crosscoder = trained
    else:
        features, activations = planted(seed)
        crosscoder = train_crosscoder(activations, seed=seed, **EASY)
    latents, cosines = found(crosscoder, features)
    is_recovered = cosines > 0.9
    assert is_recovered.mean() >= 0.95
    table = crosscoder.table()
    expected = np.array([kind.replace("turned", "shared") for kind in KINDS])
    assert (table["kind"].to_numpy()[latents] == expected)[is_recovered].mean() >= 0.95
    assert (table["artifact"] == "").all()
    cosine = table["decoder_cosine"].to_numpy()[latents]
    planted_cosine = (features[0] * features[1]).sum(dim=1).numpy()
    is_shared = is_recovered & (expected == "shared")
    np.testing.assert_allclose(cosine[is_shared], planted_cosine[is_shared], atol=0.1)
    assert max(crosscoder.fvu.values()) < 0.05


def test_identical_checkpoints_have_no_exclusive_latents():
    _, activations = planted(0)
    crosscoder = train_crosscoder({"base": activations["base"], "tuned": activations["base"]}, **EASY)
    table = crosscoder.table()
    live = table[table["kind"] != "dead"]
    assert len(live) >= 24
    np.testing.assert_allclose(live["relative_norm"], 0.5, atol=0.02)
    assert (live["kind"] == "shared").all()
    assert live["decoder_cosine"].min() > 0.99
    assert crosscoder.fvu["base"] == pytest.approx(crosscoder.fvu["tuned"], abs=1e-3)


def test_swapping_the_checkpoints_of_a_crosscoder_mirrors_it(trained):
    _, activations, crosscoder = trained
    halves = torch.arange(2 * D_IN).roll(D_IN)
    sae = make_sae(crosscoder.sae.W_dec[:, halves], crosscoder.sae.W_enc[halves], threshold=0.0)
    sae.b_enc.copy_(crosscoder.sae.b_enc)
    sae.b_dec.copy_(crosscoder.sae.b_dec[halves])
    sae.threshold.copy_(crosscoder.sae.threshold)
    mirrored = replace(crosscoder, sae=sae, checkpoints=("tuned", "base"), scales=crosscoder.scales[::-1])
    np.testing.assert_allclose(mirrored.relative_norm, 1 - crosscoder.relative_norm, atol=1e-12)
    assert (mirrored.kinds() == crosscoder.kinds()).all()
    torch.testing.assert_close(mirrored.encode(activations), crosscoder.encode(activations))
    one, other = (
        mirrored.measured(activations, progress=False),
        crosscoder.measured(activations, progress=False),
    )
    pd.testing.assert_frame_equal(one.latents, other.latents, rtol=1e-4, atol=1e-5)


def test_training_on_swapped_checkpoints_mirrors_the_planted_features(trained):
    features, activations, crosscoder = trained
    swapped = train_crosscoder({"tuned": activations["tuned"], "base": activations["base"]}, **EASY)
    assert swapped.checkpoints == ("tuned", "base")
    latents, _ = found(crosscoder, features)
    theirs, cosines = found(swapped, features.flip(0))
    both = cosines > 0.9
    assert both.mean() >= 0.95
    np.testing.assert_allclose(
        swapped.relative_norm[theirs][both], 1 - crosscoder.relative_norm[latents][both], atol=0.06
    )


def test_a_checkpoint_with_larger_activations_is_scaled_to_count_alike(trained):
    _, activations, crosscoder = trained
    louder = {"base": activations["base"], "tuned": 4 * activations["tuned"]}
    again = train_crosscoder(louder, **EASY)
    assert again.scales[1] == pytest.approx(crosscoder.scales[1] / 4, rel=1e-6)
    torch.testing.assert_close(again.relative_norm, crosscoder.relative_norm, atol=1e-3, rtol=0)


def test_one_scale_for_both_keeps_the_difference_in_size():
    x = planted(0)[1]["base"]
    crosscoder = train_crosscoder(
        {"base": x, "tuned": 2 * x}, activation_scales={"base": 1.0, "tuned": 1.0}, **EASY
    )
    assert crosscoder.scales == (1.0, 1.0)
    often = crosscoder.latents["n_active"] > 10
    assert often.sum() >= 24
    np.testing.assert_allclose(crosscoder.relative_norm.numpy()[often], 2 / 3, atol=0.02)


def test_the_scale_makes_the_mean_squared_deviation_the_width():
    x = 3 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0)) + 100
    scale = fitted_scale(InMemory(x))
    assert float(((scale * x).var(dim=0, correction=0)).sum()) == pytest.approx(7, rel=1e-4)


def test_codes_and_reconstructions_are_those_of_the_formula(trained):
    _, activations, crosscoder = trained
    sae, scales = crosscoder.sae, crosscoder.scales
    some = {name: each[:30].reshape(5, 6, D_IN) for name, each in activations.items()}
    x = torch.cat([some["base"] * scales[0], some["tuned"] * scales[1]], dim=-1)
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    codes = crosscoder.encode(some)
    torch.testing.assert_close(codes, pre * (pre > sae.threshold))
    decoded = crosscoder.decode(codes)
    for name, half, scale in zip(("base", "tuned"), (slice(D_IN), slice(D_IN, None)), scales, strict=True):
        expected = (codes @ sae.W_dec[:, half] + sae.b_dec[half]) / scale
        torch.testing.assert_close(decoded[name], expected)
        torch.testing.assert_close(crosscoder.decoder[name], sae.W_dec[:, half] / scale)
        torch.testing.assert_close(decoded[name], some[name], atol=2.5, rtol=0)
    assert (crosscoder.d_in, crosscoder.d_sae) == (D_IN, 48)


def test_figures_are_those_of_the_held_out_tokens(trained):
    _, activations, crosscoder = trained
    assert crosscoder.n_measured_tokens == 400
    held = {
        name: torch.cat(list(InMemory(each).split(400, seed=0)[1].in_order(400)))
        for name, each in activations.items()
    }
    codes = crosscoder.encode(held)
    assert crosscoder.latents["n_active"].tolist() == codes.count_nonzero(dim=0).tolist()
    np.testing.assert_allclose(crosscoder.latents["total_code"], codes.sum(dim=0), rtol=1e-5, atol=1e-4)
    for name, made in crosscoder.decode(codes).items():
        assert crosscoder.fvu[name] == pytest.approx(vl.saes.fvu(held[name], made), rel=1e-4)
    said = crosscoder.sae.cfg.metadata
    scaled = torch.cat(
        [held[name] * scale for name, scale in zip(held, crosscoder.scales, strict=True)], dim=1
    )
    assert said.fvu == pytest.approx(vl.saes.figures(crosscoder.sae, scaled, progress=False)["fvu"])
    assert said.l0 == pytest.approx(K, abs=1e-3)


def test_latent_scaling_is_a_least_squares_fit(trained):
    _, activations, crosscoder = trained
    x = {name: each[:300] for name, each in activations.items()}
    measured = crosscoder.measured(x, batch_size=77, progress=False)
    scaled = [x[name].double() * scale for name, scale in zip(x, crosscoder.scales, strict=True)]
    codes = crosscoder.encode(x).double()
    decoder = crosscoder.sae.W_dec.double().split(D_IN, dim=1)
    bias = crosscoder.sae.b_dec.double().split(D_IN)
    written = [codes @ decoder[c] for c in (0, 1)]
    own = (crosscoder.relative_norm > 0.5).long().tolist()
    for latent in range(0, 48, 5):
        if measured.latents["n_active"][latent] == 0:
            assert measured.latents.loc[latent, ["nu_error", "nu_reconstruction"]].isna().all()
            continue
        part = [codes[:, [latent]] * decoder[c][latent] for c in (0, 1)]
        targets = {
            "nu_error": [scaled[c] - bias[c] - written[c] + part[c] for c in (0, 1)],
            "nu_reconstruction": written,
        }
        regressor = part[own[latent]].flatten().numpy()[:, None]
        for name, target in targets.items():
            betas = [np.linalg.lstsq(regressor, each.flatten().numpy())[0][0] for each in target]
            expected = betas[1 - own[latent]] / betas[own[latent]]
            assert measured.latents[name][latent] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_shrunken_and_a_decoupled_latent_are_told_from_a_true_one():
    e = torch.eye(8)
    none = torch.zeros(8)
    # Four latents of the tuned checkpoint only: a true one, one that the base has and its decoder does not
    # write, one that the base writes by a latent of its own, and that latent.
    rows = torch.stack(
        [
            torch.cat([none, e[0]]),
            torch.cat([none, e[1]]),
            torch.cat([none, e[2]]),
            torch.cat([e[2], none]),
        ]
    )
    generator = torch.Generator().manual_seed(0)
    codes = (torch.rand(2000, 3, generator=generator) < 0.1) * (1 + torch.rand(2000, 3, generator=generator))
    tuned = codes @ e[:3]
    base = tuned * torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1])
    crosscoder = by_hand(rows, x=torch.cat([base, tuned], dim=1))
    table = crosscoder.table()
    assert table["kind"].tolist() == ["tuned only"] * 3 + ["base only"]
    assert table["artifact"].tolist() == ["", "shrunken", "decoupled", "decoupled"]
    np.testing.assert_allclose(table["nu_error"], [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(table["nu_reconstruction"], [0, 0, 1, 1], atol=1e-6)
    assert crosscoder.summary()["n_artifacts"].to_dict() == {
        "shared": 0, "base only": 1, "tuned only": 2, "between": 0, "dead": 0,
    }  # fmt: skip
    strict = crosscoder.table(max_nu_error=1.1, max_nu_reconstruction=1.1)
    assert (strict["artifact"] == "").all()


def test_kinds_follow_the_bounds_and_the_summary_counts_them():
    angles = torch.tensor([0.0, 0.05, 0.4, 0.7, 0.8, 1.2, 1.55])
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    crosscoder = by_hand(torch.cat([rows, -rows[:1]]), x=x)
    relative = crosscoder.relative_norm[:7]
    torch.testing.assert_close(relative, (angles.sin() / (angles.sin() + angles.cos())).double())
    assert crosscoder.kinds().tolist() == [
        "base only", "base only", "between", "shared", "shared", "between", "tuned only", "dead",
    ]  # fmt: skip
    wide = crosscoder.kinds(low=0.25, high=0.7, shared_within=0.15)
    assert wide.tolist() == ["base only"] * 2 + ["between"] + ["shared"] * 2 + ["tuned only"] * 2 + ["dead"]
    summary = crosscoder.summary()
    assert summary.index.tolist() == ["shared", "base only", "tuned only", "between", "dead"]
    assert summary["n"].tolist() == [2, 2, 1, 2, 1]
    np.testing.assert_allclose(summary["share"], [2 / 7, 2 / 7, 1 / 7, 2 / 7, np.nan])
    codes = crosscoder.encode({"base": x[:, :1], "tuned": x[:, 1:]}).sum(dim=0)
    np.testing.assert_allclose(
        summary["share_of_code"]["shared"], float(codes[3:5].sum() / codes.sum()), rtol=1e-5
    )
    with pytest.raises(SAEError, match=r"low is 0.45, shared_within 0.1 and high 0.9. Expected: 0 <= low < "):
        crosscoder.kinds(low=0.45)


def test_releasing_the_bias_undoes_what_holding_it_cost():
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([torch.eye(6), torch.zeros(6, 2)], dim=1)
    codes = (torch.rand(3000, 6, generator=generator) < 0.5) * (1 + torch.rand(3000, 6, generator=generator))
    offset = torch.tensor([0.5, -1, 2, 0, 1, -2, 3, -3])
    x = codes @ rows + offset
    mean = x.mean(dim=0)
    held = torch.linalg.lstsq(codes, x - mean).solution  # what is learned around a bias at the mean
    assert (held - rows).norm() > 0.5
    sae = make_sae(held, torch.linalg.pinv(rows), threshold=0.0)
    sae.b_dec.copy_(mean)
    sae.b_enc.copy_((mean - offset) @ sae.W_enc)
    before = sae.encode(x) * sae.W_dec.norm(dim=1)
    torch.testing.assert_close(sae.encode(x), codes, atol=1e-4, rtol=0)
    error = (x - sae(x)).square().sum()
    release_bias(sae, InMemory(x), batch_size=100, seed=0, progress=False)
    torch.testing.assert_close(sae.b_dec, offset, atol=1e-3, rtol=0)
    torch.testing.assert_close(sae.W_dec, rows, atol=1e-3, rtol=0)
    torch.testing.assert_close(sae.encode(x), codes, atol=2e-3, rtol=0)
    assert ((sae.encode(x) > 0) == (before > 0)).double().mean() > 0.9999
    assert (x - sae(x)).square().sum() < 1e-3 * error


def test_releasing_the_bias_changes_nothing_where_codes_can_write_any_offset():
    sae = make_sae(torch.eye(3), threshold=0.0)
    x = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).repeat(10, 1)
    expected = {name: each.clone() for name, each in sae.state_dict().items()}
    release_bias(sae, InMemory(x), batch_size=30, seed=0, progress=False)
    for name, each in sae.state_dict().items():
        torch.testing.assert_close(each, expected[name])


def test_a_saved_crosscoder_is_the_same_and_sae_lens_reads_it(trained, tmp_path):
    _, activations, crosscoder = trained
    crosscoder.save(tmp_path / "crosscoder")
    loaded = Crosscoder.load(tmp_path / "crosscoder")
    assert torch.equal(loaded.encode(activations), crosscoder.encode(activations))
    pd.testing.assert_frame_equal(loaded.table(), crosscoder.table())
    pd.testing.assert_frame_equal(loaded.summary(), crosscoder.summary())
    for name in ("checkpoints", "scales", "fvu", "n_measured_tokens"):
        assert getattr(loaded, name) == getattr(crosscoder, name)
    sae = sae_lens.SAE.load_from_disk(tmp_path / "crosscoder")
    assert torch.equal(sae.W_dec, crosscoder.sae.W_dec)
    assert len(vl.saes.history(loaded.sae)) > 10


def test_a_damaged_crosscoder_is_refused(tmp_path):
    crosscoder = train_crosscoder(tiny(), **TINY)
    crosscoder.save(tmp_path / "crosscoder")
    config = tmp_path / "crosscoder" / "cfg.json"
    said = json.loads(config.read_text())
    said["metadata"]["crosscoder"]["latents"]["n_active"][0] += 1
    config.write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=r"is damaged: its own checksum is another"):
        Crosscoder.load(tmp_path / "crosscoder")
    config.write_text(json.dumps(storage.sealed(said)))
    with pytest.raises(
        CheckpointError, match=r"is damaged: what its metadata says of the crosscoder has another"
    ):
        Crosscoder.load(tmp_path / "crosscoder")
    crosscoder.save(tmp_path / "crosscoder")
    weights = tmp_path / "crosscoder" / "sae_weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"is damaged: its SHA-256 is not the one that cfg.json gives"):
        Crosscoder.load(tmp_path / "crosscoder")
    vl.saes.save(vl.saes.train(tiny()["base"], **TINY), tmp_path / "sae")
    with pytest.raises(
        CheckpointError, match=r"holds an SAE that is no crosscoder of format vitlens.crosscoder.1"
    ):
        Crosscoder.load(tmp_path / "sae")


def test_the_same_call_gives_the_same_weights_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    one, other = (train_crosscoder(tiny(), seed=5, **TINY) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, each in one.sae.state_dict().items():
        assert torch.equal(each, other.sae.state_dict()[name])
    pd.testing.assert_frame_equal(one.table(), other.table())


def test_a_training_with_an_output_is_read_back_or_gone_on_with(tmp_path):
    output = tmp_path / "out"
    first = train_crosscoder(tiny(), output=output, **TINY)
    again = train_crosscoder(tiny(), output=output, **TINY)
    (output / "crosscoder" / "cfg.json").unlink()  # as if killed before the result was written
    (output / "crosscoder" / "sae_weights.safetensors").unlink()
    (output / "crosscoder").rmdir()
    measured_anew = train_crosscoder(tiny(), output=output, **TINY)
    for other in (again, measured_anew, Crosscoder.load(output / "crosscoder")):
        assert torch.equal(other.sae.W_dec, first.sae.W_dec)
        pd.testing.assert_frame_equal(other.table(), first.table())
    with pytest.raises(SAEError, match=r"holds another training \(arguments.seed: 0 there, 1 now"):
        train_crosscoder(tiny(), output=output, seed=1, **TINY)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(SAEError, match=r"other exists and holds no training of a crosscoder"):
        train_crosscoder(tiny(), output=tmp_path / "other", **TINY)


@settings(deadline=None, max_examples=20)
@given(
    n_tokens=st.integers(6, 60),
    tokens_per_image=st.integers(1, 5),
    batch_size=st.integers(1, 20),
    start_batch=st.integers(0, 9),
    seed=st.integers(0, 1000),
)
def test_joined_tokens_stay_side_by_side(n_tokens, tokens_per_image, batch_size, start_batch, seed):
    rows = torch.arange(float(n_tokens))
    parts = {
        name: InMemory(rows[:, None] + 1 + 1000 * shift, tokens_per_image=tokens_per_image)
        for name, shift in {"base": 0, "tuned": 1}.items()
    }
    parts = in_step(parts)
    check_orders(parts, seed)
    joined = Joined(parts, (1.0, 10.0))
    assert isinstance(joined, Tokens)
    assert (joined.n_tokens, joined.d_in) == (n_tokens, 2)
    used, held = joined.split(2, seed=seed)
    assert used.n_tokens + held.n_tokens == n_tokens
    batches = [
        *joined.in_order(batch_size),
        *held.in_order(batch_size),
        next(joined.shuffled(batch_size, seed=seed, start_batch=start_batch)),
        *([next(used.shuffled(batch_size, seed=seed))] if used.n_tokens else []),
    ]
    for batch in batches:
        torch.testing.assert_close(batch[:, 1], 10 * (batch[:, 0] + 1000))
    skipped = joined.shuffled(batch_size, seed=seed)
    for _ in range(start_batch):
        next(skipped)
    assert torch.equal(next(skipped), next(joined.shuffled(batch_size, seed=seed, start_batch=start_batch)))


def make_model(seed):
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 10,
    }
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**settings), seed=seed))


def test_a_store_of_both_checkpoints_feeds_a_crosscoder(tmp_path):
    models = {"base": make_model(0), "tuned": make_model(1)}
    name = "blocks.0.hook_resid_post"
    arguments = {"hook_names": [name], "batch_size": 4, "shard_images": 8, "progress": False}
    store = ActivationStore.write(tmp_path / "store", models, items(24), **arguments)
    stored = {checkpoint: store.tokens(name, checkpoint=checkpoint) for checkpoint in models}
    crosscoder = train_crosscoder(stored, **TINY)
    said = crosscoder.sae.cfg.metadata
    assert (said.hook_name, said.tokens) == (name, "patch")
    assert said.origins["tuned"]["checkpoint"] == "tuned"
    rows = {checkpoint: torch.cat(list(each.in_order(64))) for checkpoint, each in stored.items()}
    joined = Joined(in_step(stored), (1.0, 1.0))
    places = {tuple(row.tolist()): number for number, row in enumerate(rows["base"])}
    for batch in (next(joined.shuffled(50, seed=3)), next(joined.split(40, seed=3)[1].in_order(50))):
        numbers = [places[tuple(row.tolist())] for row in batch[:, :16]]
        assert torch.equal(batch[:, 16:], rows["tuned"][numbers])

    mixed = {"base": stored["base"], "tuned": rows["tuned"]}  # in order they are in step, and that is enough
    pd.testing.assert_frame_equal(
        crosscoder.measured(mixed, progress=False).latents, crosscoder.measured(rows, progress=False).latents
    )
    with pytest.raises(SAEError, match=r"'base' and 'tuned' are not shuffled and split alike"):
        check_orders(in_step(mixed), 0)
    others = ActivationStore.write(tmp_path / "others", models["tuned"], items(25)[1:], **arguments)
    with pytest.raises(SAEError, match=r"'base' and 'tuned' differ in their images"):
        in_step({"base": stored["base"], "tuned": others[name]})
    cut_otherwise = ActivationStore.write(
        tmp_path / "cut", models["tuned"], items(24), **(arguments | {"shard_images": 5})
    )
    with pytest.raises(SAEError, match=r"'base' and 'tuned' are not shuffled and split alike"):
        check_orders(in_step({"base": stored["base"], "tuned": cut_otherwise[name]}), 0)


BAD = tiny()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"base": BAD["base"]}, r"There are activations of 'base'. Expected: those of two checkpoints"),
        (
            {**BAD, "third": BAD["base"]},
            r"There are activations of 'base', 'tuned', 'third'. Expected: those",
        ),
        ({}, r"There are activations of no checkpoint. Expected: those of two checkpoints"),
        (
            {"base": BAD["base"], "tuned": BAD["tuned"][:, :7]},
            r"'base' and 'tuned' differ in their width: 8 and 7",
        ),
        (
            {"base": BAD["base"], "tuned": BAD["tuned"][:399]},
            r"'base' and 'tuned' differ in their number of tokens: 400 and 399",
        ),
        (
            {"base": BAD["base"], "tuned": torch.full((400, 8), torch.nan)},
            r"The activations of 'tuned' hold NaN or infinity in 400 of 400 tokens",
        ),
        ({"base": BAD["base"], "tuned": torch.ones(400, 8)}, r"All 400 tokens of the source have the same"),
        (
            {
                "base": InMemory(BAD["base"], origin={"hook_name": "blocks.1.hook_resid_post"}),
                "tuned": InMemory(BAD["tuned"], origin={"hook_name": "blocks.2.hook_resid_post"}),
            },
            r"differ in their hook_name: 'blocks.1.hook_resid_post' and 'blocks.2.hook_resid_post'",
        ),
        (
            {"base": InMemory(BAD["base"], tokens_per_image=4), "tuned": BAD["tuned"]},
            r"'base' and 'tuned' are not shuffled and split alike",
        ),
    ],
)
def test_sources_that_do_not_fit_are_refused(sources, message):
    with pytest.raises(SAEError, match=message):
        train_crosscoder(sources, **TINY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k_per_token": 17}, r"k_per_token is 17 and d_sae 16"),
        (
            {"activation_scales": {"base": 0.0}},
            r"activation_scales has 0.0 for 'base'. Expected: finite numbers",
        ),
        (
            {"activation_scales": {"bsae": 1.0}},
            r"activation_scales has 1.0 for 'bsae'. Expected: .*'base' or",
        ),
        ({"options": {"kk": 1}}, r"'kk' is no option of kind 'batch_topk'"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(SAEError, match=message):
        train_crosscoder(tiny(), **(TINY | arguments))


def test_activations_that_are_not_the_crosscoders_are_refused():
    crosscoder = train_crosscoder(tiny(), **TINY)
    x = tiny()
    with pytest.raises(
        SAEError, match=r"There are activations of 'base'. Expected: those of 'base' and 'tuned'"
    ):
        crosscoder.encode({"base": x["base"]})
    with pytest.raises(
        SAEError, match=r"activations of 'base', 'other'. Expected: those of 'base' and 'tuned'"
    ):
        crosscoder.measured({"base": x["base"], "other": x["tuned"]}, progress=False)
    with pytest.raises(
        SAEError, match=r"have the shapes .*400, 8.*399, 8.* Expected: one shape \[\.\.\., 8\]"
    ):
        crosscoder.encode({"base": x["base"], "tuned": x["tuned"][:399]})
    with pytest.raises(SAEError, match=r"The activations are 14 wide, the SAE's d_in is 16"):
        crosscoder.measured({name: each[:, :7] for name, each in x.items()}, progress=False)


def test_a_fine_tuned_deit_shares_its_dictionary_with_its_base(deit_tiny, data_folder):
    model = vl.HookedViT(deit_tiny)
    photographs = vl.images.folder(data_folder / "imagenet_samples", model)
    x = vl.activations(
        model, [photographs[i] for i in range(0, 1000, 25)], "blocks.9.hook_resid_post", progress=False
    )
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    crosscoder = train_crosscoder(
        {"base": x, "tuned": x + 0.1 * noise},
        d_sae=384, k_per_token=16, batch_size=1024, n_tokens=60_000, progress=False,
    )  # fmt: skip
    summary = crosscoder.summary()
    assert summary.loc["shared", "share"] > 0.95
    assert summary.loc[["base only", "tuned only"], "n"].sum() == 0
    assert max(crosscoder.fvu.values()) < 0.6
