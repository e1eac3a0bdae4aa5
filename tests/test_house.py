"""The house: what lies where, and who may import whom."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer

ROOT = Path(__file__).resolve().parents[1]
ORDER = {"workloads": 0, "simulator": 1, "models": 2, "reports": 3, "__main__": 4}
OUTSIDE = {"tests", "docs", "benchmarks", "build"}


def package_files():
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).parts
        if place[0] not in OUTSIDE and not any(part.startswith(".") for part in place):
            yield path


def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_setup_lists_exactly_the_folders_that_are_packages():
    listed = set(config()["options"]["packages"].split())
    found = {
        ".".join(["gossamer", *path.parent.relative_to(ROOT).parts])
        for path in package_files()
        if path.name == "__init__.py"
    }
    assert listed == found


def test_every_data_file_of_the_package_is_listed():
    patterns = {
        Path(*package.split(".")[1:]) / pattern.strip()
        for package, globs in config()["options.package_data"].items()
        for pattern in globs.split(",")
    }
    for suffix in ("toml", "safetensors"):
        for path in ROOT.rglob(f"*.{suffix}"):
            place = path.relative_to(ROOT)
            if place.parts[0] in ("models", "reports", "workloads", "simulator"):
                assert any(place.match(str(pattern)) for pattern in patterns), f"{place} would be missing from a wheel"


def test_nothing_but_init_and_main_lies_at_the_root():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", list(package_files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    place = path.relative_to(ROOT).with_suffix("").parts
    own = ORDER.get(place[0], -1)
    package = place[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level or not (node.module or "").startswith("gossamer"), "inside, imports are relative"
            if node.level:
                base = package[: len(package) - node.level + 1]
                target = [*base, *(node.module or "").split(".")]
                names = [alias.name for alias in node.names]
                first = target[0] if target[0] else (names[0] if len(target) == 1 else "")
                assert ORDER.get(first, -1) <= own, f"{'/'.join(place)} imports {first}"
        elif isinstance(node, ast.Import):
            assert all(not alias.name.startswith("gossamer") for alias in node.names)


def imported(path, files):
    """Return which of ``files`` the one at ``path`` imports, wherever in it and for whatever use."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ROOT.joinpath(*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            for alias in node.names:  # a file by that name, or a name of the file or package that is imported from
                for found in (base / f"{alias.name}.py", base / alias.name / "__init__.py", base.with_suffix(".py"),
                              base / "__init__.py"):  # fmt: skip
                    if found in files:
                        yield found
                        break


def a_circle(imports):
    """Return files of which each imports the next, the first again at the end; none where there is no circle."""
    done, way = set(), []

    def follow(path):
        if path in way:
            return [*way[way.index(path) :], path]
        if path in done:
            return []
        way.append(path)
        circle = next(filter(None, map(follow, imports[path])), [])
        way.pop()
        done.add(path)
        return circle

    return next(filter(None, map(follow, imports)), [])


def test_no_files_import_one_another_in_a_circle():
    files = set(package_files())
    circle = a_circle({path: sorted(set(imported(path, files)) - {path}) for path in sorted(files)})
    assert not circle, " -> ".join(str(path.relative_to(ROOT)) for path in circle)


def test_a_circle_is_found_behind_a_way_into_it():
    assert a_circle({"way": ["a"], "a": ["b"], "b": ["d", "c"], "c": ["a"], "d": []}) == ["a", "b", "c", "a"]
    assert a_circle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


def test_parts_know_nothing_of_the_models_that_are_made_of_them():
    for path in (ROOT / "models" / "parts").rglob("*.py"):
        package = path.relative_to(ROOT).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                assert target[0] != "models" or target[1] == "parts", f"{path.relative_to(ROOT)} imports {target[1]}"


def test_help_loads_none_of_the_heavy_packages():
    code = (
        "import sys; from gossamer.__main__ import main; main(['--help']); "
        "heavy = {'numpy', 'numba', 'torch', 'matplotlib', 'simpy', 'sklearn', 'scipy'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_changelog_speaks_of_this_version():
    assert f"## {gossamer.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_code_names_a_place_on_somebodys_machine():
    for path in [*package_files(), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]:
        assert not re.search(r"(/home/|/root/|/Users/|C:\\Users)", path.read_text()), path
