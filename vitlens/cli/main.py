"""The `vitlens` command: its parser, and how errors reach the terminal."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

from ..errors import VitlensError
from . import compare, corrupt, evaluate, finetune, train_sae
from .words import spoken

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells count it."""

_COMMANDS = {
    "compare": compare,
    "evaluate": evaluate,
    "finetune": finetune,
    "train-sae": train_sae,
    "corrupt": corrupt,
}

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
        arguments are not understood; 130 after Ctrl-C.

    Example:
        >>> main(["corrupt", "no such file.jpg", "--output", "sheet.html"])
        1
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return 2
    chosen = parser.parse_args(given)
    chosen.arguments = given
    try:
        _COMMANDS[chosen.command].run(chosen)
    except (VitlensError, OSError) as error:
        sys.stderr.write(f"vitlens {chosen.command}: {spoken(str(error))}\n")
        return 1
    except KeyboardInterrupt as stopped:
        said = f"; {stopped}" if str(stopped) else ""
        sys.stderr.write(f"vitlens {chosen.command}: stopped{said}.\n")
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
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
    for name, command in _COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.HELP,
            description=command.HELP + ".",
            epilog=getattr(command, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(own)
    return parser
