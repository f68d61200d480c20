"""A small model of any settings, and its residual stream by torch's own hooks."""

import timm
import torch

from vitlens.testing import randomize


def small(seed=0, **settings_of_timm):
    return randomize(
        timm.models.VisionTransformer(
            **{
                "img_size": 32,
                "patch_size": 8,
                "embed_dim": 32,
                "depth": 3,
                "num_heads": 4,
                "num_classes": 10,
                "init_values": 0.5,
                **settings_of_timm,
            }
        ),
        seed,
    )


def stream(model, images):
    """The residual stream at every place: [batch pos d_model] each."""
    seen = []
    handles = [model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
    handles += [
        block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in model.blocks
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen
