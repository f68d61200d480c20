"""Builds the sdist, from it the wheel, and tries the wheel in environments of its own.

    python tests/packaging/try_wheel.py                     the Python that runs this
    python tests/packaging/try_wheel.py --every-python      each of 3.11 to 3.13 that is there

Nothing of the checkout is on the path: what a file of the package or a dependency lacks is found here.
"""

from __future__ import annotations

# ruff: noqa: T201  # it is a program
import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command without the checkout on the path; what it said.

    Raises:
        SystemExit: it failed.
    """
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def built(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it, of the files that git knows."""
    source = folder / "source"
    known = run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / ".git").exists() else None
    if known is None:
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".venv*", "build", "*.egg-info"))
    else:
        for name in known:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", source)
    (sdist,), (wheel,) = (list((folder / "dist").glob(end)) for end in ("*.tar.gz", "*.whl"))
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """The wheel has every file of the package and nothing else; the sdist also tests, docs and examples.

    Raises:
        SystemExit: a file lacks, or is there by mistake.
    """
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vitlens").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    if inside != wanted:
        raise SystemExit(f"lacking: {sorted(wanted - inside)}; too much: {sorted(inside - wanted)}")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("CHANGELOG.md", "CITATION.cff", "Makefile", "docs/index.md", "tests/conftest.py"):
        if name not in names:
            raise SystemExit(f"the sdist lacks {name}")


def try_in(python: str, wheel: Path, folder: Path) -> None:
    """Install the wheel alone for one Python, and use it; then with an extra."""
    run(python, "-m", "venv", folder / "env")
    inside = folder / "env" / "bin" / "python"
    empty = folder / "elsewhere"
    empty.mkdir()
    run(inside, "-m", "pip", "install", "--quiet", wheel)
    run(inside, "-m", "pip", "check")
    print(run(inside, "-W", "ignore", ROOT / "tests" / "packaging" / "bare.py", cwd=empty), end="")
    print(run(folder / "env" / "bin" / "vitlens", "--version", cwd=empty), end="")
    run(inside, "-m", "pip", "install", "--quiet", f"{wheel}[digits]")
    example = ROOT / "examples" / "compare_checkpoints.py"
    run(inside, "-W", "ignore", example, "--quick", "--no-saes", "--output", "demo", cwd=empty)
    if not (empty / "demo" / "report.html").exists():
        raise SystemExit("the example wrote no report")
    told = run(inside, "-X", "importtime", "-c", "import vitlens", cwd=empty)
    (spent,) = re.findall(r"\|\s*(\d+) \| vitlens\n", told)
    print(f"import vitlens: {int(spent) / 1000:.0f} ms")


def pythons() -> dict[str, str]:
    """Version -> an interpreter of it that runs: on the path, or beside others that pyenv keeps."""
    found = {}
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        names = [shutil.which(f"python{version}"), *map(str, kept.glob(f"{version}.*/bin/python"))]
        for name in filter(None, names):
            if subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0:
                found[version] = name
                break
    return found


def main() -> None:
    """Build, look inside, and try."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every-python", action="store_true", help="not only the one that runs this")
    this = "{}.{}".format(*sys.version_info)
    found = pythons() if parser.parse_args().every_python else {this: sys.executable}
    with tempfile.TemporaryDirectory() as name:
        sdist, wheel = built(Path(name))
        check_contents(sdist, wheel)
        print(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB")
        for version, python in found.items():
            folder = Path(name) / version
            folder.mkdir()
            try_in(python, wheel, folder)
            print(f"python {version}: the wheel works, alone and with the extra digits")
        print(f"not tried: {', '.join(sorted({*VERSIONS} - {*found})) or 'none'}")


if __name__ == "__main__":
    main()
