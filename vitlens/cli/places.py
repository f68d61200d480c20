"""Where a command writes: its file, and the folder beside it."""

from __future__ import annotations

from pathlib import Path

from ..errors import ComparisonError


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
    beside = output.with_suffix(".data") if output.name else output
    if output.is_dir() or not output.parent.is_dir() or output == beside:
        raise ComparisonError(
            f"--output is {output}.",
            expected="a file in a folder that is there",
            remedy=f"Make the folder first, or name a file such as {such_as}.",
        )
    if beside.exists() and not beside.is_dir():
        raise ComparisonError(
            f"{beside}, where the rows would be kept, is a file.",
            expected="a folder, or nothing yet",
            remedy="Name another --output.",
        )
    return output, beside
