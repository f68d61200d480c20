"""A folder of images, one subfolder for each class, shown as the model's data configuration says."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from PIL import Image
from timm.data import ImageNetInfo, create_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import Compose, Normalize

from ..errors import DatasetError, LabelError
from ..files import as_path
from ..models import HookedViT
from ..names import nearest, some
from .decoding import SUFFIXES, read_rgb
from .items import Item

_DATA_CONFIG = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
_PARTS = {"train", "training", "val", "valid", "validation", "test"}
"""What the parts of a data set are called, each of which has the class folders."""
_WORDNET_ID = re.compile(r"n\d{8}")


class Folder(Dataset[Item]):
    """Images in folders, read when asked for.

    Attributes:
        paths: the files.
        labels: the class of each.
        image_ids: path of each below the folder, with forward slashes.
        classes: name of a class's folder -> index, of the classes that are there.
        class_names: a name for each of the model's classes, by index: ImageNet's first word for it, or the
            folder's name.
    """

    def __init__(
        self,
        root: Path,
        image_ids: list[str],
        classes: Mapping[str, int],
        class_names: list[str],
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        self.image_ids = image_ids
        self.paths = [root / image_id for image_id in image_ids]
        self.labels = [classes[image_id.partition("/")[0]] for image_id in image_ids]
        self.classes = dict(classes)
        self.class_names = class_names
        self._transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        return Item(
            pixels=self._transform(read_rgb(self.paths[index])),
            label=self.labels[index],
            image_id=self.image_ids[index],
        )


def folder(
    path: str | os.PathLike[str], model: HookedViT, classes: Mapping[str, int] | None = None
) -> Folder:
    """Images in class folders, resized and cropped as the model's timm configuration says.

    Each folder in `path` is a class, and holds its images at any depth, links followed. Hidden files and
    folders and files that are no images are left out. `model.normalize(item["pixels"])` is what timm's own
    evaluation transform gives.

    Args:
        path: the folder of class folders.
        model: whose size, interpolation and crop to use; nothing of it is kept.
        classes: name of a class's folder -> index among the model's classes; more names than there are
            folders do no harm. None: folders named by WordNet ids, with a model of 1,000 classes, are
            ImageNet's; else there must be as many folders as the model has classes, and they are counted in
            the order of their names.

    Returns:
        A torch data set of items with `paths`, `labels`, `image_ids`, `classes` and `class_names`. Images
        are in the order of their classes' folders' names, then of their paths.

    Raises:
        DatasetError: the folder is missing or empty, a class has no images, or its name is unknown; a folder
            cannot be listed, a link leads nowhere or into a loop; when an item is read, its file cannot be.
        LabelError: `classes` gives an index that the model does not have.

    Example:
        >>> import tempfile, timm
        >>> from vitlens.models import HookedViT
        >>> root = Path(tempfile.mkdtemp())
        >>> for name, color in {"bright": "white", "dark": "black"}.items():
        ...     (root / name).mkdir()
        ...     Image.new("RGB", (300, 400), color).save(root / name / "1.png")
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", num_classes=2))
        >>> images = folder(root, model)
        >>> images.classes, images.image_ids, images[0]["pixels"].shape
        ({'bright': 0, 'dark': 1}, ['bright/1.png', 'dark/1.png'], torch.Size([3, 224, 224]))
    """
    root = as_path(path, "path", DatasetError)
    names = _class_folders(root)
    is_imagenet = classes is None and _is_imagenet(names, model.cfg.n_classes)
    if is_imagenet:
        classes = {name: index for index, name in enumerate(ImageNetInfo().label_names())}
    indices = _class_indices(names, model.cfg.n_classes, classes, root)
    image_ids: list[str] = []
    for name in names:
        found = sorted(_images(root, name))
        if not found:
            raise DatasetError(
                f"The class folder {root / name} has no images.",
                expected=f"files that end with {', '.join(sorted(SUFFIXES))}",
                remedy="Add images or remove the folder.",
            )
        image_ids.extend(found)
    class_names = _imagenet_words() if is_imagenet else _names_by_index(indices, model.cfg.n_classes)
    return Folder(root, image_ids, indices, class_names, _transform(model))


def _is_imagenet(names: list[str], n_classes: int) -> bool:
    return n_classes == 1000 and all(_WORDNET_ID.fullmatch(name) for name in names)


def _imagenet_words() -> list[str]:
    """One name for each class, and its WordNet id besides where two share it (there are two cranes)."""
    info = ImageNetInfo()
    words = [description.partition(",")[0] for description in info.label_descriptions()]
    return [
        f"{word} ({name})" if words.count(word) > 1 else word
        for word, name in zip(words, info.label_names(), strict=True)
    ]


def _names_by_index(classes: Mapping[str, int], n_classes: int) -> list[str]:
    names = {index: name for name, index in classes.items()}
    return [names.get(index, f"class {index}") for index in range(n_classes or len(classes))]


def _class_folders(root: Path) -> list[str]:
    try:
        names = [entry.name for entry in root.iterdir() if _is_class(entry)] if root.is_dir() else []
    except OSError as error:
        raise _not_listed(root, error) from error
    if names:
        return sorted(names)
    if root.is_dir():
        given = f"The folder {root} has no folders in it."
    else:
        given = f"{root} is no folder, but a file." if root.exists() else f"The folder {root} does not exist."
    raise DatasetError(
        given,
        expected="a folder with one folder of images for each class",
        remedy="Check the path; images lie at PATH/CLASS/IMAGE.",
    )


def _is_class(entry: Path) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_symlink() and not entry.exists():
        raise _no_file(entry, is_link=True)
    return entry.is_dir()


def _images(root: Path, below: str, through: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths below `root`, with forward slashes. Links are followed, since data sets are often linked.

    Args:
        root: the data set's folder.
        below: path of the folder to look into.
        through: where one has come through, with links resolved.
    """
    where = root / below
    real = os.path.realpath(where)
    if real in through:
        raise DatasetError(
            f"{where} is a link to a folder that it lies in: its images would be found without end.",
            expected="folders whose links lead elsewhere",
            remedy="Remove the link.",
        )
    try:
        with os.scandir(where) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
        for entry in entries:
            path = f"{below}/{entry.name}"
            if _leads_to(entry.is_dir):
                yield from _images(root, path, through | {real})
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                if not _leads_to(entry.is_file):
                    raise _no_file(root / path, entry.is_symlink())
                yield path
    except OSError as error:
        raise _not_listed(where, error) from error


def _leads_to(is_kind: Callable[[], bool]) -> bool:
    """Whether an entry is a file or a folder; links that lead round to themselves are neither."""
    try:
        return is_kind()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _not_listed(folder: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"The folder {folder} cannot be listed ({type(error).__name__}: {error}).",
        expected="folders that may be read",
        remedy="Give yourself the permission, or remove the folder or the link.",
    )


def _no_file(path: Path, is_link: bool) -> DatasetError:
    return DatasetError(
        f"{path} is {'a link that leads nowhere' if is_link else 'no file, but a pipe or a device'}.",
        expected="files and folders, or links to some",
        remedy="Mend or remove it.",
    )


def _class_indices(
    names: list[str], n_classes: int, classes: Mapping[str, int] | None, root: Path
) -> dict[str, int]:
    # A model without a classifier has no order of classes to keep to.
    if classes is None and n_classes not in (0, len(names)):
        is_one = len(names) == 1
        found = some(f"class folder{'' if is_one else 's'}", names)
        raise DatasetError(
            f"There {'is' if is_one else 'are'} {', '.join(found)}, and the model has {n_classes} "
            f"class{'es' if n_classes > 1 else ''}.",
            expected="a folder for each class, or a mapping that says which they are",
            remedy=f"Name one of the parts: {root / names[-1]}."
            if {*names} <= _PARTS
            else "Give classes={folder name: index}.",
        )
    if classes is None:
        return {name: index for index, name in enumerate(names)}
    for name in names:
        if name not in classes:
            raise DatasetError(
                f"The class folder '{name}' is none of the {len(classes)} known classes.",
                expected=f"a known name (nearest: {nearest(name, classes)})",
                remedy="Rename or remove the folder, or give classes={folder name: index}.",
            )
        if n_classes and not 0 <= classes[name] < n_classes:
            raise LabelError(
                f"The class folder '{name}' has the index {classes[name]}.",
                expected=f"0 to {n_classes - 1}, the model's classes",
                remedy="Correct the mapping in classes.",
            )
    return {name: classes[name] for name in names}


def _transform(model: HookedViT) -> Callable[[Image.Image], Tensor]:
    """The evaluation transform of timm, up to the normalization, which is the model's to do."""
    config = {name: model.data_config[name] for name in _DATA_CONFIG}
    if model.cfg.image_size is not None:
        # The module may have been built for another size than its pretrained weights were.
        config["input_size"] = (3, *model.cfg.image_size)
    *steps, last = create_transform(**config).transforms
    assert isinstance(last, Normalize)
    transform: Callable[[Image.Image], Tensor] = Compose(steps)
    return transform
