"""Small models and images to attack, and the attacks written plainly."""

import timm
import torch
from torch.nn import functional as F

from vitlens.models import HookedViT
from vitlens.testing import randomize


def model(seed=0, n_classes=10, **settings):
    """A random ViT in double precision: rounding flips no signs there."""
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=n_classes, **settings
    )
    return HookedViT(randomize(module, seed=seed).double())


def images(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(n, 3, 32, 32, generator=generator)
    # Black and white corners: there the range ends before the ball does.
    pixels[:, :, :4, :4], pixels[:, :, -4:, -4:] = 0, 1
    return pixels, torch.randint(10, (n,), generator=generator)


def plain_gradient(hooked, pixels, labels):
    """Of the cross-entropy, straight through timm's module and its mean and std."""
    x = pixels.clone().requires_grad_()
    mean, std = (torch.tensor(hooked.data_config[name]).view(3, 1, 1).to(x) for name in ("mean", "std"))
    loss = F.cross_entropy(hooked.model((x - mean) / std), labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


def plain_pgd(hooked, pixels, labels, eps, alpha, steps, norm):
    """From the image itself, image by image, step by step."""
    found = []
    for image, label in zip(pixels, labels, strict=True):
        x, y, adv = image[None], label[None], image[None].clone()
        best, best_loss = None, -float("inf")
        for _ in range(steps + 1):
            loss, gradient = plain_gradient(hooked, adv, y)
            if loss.item() > best_loss:
                best, best_loss = adv, loss.item()
            if norm == "linf":
                moved = adv + alpha * torch.sign(gradient)
                adv = torch.clamp(x + torch.clamp(moved - x, -eps, eps), 0, 1)
            else:
                change = adv + alpha * gradient / gradient.square().sum().sqrt() - x
                length = change.square().sum().sqrt().item()
                adv = torch.clamp(x + change * min(1.0, eps / length), 0, 1)
        found.append(best)
    return torch.cat(found)
