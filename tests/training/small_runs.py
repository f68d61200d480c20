"""Runs of a second, on random pixels: what the tests of the fine-tuner share."""

import dataclasses
import json

import timm
import torch

import vitlens as vl
from vitlens.testing import randomize
from vitlens.training.config import FinetuneConfig

CONFIG = FinetuneConfig(
    conditions=["gaussian_noise@1-5", "contrast@2"], steps=7, batch_size=4, learning_rate=1e-3,
    warmup_steps=2, checkpoint_every_steps=2,
)  # fmt: skip

EXACT = {"drop_path_rate": 0.0, "proj_drop_rate": 0.0}


def start(**kwargs):
    settings = {"drop_path_rate": 0.3, "proj_drop_rate": 0.2, "num_classes": 10} | kwargs
    return vl.HookedViT(
        randomize(
            timm.models.VisionTransformer(
                img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, **settings
            )
        )
    )


def items(n=11):
    generator = torch.Generator().manual_seed(0)
    return [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": i % 10, "image_id": f"{i}"}
        for i in range(n)
    ]


def changed(**changes):
    return dataclasses.replace(CONFIG, **changes)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def assert_close(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name] - b[name]).abs().max() <= tolerance, name


def without_times(log):
    return log.drop(columns="images_per_second")


def log_rows(folder, kind):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]
