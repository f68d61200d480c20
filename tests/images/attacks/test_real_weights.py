"""Attacks on trained weights and photographs."""

import pytest
import torch

import vitlens as vl
from vitlens.images.attacks import pgd


@pytest.fixture(scope="module")
def subject(data_folder, deit_tiny):
    """Thirty-two photographs, of classes spread evenly."""
    model = vl.HookedViT(deit_tiny)
    dataset = vl.images.folder(data_folder / "imagenet_samples", model)
    chosen = range(0, len(dataset), max(1, len(dataset) // 32))
    return model, vl.images.collate([dataset[index] for index in chosen])


def accuracy(model, pixels, labels):
    with torch.no_grad():
        predicted = torch.cat([model(model.normalize(part)).argmax(1) for part in pixels.split(32)])
    return (predicted == labels).float().mean().item()


def test_ten_steps_of_4_255_leave_next_to_nothing_of_the_accuracy(subject):
    model, batch = subject
    assert accuracy(model, batch.pixels, batch.labels) > 0.6
    attacked, voids = [], 0
    for part in torch.arange(len(batch)).split(32):
        ids = [batch.image_ids[index] for index in part]
        found, report = pgd(
            model, batch.pixels[part], batch.labels[part], steps=10, image_ids=ids, return_report=True
        )
        attacked.append(found)
        voids += int(report.has_no_gradient.sum())
    assert accuracy(model, torch.cat(attacked), batch.labels) < 0.1
    assert voids == 0


def test_an_attack_in_float32_hardly_depends_on_the_batch(subject):
    model, batch = subject
    settings = {"steps": 2, "seed": 1}
    whole = pgd(model, batch.pixels[:4], batch.labels[:4], image_ids=batch.image_ids[:4], **settings)
    alone = pgd(model, batch.pixels[2:3], batch.labels[2:3], image_ids=batch.image_ids[2:3], **settings)
    # A sign near 0 may turn; the loss cannot tell.
    assert ((whole[2:3] - alone).abs() > 1e-6).float().mean() < 0.01
