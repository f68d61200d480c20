"""Time of every corruption for one image of 224 × 224 pixels, in batches of 16 on one core.

    OMP_NUM_THREADS=1 python tests/benchmarks/corruptions.py [--reference-python PYTHON] [--frost DIR]

PYTHON names an interpreter in which the package imagecorruptions runs (it wants an old numpy and
scikit-image). It is then timed beside vitlens, in turn, on bytes as it takes them. Ratios are vitlens's time
over its time; those to published figures compare two machines. Its glass blur is not compiled, and the
published figure for it is that of a compiled one.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import vitlens as vl

PUBLISHED_MS = {
    "gaussian_noise": 2.6,
    "shot_noise": 6.8,
    "impulse_noise": 1.8,
    "speckle_noise": 2.7,
    "defocus_blur": 2.5,
    "glass_blur": 10,
    "motion_blur": 6.6,
    "zoom_blur": 79,
    "snow": 9,
    "fog": 3.3,
    "brightness": 23,
    "contrast": 2.3,
    "elastic": 20,
    "pixelate": 0.8,
    "jpeg": 0.6,
    "gaussian_blur": 3,
    "saturate": 13,
}
"""imagecorruptions, on one core."""

THEIR_NAMES = {"elastic": "elastic_transform", "jpeg": "jpeg_compression"}

WORKER = """
import json, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
from imagecorruptions import corrupt
image = np.load(sys.argv[1])
for line in sys.stdin:
    name, severity, n = json.loads(line)
    start = time.perf_counter()
    for index in range(n):
        corrupt(image[index % len(image)], corruption_name=name, severity=severity)
    print((time.perf_counter() - start) / n * 1000, flush=True)
"""


class Reference:
    """imagecorruptions in a process of its own, timed when asked."""

    def __init__(self, python: str, images: np.ndarray, where: Path) -> None:
        path = where / "images.npy"
        np.save(path, images)
        self._process = subprocess.Popen(
            [python, "-c", WORKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ms(self, name: str, severity: int, n: int) -> float:
        """Time of one image, over n."""
        self._process.stdin.write(json.dumps([THEIR_NAMES.get(name, name), severity, n]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def photographs(n: int, side: int) -> torch.Tensor:
    """Photographs where VITLENS_DATA names some, else smooth noise."""
    folder = os.environ.get("VITLENS_DATA")
    if folder:
        paths = sorted((Path(folder) / "imagenet_samples").glob("*/*.jpg"))[:: 1000 // n][:n]
        images = [Image.open(path).convert("RGB").resize((side, side)) for path in paths]
    else:
        rng = np.random.default_rng(0)
        small = [Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)) for _ in range(n)]
        images = [image.resize((side, side), Image.Resampling.BICUBIC) for image in small]
    levels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return levels.permute(0, 3, 1, 2).contiguous() / 255


def _ms(timed: Callable[[], object], pixels: torch.Tensor) -> float:
    """Milliseconds for one of the images."""
    start = time.perf_counter()
    kept = timed()
    if pixels.is_cuda:
        torch.cuda.synchronize()
    del kept
    return (time.perf_counter() - start) / len(pixels) * 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference-python")
    parser.add_argument("--frost", help="a folder of photographs of frost")
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    if chosen.frost:
        vl.register_corruption(vl.images.frost(chosen.frost))
    pixels = photographs(16, 224)
    ids = [str(index) for index in range(16)]
    reference = None
    if chosen.reference_python:
        images = (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        reference = Reference(chosen.reference_python, images, Path(tempfile.mkdtemp()))
    names = chosen.only or [name for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
    ours: dict[str, list[float]] = {name: [] for name in names}
    theirs: dict[str, list[float]] = {name: [] for name in names}
    pixels = pixels.to(chosen.device)

    def run(name: str) -> float:
        return _ms(lambda: vl.corrupt(pixels, name, chosen.severity, image_ids=ids), pixels)

    for name in names:
        run(name)  # once before: kernels and caches
        if reference and name != "sharpen":
            reference.ms(name, chosen.severity, 2)
    for _ in range(chosen.rounds):
        for name in random.sample(names, len(names)):
            ours[name].append(run(name))
            if reference and name != "sharpen":
                theirs[name].append(reference.ms(name, chosen.severity, 4))
    print(
        f"{'corruption':<18}{'ms':>8}{'reference ms':>14}{'ratio [quartiles]':>24}"
        f"{'published ms':>14}{'ratio':>8}"
    )
    to_reference, to_published = [], []
    for name in names:
        median = statistics.median(ours[name])
        row = f"{name:<18}{median:>8.2f}"
        if theirs[name]:
            each = [mine / other for mine, other in zip(ours[name], theirs[name], strict=True)]
            low, middle, high = statistics.quantiles(each, n=4)
            if name != "glass_blur":  # not compiled there: it would make the mean
                to_reference.append(middle)
            row += f"{statistics.median(theirs[name]):>14.2f}{f'{middle:.2f} [{low:.2f}, {high:.2f}]':>24}"
        else:
            row += f"{'–':>14}{'–':>24}"
        if name in PUBLISHED_MS:
            to_published.append(median / PUBLISHED_MS[name])
            row += f"{PUBLISHED_MS[name]:>14.1f}{to_published[-1]:>8.2f}"
        print(row)
    model = vl.HookedViT.from_timm("vit_small_patch16_224").eval().to(chosen.device)
    images = model.normalize(pixels)
    with torch.no_grad():
        forwards = [_ms(lambda: model(images), pixels) for _ in range(4)][1:]
    print(f"{'(ViT-S forward)':<18}{statistics.median(forwards):>8.2f}")
    for what, ratios in (("the reference", to_reference), ("the published figures", to_published)):
        if ratios:
            mean = statistics.geometric_mean(ratios)
            print(f"to {what}: geometric mean {mean:.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
