"""Preprocessing as Hugging Face's image processor states it, in the words of timm's data config."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import read_json

# A processor by itself, and one that was saved together with a tokenizer.
_FILES = ("preprocessor_config.json", "processor_config.json")

# Pillow's numbers of its filters.
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_processor(source: str, *, is_folder: bool, revision: str | None) -> dict[str, Any]:
    """The image processor's configuration beside a checkpoint; empty where there is none.

    Args:
        source: a folder, or an id on the hub.
        is_folder: which of the two.
        revision: of an id, the branch, tag or commit.
    """
    for name in _FILES:
        path = Path(source) / name if is_folder else _fetch(source, name, revision)
        if path is not None and path.is_file():
            config: dict[str, Any] = read_json(path)
            return dict(config.get("image_processor", config))
    return {}


def _fetch(repository: str, name: str, revision: str | None) -> Path | None:
    hub = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except hub.errors.EntryNotFoundError:
        return None


def data_config(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Timm's data config for what an image processor does; only what the processor says.

    Args:
        processor: the contents of `preprocessor_config.json`.

    Returns:
        Those of `mean`, `std`, `interpolation`, `crop_pct` and `crop_mode` that follow.

    Example:
        >>> sizes = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
        >>> data_config({**sizes, "do_center_crop": True, "resample": 3})
        {'interpolation': 'bicubic', 'crop_pct': 0.875, 'crop_mode': 'center'}
    """
    config: dict[str, Any] = {}
    if processor.get("do_normalize", True) and "image_mean" in processor and "image_std" in processor:
        # The processor normalizes pixels of 0 to 255 times this factor; timm's mean and std are for [0, 1].
        factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
        # 255 times 1/255 as a file rounds it shall be 1.
        unit = 1.0 if math.isclose(255 * factor, 1.0) else 255 * factor
        config["mean"] = tuple(value / unit for value in processor["image_mean"])
        config["std"] = tuple(value / unit for value in processor["image_std"])
    if processor.get("resample") in _INTERPOLATIONS:
        config["interpolation"] = _INTERPOLATIONS[processor["resample"]]
    if processor.get("do_resize", True) and "size" in processor:
        crops = bool(processor.get("do_center_crop", False))
        size, keeps_ratio = _resized(processor["size"], crops)
        crop = _resized(processor["crop_size"], crops)[0] if crops and "crop_size" in processor else size
        config["crop_pct"] = _crop_pct(crop, size)
        config["crop_mode"] = "center" if keeps_ratio else "squash"
    return config


def _resized(size: int | Mapping[str, int], crops: bool) -> tuple[int, bool]:
    """The height that an image is resized to, and whether it keeps its proportions."""
    if isinstance(size, int):
        # Older files give one number: the shortest edge where a crop follows, both edges where none does.
        return size, crops
    if "shortest_edge" in size:
        return size["shortest_edge"], True
    return size["height"], False


def _crop_pct(crop: int, size: int) -> float:
    """The share from which timm computes exactly `size` out of `crop`."""
    share = crop / size
    # timm takes floor(crop / share), and a share that was rounded up would lose one.
    return share if math.floor(crop / share) == size else crop / (size + 0.5)
