"""Trained weights and photographs: the hooked DeiT-tiny is timm's."""

import pytest
import timm
import torch

import vitlens as vl


@pytest.fixture(scope="module")
def photographs(data_folder, deit_tiny):
    dataset = vl.images.folder(data_folder / "imagenet_samples", vl.HookedViT(deit_tiny))
    return [dataset[index] for index in range(0, 1000, 63)]


@torch.no_grad()
def test_logits_on_photographs_are_timms_to_the_last_bit(deit_tiny, photographs):
    model = vl.HookedViT(deit_tiny)
    images = model.normalize(torch.stack([item["pixels"] for item in photographs]))
    assert torch.equal(model(images), deit_tiny(images))
    names = [name for name in model.hook_names if not name.endswith(("attn_scores", "pattern"))]
    logits, _ = model.run_with_cache(images, names_filter=names)
    assert torch.equal(logits, deit_tiny(images))


@torch.no_grad()
def test_the_lens_at_the_last_layer_equals_the_logits(deit_tiny, photographs):
    model = vl.HookedViT(deit_tiny)
    images = model.normalize(torch.stack([item["pixels"] for item in photographs]))
    logits, cache = model.run_with_cache(images, names_filter="blocks.11.hook_resid_post")
    assert torch.equal(model.readout(cache["blocks.11.hook_resid_post"]), logits)


@torch.no_grad()
def test_most_photographs_are_recognised(deit_tiny, photographs):
    data = vl.run(vl.HookedViT(deit_tiny), photographs, [vl.Prediction()], progress=False)
    assert (data["rank"] == 0).mean() > 0.5  # the whole set scores .797


@torch.no_grad()
def test_pixels_of_a_folder_are_what_timms_own_transform_gives(deit_tiny, data_folder, photographs):
    from PIL import Image

    model = vl.HookedViT(deit_tiny)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(deit_tiny))
    for item in photographs[:6]:
        picture = Image.open(data_folder / "imagenet_samples" / item["image_id"]).convert("RGB")
        torch.testing.assert_close(model.normalize(item["pixels"]), transform(picture), atol=1e-6, rtol=0)


@torch.no_grad()
def test_accuracy_through_hooks_is_timms_image_by_image(deit_tiny, data_folder):
    model = vl.HookedViT(deit_tiny)
    dataset = vl.images.folder(data_folder / "imagenet_samples", model)
    items = [dataset[index] for index in range(3, 1000, 10)]
    data = vl.run(model, items, [vl.Prediction(), vl.LogitLens()], progress=False)
    images = model.normalize(torch.stack([item["pixels"] for item in items]))
    predicted = torch.cat([deit_tiny(part).argmax(-1) for part in images.split(32)])
    assert data["predicted"].sel(condition="clean").values.tolist() == predicted.tolist()
    correct = sum(int(a == item["label"]) for a, item in zip(predicted, items, strict=True))
    assert int((data["rank"] == 0).sum()) == correct
