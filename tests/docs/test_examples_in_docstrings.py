"""Every example in a docstring is run: doctest finds each, and none is skipped."""

import ast
import doctest
from importlib import import_module
from pathlib import Path

import vitlens as vl

ROOT = Path(vl.__file__).parent


def written(path):
    """How many docstrings of a file have an example, wherever a docstring may stand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = (
        node.value.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node.value)
    )
    return sum(">>>" in text for text in texts)


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def found(path):
    """How many of them doctest finds, and so pytest with `--doctest-modules`."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = import_module(".".join(parts).removesuffix(".__init__"))
    return sum(bool(test.examples) for test in doctest.DocTestFinder().find(module))


def test_doctest_finds_every_example_that_is_written():
    paths = [path for path in ROOT.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")]
    assert len(paths) > 150
    missing = {path.name: (written(path), found(path)) for path in paths if written(path) != found(path)}
    assert missing == {}


def test_no_example_is_skipped():
    skipped = [path for path in ROOT.rglob("*.py") if "+SKIP" in path.read_text(encoding="utf-8")]
    assert skipped == []
