"""Hugging Face's side: opening ids, folders and live modules, and reading what they are."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import CheckpointError, FamilyError, VitlensError
from ...files import as_path
from .model_type import ModelType, Settings
from .model_types import MODEL_TYPES, of_class, of_name, supported_classes
from .processor import data_config, read_processor


@dataclass(frozen=True)
class Source:
    """A live Hugging Face module and what came with it.

    Args:
        module: the module.
        data_config: preprocessing that was stored beside it, as timm says it.
        origin: the id or the folder's name; None for a module that was given live.
        revision: of an id, the branch, tag or commit.
    """

    module: nn.Module
    data_config: dict[str, Any]
    origin: str | None = None
    revision: str | None = None


def open_source(source: str | os.PathLike[str] | nn.Module, revision: str | None) -> Source:
    """Load an id or a folder by transformers' own loading; take a live module as it is.

    Raises:
        CheckpointError: there is nothing to load, weights are missing in it, or there is no transformers.
        FamilyError: it is of a class that cannot be carried.
    """
    if isinstance(source, nn.Module):
        return Source(source, data_config={})
    named = os.fspath(as_path(source, "source")) if not isinstance(source, str) else source
    is_folder = Path(named).is_dir()
    if not is_folder and (not isinstance(source, str) or Path(named).is_absolute() or named.startswith(".")):
        raise CheckpointError(
            f"There is no folder {named}.",
            expected="a folder that save_pretrained wrote, an id on the Hugging Face hub, or a live module",
            remedy="Check the path.",
        )
    transformers = import_transformers()
    where = {"local_files_only": is_folder, "revision": revision}
    with _loading(named):
        config, _ = transformers.PreTrainedConfig.get_config_dict(named, **where)
        if not config:
            raise OSError("it has no config.json")
    hf_class = _class_of(config, named)
    with _loading(named), torch.random.fork_rng(devices=[]):
        module, report = getattr(transformers, hf_class).from_pretrained(
            named, dtype=torch.float32, output_loading_info=True, **where
        )
    _check_complete(module, hf_class, report, named)
    processor = read_processor(named, is_folder=is_folder, revision=revision)
    origin = Path(named).resolve().name if is_folder else named
    return Source(module.eval(), data_config(processor), origin=origin, revision=revision)


@contextlib.contextmanager
def _loading(named: str) -> Iterator[None]:
    """Say in vitlens's words what transformers could not load."""
    try:
        yield
    except VitlensError:
        raise
    except Exception as error:  # transformers raises whatever a damaged file leads to
        reason = str(error).strip().splitlines()
        first = reason[0] if reason else "no reason given"
        raise CheckpointError(
            f"{named} cannot be loaded ({type(error).__name__}: {first}).",
            expected="a folder that save_pretrained wrote, or an id on the Hugging Face hub",
            remedy="Check the name, the revision, and that the files are there and whole.",
        ) from error


def import_transformers() -> Any:
    """transformers, imported when it is needed.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise CheckpointError(
            "transformers is not installed.",
            expected="transformers, which loads the files and ids of Hugging Face",
            remedy="Install it with `pip install transformers`, or pass a live module.",
        ) from error


def recognize(module: nn.Module) -> tuple[str, ModelType]:
    """The class of a live Hugging Face module and its model type, told without importing transformers.

    Raises:
        FamilyError: the class cannot be carried.
    """
    kind = type(module)
    model_type = of_class(kind.__name__)
    if model_type is None or not kind.__module__.startswith("transformers.models."):
        raise FamilyError(
            f"{kind.__module__}.{kind.__name__} is no class that can be carried over to timm.",
            expected=f"one of transformers' {', '.join(supported_classes())}",
            remedy="Of a model with several towers pass the vision tower, such as clip_model.vision_model.",
        )
    return kind.__name__, model_type


def settings_of(module: nn.Module, hf_class: str) -> Settings:
    """The plain values of a live module's configuration, defaults included, and `n_classes`."""
    config: Any = module.config
    values: dict[str, Any] = config.to_dict()
    # A classifier on one tower of a model with two keeps the tower's configuration inside its own.
    values = values.get("vision_config", values)
    if hf_class.endswith("WithProjection"):
        n_classes = values["projection_dim"]
    else:
        n_classes = config.num_labels if "ForImageClassification" in hf_class else 0
    plain = {name: value for name, value in values.items() if _is_plain(value) and not name.startswith("_")}
    return {**plain, "n_classes": n_classes}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(item, int | float | str) for item in value)
    return isinstance(value, bool | int | float | str)


def _class_of(config: dict[str, Any], source: str) -> str:
    """The class that shall read a checkpoint with this configuration."""
    model_type = of_name(config.get("model_type"))
    named: str | None = next(iter(config.get("architectures") or ()), None)
    if model_type is not None:
        if named is None:
            return model_type.classes[0]
        hf_class = (model_type.loads_as or {}).get(named, named)
        if hf_class in model_type.classes:
            return hf_class
    names = ", ".join(name for known in MODEL_TYPES for name in known.names)
    raise FamilyError(
        f"{source} is a {named or 'model'} of type '{config.get('model_type')}'.",
        expected=f"a model of type {names}, and of these one of {', '.join(supported_classes())}",
        remedy="Load it with transformers into one of these classes and pass the module.",
    )


def _check_complete(module: nn.Module, hf_class: str, report: dict[str, Any], source: str) -> None:
    """Transformers fills what a checkpoint lacks with random numbers, which nobody should measure."""
    _, model_type = recognize(module)
    names = model_type.spell(list(module.state_dict()))
    missing = sorted(name for name in report["missing_keys"] if not model_type.is_unused(names[name]))
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} of {hf_class}'s weights, such as {missing[0]}.",
            expected=f"all of the weights of {hf_class}",
            remedy="Take a checkpoint that was saved from this class, or load it into the class that it has.",
        )
