"""Folders of images beside the one that is trained on."""

from __future__ import annotations

from pathlib import Path

from ..images import folder
from ..images.folder import Folder
from ..models import HookedViT


def held_out(path: Path, model: HookedViT, trained_on: Folder) -> Folder:
    """Held-out images, with the classes of the images that are trained on or some of them.

    Args:
        path: the folder of class folders.
        model: whose size, interpolation and crop to use.
        trained_on: the images of the training, as the same model sees them.

    Raises:
        DatasetError, LabelError: as `vitlens.images.folder`.
    """
    # The training folders say which class is which, unless they are some of ImageNet's.
    is_whole = len(trained_on.classes) == model.cfg.n_classes
    return folder(path, model, trained_on.classes if is_whole else None)
