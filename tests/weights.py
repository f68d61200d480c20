"""Weights for tests."""

import torch


def nontrivial(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights for which no part of a model is silent; gains and LayerScale are of order 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if ("norm" in name and name.endswith("weight")) or "gamma" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim >= 2:
                parameter.copy_(
                    noise * (2 / parameter[0].numel()) ** 0.5 if parameter.ndim < 3 else noise * 0.3
                )
            else:
                parameter.copy_(0.2 * noise)
    return model.eval()
