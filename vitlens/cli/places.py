"""Where a command writes: its file, which is nobody else's, and the folder beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import ComparisonError

_OURS = b'<meta name="generator" content="vitlens">'
"""What every page of vitlens has in its head, before its title."""

_ENDINGS = (".html", ".htm", ".csv")


def check_page(output: Path, such_as: str) -> None:
    """Refuse a page that cannot be written, or that would take the place of a file that is none of vitlens's.

    Args:
        output: what `--output` names.
        such_as: a name that would do, for messages.

    Raises:
        ComparisonError: it is a folder, its folder is not there, or it is another's file.

    Example:
        >>> check_page(Path("report.html"), "report.html")
    """
    _check_file(output, such_as)
    _check_ours(output, _OURS)


def check_table(output: Path, such_as: str, columns: Sequence[str]) -> None:
    """Refuse a table that cannot be written, or that would take the place of a file that has other columns.

    Args:
        output: what `--output` names.
        such_as: a name that would do, for messages.
        columns: of the table to be written, the first ones.

    Raises:
        ComparisonError: it is a folder, its folder is not there, or it is another's file.

    Example:
        >>> check_table(Path("accuracy.csv"), "accuracy.csv", ["checkpoint", "condition"])
    """
    _check_file(output, such_as)
    _check_ours(output, ",".join(columns).encode())


def file_and_folder(output: Path, such_as: str) -> tuple[Path, Path]:
    """The file that a command writes, and the folder beside it in which rows are kept as they come.

    Args:
        output: what --output names.
        such_as: a name that would do, for messages.

    Raises:
        ComparisonError: `output` can be no file, or the folder's place is taken by one.

    Example:
        >>> [str(path) for path in file_and_folder(Path("report.html"), "report.html")]
        ['report.html', 'report.data']
    """
    # A dot may belong to the name itself, as in blur_0.5.
    bare = output.stem if output.suffix.lower() in _ENDINGS else output.name
    _check_file(output, such_as)
    if output.suffix == ".data":
        raise ComparisonError(
            f"--output is {output}.",
            expected="a file, since a name with .data is for the folder beside one",
            remedy=f"Name a file such as {such_as}.",
        )
    beside = output.with_name(f"{bare}.data")
    if beside.exists() and not beside.is_dir():
        raise ComparisonError(
            f"{beside}, where the rows would be kept, is a file.",
            expected="a folder, or nothing yet",
            remedy="Name another --output.",
        )
    return output, beside


def _check_file(output: Path, such_as: str) -> None:
    if not output.name or output.is_dir() or not output.parent.is_dir():
        raise ComparisonError(
            f"--output is {output}.",
            expected="a file in a folder that is there",
            remedy=f"Make the folder first, or name a file such as {such_as}.",
        )


def _check_ours(output: Path, sign: bytes) -> None:
    """Refuse a file that is there without the sign that vitlens's have at their beginning."""
    if not output.exists():
        return
    if output.is_file():  # and no pipe, say, whose reading would wait
        with output.open("rb") as file:
            if sign in file.read(2048):
                return
    raise ComparisonError(
        f"--output is {output}, a file that vitlens did not write.",
        expected="a new file, or one of vitlens to write anew",
        remedy="Name another, or move that file away.",
    )
