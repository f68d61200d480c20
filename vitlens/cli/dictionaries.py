"""Sparse autoencoders as a command names them: `NAME=FOLDER,FOLDER,...` for each checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..comparison.sae_groups import UNRELATED
from ..errors import ComparisonError
from ..names import nearest


def places(
    texts: Sequence[str], checkpoints: Collection[str], unrelated: Path | None
) -> dict[str, list[Path]]:
    """Checkpoint -> folders of its SAEs.

    Args:
        texts: as typed; a folder whose own name has a comma is one, where it is there.
        checkpoints: their names.
        unrelated: the random-weight checkpoint, where one is named.

    Raises:
        ComparisonError: a text is no such pair, names no checkpoint or one twice, or a folder is not there;
            or there is a random-weight checkpoint without SAEs.

    Example:
        >>> places([], ["base", "tuned"], None)
        {}
    """
    known = (*checkpoints, UNRELATED)
    found: dict[str, list[Path]] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        if not name or not rest:
            raise ComparisonError(
                f"--saes is given {text!r}.",
                expected="NAME=FOLDER,FOLDER, such as base=saes/base-0,saes/base-1",
                remedy="Name each checkpoint with the folders of its SAEs.",
            )
        if name not in known:
            raise ComparisonError(
                f"--saes names '{name}', which is no checkpoint.",
                expected=f"one of {', '.join(known)}",
                remedy=f"Nearest: {nearest(name, known)}.",
            )
        if name in found:
            raise ComparisonError(
                f"--saes names '{name}' twice.",
                expected="each checkpoint once",
                remedy=f"Write {name}=FOLDER,FOLDER.",
            )
        found[name] = [Path(rest)] if Path(rest).is_dir() else [Path(each) for each in rest.split(",")]
        if missing := [folder for folder in found[name] if not folder.is_dir()]:
            raise ComparisonError(
                f"--saes {name} names '{missing[0]}', which is no folder.",
                expected="the folder of an SAE that vitlens wrote",
                remedy="Check the path.",
            )
    if unrelated is not None and UNRELATED not in found:
        raise ComparisonError(
            f"--unrelated is {unrelated}, and there are no SAEs of it.",
            expected=f"them as --saes {UNRELATED}=FOLDER",
            remedy="Name them, or leave --unrelated out.",
        )
    return found


def loaded(folders: Mapping[str, Sequence[Path]], device: torch.device) -> dict[str, list[Any]] | None:
    """Checkpoint -> its SAEs; None where no folder is named.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if not folders:
        return None
    from ..saes import load  # sae-lens takes seconds to import, and is wanted only here

    return {name: [load(path, device) for path in paths] for name, paths in folders.items()}
