"""Each example runs as a script, writes what it says, and its page is the script's."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import vitlens as vl

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "examples"


def _pages():
    spec = importlib.util.spec_from_file_location("pages", PAGES / "pages.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages"] = module
    spec.loader.exec_module(module)
    return module


pages = _pages()
QUICK = {
    "attention": "--n-images 60",
    "logit_lens": "--n-images 60",
    "train_sae": "--n-images 60 --n-tokens 20000",
    "match_features": "--n-images 40 --n-seeds 2 --n-tokens 10000 --everything",
    "finetune_on_corruptions": "--n-images 40 --steps 6",
    "transplant_layers": "--n-images 60",
    "write_an_analysis": "--n-images 60",
    "compare_checkpoints": "--quick --no-saes --output quick",
}
"""What keeps a test short; the defaults are what the pages show."""


def example(name, *arguments, cwd):
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny models: threads cost more than they give
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, env=one_thread)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """One folder for all: the first example trains the small models, the others read them back."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", pages.EXAMPLES)
def test_an_example_runs_and_writes_what_it_says(name, workshop):
    result = example(f"{name}.py", *QUICK.get(name, "").split(), cwd=workshop)
    assert result.returncode == 0, result.stderr
    said = re.findall(r"^(?:figure|gallery|report): (.*)$", result.stdout, re.MULTILINE)
    assert said
    for path in said:
        assert (workshop / path).stat().st_size > 1000
    assert "nan" not in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", pages.EXAMPLES)
def test_help_says_what_an_example_is_for(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    script = ROOT / "examples" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    docstring, _ = pages.cells(script)
    assert docstring.partition("\n")[0] in capsys.readouterr().out


@pytest.mark.parametrize("name", pages.EXAMPLES)
def test_a_page_has_the_prose_and_the_code_of_its_script(name):
    written = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    script = ROOT / "examples" / f"{name}.py"
    wanted = pages.page(script, *pages.cells(script))
    assert pages.without_results(written) == pages.without_results(wanted), (
        f"run python docs/examples/pages.py {name}"
    )
    assert "What was found" in written or name == "compare_checkpoints"


def test_every_script_in_cells_has_a_page_and_the_index_shows_it():
    in_cells = [
        path.stem
        for path in (ROOT / "examples").glob("*.py")
        if "study" not in path.stem and re.search(r"^# %%", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(in_cells) == sorted(pages.EXAMPLES)
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[.*\]\((\w+)\.md\)$", index, re.MULTILINE) == list(pages.EXAMPLES)


def test_the_figures_of_the_pages_are_small_and_shown():
    shown = {
        name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"!\[[^]]*\]\(figures/([^)]*)\)", page.read_text(encoding="utf-8"))
    }
    drawn = {path.name: path.stat().st_size for path in (PAGES / "figures").iterdir()}
    assert shown == set(drawn)
    assert max(drawn.values()) < pages.MAX_BYTES
    assert sum(drawn.values()) < 600_000


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("logit_lens", "--base base.pth", "want each other"),
        ("logit_lens", "--base base.pth --data photographs", "--base and --tuned want each other"),
        ("finetune_on_corruptions", "--base base.pth --data photographs", "--data wants --train besides"),
        ("eva_and_huggingface", "--timm vit_tiny_patch16_224", "--data and models"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(name, arguments, message, workplace, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def real(data_folder, deit_tiny, tmp_path_factory):
    """Flags for DeiT-tiny, a copy of it that is a little off, and a photograph of each of four classes."""
    folder = tmp_path_factory.mktemp("real")
    weights = data_folder / "deit_tiny_patch16_224.fp16.safetensors"
    model = vl.load(weights, "deit_tiny_patch16_224")
    with torch.no_grad():
        model.model.head.bias += torch.randn(1000, generator=torch.Generator().manual_seed(0))
    vl.save(model, folder / "tuned.safetensors")
    (folder / "photographs").mkdir()
    for each in sorted((data_folder / "imagenet_samples").iterdir())[:4]:
        (folder / "photographs" / each.name).symlink_to(each, target_is_directory=True)
    given = ["--base", weights, "--architecture", "deit_tiny_patch16_224", "--data", folder / "photographs"]
    return folder, given, ["--tuned", f"off={folder / 'tuned.safetensors'}"]


def test_hooks_and_cache_runs_on_deit_tiny_and_photographs(real):
    folder, given, _ = real
    result = example("hooks_and_cache.py", *given, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "12 blocks of 3 heads" in result.stdout
    assert "equal to timm's, bit for bit: True" in result.stdout


def test_a_bare_state_dict_of_other_sizes_runs(real):
    folder, given, _ = real
    state = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=64).state_dict()
    torch.save(state, folder / "four.pth")
    sizes = ["--architecture", "vit_tiny_patch16_224", "--num-classes", "4", "--image-size", "64"]
    result = example("hooks_and_cache.py", "--base", "four.pth", *sizes, *given[-2:], cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "12 blocks of 3 heads" in result.stdout


def test_the_logit_lens_runs_on_deit_tiny_and_photographs(real):
    folder, given, tuned = real
    result = example("logit_lens.py", *given, *tuned, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "n01440764/n01440764.jpg is: tench" in result.stdout
    assert "off says it" in result.stdout


def test_other_architectures_run_on_photographs(real):
    folder, given, _ = real
    result = example("eva_and_huggingface.py", "--timm", "vit_tiny_patch16_224", *given[-2:], cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "vit_tiny_patch16_224 (VisionTransformer): 12 blocks" in result.stdout


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
        "finetune_on_corruptions.py", "--architecture", "deit_tiny_patch16_224", "--base", "base.pth",
        "--train", "photographs", "--data", "photographs", "--conditions", "gaussian_blur@1-3",
        "--attack", "fgsm:eps=2/255", "--steps", 1, "--batch-size", 2, "--output", "mine", cwd=workplace,
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    compared = example(
        "compare_checkpoints.py", "--architecture", "deit_tiny_patch16_224", "--base", "base.pth",
        "--tuned", "mine=mine/finetune/corruption/model.safetensors", "--tuned", "tuned/model.safetensors",
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
