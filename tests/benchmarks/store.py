"""What the activation store costs: writing over the forward pass, shuffled over sequential reading, mixing.

    VITLENS_DATA=... python tests/benchmarks/store.py [--rounds 7] [--threads 1]

The files that are read lie in the page cache: what is timed is the store, not the disk.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import timm
import torch
from interleaved import interleaved, print_table
from safetensors.torch import load_file

import vitlens as vl
from vitlens.running import measuring
from vitlens.saes.shards import Layout, as_bytes, write_shard
from vitlens.saes.store import ActivationStore
from vitlens.saes.store_manifest import begin, complete
from vitlens.saes.stored_tokens import StoredTokens

HOOK = "blocks.9.hook_resid_post"
N_PHOTOGRAPHS, BATCH_SIZE = 128, 32
N_TOKENS = 4096


def writing(data: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Storing photographs' activations, over the forward pass up to the hook."""
    timm_model = timm.create_model("deit_tiny_patch16_224")
    state = load_file(data / "deit_tiny_patch16_224.fp16.safetensors")
    timm_model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    model = vl.HookedViT(timm_model.eval())
    photographs = vl.images.folder(data / "imagenet_samples", model)
    images = [photographs[i % len(photographs)] for i in range(N_PHOTOGRAPHS)]
    images = [image | {"image_id": str(number)} for number, image in enumerate(images)]
    batches = [torch.stack([each["pixels"] for each in images[i : i + BATCH_SIZE]])
               for i in range(0, len(images), BATCH_SIZE)]  # fmt: skip

    def forward(stop_at_layer: int | None) -> None:
        with measuring([model]):
            for pixels in batches:
                model(model.normalize(pixels), stop_at_layer=stop_at_layer)

    def write(hook_names: list[str]) -> None:
        path = folder / "written"
        ActivationStore.write(path, model, images, hook_names=hook_names, progress=False)
        shutil.rmtree(path)

    timed: dict[str, Callable[[], object]] = {
        "forward, blocks 0 to 9": lambda: forward(10),
        "forward, whole model": lambda: forward(None),
        "write 1 hook": lambda: write([HOOK]),
        "write 10 hooks": lambda: write([f"blocks.{layer}.hook_resid_post" for layer in range(10)]),
    }
    return interleaved(timed, rounds, lambda variant: "forward, blocks 0 to 9")


def made(
    folder: Path, n_images: int, n_positions: int, d_in: int, shard_images: int, block: int
) -> ActivationStore:
    """A store whose rows begin with the numbers of their image and position."""
    layout = Layout({HOOK: d_in}, 1, 1, n_positions, "float32", block)
    config = {"config": {}, "provenance": {}, "weights_sha256": ""}
    begin(
        folder,
        {
            "checkpoints": [{"name": "model", **config}],
            "conditions": ["clean"],
            "hooks": [{"name": HOOK, "d_in": d_in}],
            "tokens": "patch",
            "positions": list(range(n_positions)),
            "position_kinds": ["patch"] * n_positions,
            "dtype": "float32",
            "n_images_per_shard": shard_images,
            "n_rows_per_block": block,
            "n_images": n_images,
            "image_ids_sha256": None,
        },
    )
    for number, start in enumerate(range(0, n_images, shard_images)):
        images = torch.arange(start, min(start + shard_images, n_images), dtype=torch.float32)
        rows = torch.zeros(1, 1, len(images), n_positions, d_in)
        rows[..., 0] = images[:, None]
        rows[..., 1] = torch.arange(n_positions)
        order = np.random.default_rng([0, number]).permutation(len(images) * n_positions).astype(np.int32)
        ids = [str(int(image)) for image in images]
        write_shard(folder, number, layout, ids, order, {HOOK: rows.flatten(2, 3)})
    complete(folder)
    return ActivationStore.open(folder)


def reading(store: ActivationStore, rounds: int, memory_bytes: int) -> dict[str, dict[str, list[float]]]:
    """An epoch of shuffled batches, over sequential reads of the same files, by their name."""
    files = sorted(store.path.glob("*.safetensors"))
    # A bytearray begins anywhere, and reading into one that is not aligned takes twice as long.
    into = as_bytes(torch.empty(2**22, dtype=torch.uint8))

    def discarding() -> None:
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(into):
                    pass

    def keeping() -> None:
        for path in files:
            with path.open("rb", buffering=0) as file:
                batch = torch.empty(N_TOKENS, store.tokens(HOOK).d_in)
                while file.readinto(as_bytes(batch)):
                    batch = torch.empty_like(batch)

    def drain(batches: Iterable[object]) -> None:
        for _ in batches:
            pass

    warm = store.tokens(HOOK, memory_bytes=memory_bytes)
    stream = warm.shuffled(N_TOKENS, seed=0)

    def cold() -> None:
        drain(ActivationStore.open(store.path).batches(HOOK, N_TOKENS, memory_bytes=memory_bytes))

    rows = torch.cat(list(warm.in_order(N_TOKENS)))
    generator = torch.Generator().manual_seed(0)

    def limit() -> None:
        for chosen in torch.randperm(len(rows), generator=generator).split(N_TOKENS):
            rows.index_select(0, chosen)

    timed: dict[str, Callable[[], object]] = {
        "sequential, into a buffer of 4 MiB": discarding,
        "sequential, as tensors of 4,096 rows": keeping,
        "- bare torch, random rows of one tensor in memory": limit,
        "in order": lambda: drain(warm.in_order(N_TOKENS)),
        "shuffled": lambda: drain(itertools.islice(stream, warm.n_tokens // N_TOKENS)),
        "shuffled, one epoch by itself": lambda: drain(warm.epoch(N_TOKENS, seed=0)),
        "shuffled, the epoch that compares checksums": cold,
    }
    return {
        reference: interleaved(timed, rounds, lambda variant, of=reference: of)
        for reference in list(timed)[:2]
    }


def mixing(tokens: StoredTokens) -> tuple[float, float]:
    """Mean number of distinct images in a batch of an epoch, and what drawing without replacement expects."""
    counts = [len(batch[:, 0].unique()) for batch in tokens.epoch(N_TOKENS, seed=0) if len(batch) == N_TOKENS]
    n, per_image = tokens.n_tokens, tokens.n_tokens_per_image
    # An image is missing where all tokens of the batch are drawn from the others'.
    missing = np.prod([(n - N_TOKENS - i) / (n - i) for i in range(per_image)])
    return float(np.mean(counts)), tokens.n_images * (1 - missing)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    data = os.environ.get("VITLENS_DATA")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = made(folder / "a", 1000, 196, 192, 864, 682)
        stores = {
            "1,000 x 196, 256 MiB": (small, 2**28),
            "1,000 x 196, 32 MiB": (small, 2**25),
            "20,000 x 16, 32 MiB": (made(folder / "b", 20_000, 16, 192, 1024, 682), 2**25),
            "2,000 x 196 in small shards, 64 MiB": (made(folder / "c", 2000, 196, 192, 64, 85), 2**26),
        }
        print("mean number of distinct images in a batch of 4,096")
        for case, (store, memory_bytes) in stores.items():
            found, ideal = mixing(store.tokens(HOOK, memory_bytes=memory_bytes))
            print(f"{case:<58}{found:>10.1f} of {ideal:>8.1f} = {found / ideal:.3f}")
        columns = {case: reading(store, options.rounds, memory) for case, (store, memory) in stores.items()}
        for reference in next(iter(columns.values())):
            tables = {case: by_reference[reference] for case, by_reference in columns.items()}
            print_table(f"time over: {reference}", tables)
        if data is not None:
            column = writing(Path(data), folder, options.rounds)
            print_table(
                "time over the forward pass, median [quartiles]", {"DeiT-tiny, 128 photographs": column}
            )


if __name__ == "__main__":
    main()
