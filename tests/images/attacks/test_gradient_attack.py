"""`fgsm` and `pgd` against the attacks written plainly, and what holds of every attack."""

import hashlib
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitlens.images.attacks import fgsm, pgd

from .made import images, model, plain_gradient, plain_pgd

MODEL = model()
IDS = [f"image {i}" for i in range(4)]


def loss_nats(pixels, labels):
    with torch.no_grad():
        return F.cross_entropy(MODEL(MODEL.normalize(pixels)), labels, reduction="none")


def test_fgsm_is_one_signed_step_clipped_to_the_range():
    pixels, labels = images()
    pixels = pixels.double()
    _, gradient = plain_gradient(MODEL, pixels, labels)
    wanted = (pixels + 8 / 255 * gradient.sign()).clamp(0, 1)
    assert torch.allclose(fgsm(MODEL, pixels, labels, eps_pixel=8 / 255), wanted, atol=1e-15)


@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 0.03, 0.01), ("l2", 0.7, 0.3)])
def test_pgd_without_a_random_start_is_the_plain_loop(norm, eps, alpha):
    pixels, labels = images()
    pixels = pixels.double()
    wanted = plain_pgd(MODEL, pixels, labels, eps, alpha, 5, norm)
    found = pgd(MODEL, pixels, labels, eps, alpha, 5, norm, random_start=False)
    assert torch.allclose(found, wanted, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    eps=st.floats(1e-7, 1),
    norm=st.sampled_from(["linf", "l2"]),
    steps=st.integers(1, 3),
    alpha=st.sampled_from([None, 1e-3, 5.0]),
    precision=st.sampled_from([torch.float32, torch.float64]),
    start=st.booleans(),
)
def test_attacked_pixels_stay_in_the_ball_and_in_the_range(eps, norm, steps, alpha, precision, start):
    pixels, labels = images()
    pixels = pixels.to(precision)
    before = pixels.clone()
    found, report = pgd(
        MODEL, pixels, labels, eps, alpha, steps, norm, random_start=start, return_report=True
    )
    assert torch.equal(pixels, before)
    assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape)
    assert 0 <= found.min() <= found.max() <= 1
    if norm == "linf":
        # Exactly, in the precision of the pixels: not by an ulp more.
        assert (found - pixels).abs().max().item() <= eps
        length = (found - pixels).abs().flatten(1).amax(1)
    else:
        length = (found - pixels).flatten(1).norm(dim=1)
        assert length.max().item() <= eps * (1 + 1e-5) + 1e-5 * (precision == torch.float32)
    assert torch.allclose(report.perturbation_norm, length)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targets", [None, torch.tensor([1, 2, 3, 4])])
def test_more_steps_and_more_restarts_never_weaken_an_attack(norm, targets):
    pixels, labels = images()
    sign, classes = (1, labels) if targets is None else (-1, targets)
    strength = []
    for steps, restarts in [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 3)]:
        found = pgd(
            MODEL, pixels, labels, 0.05, 0.04, steps, norm,
            restarts=restarts, targets=targets, image_ids=IDS,
        )  # fmt: skip
        strength.append(sign * loss_nats(found, classes))
    strength = torch.stack(strength)
    # Pixels are kept in float32, the loss is taken in double: equal pixels give equal losses.
    assert (strength.diff(dim=0) >= 0).all()
    assert (strength[-1] > sign * loss_nats(pixels, classes)).all()


def test_the_report_tells_the_loss_of_every_step_and_which_was_taken():
    pixels, labels = images()
    found, report = pgd(MODEL, pixels, labels, steps=4, restarts=3, return_report=True)
    assert report.loss_per_step.shape == (4, 3, 5)
    taken = report.loss_per_step[torch.arange(4), report.best_restart, report.best_step]
    assert torch.equal(taken, report.loss_per_step.flatten(1).amax(1))
    assert torch.allclose(taken.double(), loss_nats(found, labels), rtol=1e-5)
    assert not report.has_no_gradient.any()
    _, once = fgsm(MODEL, pixels, labels, return_report=True)
    assert torch.allclose(once.loss_per_step[:, 0, 0].double(), loss_nats(pixels, labels), rtol=1e-5)
    assert once.best_step.tolist() == [1] * 4


def test_a_target_is_approached():
    pixels, labels = images()
    targets = (labels + 3) % 10
    found, report = pgd(MODEL, pixels, targets=targets, eps_pixel=0.2, steps=10, return_report=True)
    with torch.no_grad():
        assert (MODEL(MODEL.normalize(found)).argmax(1) == targets).all()
    assert torch.allclose(-report.loss_per_step.amax(2)[:, 0].double(), loss_nats(found, targets), rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_does_not_depend_on_the_batch_or_its_order(norm):
    pixels, labels = images()
    whole = pgd(MODEL, pixels.double(), labels, 0.05, norm=norm, steps=4, image_ids=IDS, seed=3)
    order = [2, 0, 3]
    parts = [
        pgd(
            MODEL, pixels[part].double(), labels[part], 0.05,
            norm=norm, steps=4, image_ids=[IDS[i] for i in part], seed=3,
        )
        for part in (order[:1], order[1:])
    ]  # fmt: skip
    assert torch.allclose(torch.cat(parts), whole[order], atol=1e-12)


def test_seed_and_image_id_make_the_start_and_nothing_else_does():
    pixels, labels = images()
    torch.manual_seed(0)

    def attack(**settings):
        return pgd(MODEL, pixels, labels, steps=1, alpha_pixel=1e-4, **settings)

    one = attack(image_ids=IDS)
    torch.manual_seed(1)
    assert torch.equal(one, attack(image_ids=IDS))
    assert not torch.equal(one, attack(image_ids=IDS, seed=1))
    assert not torch.equal(one, attack(image_ids=IDS[::-1]))
    assert torch.equal(attack(), attack(image_ids=["0", "1", "2", "3"]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball_evenly(norm):
    from vitlens.images.attacks.balls import BALLS
    from vitlens.images.streams import stream

    n, eps = 400, 0.1
    ball = BALLS[norm](torch.full((n, 3, 1, 1), 0.5), eps)
    start = ball.start([stream(0, str(i), "pgd", 0) for i in range(n)]) - 0.5
    radius = (ball.norm(start) / eps) ** 3  # in three dimensions the share of the ball's volume
    assert radius.max() <= 1 + 1e-5
    assert (radius.sort().values - torch.arange(n) / n).abs().max() < 0.1
    assert start.flatten(1).mean(0).abs().max() < 0.01


def test_an_eps_of_0_is_the_identity_without_a_forward_pass():
    pixels, labels = images()
    with MODEL.observing({"blocks.0.hook_resid_pre": lambda x: pytest.fail("a forward pass")}):
        for attack in (fgsm, pgd):
            found, report = attack(MODEL, pixels, labels, eps_pixel=0.0, return_report=True)
            assert torch.equal(found, pixels)
            assert found is not pixels
            assert report.loss_per_step.shape == (4, 1, 0)
            assert report.zero_gradient_share.isnan().all()
        assert pgd(MODEL, pixels[:0], labels[:0]).shape == (0, 3, 32, 32)


# ---------------------------------------------------------------------- the model is left as it was


def state_of(hooked):
    digest = hashlib.sha256()
    for name, tensor in hooked.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return (
        digest.hexdigest(),
        [(None if each.grad is None else each.grad.sum().item()) for each in hooked.parameters()],
        [each.requires_grad for each in hooked.parameters()],
        [each.training for each in hooked.modules()],
        [(name, len(point.observers), len(point._forward_hooks)) for name, point in hooked.hook_dict.items()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )


def unusual():
    """Some modules in training mode, some parameters frozen, a gradient here and there."""
    hooked = model(drop_path_rate=0.5, proj_drop_rate=0.5)
    hooked.model.blocks[1].train()
    for number, parameter in enumerate(hooked.parameters()):
        parameter.requires_grad_(number % 2 == 0)
        if number % 4 == 0:
            parameter.grad = torch.full_like(parameter, 0.5)
    hooked.add_hook("blocks.0.hook_resid_post", lambda activation, hook: activation * 1.01)
    return hooked


def test_parameters_gradients_modes_hooks_and_generators_are_as_they_were():
    hooked = unusual()
    pixels, labels = images()
    before = state_of(hooked)
    first = pgd(hooked, pixels, labels, steps=2)
    assert state_of(hooked) == before
    # In evaluation mode: dropout would make the second attack another one.
    assert torch.equal(first, pgd(hooked, pixels, labels, steps=2))


def test_an_exception_on_the_way_leaves_the_model_as_it_was():
    hooked = unusual()
    pixels, labels = images()

    class Breaks:
        hook_names = ("blocks.1.hook_resid_post",)
        n_calls = 0

        def __call__(self, model, activations, clean, logits, labels):
            self.n_calls += 1
            if self.n_calls == 2:
                raise KeyError("on the way")
            return logits.sum(1)

    before = state_of(hooked)
    with pytest.raises(KeyError, match="on the way"):
        pgd(hooked, pixels, labels, objective=Breaks())
    assert state_of(hooked) == before


def test_it_works_without_gradients_in_inference_mode_and_with_frozen_parameters():
    hooked = model()
    pixels, labels = images()
    wanted = pgd(hooked, pixels, labels, steps=2)
    with torch.no_grad():
        assert torch.equal(pgd(hooked, pixels, labels, steps=2), wanted)
    with torch.inference_mode():
        assert torch.equal(pgd(hooked, pixels.clone(), labels.clone(), steps=2), wanted)
    assert torch.equal(pgd(hooked, pixels.clone().requires_grad_(), labels, steps=2), wanted)
    for parameter in hooked.parameters():
        parameter.requires_grad_(False)
    found = pgd(hooked, pixels, labels, steps=2)
    assert torch.equal(found, wanted)
    assert not found.requires_grad


def test_mixed_precision_around_it_changes_nothing():
    hooked = model()
    hooked.model.float()
    pixels, labels = images()
    wanted = pgd(hooked, pixels, labels, steps=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pgd(hooked, pixels, labels, steps=2), wanted)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_is_attacked_in_its_own_precision_and_pixels_keep_theirs(precision):
    hooked = model()
    hooked.model.to(precision)
    pixels, labels = images()
    found, report = pgd(hooked, pixels, labels, steps=3, return_report=True)
    assert found.dtype == torch.float32
    assert (found - pixels).abs().max().item() <= 4 / 255
    assert (report.loss_per_step.amax(2) > report.loss_per_step[:, :, 0]).all()


# ---------------------------------------------------------------------- masked gradients


def test_a_model_that_is_sure_of_itself_is_attacked_all_the_same():
    hooked = model()
    hooked.model.float()
    hooked.model.head.weight.data *= 200
    pixels, _ = images()
    with torch.no_grad():
        logits = hooked(hooked.normalize(pixels))
    labels = logits.argmax(1)
    # In float32 the cross-entropy itself is 0 for some of them, and has no gradient at all.
    _, gradient = plain_gradient(hooked, pixels, labels)
    assert (gradient == 0).flatten(1).all(1).any()
    found, report = pgd(hooked, pixels, labels, eps_pixel=0.2, return_report=True)
    assert (report.zero_gradient_share < 0.01).all()
    with torch.no_grad():
        assert (hooked(hooked.normalize(found)).argmax(1) != labels).all()


def test_a_masked_gradient_gives_a_warning_and_is_reported():
    hooked = model()
    pixels, labels = images()

    def masked(activation, hook):
        return torch.cat([activation[:1].detach(), activation[1:]])

    with (
        hooked.hooks(fwd_hooks=[("hook_pooled", masked)]),
        pytest.warns(UserWarning, match="1 of 4 attacked images have an input gradient of exactly 0"),
    ):
        found, report = pgd(hooked, pixels, labels, random_start=False, return_report=True)
    assert report.has_no_gradient.tolist() == [True, False, False, False]
    assert report.zero_gradient_share[0] == 1
    assert (report.zero_gradient_share[1:] < 0.5).all()
    assert torch.equal(found[0], pixels[0])


def test_no_warning_without_cause():
    pixels, labels = images()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgd(MODEL, pixels, labels, steps=1)
