"""The package as a stranger meets it: import, README, the code in the docs."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import vitlens as vl

ROOT = Path(__file__).parents[1]


def python(code, *options):
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_importing_prints_nothing_and_warns_of_nothing():
    # Whatever timm or transformer_lens themselves have to say is theirs: imported first, they say it first.
    code = (
        "import timm, transformer_lens, warnings; warnings.simplefilter('error'); print('-')\n"
        "import vitlens, vitlens.analyses"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "-\n"
    assert result.stderr == ""


def test_torch_sae_lens_and_plotly_are_imported_when_used():
    code = """
import sys, vitlens
print('torch' in sys.modules, 'Prediction' in dir(vitlens))
vitlens.Prediction, vitlens.run
print('torch' in sys.modules, 'sae_lens' in sys.modules, 'plotly' in sys.modules)
"""
    assert python(code).stdout == "False True\nTrue False False\n"


def test_importing_touches_no_network():
    code = """
import socket
def refuse(*arguments, **options): raise AssertionError("the network was touched")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import vitlens, vitlens.analyses, vitlens.saes, vitlens.report, vitlens.training
"""
    assert python(code).stderr == ""
    assert socket.socket.connect  # this process is untouched


def test_every_public_name_is_there_and_documented():
    for name in vl.__all__:
        assert getattr(vl, name) is not None
        if name != "CORRUPTIONS":
            assert getattr(vl, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vl.nothing


def test_the_readmes_code_runs(workplace):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("steps=300", "steps=1, batch_size=2").replace(
        "k_per_token=8", "k_per_token=8, batch_size=256"
    )
    exec(compile(code, "README.md", "exec"), {})
    assert (workplace / "report.html").stat().st_size > 1_000_000
    assert (workplace / "robust" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "page", ["analyses.md", "comparing.md", "corruptions.md", "finetuning.md", "saes.md"]
)
def test_the_code_on_a_page_runs(page):
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S
    )
    assert len(blocks) > 3
    names = {"__name__": "page"}
    for block in blocks:  # one after the other, as a reader would type them
        exec(compile(block, page, "exec"), names)
