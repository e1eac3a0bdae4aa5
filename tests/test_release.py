"""What is released: one version everywhere, and a wheel and a source distribution that lack nothing."""

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import gossamer

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {".git", ".venv", "build", "dist", "runs", "__pycache__", "gossamer-demo"}
OUTSIDE = {"tests", "docs", "benchmarks"}  # of the wheel


def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def files():
    """Return the files of the checkout, by their place in it."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part in LEFT_OUT or part.startswith(".") or part.endswith(".egg-info") for part in parts)
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".nbi", ".nbc"):
            yield Path(*parts)


# One place


def test_the_version_stands_in_one_place():
    assert config()["metadata"]["version"] == "attr: gossamer.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", gossamer.__version__)


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == gossamer.__version__
    assert citation["license"] == config()["metadata"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()
    assert "py.typed" in config()["options.package_data"]["gossamer"]


def test_every_dependency_is_pinned_for_those_who_want_what_ci_has():
    pinned = {name_of(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    parts = [config()["options"]["install_requires"], *config()["options.extras_require"].values()]
    needed = {name_of(line) for part in parts for line in part.split("\n") if line.strip()}
    assert needed - pinned == set()


def name_of(requirement):
    return re.split(r"[\[<>=~! ]", requirement.strip())[0].lower().replace("_", "-").replace(".", "-")


# What is in them


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the names in the source distribution, and those in the wheel that is built from it."""
    try:
        if int(version("setuptools").split(".")[0]) < 77:
            pytest.skip("setuptools is older than 77, which the build asks for")
    except PackageNotFoundError:
        pytest.skip("setuptools, which builds distributions, is not installed")
    folder = tmp_path_factory.mktemp("release")
    for path in files():
        (folder / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / "tree" / path)
    build(folder / "tree", "sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "unpacked", filter="data")
        source = [Path(*Path(name).parts[1:]) for name in archive.getnames()]
    build(next((folder / "unpacked").iterdir()), "wheel", folder)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, set(source), {Path(name) for name in archive.namelist()}


def build(tree, kind, out):
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_is_named_after_the_version_and_runs_on_any_machine(built):
    assert built[0] == f"gossamer-{gossamer.__version__}-py3-none-any.whl"


def test_the_source_distribution_holds_the_whole_checkout(built):
    assert set(files()) - built[1] == set()


def test_the_wheel_holds_every_module_and_data_file_and_no_test(built):
    wanted = {Path("gossamer", path) for path in files() if len(path.parts) > 1 and path.parts[0] not in OUTSIDE}
    wanted |= {Path("gossamer") / name for name in ("__init__.py", "__main__.py", "py.typed")}
    assert {name for name in built[2] if name.parts[0] == "gossamer"} == wanted


def test_the_wheel_brings_the_command_and_the_licence(built):
    info = Path(f"gossamer-{gossamer.__version__}.dist-info")
    assert {info / "entry_points.txt", info / "licenses" / "LICENSE"} <= built[2]
