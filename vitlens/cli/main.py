"""The `vitlens` command: its parser, and how errors reach the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import VitlensError
from . import corrupt, finetune

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells count it."""

_COMMANDS = {"corrupt": corrupt, "finetune": finetune}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `vitlens`; None takes the process's own.

    Returns:
        0; 1 where vitlens refused something, with its message on standard error; 130 after Ctrl-C.

    Example:
        >>> main(["corrupt", "no such file.jpg", "--output", "sheet.html"])
        1
    """
    parser = argparse.ArgumentParser(
        prog="vitlens", description="What changed inside a Vision Transformer.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        own = commands.add_parser(name, help=command.HELP, description=command.HELP + ".", allow_abbrev=False)
        command.add_arguments(own)
    chosen = parser.parse_args(arguments)
    try:
        _COMMANDS[chosen.command].run(chosen)
    except (VitlensError, OSError) as error:
        sys.stderr.write(f"vitlens {chosen.command}: {error}\n")
        return 1
    except KeyboardInterrupt as stopped:
        said = f"; {stopped}" if str(stopped) else ""
        sys.stderr.write(f"vitlens {chosen.command}: stopped{said}.\n")
        return INTERRUPTED
    return 0
