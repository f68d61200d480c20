"""What has to work in an environment that has the wheel and no extra, away from any checkout."""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

import vitlens as vl
from vitlens.errors import VitlensError
from vitlens.testing import check_family, randomize

SHAPE = {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}


def refusal(call: Callable[[], Any]) -> str:
    """What a call says as it is refused; empty where it is not."""
    try:
        call()
    except VitlensError as error:
        return str(error)
    return ""


def main() -> None:
    """Each part of the main job once, in small, and what each extra is asked for."""
    assert "site-packages" in vl.__file__, vl.__file__
    model, tuned = (
        vl.HookedViT(randomize(timm.models.VisionTransformer(**SHAPE).eval(), seed=seed)) for seed in (0, 1)
    )
    check_family(model.model)
    generator = torch.Generator().manual_seed(0)
    images = [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": i % 3, "image_id": f"{i}"}
        for i in range(12)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = vl.load(vl.save(model, folder / "model.safetensors"))
        conditions = ["clean", "gaussian_blur@3", "fog@2", "jpeg@1"]
        comparison = vl.compare(
            {"base": base, "tuned": tuned},
            images,
            conditions=conditions,
            output=folder / "kept",
            progress=False,
        )
        page = comparison.report(folder / "report.html").read_text(encoding="utf-8")
        assert "<h1>What changed from base to tuned</h1>" in page
        sae = vl.saes.train(
            (base, images, "blocks.1.hook_resid_post"),
            d_sae=12,
            k_per_token=2,
            batch_size=8,
            n_tokens=64,
            progress=False,
        )
        vl.saes.gallery(sae, base, images, progress=False).report(folder / "gallery.html")
        config = vl.training.FinetuneConfig(conditions=["contrast@2"], steps=2, batch_size=4)
        vl.training.finetune(base, images, config, output=folder / "run", progress=False)
        asked_for = {
            "digits": ("sklearn", lambda: vl.images.digits("test")),
            "export": ("kaleido", lambda: comparison.export(folder / "figures")),
        }
        for extra, (module, call) in asked_for.items():
            if importlib.util.find_spec(module) is None:
                said = refusal(call)
                assert f"vitlens[{extra}]" in said, said
                sys.stdout.write(f"{module} is missing, and the extra '{extra}' is named\n")


if __name__ == "__main__":
    main()
