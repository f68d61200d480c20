"""Activations with known features, SAEs trained on them, and SAEs made of given weights."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vitlens import saes

D_IN, N_FEATURES, K = 32, 24, 2

EASY = {
    "d_sae": 40,
    "k_per_token": K,
    "batch_size": 128,
    "n_tokens": 36_000,
    "learning_rate": 1e-2,
    "progress": False,
}
"""Settings under which a BatchTopK finds every planted feature in a second or two."""

TINY = {"d_sae": 40, "k_per_token": K, "batch_size": 64, "n_tokens": 640, "progress": False}
"""Settings for what does not depend on how good the SAE is."""


@dataclass(frozen=True)
class Planted:
    """Activations that are sparse sums of known directions around a known center."""

    features: Tensor
    codes: Tensor
    activations: Tensor


@pytest.fixture(scope="session")
def planted() -> Planted:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N_FEATURES, D_IN, generator=generator)
    features /= features.norm(dim=1, keepdim=True)
    chosen = torch.rand(4000, N_FEATURES, generator=generator).topk(K, dim=1).indices
    strengths = 4 + 2 * torch.rand(4000, K, generator=generator)
    codes = torch.zeros(4000, N_FEATURES).scatter_(1, chosen, strengths)
    return Planted(features, codes, codes @ features + torch.randn(D_IN, generator=generator))


@pytest.fixture(scope="session")
def trained(planted):
    """Two BatchTopKs of one source that differ in seed."""
    return [saes.train(planted.activations, seed=seed, **EASY) for seed in (0, 1)]


def make_sae(decoder: Tensor, encoder: Tensor | None = None, threshold: float | None = None, **metadata):
    """A StandardSAE, or with a threshold a JumpReLUSAE; the encoder defaults to the decoder's transpose."""
    import sae_lens

    d_sae, d_in = decoder.shape
    kind = sae_lens.StandardSAE if threshold is None else sae_lens.JumpReLUSAE
    config = sae_lens.StandardSAEConfig if threshold is None else sae_lens.JumpReLUSAEConfig
    sae = kind(config(d_in=d_in, d_sae=d_sae))
    for name, value in metadata.items():
        sae.cfg.metadata[name] = value
    with torch.no_grad():
        sae.W_dec.copy_(decoder)
        sae.W_enc.copy_(decoder.T if encoder is None else encoder)
        if threshold is not None:
            sae.threshold.fill_(threshold)
    return sae.eval().requires_grad_(False)


def identity_sae(d_in: int, **metadata):
    """An SAE whose reconstruction is its input: a feature for each direction and one for its opposite."""
    return make_sae(torch.cat([torch.eye(d_in), -torch.eye(d_in)]), **metadata)


def items(n_images: int, size: int = 32) -> list[dict]:
    """Images of noise with labels of ten classes."""
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixels": torch.rand(3, size, size, generator=generator), "label": i % 10, "image_id": f"image {i}"}
        for i in range(n_images)
    ]


def believed(model, images: list[dict]) -> list[dict]:
    """The images with what the model makes of them as their labels, so that every change of it costs."""
    with torch.no_grad():
        logits = model(model.normalize(torch.stack([item["pixels"] for item in images])))
    return [item | {"label": int(label)} for item, label in zip(images, logits.argmax(-1), strict=True)]
