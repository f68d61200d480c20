"""What `import vitlens` costs, against its libraries; each import in a process of its own.

    python tests/benchmarks/importing.py

Prints a table of ratios to `import torch, timm`, interpreter included, then the milliseconds that
`python -X importtime` counts for `import vitlens` alone.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from functools import partial

from interleaved import interleaved, print_table

REFERENCE = "import torch, timm"
STATEMENTS = (
    "pass",
    "import torch",
    REFERENCE,
    "import torch, timm, transformer_lens",
    "import vitlens",
    "import vitlens; vitlens.HookedViT",
    "import vitlens; vitlens.compare",
    "import vitlens; vitlens.saes.train",
)


def execute(statement: str, *options: str) -> str:
    """Run a statement in a new interpreter; what it wrote to stderr."""
    command = [sys.executable, "-W", "ignore", *options, "-c", statement]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def counted_ms(statement: str) -> float:
    """Milliseconds of `import vitlens` within a statement, by the interpreter's own count."""
    (microseconds,) = re.findall(r"\|\s*(\d+) \| vitlens\n", execute(statement, "-X", "importtime"))
    return int(microseconds) / 1000


def main() -> None:
    """Time every statement, in an order drawn anew each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    timed = {statement: partial(execute, statement) for statement in STATEMENTS}
    ratios = interleaved(timed, rounds, lambda _: REFERENCE)
    print_table(f"over `{REFERENCE}`", {"wall time": ratios})
    low, median, high = statistics.quantiles((counted_ms("import vitlens") for _ in range(rounds)), n=4)
    print(f"import vitlens, by -X importtime: {median:.0f} ms [{low:.0f}, {high:.0f}]")


if __name__ == "__main__":
    main()
