"""Attacks and SAEs: features that are aimed at, and what is stored and shown under attack."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import vitlens as vl
from vitlens.errors import ConditionError, SAEError
from vitlens.images.attacks import AttackObjective, pgd
from vitlens.saes.code_similarity import code_similarity
from vitlens.saes.feature_objective import FeatureObjective
from vitlens.saes.gallery import gallery, pair_gallery
from vitlens.saes.store import ActivationStore
from vitlens.testing import randomize

from .conftest import items, make_sae

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def two(small_timm):
    import copy

    other = randomize(copy.deepcopy(small_timm), seed=5)
    return {"base": vl.HookedViT(small_timm), "tuned": vl.HookedViT(other)}


def sae_of(tokens="patch", threshold=1.0):
    decoder = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    sae = make_sae(
        decoder / decoder.norm(dim=1, keepdim=True), threshold=threshold, hook_name=HOOK, tokens=tokens
    )
    sae.b_dec.copy_(0.1 * torch.arange(32))
    sae.b_enc.copy_(-0.05 * torch.arange(12))
    return sae


def codes(model, sae, pixels, tokens="patch"):
    with torch.no_grad():
        _, cache = model.run_with_cache(model.normalize(pixels), names_filter=HOOK)
        return sae.encode(cache[HOOK][:, model.cfg.positions(tokens)])


def batch():
    images = items(4)
    return torch.stack([item["pixels"] for item in images]), torch.tensor([item["label"] for item in images])


# ------------------------------------------------------------------ features


@pytest.mark.parametrize("tokens", ["patch", "cls"])
def test_a_features_value_is_its_code_where_it_is_active(two, tokens):
    model, sae = two["base"], sae_of(tokens, threshold=-1e9)
    pixels, _ = batch()
    with torch.no_grad():
        _, cache = model.run_with_cache(model.normalize(pixels), names_filter=HOOK)
        seen, logits = {HOOK: cache[HOOK]}, torch.zeros(4, 10)
        value = FeatureObjective(sae, 3)(model, seen, seen, logits, None)
        lowered = FeatureObjective(sae, 3, "lower")(model, seen, seen, logits, None)
        x = cache[HOOK][:, model.cfg.positions(tokens)]
    wanted = torch.stack(
        [torch.stack([(t - sae.b_dec) @ sae.W_enc[:, 3] + sae.b_enc[3] for t in image]).mean() for image in x]
    )
    assert torch.allclose(value, wanted, atol=1e-5)
    assert torch.equal(lowered, -value)
    active = codes(model, sae, pixels, tokens)[..., 3].clamp(min=0)
    alone = (active > 0).all(1)
    assert torch.allclose(value[alone], active[alone].mean(1), atol=1e-5)


def test_a_silent_feature_is_raised_and_an_active_one_lowered(two):
    model, (pixels, _) = two["base"], batch()
    sae = sae_of()
    silent = sae_of(threshold=float(codes(model, sae, pixels).max()) + 0.1)
    assert not codes(model, silent, pixels)[..., 5].any()
    raised = pgd(model, pixels, objective=FeatureObjective(silent, 5), eps_pixel=0.3)
    assert codes(model, silent, raised)[..., 5].any()
    lowered = pgd(model, pixels, objective=FeatureObjective(sae, 5, "lower"), eps_pixel=0.3)
    assert (codes(model, sae, lowered)[..., 5].mean(1) <= codes(model, sae, pixels)[..., 5].mean(1)).all()
    assert isinstance(FeatureObjective(sae, 5), AttackObjective)


def test_an_sae_that_requires_gradients_gets_none(two):
    sae = sae_of().requires_grad_(True)
    pgd(two["base"], batch()[0], objective=FeatureObjective(sae, 0), steps=1)
    assert all(parameter.grad is None for parameter in sae.parameters())
    assert all(parameter.requires_grad for parameter in sae.parameters())


def test_features_and_directions_that_are_none_are_refused():
    with pytest.raises(SAEError, match=r"feature is 12 .*from 0 to 11"):
        FeatureObjective(sae_of(), 12)
    with pytest.raises(SAEError, match="direction 'up'"):
        FeatureObjective(sae_of(), 0, "up")


# ------------------------------------------------------------------ stores, galleries, codes


def test_a_store_holds_all_checkpoints_on_the_pixels_of_one(two, tmp_path):
    settings = {"hook_names": [HOOK], "progress": False}
    condition = "fgsm:eps=0.1,on=tuned"
    images = items(4)
    store = ActivationStore.write(tmp_path / "s", two, images, conditions=["clean", condition], **settings)
    pixels, labels = batch()
    shown = vl.images.attacks.fgsm(two["tuned"], pixels, labels, 0.1)
    for name, model in two.items():
        with torch.no_grad():
            _, cache = model.run_with_cache(model.normalize(shown), names_filter=HOOK)
        stored = store.tokens(HOOK, checkpoint=name, conditions=[condition])
        rows = torch.cat(list(stored.epoch(64, seed=0, epoch=0)))
        wanted = cache[HOOK][:, 1:].flatten(0, 1)
        assert torch.allclose(rows.sort(0).values, wanted.sort(0).values, atol=1e-4)
    with pytest.raises(SAEError, match=r"'fgsm' shows each of 2 checkpoints .*'pgd:on=base'"):
        ActivationStore.write(tmp_path / "other", two, images, conditions=["fgsm"], **settings)
    with pytest.raises(ConditionError, match="attacks the checkpoint 'bas'"):
        ActivationStore.write(tmp_path / "other", two, images, conditions=["fgsm:on=bas"], **settings)
    assert not (tmp_path / "other").exists()


def test_a_store_under_another_attack_of_that_name_is_another_store(two, tmp_path):
    settings = {"hook_names": [HOOK], "progress": False}
    attacks = [{"mine": vl.images.attacks.Attack.fgsm(eps)} for eps in (0.1, 0.2)]
    ActivationStore.write(tmp_path, two["base"], items(2), conditions=[attacks[0]], **settings)
    with pytest.raises(SAEError, match=r"holds other activations: its condition_identities"):
        ActivationStore.write(tmp_path, two["base"], items(2), conditions=[attacks[1]], **settings)


def test_galleries_show_attacked_pixels(two):
    sae, images = sae_of(), items(6)
    alone = gallery(
        sae, two["base"], images, features=[5], condition="fgsm:eps=0.2", n_top_images=6, progress=False
    )
    assert alone.table()["activation"].max() > 0
    pair = {"saes": {"base": sae, "tuned": sae}, "models": two, "dataset": images, "progress": False}
    pairs = pd.DataFrame({"feature_a": [5], "feature_b": [5]})
    both = pair_gallery(**pair, pairs=pairs, condition="fgsm:eps=0.2,on=base", n_top_images=6)
    mine = alone.table().set_index("image_id")["activation"]
    shared = both.table().query("checkpoint == 'base'").set_index("image_id")["activation"]
    assert mine.to_dict() == pytest.approx(shared.to_dict(), abs=1e-4)
    with pytest.raises(ConditionError, match=r"each checkpoint sees pixels of its own.*'pgd:on=base'"):
        pair_gallery(**pair, pairs=pairs, condition="fgsm")


def test_codes_are_compared_on_the_pixels_of_one_attacked_checkpoint(two):
    settings = {"saes": {"base": sae_of()}, "dataset": items(4), "progress": False}
    data = code_similarity(two, conditions=["fgsm:on=tuned"], **settings)
    assert data["condition"].values.tolist() == ["clean", "fgsm:on=tuned"]
    own = data["code_cosine_image"].sel(comparison="base, clean to shown", condition="fgsm:on=tuned")
    assert (own < 1).all()
    with pytest.raises(SAEError, match=r"'fgsm' looks inside the model.*'pgd:on=base'"):
        code_similarity(two, conditions=["fgsm"], **settings)
    with pytest.raises(ConditionError, match="attacks the checkpoint 'unknown'"):
        code_similarity(two, conditions=["fgsm:on=unknown"], **settings)


def test_an_sae_is_trained_on_attacked_activations(two):
    settings = {"d_sae": 16, "k_per_token": 2, "batch_size": 16, "n_tokens": 64, "progress": False}
    sae = vl.saes.train((two["base"], items(4), HOOK), conditions=["clean", "fgsm"], **settings)
    assert sae.cfg.d_in == 32
