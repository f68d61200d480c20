"""The package as a stranger meets it: import, README, examples."""

import os
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


def example(name, *arguments, cwd):
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny models: threads cost more than they give
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, env=one_thread)


def test_the_demo_runs_and_runs_again_from_what_is_there(tmp_path):
    first = example("compare_checkpoints.py", "--quick", "--output", "demo", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "top1_accuracy" in first.stdout
    assert f"report: {Path('demo') / 'report.html'}" in first.stdout
    models = sorted((tmp_path / "demo").glob("*/model.safetensors"))
    assert [path.parent.name for path in models] == ["base", "blur", "noise"]
    written = {path: path.stat().st_mtime_ns for path in models}
    second = example("compare_checkpoints.py", "--quick", "--output", "demo", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "SAE, seed" not in second.stdout
    assert {path: path.stat().st_mtime_ns for path in models} == written
    assert second.stdout.splitlines()[-10:] == first.stdout.splitlines()[-10:]  # the same figures


def test_the_examples_take_anybodys_checkpoints(workplace):
    tuned = example(
        "finetune_on_corruptions.py", "--architecture", "deit_tiny_patch16_224", "--weights", "base.pth",
        "--data", "photographs", "--conditions", "gaussian_blur@1-3", "--steps", 1, "--batch-size", 2,
        "--output", "mine", cwd=workplace,
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    compared = example(
        "compare_checkpoints.py", "--architecture", "deit_tiny_patch16_224", "--base", "base.pth",
        "--tuned", "mine=mine/model.safetensors", "--tuned", "tuned/model.safetensors",
        "--data", "photographs", "--conditions", "clean", "contrast@2", "--no-saes",
        "--output", "out", cwd=workplace,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    assert "mine" in compared.stdout
    assert "tuned" in compared.stdout
    assert (workplace / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("--base base.pth --tuned base.pth --data photographs", "ArchitectureError", "base.pth is a bare"),
        ("--base base.pth", "SystemExit", "2"),
        ("--tuned base.pth", "SystemExit", "2"),
        ("--base tuned/model.safetensors --tuned tuned/model.safetensors --data no", "DatasetError", "no"),
        (
            "--base tuned/model.safetensors --tuned tuned/model.safetensors --data photographs "
            "--conditions gausian_blur@3 --no-saes",
            "ConditionError",
            "gaussian_blur",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_found_before_the_long_work(
    workplace, monkeypatch, arguments, error, message
):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import compare_checkpoints

    expected = SystemExit if error == "SystemExit" else getattr(vl.errors, error)
    with pytest.raises(expected, match=message):
        compare_checkpoints.main(arguments.split())
    assert not (workplace / "demo").exists()


def test_a_mistake_on_the_command_line_ends_with_a_sentence(workplace):
    result = example(
        "compare_checkpoints.py",
        "--base",
        "no.pth",
        "--tuned",
        "base.pth",
        "--data",
        "photographs",
        cwd=workplace,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("CheckpointError: There is no file no.pth.")
    assert "Traceback" not in result.stderr
