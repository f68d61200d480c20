"""The code on the pages runs, block after block, as a reader would type it."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["analyses.md"])
def test_the_code_on_a_page_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 3
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, f"{page}", "exec"), names)
