"""Settings that somebody wrote, TOML before all: read up to a size, and held to what the parser can take in its stride.

Every reader of machines, energy tables and recipes comes through here, and so does every value on the command line.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from .container import one_line, read_bytes

SETTINGS_BYTES = 2**18  # of a file: the largest of ours has 14,000
KEY_PARTS = 16  # a.b.c has three; the parser's time and memory grow with the square of their number
_QUOTED = re.compile(  # strings to where the parser ends them or gives up, and comments
    r'"{3}(?:[^"\\]+|\\.|"(?!""))*(?:"{3,5}|\\?\Z)'
    r"|'{3}(?:[^']+|'(?!''))*(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]+|\\.)*"?'
    r"|'[^'\n]*'?"
    r"|\#[^\n]*",
    re.DOTALL,
)
_BETWEEN = re.compile(r"[=,\[\]{}\n]")  # keys and values


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Return the keys of the TOML file at ``path``, which is to be a ``kind``. Raises InputError, one line with both.

    It has at most `SETTINGS_BYTES` bytes, and its keys at most `KEY_PARTS` parts.
    """
    text = read_text(path, kind)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise InputError(f"{path}: {kind} must be TOML: {one_line(error)}; correct the file") from None


def read_text(path: Path, kind: str) -> str:
    """Return the text of the file of settings at ``path``. Raises InputError, saying that a ``kind`` was wanted."""
    data = read_bytes(path, kind, SETTINGS_BYTES)
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: {kind} must be UTF-8 text; save it as such") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the keys of ``text``. Raises ValueError for what is no TOML, has long keys or is nested deep."""
    for run in _BETWEEN.split(_QUOTED.sub("", text)):
        parts = run.count(".") + 1  # between two breaks only a key has more than one point
        if parts > KEY_PARTS:
            raise ValueError(f"a key must have at most {KEY_PARTS} parts, not {parts:,} as {shown(run.strip()[:40])}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("lists and tables must not be nested so deep") from None
