"""Hugging Face models behind hooks: opened, saved and loaded like any other."""

import pytest
import torch
import transformers

import vitlens as vl

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
MODELS = {
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, num_labels=5)),
    "deit": lambda: transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(**SIZES, num_labels=5)
    ),
    "beit": lambda: transformers.BeitForImageClassification(
        transformers.BeitConfig(**SIZES, num_labels=5, use_relative_position_bias=True)
    ),
    "dinov2": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            num_labels=5,
        )
    ),
    "dinov3": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**SIZES, num_register_tokens=2)
    ),
    "clip": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**SIZES, projection_dim=16)
    ),
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZES)),
}


@pytest.fixture(params=MODELS, scope="module")
def live(request):
    return vl.testing.randomize(MODELS[request.param]())


def test_every_hook_of_a_carried_model_is_alive(live):
    model = vl.HookedViT.from_huggingface(live)
    vl.testing.check_family(model, torch.randn(2, 3, 32, 32))


@torch.no_grad()
def test_logits_are_those_of_hugging_face(live):
    model = vl.HookedViT.from_huggingface(live)
    images = torch.randn(2, 3, 32, 32)
    output = live(images)
    if hasattr(output, "logits"):
        torch.testing.assert_close(model(images), output.logits, rtol=1e-5, atol=1e-5)
    elif hasattr(output, "image_embeds"):
        torch.testing.assert_close(model(images), output.image_embeds, rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(model(images), output.pooler_output, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_carried_model_survives_saving_and_loading_twice(live, tmp_path):
    model = vl.HookedViT.from_huggingface(live)
    loaded = vl.load(vl.save(model, tmp_path / "once.safetensors"))
    loaded = vl.load(vl.save(loaded, tmp_path / "twice.safetensors"))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))


def test_a_fine_tuned_model_goes_back(live):
    model = vl.HookedViT.from_huggingface(live)
    with torch.no_grad():
        model.model.blocks[1].mlp.fc2.bias += torch.randn(32)
    state = vl.to_huggingface_state_dict(model, live)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = next(iter(live(images).values()))
        live.load_state_dict(state)
        assert not torch.allclose(next(iter(live(images).values())), before)
    again = vl.HookedViT.from_huggingface(live)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images))


def test_a_module_of_another_library_is_refused():
    with pytest.raises(vl.errors.FamilyError):
        vl.HookedViT.from_huggingface(torch.nn.Linear(2, 2))
