"""The repository as it is shipped: what is installed, under which name, and what lies at the top."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import clipbench
from clipbench.__main__ import main

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOP = {
    "pyproject.toml", "clipbench", "experiments", "tests", "results", "README.md",
    "Makefile", "CHANGELOG.md", "LICENSE", ".ci", ".gitignore", ".gitattributes", ".editorconfig",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the files that are there, built without the network."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("setuptools is too old to build this project")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in _shipped():
        copy = source / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / path).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(built), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def _shipped():
    files = [path.relative_to(ROOT) for path in (ROOT / "clipbench").rglob("*.*")]
    files = [path for path in files if path.parent.name != "__pycache__"]
    return [*files, Path("pyproject.toml"), Path("README.md"), Path("LICENSE")]


def test_the_wheel_holds_every_file_of_the_package_but_its_pages_and_nothing_else(wheel):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path for path in _shipped() if path.parts[0] == "clipbench"}
    assert inside == {path.as_posix() for path in files if path.suffix != ".md"}


def test_the_wheel_names_its_command_and_license(wheel):
    about = {name.partition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "clipbench = clipbench.__main__:main" in wheel.read(about["entry_points.txt"]).decode()
    assert "licenses/LICENSE" in about


def test_the_console_script_is_installed():
    (script,) = metadata.entry_points(group="console_scripts", name="clipbench")
    assert script.load() is main


def test_the_version_is_the_same_everywhere():
    assert clipbench.__version__ == PROJECT["version"] == metadata.version("clipbench")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, latest, *_ = re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)
    assert (unreleased, latest) == ("Unreleased", PROJECT["version"])


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in (ROOT / "clipbench").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_nothing_else_lies_at_the_top():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git repository")
    assert {path.partition("/")[0] for path in listed.stdout.splitlines()} <= TOP


def test_continuous_integration_runs_what_a_person_types():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
