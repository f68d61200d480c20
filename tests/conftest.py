"""Shapes and types of every call into vitlens are checked while the tests run, and only then."""

from jaxtyping import install_import_hook

install_import_hook("vitlens", "type_checker.check")

import os  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

import vitlens as vl  # noqa: E402
from vitlens.testing import randomize  # noqa: E402

torch.set_num_threads(1)  # the models are tiny: threads cost more than they give

# A shell has Ctrl-C ignored by what it runs in the background, and tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real weights and photographs; tests that want them skip without."""
    folder = os.environ.get("VITLENS_DATA")
    if not folder:
        pytest.skip("VITLENS_DATA is not set: this test wants real weights and photographs")
    return Path(folder)


@pytest.fixture(scope="session")
def deit_tiny(data_folder):
    """timm's DeiT-tiny with trained weights."""
    from safetensors.torch import load_file

    model = timm.create_model("deit_tiny_patch16_224")
    state = load_file(data_folder / "deit_tiny_patch16_224.fp16.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


@pytest.fixture
def small_timm():
    """A small VisionTransformer for 32×32 images and ten classes, every weight at work."""
    return randomize(
        timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=10, init_values=0.5
        )
    )


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the README's and the start's code names: weights, photographs, a tuned copy."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    base = timm.create_model("deit_tiny_patch16_224")
    torch.save(base.state_dict(), "base.pth")
    with torch.no_grad():
        base.head.bias += torch.randn(1000)
    vl.save(base, "tuned/model.safetensors")
    generator = np.random.default_rng(0)
    for wnid in ("n01440764", "n01443537"):
        (tmp_path / "photographs" / wnid).mkdir(parents=True)
        for index in range(2):
            pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photographs" / wnid / f"{index}.png")
    return tmp_path
