"""The table of long and large runs: what stays flat, and what grows by how much.

    python tests/reliability/long_runs.py

Writes docs/tables/long_runs.md. Each part runs in a process of its own, so that none inherits memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

HERE = Path(__file__).parent
OUTPUT = HERE.parents[1] / "docs" / "tables" / "long_runs.md"
MIB = 2**20


def held_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak_mib() -> float:
    """The most memory that this process has held; ru_maxrss would start from the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def size_mib(folder: Path) -> float:
    """Of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB


class Many(Dataset[dict[str, Any]]):
    """So many images without a file: each is drawn from its number when it is asked for."""

    def __init__(self, n: int, size: int = 32) -> None:
        self._n, self._size = n, size
        self.n_read = 0
        self.labels = [number % 10 for number in range(n)]
        self.image_ids = [f"image {number:06d}" for number in range(n)]

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch

        self.n_read += 1
        pixels = torch.rand(3, self._size, self._size, generator=torch.Generator().manual_seed(number))
        return {
            "pixels": pixels,
            "label": self.labels[number],
            "image_id": self.image_ids[number],
        }


def tiny(seed: int = 0, **settings: Any) -> Any:
    """A model of two narrow blocks."""
    import timm

    import vitlens as vl
    from vitlens.testing import randomize

    shape = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 10}
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**shape | settings), seed=seed))


def flat(n_images: int) -> dict[str, Any]:
    """Memory after a tenth of a run and at its end, the rows on disk, with activations far above the rows."""
    import torch

    import vitlens as vl

    torch.set_num_threads(1)
    model = tiny(patch_size=4, embed_dim=192, num_heads=3)
    seen: dict[int, float] = {}
    images = Many(n_images)

    class Watched(Many):
        def __getitem__(self, number: int) -> dict[str, Any]:
            if number in (n_images // 10, n_images - 1):
                seen[number] = held_mib()
            return super().__getitem__(number)

    images = Watched(n_images)
    with tempfile.TemporaryDirectory() as folder:
        vl.run(
            model,
            images,
            [vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy(), vl.CKA()],
            conditions=["clean", "gaussian_noise@3"],
            output=folder,
            shard_images=128,
            progress=False,
        )
    early, late = seen.values()
    return {"n_images": n_images, "early_mib": early, "late_mib": late, "growth_mib": late - early}


def piled_up(n_runs: int) -> dict[str, Any]:
    """What many short runs leave behind: files, threads, hooks, temporary files, memory."""
    import gc

    import torch

    import vitlens as vl

    torch.set_num_threads(1)
    model, images = tiny(), [Many(2)[number] for number in range(2)]

    def left() -> dict[str, Any]:
        gc.collect()
        modules = list(model.modules())
        return {
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
            "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules),
            "observers": sum(len(point.observers) for point in model.hook_dict.values()),
            "temporary files": len(list(Path(tempfile.gettempdir()).iterdir())),
        }

    def once(number: int) -> None:
        vl.run(
            model,
            images,
            [vl.Prediction(), vl.AttentionEntropy(), vl.GradientTimesActivation()],
            output=Path(folder) / str(number % 50) if number % 2 else None,
            progress=False,
        )

    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        for number in range(50):
            once(number)
        Path(folder, "made").mkdir()
        before, held = left(), held_mib()
        for number in range(n_runs):
            once(number)
        after, grown = left(), held_mib() - held
        tempfile.tempdir = None
    return {"n_runs": n_runs, "before": before, "after": after, "growth_mib": grown}


def rows(n_images: int, reports: bool = True) -> dict[str, Any]:
    """Very many images: rows written, resumed, read back, summarized, saved, loaded and reported."""
    import torch

    import vitlens as vl

    torch.set_num_threads(1)
    models = {"base": tiny(0), "tuned": tiny(1)}
    said: dict[str, Any] = {"n_images": n_images}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = call()
        said[f"{name}_seconds"] = time.perf_counter() - start
        said[f"{name}_held_mib"] = held_mib()
        said[f"{name}_peak_mib"] = peak_mib()
        return made

    class Stops(Many):
        """Images the last tenth of which is not there, the first time."""

        def __getitem__(self, number: int) -> dict[str, Any]:
            if number == 9 * n_images // 10:
                raise KeyboardInterrupt
            return super().__getitem__(number)

    def compare(images: Many) -> Any:
        return vl.compare(
            models,
            images,
            analyses=[vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy()],
            n_examples=2,
            batch_size=256,
            output=folder,
            progress=False,
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "kept"
        said["start_mib"] = held_mib()

        def cut_short() -> None:
            try:
                compare(Stops(n_images))
            except KeyboardInterrupt:
                return

        timed("measuring", cut_short)
        rest = Many(n_images)
        comparison = timed("resuming", lambda: compare(rest))
        said["images_read_when_resumed"] = rest.n_read
        said["rows_mib"] = size_mib(folder / "rows")
        said["file_mib"] = (folder / "comparison.safetensors").stat().st_size / MIB
        read = timed("reading_back", lambda: compare(Many(n_images)))
        assert read.data.identical(comparison.data)
        timed("summary", lambda: comparison.summary(n_resamples=1000))
        timed("saving", lambda: comparison.save(Path(name) / "again"))
        timed("loading", lambda: vl.Comparison.load(Path(name) / "again"))
        if reports:
            timed("report", lambda: comparison.report(Path(name) / "report.html"))
            said["report_mib"] = (Path(name) / "report.html").stat().st_size / MIB
    return said


def store(n_mib: int) -> dict[str, Any]:
    """An SAE trained on a store that is four times the memory that the process may take for it."""
    import torch

    import vitlens as vl
    from vitlens.saes import ActivationStore

    torch.set_num_threads(1)
    model = tiny(patch_size=4, embed_dim=256, depth=1, num_heads=2)
    hook = "blocks.0.hook_resid_post"
    n_images = n_mib * MIB // (64 * 256 * 4)
    vl.saes.train(torch.randn(256, 8), d_sae=16, k_per_token=2, batch_size=32, n_tokens=64, progress=False)
    said: dict[str, Any] = {"n_images": n_images, "start_mib": held_mib()}
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        written = ActivationStore.write(
            Path(name) / "store", model, Many(n_images), hook_names=[hook], batch_size=64, progress=False
        )
        said["store_mib"] = size_mib(Path(name))
        said["writing_seconds"] = time.perf_counter() - start
        # The limit counts the store's own map, which takes no memory that cannot be had back; beside it, what
        # is held may grow by a quarter of the store.
        said["allowed_mib"] = n_mib / 4
        limit = int((data_mib() + said["store_mib"] + said["allowed_mib"]) * MIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        start = time.perf_counter()
        sae = vl.saes.train(
            written[hook],
            d_sae=256,
            k_per_token=8,
            batch_size=4096,
            n_tokens=written[hook].n_tokens,
            n_holdout_tokens=8192,
            progress=False,
        )
        said["training_seconds"] = time.perf_counter() - start
        said["fvu"] = float(sae.cfg.metadata.fvu)
    return said


def data_mib() -> float:
    """Heap and private maps of this process: what RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData"):
            return int(line.split()[1]) / 1024
    return 0.0


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "flat": flat,
    "piled_up": piled_up,
    "rows": rows,
    "store": store,
}


def apart(part: str, size: int, timeout: float = 3600) -> dict[str, Any]:
    """A part in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--part", part, "--size", str(size)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{part} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def told(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The lines of the table."""
    yield "| what | how much | figure |"
    yield "| --- | --- | --- |"
    if each := found.get("flat"):
        yield (
            f"| a run with `output=`, 2 conditions: memory after a tenth, and at its end | "
            f"{each['n_images']:,} images | {each['early_mib']:.0f} MiB, {each['late_mib']:.0f} MiB |"
        )
    if each := found.get("piled_up"):
        before, after = each["before"], each["after"]
        kept = ", ".join(f"{name} {before[name]} → {after[name]}" for name in before)
        yield f"| runs in one process | {each['n_runs']:,} | {kept}; memory {each['growth_mib']:+.1f} MiB |"
    if each := found.get("rows"):
        n = f"{each['n_images']:,} images, 2 checkpoints"
        yield (
            f"| `compare`, stopped at nine tenths | {n} | {each['measuring_seconds']:.0f} s, "
            f"peak {each['measuring_peak_mib']:.0f} MiB (at the start {each['start_mib']:.0f}) |"
        )
        yield (
            f"| called again | reads {each['images_read_when_resumed']:,} images | "
            f"{each['resuming_seconds']:.1f} s, peak {each['resuming_peak_mib']:.0f} MiB |"
        )
        yield (
            f"| on disk | {n} | rows {each['rows_mib']:.0f} MiB, comparison {each['file_mib']:.0f} MiB, "
            f"report {each['report_mib']:.1f} MiB |"
        )
        for name in ("reading_back", "summary", "saving", "loading", "report"):
            yield (
                f"| {name.replace('_', ' ')} | {n} | {each[f'{name}_seconds']:.1f} s, "
                f"peak {each[f'{name}_peak_mib']:.0f} MiB |"
            )
    if each := found.get("store"):
        yield (
            f"| an SAE trained on a store, with {each['allowed_mib']:,.0f} MiB above torch's for everything "
            "but the map of its files (`RLIMIT_DATA`) | "
            f"store of {each['store_mib']:,.0f} MiB | written in {each['writing_seconds']:.0f} s, trained on "
            f"every token once in {each['training_seconds']:.0f} s |"
        )


def main() -> None:
    """Measure all parts and write the table, or one part and say it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--size", type=int)
    parser.add_argument("--flat", type=int, default=2000, help="images")
    parser.add_argument("--piled-up", type=int, default=1000, help="runs")
    parser.add_argument("--rows", type=int, default=100_000, help="images")
    parser.add_argument("--store", type=int, default=2048, help="MiB")
    chosen = parser.parse_args()
    if chosen.part:
        sys.stdout.write(f"{json.dumps(PARTS[chosen.part](chosen.size))}\n")
        return
    found = {}
    for part in PARTS:
        found[part] = apart(part, getattr(chosen, part))
        sys.stdout.write(f"{part}: {json.dumps(found[part])}\n")
        sys.stdout.flush()
    head = (
        "One thread of an x86-64 CPU, tiny models (two blocks); the figures are of the library, not of a "
        "model. To repeat: `python tests/reliability/long_runs.py`."
    )
    OUTPUT.write_text("\n".join([head, "", *told(found), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
