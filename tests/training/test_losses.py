"""The objectives, each against its formula computed otherwise."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import timm
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch.nn import functional as F

from vitlens.errors import ConditionError, TrainingError
from vitlens.images import Batch, parse_conditions
from vitlens.images.streams import stream
from vitlens.models import HookedViT
from vitlens.testing import randomize
from vitlens.training.losses import Adversarial, Consistency, CrossEntropy, Objective, Trades
from vitlens.training.mixing import Mix

ALL = [CrossEntropy(), Adversarial(), Trades(beta=3.0), Consistency(weight=5.0)]
N_VIEWS = {CrossEntropy: 1, Adversarial: 1, Trades: 2, Consistency: 3}


def vit(seed=0, **kwargs):
    """Small, random, in double precision: rounding flips no signs there."""
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5}
    return HookedViT(randomize(timm.models.VisionTransformer(**sizes | kwargs), seed).double())


def batch(n=4, *specs, p_clean=0.0, step=0):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(n, 3, 16, 16, generator=generator).double()
    labels = torch.randint(5, (n,), generator=generator)
    mix = Mix(tuple(parse_conditions([spec]) for spec in specs), p_clean)
    return mix.batch(Batch(pixels, labels, tuple(f"image {i}" for i in range(n))), step=step)


def logits_of(objective, n=6, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        spread * torch.randn(n, 5, generator=generator, dtype=torch.float64)
        for _ in range(N_VIEWS[type(objective)])
    ]


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def smoothed(logits, smoothing):
    """(1 - s) · −log p(label) + s · the mean of −log p over the classes."""
    said = -log_softmax(logits.numpy(), axis=1)
    return (1 - smoothing) * said[np.arange(len(said)), LABELS[: len(said)].numpy()] + smoothing * said.mean(
        1
    )


# ---------------------------------------------------------------------- the formulas


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("objective", [CrossEntropy(), Adversarial()])
def test_cross_entropy_of_each_image(objective, smoothing):
    logits = logits_of(objective)
    found = objective(logits, LABELS, label_smoothing=smoothing)
    assert np.allclose(found.numpy(), smoothed(logits[0], smoothing), atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades_is_cross_entropy_and_the_divergence_from_clean_to_attacked(beta, smoothing):
    logits = logits_of(Trades())
    clean, adversarial = (softmax(each.numpy(), axis=1) for each in logits)
    wanted = smoothed(logits[0], smoothing) + beta * entropy(clean, adversarial, axis=1)
    found = Trades(beta=beta)(logits, LABELS, label_smoothing=smoothing)
    assert np.allclose(found.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_consistency_is_cross_entropy_and_the_jensen_shannon_divergence_of_three(smoothing):
    logits = logits_of(Consistency())
    said = np.stack([softmax(each.numpy(), axis=1) for each in logits])
    # The entropy of the mean less the mean of the entropies: the other way to write it.
    shannon = entropy(said.mean(0), axis=1) - entropy(said, axis=2).mean(0)
    wanted = smoothed(logits[0], smoothing) + 12 * shannon
    found = Consistency(weight=12.0)(logits, LABELS, label_smoothing=smoothing)
    assert np.allclose(found.numpy(), wanted, atol=1e-9)
    assert (shannon <= math.log(3)).all()


def test_consistency_clamps_the_mean_as_augmix_does():
    logits = logits_of(Consistency(), spread=40.0)
    clean, first, second = (each.softmax(1) for each in logits)
    mean = torch.clamp((clean + first + second) / 3.0, 1e-7, 1).log()
    total = sum(F.kl_div(mean, each, reduction="batchmean") for each in (clean, first, second)) / 3.0
    wanted = F.cross_entropy(logits[0], LABELS) + 12 * total
    assert torch.allclose(Consistency()(logits, LABELS).mean(), wanted, atol=1e-12)
    assert mean.min() == math.log(1e-7)


@pytest.mark.parametrize("objective", ALL)
def test_gradients_of_the_logits_are_right_by_finite_differences(objective):
    logits = [each.requires_grad_() for each in logits_of(objective, spread=1.0)]
    assert torch.autograd.gradcheck(lambda *each: objective(each, LABELS, label_smoothing=0.1), logits)


@pytest.mark.parametrize("objective", ALL)
def test_losses_stay_finite_and_apart_at_extreme_logits(objective):
    logits = [1e4 * each.float().requires_grad_() for each in logits_of(objective)]
    loss = objective(logits, LABELS)
    assert loss.isfinite().all()
    assert all(each.isfinite().all() for each in torch.autograd.grad(loss.sum(), logits))


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_have_their_softmax_in_float32(objective, dtype):
    logits = [each.to(dtype) for each in logits_of(objective)]
    found = objective(logits, LABELS)
    assert found.dtype == torch.float32
    assert torch.equal(found, objective([each.float() for each in logits], LABELS))


@pytest.mark.parametrize("objective", ALL)
def test_parts_of_a_step_add_up(objective):
    logits = logits_of(objective)
    whole = objective(logits, LABELS, label_smoothing=0.2)
    parts = [
        objective([each[part] for each in logits], LABELS[part], label_smoothing=0.2)
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-14)


# ---------------------------------------------------------------------- the gradient of the weights


def test_the_gradient_of_trades_flows_through_both_terms_by_finite_differences():
    model, objective = vit(), Trades(beta=6.0, eps_pixel=0.1, steps=2)
    given = batch()
    views = objective.views(model, given)
    parameters = list(model.parameters())

    def loss(stop=False):
        clean, adversarial = (model(model.normalize(view)) for view in views)
        if stop:
            both = torch.cat([clean.detach(), adversarial])
            return objective(list(both.split(4)), given.labels).sum() + F.cross_entropy(
                clean, given.labels, reduction="sum"
            )
        return objective([clean, adversarial], given.labels).sum()

    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
    values, h = [], 1e-6
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * h * direction
            values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)
    # With the divergence's clean side held fixed it would be another gradient.
    with torch.no_grad():
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter += h * direction
    one_sided = torch.autograd.grad(loss(stop=True), parameters)
    assert not torch.allclose(one_sided[-1], gradients[-1], rtol=1e-3)


# ---------------------------------------------------------------------- the views


def plain_pgd(model, pixels, start, eps, alpha, steps, loss_of):
    """Image by image, step by step; the worst point, as the library's attack has it."""
    found = []
    for index in range(len(pixels)):
        x, adv = pixels[index : index + 1], start[index : index + 1]
        best, most = None, -math.inf
        for _ in range(steps + 1):
            adv = adv.detach().requires_grad_()
            loss = loss_of(model(model.normalize(adv)), index)
            (gradient,) = torch.autograd.grad(loss, adv)
            if loss.item() > most:
                best, most = adv.detach(), loss.item()
            adv = (x + (adv + alpha * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
        found.append(best)
    return torch.cat(found)


def started(given, eps, seed=0):
    drawn = [
        torch.rand(3, 16, 16, generator=stream(seed, f"{name}\nobjective", "pgd", 0, given.step))
        for name in given.image_ids
    ]
    base = given.drawn()
    return (base + eps * (2 * torch.stack(drawn).double() - 1)).clamp(0, 1)


@pytest.mark.parametrize("specs", [(), ("gaussian_noise@1-5", "contrast@2")])
def test_adversarial_training_attacks_the_steps_draw_by_plain_pgd(specs):
    model, given = vit(), batch(4, *specs, step=3)
    (found,) = Adversarial(eps_pixel=0.06, alpha_pixel=0.02, steps=4).views(model, given)
    wanted = plain_pgd(
        model, given.drawn(), started(given, 0.06), 0.06, 0.02, 4,
        lambda logits, index: F.cross_entropy(logits, given.labels[index : index + 1]),
    )  # fmt: skip
    assert torch.allclose(found, wanted, atol=1e-12)
    assert (found - given.drawn()).abs().max() <= 0.06


@pytest.mark.parametrize("specs", [(), ("gaussian_noise@1-5", "contrast@2")])
def test_trades_attacks_the_divergence_from_the_prediction_for_the_image(specs):
    model, given = vit(), batch(4, *specs, step=3)
    natural, found = Trades(eps_pixel=0.06, alpha_pixel=0.02, steps=4).views(model, given)
    assert torch.equal(natural, given.drawn())
    with torch.no_grad():
        said = model(model.normalize(natural)).softmax(1)
    wanted = plain_pgd(
        model, natural, started(given, 0.06), 0.06, 0.02, 4,
        lambda logits, index: F.kl_div(logits.log_softmax(1), said[index : index + 1], reduction="sum"),
    )  # fmt: skip
    assert torch.allclose(found, wanted, atol=1e-12)


def test_trades_without_a_ball_is_cross_entropy():
    model, given = vit(), batch()
    objective = Trades(eps_pixel=0.0)
    logits = [model(model.normalize(view)) for view in objective.views(model, given)]
    assert torch.allclose(objective(logits, given.labels), CrossEntropy()(logits[:1], given.labels))


def test_consistency_looks_at_clean_images_and_two_draws():
    given = batch(4, "gaussian_noise@3")
    clean, first, second = Consistency().views(vit(), given)
    assert torch.equal(clean, given.clean)
    assert torch.equal(first, given.drawn(0))
    assert torch.equal(second, given.drawn(1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("objective", [*ALL, Adversarial(norm="l2", eps_pixel=0.5, steps=2)])
def test_views_do_not_depend_on_how_a_step_is_split(objective):
    model = vit()
    whole = batch(5, "gaussian_noise@1-5", "contrast@1-5", p_clean=0.3, step=2)
    views = objective.views(model, whole)
    for part in (slice(0, 2), slice(2, 5)):
        some = dataclasses.replace(
            whole, clean=whole.clean[part], labels=whole.labels[part], image_ids=whole.image_ids[part]
        )
        for view, of_part in zip(views, objective.views(model, some), strict=True):
            assert torch.allclose(of_part, view[part], atol=1e-12)


@pytest.mark.parametrize("objective", [Adversarial(), Trades()])
def test_an_attack_begins_anew_at_every_step(objective):
    model = vit()
    first, again, second = (objective.views(model, batch(step=step))[-1] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("objective", ALL)
def test_looking_for_views_leaves_the_model_and_the_generators_alone(objective):
    model = vit(drop_path_rate=0.5, proj_drop_rate=0.5, depth=2)
    model.train()
    model.model.blocks[0].eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
        parameter.grad = torch.full_like(parameter, 0.5) if number % 2 else None
    modes = [each.training for each in model.modules()]
    flags = [each.requires_grad for each in model.parameters()]
    before, generator = pickle.dumps(model.model.state_dict()), torch.get_rng_state()
    views = objective.views(model, batch(4, "gaussian_noise@1"))
    again = objective.views(model, batch(4, "gaussian_noise@1"))
    assert all(torch.equal(*pair) for pair in zip(views, again, strict=True))  # no dropout while it looks
    assert not any(view.requires_grad for view in views)
    assert [each.training for each in model.modules()] == modes
    assert [each.requires_grad for each in model.parameters()] == flags
    assert pickle.dumps(model.model.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), generator)
    for number, parameter in enumerate(model.parameters()):
        assert (parameter.grad is not None) == bool(number % 2)
        assert parameter.grad is None or parameter.grad.eq(0.5).all()


def test_mixed_precision_around_it_does_not_reach_an_attack():
    model, given = vit().float(), batch(3)
    given = dataclasses.replace(given, clean=given.clean.float())
    for objective in (Adversarial(steps=2), Trades(steps=2)):
        wanted = objective.views(model, given)[-1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(objective.views(model, given)[-1], wanted)


# ---------------------------------------------------------------------- what an objective is known by


def test_objectives_are_told_apart_by_their_repr():
    assert repr(Trades(beta=2.0, steps=3)) == (
        f"Trades(eps_pixel={4 / 255}, alpha_pixel=None, steps=3, norm='linf', beta=2.0)"
    )
    assert [repr(each) for each in (CrossEntropy(), Consistency())] == [
        "CrossEntropy()", "Consistency(weight=12.0)",
    ]  # fmt: skip
    assert pickle.loads(pickle.dumps(ALL)) == ALL
    assert len(set(ALL)) == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALL[2].beta = 1.0


def test_one_of_ones_own_needs_two_methods():
    @dataclasses.dataclass(frozen=True)
    class Squared(Objective):
        def views(self, model, batch):
            return [batch.clean]

        def __call__(self, logits, labels, *, label_smoothing=0.0):
            return logits[0].square().sum(1)

    model, given = vit(), batch()
    Squared().check(model, given.mix)
    assert Squared()([torch.ones(2, 5)], LABELS[:2]).tolist() == [5.0, 5.0]
    with pytest.raises(TypeError, match="abstract"):
        Objective()


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(value):
    expected = r"\. Expected: a finite number of 0 or more\. Correct "
    with pytest.raises(TrainingError, match=rf"beta is {value}{expected}beta\."):
        Trades(beta=value)
    with pytest.raises(TrainingError, match=rf"weight is {value}{expected}weight\."):
        Consistency(weight=value)


@pytest.mark.parametrize("kind", [Adversarial, Trades])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"eps_pixel": 4.0}, r"eps_pixel is 4\.0\..*Did you mean 4/255\?"),
        ({"steps": 0}, "steps is 0"),
        ({"norm": "l3"}, "The norm of the attack is 'l3'"),
        ({"alpha_pixel": -1.0}, "alpha_pixel is -1"),
    ],
)
def test_an_attack_that_is_none_is_refused_when_it_is_made(kind, setting, message):
    with pytest.raises(ConditionError, match=message):
        kind(**setting)


def test_what_makes_no_sense_is_refused_before_the_run():
    headless, mix = vit(num_classes=0), batch(1, "contrast@2", p_clean=0.5).mix
    for objective in ALL:
        objective.check(vit(), mix)
    for objective in (Adversarial(), Trades()):
        with pytest.raises(ConditionError, match="this model has no classifier"):
            objective.check(headless, mix)
    message = r"Consistency is asked for with {} conditions and p_clean={}\. Expected: corrupted versions"
    with pytest.raises(TrainingError, match=message.format(0, "0")):
        Consistency().check(vit(), batch(1).mix)
    with pytest.raises(TrainingError, match=message.format(1, "1")):
        Consistency().check(vit(), dataclasses.replace(mix, p_clean=1.0))
