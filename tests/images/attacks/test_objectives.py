"""Attacks that aim inside the model."""

import pytest
import torch
from torch.nn import functional as F

from vitlens.errors import ArchitectureError, ConditionError
from vitlens.images.attacks import ActivationChange, AttackObjective, fgsm, pgd
from vitlens.images.attacks.objectives import LogOdds

from .made import images, model

MODEL = model()
PIXELS, LABELS = images()
HOOK = "blocks.0.hook_resid_post"


def activation(pixels, name=HOOK):
    with torch.no_grad():
        _, cache = MODEL.run_with_cache(MODEL.normalize(pixels), names_filter=name)
    return cache[name]


@pytest.mark.parametrize("is_targeted", [False, True])
def test_log_odds_are_the_cross_entropy_before_softplus(is_targeted):
    logits = (torch.randn(6, 7, generator=torch.Generator().manual_seed(0)) * 3).double().requires_grad_()
    labels = torch.arange(6)
    sign = -1 if is_targeted else 1
    loss = sign * F.cross_entropy(logits, labels, reduction="none")
    odds = LogOdds(is_targeted)
    assert torch.allclose(odds.nats(odds.of(logits, labels)), loss)
    (of_loss,) = torch.autograd.grad(loss.sum(), logits)
    (of_odds,) = torch.autograd.grad(odds.of(logits, labels).sum(), logits)
    assert torch.allclose(F.normalize(of_loss), F.normalize(of_odds))


@pytest.mark.parametrize(
    ("tokens", "chosen"), [("all", slice(None)), ("patch", slice(1, None)), ("cls", [0])]
)
def test_an_activation_is_driven_away_from_where_it_is(tokens, chosen):
    objective = ActivationChange(HOOK, tokens)
    assert isinstance(objective, AttackObjective)
    found, report = pgd(MODEL, PIXELS, objective=objective, steps=6, return_report=True)
    change = (activation(found) - activation(PIXELS))[:, chosen].flatten(1).norm(dim=1)
    assert torch.allclose(report.loss_per_step.amax((1, 2)).double(), change, rtol=1e-4)
    noise = (PIXELS + 4 / 255 * torch.randn(PIXELS.shape).sign()).clamp(0, 1)
    by_noise = (activation(noise) - activation(PIXELS))[:, chosen].flatten(1).norm(dim=1)
    assert (change > 1.5 * by_noise).all()


def test_an_activation_of_any_shape_can_be_aimed_at():
    for name in ("hook_pooled", "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_q"):
        _, report = pgd(MODEL, PIXELS, objective=ActivationChange(name), steps=2, return_report=True)
        assert (report.loss_per_step[:, 0, 2] > report.loss_per_step[:, 0, 0]).all()


def test_without_a_random_start_nothing_says_where_to_go():
    objective = ActivationChange(HOOK)
    with pytest.warns(UserWarning, match="4 of 4 .* exactly 0.*see random_start"):
        found = pgd(MODEL, PIXELS, objective=objective, random_start=False, steps=2)
    assert torch.equal(found, PIXELS)


class Own:
    """Raises one feature of one token, and looks at all that an objective is given."""

    hook_names = (HOOK, "hook_pooled")

    def __call__(self, hooked, activations, clean, logits, labels):
        assert set(activations) == set(clean) == set(self.hook_names)
        assert not clean[HOOK].requires_grad
        assert logits.shape == (4, 10)
        assert labels is None or torch.equal(labels, LABELS)
        return activations[HOOK][:, 3, 5]


def test_an_objective_of_ones_own_is_a_call_and_its_hooks():
    for labels in (None, LABELS):
        found, report = fgsm(MODEL, PIXELS, labels, objective=Own(), return_report=True)
        assert torch.allclose(report.loss_per_step[:, 0, 1].double(), activation(found)[:, 3, 5], rtol=1e-4)
        assert (activation(found)[:, 3, 5] > activation(PIXELS)[:, 3, 5]).all()


class Wrong:
    hook_names = (HOOK,)

    def __init__(self, value):
        self.value = value

    def __call__(self, model, activations, clean, logits, labels):
        return self.value(activations[HOOK])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x.sum(), r"objective gave \[\] for 4 images"),
        (lambda x: x.mean(1), r"objective gave \[4, 32\]"),
        (lambda x: 3.0, "objective gave float"),
        (lambda x: x.detach().mean((1, 2)), "does not depend on the pixels"),
        (lambda x: x.mean((1, 2)) / 0 * 0, "gradients of 4 of 4 images are NaN or infinite"),
    ],
)
def test_what_an_objective_gives_is_looked_at(value, message):
    with pytest.raises(ConditionError, match=message):
        pgd(MODEL, PIXELS, objective=Wrong(value))


def test_tokens_that_the_model_has_not_are_refused():
    with pytest.raises(ArchitectureError, match="no 'register' token"):
        pgd(MODEL, PIXELS, objective=ActivationChange(HOOK, "register"))
