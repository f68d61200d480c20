"""What hooks cost: ratios to the plain timm forward pass, interleaved in one process.

    python -m pip install nnsight  # for its row
    python tests/benchmarks/hooks.py [--rounds 15] [--threads 2]

Each round times every variant once, in an order drawn anew, and is divided by its own plain forward pass
(the bridge's by that of Hugging Face's ViT); the table shows the median ratio with its quartiles. Holding
hundreds of megabytes costs page faults, which belong to the allocator: run it again with

    MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=1073741824

to see the same without them.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable

import timm
import torch
from interleaved import interleaved, print_table
from torch import Tensor, nn

import vitlens as vl

CASES = {"ViT-S/16, batch 8": ("vit_small_patch16_224", 8), "ViT-tiny, batch 1": ("vit_tiny_patch16_224", 1)}


def bare(model: nn.Module, modules: dict[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    """The outputs of some modules, by torch's own hooks."""
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: kept.__setitem__(name, output))
        for name, module in modules.items()
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return kept


def bare_parts(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What the next row keeps, by torch's own hooks and as few operations as it takes."""
    kept: dict[str, Tensor] = {}
    handles = []

    def after(module: nn.Module, keep: Callable[[Tensor, Tensor], None]) -> None:
        handles.append(module.register_forward_hook(lambda _, inputs, output: keep(inputs[0], output)))

    def norm(module: nn.Module, name: str) -> None:
        def keep(x: Tensor, output: Tensor) -> None:
            normalized, _, inverse = torch.native_layer_norm(
                x, module.normalized_shape, None, None, module.eps
            )
            kept[f"{name}.normalized"], kept[f"{name}.scale"] = normalized, inverse.reciprocal()

        after(module, keep)

    def heads(name: str, n_heads: int) -> Callable[[Tensor, Tensor], None]:
        def keep(x: Tensor, output: Tensor) -> None:
            for part, value in zip("qkv", output.unflatten(-1, (3, n_heads, -1)).unbind(2), strict=True):
                kept[f"{name}.{part}"] = value.clone()  # a view would pin the joint projection three times

        return keep

    def both(into: str, out: str) -> Callable[[Tensor, Tensor], None]:
        def keep(x: Tensor, output: Tensor) -> None:
            kept[into], kept[out] = x, output

        return keep

    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        after(block, both(f"{name}.resid_pre", f"{name}.resid_post"))
        norm(block.norm1, f"{name}.ln1")
        after(block.attn.qkv, heads(name, block.attn.num_heads))
        after(block.attn.proj, both(f"{name}.z", f"{name}.attn_out"))
        after(block.norm2, both(f"{name}.resid_mid", f"{name}.norm2"))
        norm(block.norm2, f"{name}.ln2")
        after(block.mlp.act, both(f"{name}.pre", f"{name}.post"))
        after(block.mlp, both(f"{name}.mlp_in", f"{name}.mlp_out"))
    norm(model.norm, "ln_final")
    after(model.head, both("pooled", "logits"))
    model(images)
    for handle in handles:
        handle.remove()
    return kept


def variants(model: nn.Module, images: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    hooked = vl.HookedViT(model)
    residual = [name for name in hooked.hook_names if name.endswith(("resid_pre", "resid_post"))]
    quiet = [
        name
        for name in hooked.hook_names
        if not name.endswith(("hook_result", "hook_attn_scores", "hook_pattern"))
    ]
    blocks = {f"blocks.{index}": block for index, block in enumerate(model.blocks)}
    return {
        "plain timm": lambda: model(images),
        "hooked, no cache": lambda: hooked(images),
        "bare hooks, residual stream": lambda: bare(model, blocks, images),
        "residual stream of every layer": lambda: hooked.run_with_cache(images, names_filter=residual),
        "bare hooks, the tensors of the next row": lambda: bare_parts(model, images),
        "every hook but scores and patterns": lambda: hooked.run_with_cache(images, names_filter=quiet),
        "every hook": lambda: hooked.run_with_cache(images),
    }


def nnsight_residual(model: nn.Module, images: Tensor) -> Callable[[], object] | None:
    """nnsight keeping the residual stream of every layer; None where it is not installed."""
    try:
        from nnsight import NNsight
    except ImportError:
        return None
    traced = NNsight(model)

    def run() -> object:
        kept: list[object] = []
        with traced.trace(images):
            for block in traced.blocks:
                kept.append(block.output.save())  # noqa: PERF401  # nnsight reads this source line by line
        return kept

    return run


def bridge(batch: int, *, d_model: int, n_heads: int) -> dict[str, Callable[[], object]]:
    """transformer-lens's bridge on Hugging Face's ViT of the same shape, and that ViT plain."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=d_model, num_attention_heads=n_heads, intermediate_size=4 * d_model, num_labels=1000
    )
    live = ViTForImageClassification(config).eval()
    images = torch.randn(batch, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        live.save_pretrained(folder)
        eager = ViTForImageClassification.from_pretrained(folder, attn_implementation="eager").eval()
        bridged = TransformerBridge.boot_transformers(folder, hf_model=eager)
    residual = {
        name for name in bridged.hook_dict if name.startswith("blocks.") and name.endswith("hook_out")
    }
    residual = {name for name in residual if name.count(".") == 2}
    return {
        "plain Hugging Face": lambda: live(images),
        "bridge, residual stream": lambda: bridged.run_with_cache(
            images, names_filter=lambda name: name in residual
        ),
        "bridge, every hook": lambda: bridged.run_with_cache(images),
    }


@torch.inference_mode()
def measure(name: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Ratios to the plain forward pass, round by round."""
    model = timm.create_model(name).eval()
    images = torch.randn(batch, 3, 224, 224)
    timed = variants(model, images)
    if (traced := nnsight_residual(model, images)) is not None:
        timed["nnsight, residual stream"] = traced
    timed |= bridge(batch, d_model=model.embed_dim, n_heads=model.blocks[0].attn.num_heads)
    return interleaved(
        timed, rounds, lambda variant: "plain Hugging Face" if variant.startswith("bridge") else "plain timm"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    thresholds = "raised" if "MALLOC_TOP_PAD_" in os.environ else "default"
    print(f"{options.threads} threads, {options.rounds} rounds, allocator thresholds {thresholds}")
    columns = {case: measure(name, batch, options.rounds) for case, (name, batch) in CASES.items()}
    print_table("ratio to plain timm, median [quartiles]", columns)


if __name__ == "__main__":
    main()
