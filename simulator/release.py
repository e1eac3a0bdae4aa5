"""What a result depends on beside its case: the versions of gossamer, Python and the packages that compute."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from .. import __version__

PACKAGES = ("numpy", "numba", "simpy", "msgspec")  # what simulates and what results travel as; all but the last digit
FOLDERS = ("workloads", "simulator", "models")  # whose files decide what a simulation gives


class VersionError(Exception):
    """A worker's release is not the one that is wanted."""


@cache
def release() -> dict[str, str]:
    """Return name and version of each part of this process's release, the most telling first.

    Two checkouts of one version may differ: "source" is the first digits of a hash over gossamer's own files.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    parts = {"gossamer": __version__, "Python": python}
    parts |= {name: ".".join(importlib.metadata.version(name).split(".")[:2]) for name in PACKAGES}
    return parts | {"gossamer's source": _source()}


def check_release(wanted: Mapping[str, str]) -> None:
    """Raise VersionError, naming the first part that differs, unless this process's release is ``wanted``."""
    here = release()
    for name, version in wanted.items():
        if here.get(name) != version:
            raise VersionError(
                f"every worker must have {name} {version}, and one has {here.get(name, 'none')}; install the same there"
            )


def _source() -> str:
    digest = hashlib.sha256()
    root = resources.files(__package__.rpartition(".")[0])
    for folder in FOLDERS:
        for file in sorted(_files(root / folder), key=str):
            digest.update(file.name.encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


def _files(folder: Traversable) -> list[Traversable]:
    """Return the modules and tables in ``folder`` and below."""
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _files(entry)
        elif entry.name.endswith((".py", ".toml")):
            found.append(entry)
    return found
