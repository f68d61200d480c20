"""The mix of a step: every image draws for itself, and a step may be split at will."""

import dataclasses
import itertools
import math
import pickle

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader

import vitlens as vl
from vitlens.errors import ConditionError, TrainingError
from vitlens.images import Attack, Batch, WhiteBox, parse_conditions
from vitlens.images.attacks import attacked
from vitlens.images.attacks.balls import LinfBall
from vitlens.images.streams import stream
from vitlens.models import HookedViT
from vitlens.testing import randomize
from vitlens.training.loading import SeededItems
from vitlens.training.mixing import Mix, StepBatch, StepOrder


def vit(**kwargs):
    """Small, random, in double precision: rounding flips no signs there."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 10}
    return HookedViT(randomize(timm.models.VisionTransformer(**sizes | kwargs)).double())


MODEL = vit()


def images(n, size=32):
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand(n, 3, size, size, generator=generator),
        torch.randint(10, (n,), generator=generator),
        tuple(f"image {i}" for i in range(n)),
    )


def taken(batch, places):
    return Batch(batch.pixels[places], batch.labels[places], tuple(batch.image_ids[i] for i in places))


def doubled(batch):
    return dataclasses.replace(batch, pixels=batch.pixels.double())


def mix(*specs, p_clean=0.0, seed=0):
    return Mix(tuple(parse_conditions([spec]) for spec in specs), p_clean, seed)


DARKER = {"darker": lambda pixels: pixels / 2}
EVERYTHING = mix(
    "gaussian_noise@1-5", "gaussian_blur@2-3", "fourier:band=0-1/8,rms=0.1", "adds_high_frequency@1",
    "pgd:eps=8/255,steps=2", DARKER, "clean", p_clean=0.2, seed=3,
)  # fmt: skip

# ---------------------------------------------------------------------- which images make up a step


def test_every_epoch_is_one_permutation_and_no_two_are_alike():
    order = StepOrder(n_items=7, batch_size=3, seed=5)
    items = [item for step in range(14) for item in order.part(step)]
    epochs = [items[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert [StepOrder(7, 3, 5).part(step) for step in (9, 2)] == [order.part(9), order.part(2)]
    assert StepOrder(7, 3, 6).part(0) + StepOrder(7, 3, 6).part(1) != items[:6]


@settings(deadline=None)
@given(
    n_items=st.integers(1, 12),
    batch_size=st.integers(1, 20),
    n_parts=st.integers(1, 6),
    step=st.integers(0, 9),
)
def test_parts_follow_one_another_and_are_of_a_size(n_items, batch_size, n_parts, step):
    order = StepOrder(n_items, batch_size, seed=0)
    parts = [order.part(step, n_parts, part) for part in range(n_parts)]
    whole = order.part(step)
    assert [item for part in parts for item in part] == whole
    assert len(whole) == batch_size
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    counted = [count for part in range(n_parts) for count in order.occurrences(step, n_parts, part)]
    assert counted == [whole[:place].count(item) for place, item in enumerate(whole)]


def test_a_sampler_feeds_a_loader_with_a_process_s_own_parts():
    order = StepOrder(n_items=10, batch_size=7, seed=1)
    sampler = order.sampler(range(2, 5), n_parts=4, parts=(2, 3))
    loader = DataLoader(SeededItems(range(10), seed=0), batch_sampler=sampler, collate_fn=list)
    assert list(loader) == [order.part(step, 4, part) for step in (2, 3, 4) for part in (2, 3)]
    assert len(sampler) == 6


# ---------------------------------------------------------------------- what is done to each


@settings(max_examples=12, deadline=None)
@given(
    n_items=st.integers(3, 9),
    cuts=st.lists(st.integers(0, 10), max_size=3),
    step=st.integers(0, 6),
    k=st.integers(0, 2),
)
def test_any_split_of_a_step_gives_each_image_the_same_pixels(n_items, cuts, step, k):
    order = StepOrder(n_items, batch_size=10, seed=0)
    data, items, counts = doubled(images(n_items)), order.part(step), order.occurrences(step)
    whole = EVERYTHING.batch(taken(data, items), step=step, model=MODEL).drawn(k)
    bounds = [0, *sorted(cuts), 10]
    parts = [
        EVERYTHING.batch(taken(data, items[a:b]), step=step, occurrences=counts[a:b], model=MODEL).drawn(k)
        for a, b in itertools.pairwise(bounds)
        if a < b
    ]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(8)))
def test_the_order_within_a_part_does_not_matter(order):
    noisy = {"noisy": lambda pixels: (pixels + 0.1 * torch.randn_like(pixels)).clamp(0, 1)}
    chosen = mix("gaussian_noise@1-5", "gaussian_blur@1-5", "pgd:steps=1", noisy, p_clean=0.2)
    data = doubled(images(8))
    whole = chosen.batch(data, step=4, model=MODEL).drawn()
    assert torch.allclose(chosen.batch(taken(data, order), step=4, model=MODEL).drawn(), whole[order])


def test_the_noise_is_that_of_corrupt_for_the_image_and_the_step():
    data = images(4)
    batch = mix("gaussian_noise@3", seed=8).batch(data, step=6)
    wanted = vl.corrupt(data.pixels, "gaussian_noise", 3, image_ids=data.image_ids, seed=8, step=6)
    assert torch.equal(batch.drawn(), wanted)
    assert batch.drawn().dtype == torch.float32
    assert batch.image_ids == data.image_ids
    assert len(batch) == 4


def test_an_image_that_comes_twice_in_a_step_is_corrupted_twice():
    data = taken(images(2), [0, 1, 0, 0])
    batch = mix("gaussian_noise@3").batch(data, step=0)
    assert len(set(batch.image_ids)) == 4
    drawn = batch.drawn()
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[2], drawn[3])
    # A part that holds only the third of them says so.
    third = mix("gaussian_noise@3").batch(taken(images(2), [0]), step=0, occurrences=[2])
    assert torch.equal(third.drawn(), drawn[3:])


def test_clean_images_are_left_as_they_are_and_only_they():
    data = images(16)
    before = data.pixels.clone()
    for chosen in (mix("gaussian_noise@5", p_clean=1.0), Mix((), 0.5), Mix((), 0.0), mix("clean")):
        drawn = chosen.batch(data, step=1).drawn()
        assert torch.equal(drawn, before)
        assert drawn.data_ptr() != data.pixels.data_ptr()
    drawn = mix("gaussian_noise@1").batch(data, step=1).drawn()
    assert (drawn != before).flatten(1).any(1).all()
    assert torch.equal(data.pixels, before)


def within_five_sigma(count, n, p):
    return abs(count - n * p) <= 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p_clean", [0.02, 0.5, 0.9])
def test_shares_converge_to_what_was_asked_for(p_clean):
    chosen = mix("gaussian_noise@1-5", "contrast@2", DARKER, p_clean=p_clean)
    draws = [chosen.draw(f"image {i}", step) for i in range(400) for step in range(10)]
    corrupted = [draw for draw in draws if draw is not None]
    assert within_five_sigma(len(draws) - len(corrupted), len(draws), p_clean)
    for entry in range(3):
        assert within_five_sigma(sum(each[0] == entry for each in corrupted), len(corrupted), 1 / 3)
    severities = [within for entry, within in corrupted if entry == 0]
    for severity in range(5):
        assert within_five_sigma(severities.count(severity), len(severities), 1 / 5)


def test_versions_of_an_image_are_drawn_independently():
    chosen = mix("gaussian_noise@1-2", "contrast@2", p_clean=0.4)
    batch = chosen.batch(
        Batch(torch.zeros(900, 3, 1, 1), torch.zeros(900).long(), images(900, 1).image_ids), step=0
    )
    kinds = [None, (0, 0), (0, 1), (1, 0)]
    drawn = [
        [kinds.index(chosen.draw(name, 0)) for name in batch.stream_ids(f"version {k}" if k else "")]
        for k in range(3)
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        table = torch.zeros(4, 4)
        for pair in zip(drawn[a], drawn[b], strict=True):
            table[pair] += 1
        assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3
    data = images(6)
    noise = [mix("gaussian_noise@1").batch(data, step=0).drawn(k) - data.pixels for k in range(3)]
    assert torch.corrcoef(torch.stack(noise).flatten(1)).triu(1).abs().max() < 0.05


def test_seed_and_step_draw_anew():
    data = images(6)
    drawn = [
        mix("gaussian_noise@1-5", p_clean=0.3, seed=seed).batch(data, step=step).drawn()
        for seed, step in ((0, 0), (0, 1), (1, 0))
    ]
    assert not any(torch.equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


# ---------------------------------------------------------------------- attacks in the mix


def test_an_attack_in_the_mix_attacks_the_model_as_it_is():
    data = doubled(images(4))
    drawn = mix("pgd:eps=8/255,steps=3", seed=2).batch(data, step=5, model=MODEL).drawn()
    wanted, _ = attacked(
        Attack(eps_pixel=8 / 255, steps=3), MODEL, data.pixels, data.labels,
        image_ids=data.image_ids, seed=2, step=5,
    )  # fmt: skip
    assert torch.allclose(drawn, wanted, atol=1e-12)
    assert 0 < (drawn - data.pixels).abs().max() <= 8 / 255


def test_an_attack_starts_at_the_point_that_image_seed_and_step_name():
    data = doubled(images(2))
    # A step too short to be seen: what is found is the start.
    attack = Attack(eps_pixel=0.1, alpha_pixel=1e-12, steps=1)
    ball = LinfBall(data.pixels, 0.1)
    for step in (None, 0, 7):
        found, _ = attacked(
            attack, MODEL, data.pixels, data.labels, image_ids=data.image_ids, seed=4, step=step
        )
        start = ball.start([stream(4, name, "pgd", 0, step) for name in data.image_ids])
        assert torch.allclose(found, start, atol=1e-10)


def test_attacks_and_white_boxes_leave_modes_gradients_and_generators_alone():
    model = vit(drop_path_rate=0.5, proj_drop_rate=0.5)
    model.train()
    model.model.norm.eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
        parameter.grad = torch.ones_like(parameter) if number % 2 else None

    def look(model, pixels, labels):
        assert not model.training
        assert not torch.is_grad_enabled()
        assert labels.shape == (len(pixels),)
        return (pixels + 0.1 * torch.rand_like(pixels)).clamp(0, 1)

    chosen = mix("pgd:steps=2", {"look": WhiteBox(look)})
    state = torch.get_rng_state()
    modes = [each.training for each in model.modules()]
    flags = [each.requires_grad for each in model.parameters()]
    drawn = [chosen.batch(doubled(images(6)), step=0, model=model).drawn() for _ in range(2)]
    assert torch.equal(*drawn)
    assert not drawn[0].requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert [each.training for each in model.modules()] == modes
    assert [each.requires_grad for each in model.parameters()] == flags
    for number, parameter in enumerate(model.parameters()):
        assert (parameter.grad is not None) == bool(number % 2)
        assert parameter.grad is None or parameter.grad.eq(1).all()


# ---------------------------------------------------------------------- operations of one's own


def test_an_operation_of_ones_own_sees_one_batch_of_those_that_drew_it():
    seen = []

    def record(pixels):
        seen.append(pixels.clone())
        pixels[:] = 0  # in place: must not reach the clean images
        return pixels

    data = images(12)
    chosen = mix({"record": record}, p_clean=0.5)
    drawn = chosen.batch(data, step=0).drawn()
    black = (drawn == 0).flatten(1).all(1)
    assert 0 < black.sum() < 12
    assert len(seen) == 1
    assert torch.equal(seen[0].sum((1, 2, 3)).sort().values, data.pixels[black].sum((1, 2, 3)).sort().values)
    assert torch.equal(drawn[~black], data.pixels[~black])


def test_an_operation_that_draws_is_given_the_same_draws_again_and_nobody_elses():
    chosen = mix({"noisy": lambda pixels: (pixels + 0.1 * torch.randn_like(pixels)).clamp(0, 1)})
    data = images(4)
    torch.manual_seed(1)
    first = chosen.batch(data, step=2).drawn()
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(chosen.batch(data, step=2).drawn(), first)
    for other in (chosen.batch(data, step=3).drawn(), chosen.batch(data, step=2).drawn(1)):
        assert not torch.equal(other, first)


# ---------------------------------------------------------------------- what is refused


def test_an_attack_on_a_named_checkpoint_is_refused():
    message = (
        r"The condition 'pgd:on=base' attacks the checkpoint 'base', and in training there is one model\. "
        r"Expected: an attack without on=\. Leave out on= to attack the model in training"
    )
    with pytest.raises(TrainingError, match=message):
        mix("gaussian_blur@1", "pgd:on=base")


@pytest.mark.parametrize("p_clean", [-0.1, 1.5, math.nan])
def test_a_share_that_is_no_probability_is_refused(p_clean):
    with pytest.raises(TrainingError, match=rf"p_clean is {p_clean}\. Expected: a probability, 0 to 1\."):
        mix("contrast@1", p_clean=p_clean)


def test_what_the_model_cannot_be_shown_is_refused_before_the_run():
    headless = vit(num_classes=0)
    EVERYTHING.check(MODEL)
    mix("gaussian_blur@1").check(headless)
    with pytest.raises(ConditionError, match="this model has no classifier"):
        mix("contrast@1", "pgd:steps=1").check(headless)
    with pytest.raises(ConditionError, match="Images of 32 × 32 pixels have no frequency"):
        mix("fourier:band=0.001-0.002").check(MODEL)


def test_an_attack_without_a_model_is_refused():
    batch = mix("pgd:steps=1").batch(images(2), step=0)
    with pytest.raises(ConditionError, match="looks inside the model, and there is none here"):
        batch.drawn()


def test_a_part_with_nothing_to_mix_needs_no_more_than_its_images():
    data = images(2)
    batch = StepBatch(data.pixels, data.labels, data.image_ids, seed=0, step=0)
    assert torch.equal(batch.drawn(), data.pixels)
    assert pickle.loads(pickle.dumps(Mix((), 0.5, 1))) == Mix((), 0.5, 1)
