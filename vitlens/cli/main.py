"""The `vitlens` command: its parser, and how errors reach the terminal."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import VitlensError
from ..signals import TERMINATED, Terminated, ending_in_order
from .words import spoken

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells count it."""

_COMMANDS = {
    "compare": "Compare checkpoints of one architecture on a folder of images, and write a report",
    "evaluate": "Measure how good checkpoints are, each by itself: accuracy, certainty and calibration",
    "finetune": "Fine-tune a checkpoint on clean and corrupted images; the same command goes on with a "
    "stopped run",
    "train-sae": "Train a sparse autoencoder on a checkpoint's activations; the same command goes on with a "
    "stopped one",
    "corrupt": "Show a photograph under every corruption and severity, as one HTML file",
}
"""What each does, in a line. Its module, called alike, is imported when asked for, and torch with it."""

_DESCRIPTION = """\
What changed inside a Vision Transformer?

vitlens takes checkpoints of one Vision Transformer, such as a base model and one fine-tuned to be robust,
shows them the same photographs, clean and corrupted, and measures what differs: accuracy and certainty, the
layer at which the answer forms, where attention looks, how far the representations lie apart. Every
difference has an interval, and the report opens in a browser.
"""

_EPILOG = """\
the usual call:
  vitlens compare base.safetensors tuned.safetensors --data photographs \\
      --conditions clean gaussian_blur@3 gaussian_noise@3 --output report.html

photographs is a folder with a folder of images for each class. Every command says more with --help. In Python
the same is `import vitlens`; help(vitlens.compare) is a start, and the folder docs/ of the sources is the
manual.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `vitlens`; None takes the process's own.

    Returns:
        0; 1 where vitlens refused something, with its message on standard error; 2, by SystemExit, where the
        arguments are not understood; 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        >>> main(["corrupt", "no such file.jpg", "--output", "sheet.html"])
        1
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    command = next((word for word in given if word in _COMMANDS), None)
    speaker = f"vitlens {command}" if command else "vitlens"
    with ending_in_order():
        return _obeyed(given, command, speaker)


def _obeyed(given: Sequence[str], command: str | None, speaker: str) -> int:
    """Run it, and turn what ends it into a line and a status."""
    room: Any = None
    try:
        if command is not None:
            room = importlib.import_module(f".{command.replace('-', '_')}", __package__)
        parser = _parser(command, room)
        if not given:
            parser.print_help(sys.stderr)
            return 2
        chosen = parser.parse_args(given)
        chosen.arguments = given
        room.run(chosen)
    except (VitlensError, OSError) as error:
        sys.stderr.write(f"{speaker}: {spoken(str(error), _options(room))}\n")
        return 1
    except (KeyboardInterrupt, Terminated) as stopped:
        said = f"; {stopped}" if str(stopped) else ""
        sys.stderr.write(f"{speaker}: stopped{said}.\n")
        return TERMINATED if isinstance(stopped, Terminated) else INTERRUPTED
    return 0


def _options(room: Any) -> list[str]:
    """Names of a command's options, as its usage shows them."""
    parser = argparse.ArgumentParser()
    room.add_arguments(parser)
    return re.findall(r"--([a-z][a-z-]*)", parser.format_usage())


def _parser(command: str | None, room: Any) -> argparse.ArgumentParser:
    """The parser, which knows the arguments of this command alone."""
    parser = argparse.ArgumentParser(
        prog="vitlens",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"vitlens {importlib.metadata.version('vitlens')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name, line in _COMMANDS.items():
        own = commands.add_parser(
            name,
            help=line,
            description=line + ".",
            epilog=getattr(room, "EPILOG", None) if name == command else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == command:
            room.add_arguments(own)
    return parser
