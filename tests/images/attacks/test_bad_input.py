"""What an attack refuses, before any forward pass."""

import math

import pytest
import timm
import torch

from vitlens.errors import ConditionError, HookError, LabelError, PixelError
from vitlens.images.attacks import ActivationChange, Attack, fgsm, pgd
from vitlens.models import HookedViT

from .made import images, model

MODEL = model()
PIXELS, LABELS = images()


@pytest.fixture(autouse=True)
def no_forward_pass():
    with MODEL.observing({"blocks.0.hook_resid_pre": lambda x: pytest.fail("a forward pass")}):
        yield


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps_pixel": 4}, r"eps_pixel is 4\. Expected: a number from 0 to 1.*Did you mean 4/255\?"),
        ({"eps_pixel": -0.1}, r"eps_pixel is -0\.1\."),
        ({"eps_pixel": float("nan")}, r"eps_pixel is nan\."),
        ({"eps_pixel": float("inf")}, r"eps_pixel is inf\."),
        ({"eps_pixel": -1.0, "norm": "l2"}, r"eps_pixel is -1\.0\. Expected: a length of 0 or more"),
        ({"eps_pixel": 60.0, "norm": "l2"}, r"eps_pixel is 60, and no two images .* than 55\.43"),
        ({"alpha_pixel": 0.0}, r"alpha_pixel is 0\.0\. .*Leave it out for 2\.5 · eps_pixel / steps"),
        ({"alpha_pixel": float("nan")}, "alpha_pixel is nan"),
        ({"steps": 0}, r"steps is 0\. Expected: a whole number from 1"),
        ({"restarts": 0}, "restarts is 0"),
        ({"steps": True}, "steps is True"),
        ({"norm": "l_inf"}, r"norm of the attack is 'l_inf'.*nearest: 'linf'"),
        ({"image_ids": ["a"]}, "1 image_ids were given for 4 images"),
        ({"image_ids": ["a", "b", "a", "c"]}, "image id 'a' is given twice"),
        ({"labels": None}, r"given no labels\. Expected: labels, targets, or an objective"),
        (
            {"targets": LABELS, "objective": ActivationChange("hook_pooled")},
            "Both targets and an objective",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConditionError, match=f"(?s){message}"):
        pgd(MODEL, PIXELS, **{"labels": LABELS, **settings})


def test_the_largest_l2_ball_is_the_diagonal_of_all_images():
    farthest = math.sqrt(3 * 32 * 32)
    with pytest.raises(ConditionError, match="no two images of this size are further apart"):
        pgd(MODEL, PIXELS, LABELS, farthest * 1.001, norm="l2")
    assert pgd(MODEL, PIXELS[:0], LABELS[:0], farthest, norm="l2").shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (torch.tensor([0, 1, 2]), r"have shape \[3\], for 4 images"),
        (torch.tensor([0, 1, 2, 10]), r"go from 0 to 10\. Expected: .* from 0 to 9"),
        (torch.tensor([0, -1, 2, 3]), "go from -1 to 3"),
        (torch.tensor([0.0, 1.0, 2.0, 3.0]), r"are torch\.float32"),
    ],
)
def test_labels_and_targets_are_classes_one_for_each_image(classes, message):
    with pytest.raises(LabelError, match=f"The labels {message}"):
        pgd(MODEL, PIXELS, classes)
    with pytest.raises(LabelError, match=f"The targets {message}"):
        fgsm(MODEL, PIXELS, targets=classes)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PIXELS * 255, r"pixels to be attacked go from 0 to 255"),
        (PIXELS[0], r"have shape \[3, 32, 32\]"),
        ((PIXELS * 255).byte(), r"are torch\.uint8"),
        (PIXELS.half(), r"are torch\.float16\. Expected: float32 or float64"),
        (PIXELS / 0 * 0, "hold NaN"),
    ],
)
def test_pixels_are_images(pixels, message):
    with pytest.raises(PixelError, match=message):
        pgd(MODEL, pixels, LABELS)


def test_a_model_without_a_classifier_is_attacked_inside_or_not_at_all():
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=0
    )
    hooked = HookedViT(module.eval())
    with pytest.raises(ConditionError, match=r"this model has no classifier.*Aim inside: objective="):
        pgd(hooked, PIXELS, LABELS)
    found = pgd(hooked, PIXELS, objective=ActivationChange("blocks.0.hook_resid_post"), steps=1)
    assert not torch.equal(found, PIXELS)


def test_hooks_and_tokens_of_an_objective_are_the_models():
    with pytest.raises(
        HookError, match=r"'blocks\.1\.hook_resid_pst' .*nearest: 'blocks\.1\.hook_resid_post"
    ):
        pgd(MODEL, PIXELS, objective=ActivationChange("blocks.1.hook_resid_pst"))
    with pytest.raises(ConditionError, match=r"patch tokens of 'blocks\.1\.attn\.hook_pattern'"):
        ActivationChange("blocks.1.attn.hook_pattern", tokens="patch")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "cw"}, "method is 'cw'"),
        ({"method": "fgsm"}, r"FGSM is given .*\(None, 10, 'linf', 1, True\)"),
        ({"norm": "l1"}, "norm of the attack is 'l1'"),
    ],
)
def test_a_spec_is_checked_when_it_is_made(settings, message):
    with pytest.raises(ConditionError, match=f"(?s){message}"):
        Attack(**settings)
