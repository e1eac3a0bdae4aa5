"""Damage, for `fuzz`: of bytes, of text and of trees of plain data; every kind drawn from one generator."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

MARK = "<img src=x onerror=alert(1)>"  # text that must never reach a page as it is
NUMBERS = (
    0, 1, -1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63),
    10**30,
    10**400, -(10**400),
)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 5e-324, 1e-30, 1e15, 1e30, 1e300, 1.7e308)
ODD_FLOATS = (float("nan"), float("inf"), float("-inf"))
WORDS = (
    "", " ", "a", "0", "-1", "1e999", "nan", "\0", "\n", "a\nb", "\x1b[31m", "\u2028", "\ud800", "\u5c42", "x" * 300,
    "../x", "/etc/passwd",
    "..", "a/b", "CON", "%s", "{}", "${x}",
    "'; drop table cases; --", MARK, "__class__", "weight", "fc1.weight", "None",
    "true", "9" * 5000, "\u0663", "\u00b2",
)  # fmt: skip
TOKENS = (
    b"", b"\0", b"\xff", b"\n", b"\r\n", b" ", b"-", b"-1", b"0", b"1e999", b"nan", b"inf", b"99999999999",
    b"18446744073709551616",
    b"2147483648", b"4294967295", b"{", b"}", b"[", b"]",
    b'"', b"\\u0000", b"\\ud800", b"#", b"%", b"=", b":", b"*a", b"&a ",
    b"[" * 2000, b"{\"a\":" * 2000, b"\xf0\x9f\x98\x80", b"\xc3\x28", b"PK\x03\x04", b"\x93NUMPY", b"NaN",
    b"0x" + b"f" * 6000, b"9" * 5000,
)  # fmt: skip


def damaged(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Return ``data`` with one to four kinds of damage; ``other``: a file to splice pieces from."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        rng.choice(_HARM)(rng, made, other)
    return bytes(made)


def _flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        start = rng.randrange(len(data))
        del data[start : rng.choice((len(data), start + rng.randrange(1, 40)))]


def _insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice((rng.choice(TOKENS), bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))))


def _repeat(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        start = rng.randrange(len(data))
        piece = data[start : start + rng.randrange(1, 80)]
        data[start:start] = piece * rng.choice((1, 2, 50))


def _word(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Overwrite an aligned word by a number at the edge of its type."""
    width = rng.choice((2, 4, 8))
    if len(data) >= width:
        at = rng.randrange(len(data) - width + 1)
        value = rng.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)))
        order = rng.choice(("little", "big"))
        data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)  # type: ignore[arg-type]


def _number(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Replace a run of digits by another number, as text."""
    found = list(re.finditer(rb"[0-9]+", bytes(data[:100_000])))
    if found:
        run = rng.choice(found)
        chosen = rng.choice((rng.choice(NUMBERS), rng.randrange(-3, 300), rng.choice(FLOATS), rng.choice(ODD_FLOATS)))
        data[run.start() : run.end()] = str(chosen).encode()


def _lines(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Swap, drop or double a line."""
    lines = bytes(data).split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    act = rng.randrange(3)
    if act == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif act == 1:
        del lines[one]
    else:
        lines.insert(two, lines[one])
    data[:] = b"\n".join(lines)


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    source = other or bytes(data)
    if source and data:
        start = rng.randrange(len(source))
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(30)] = source[start : start + rng.randrange(1, 200)]


_HARM: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip, _byte, _cut, _insert, _repeat, _word, _number, _number, _lines, _splice,
)  # fmt: skip


def value(rng: random.Random, *, odd: bool = True) -> Any:
    """Return a value that nobody expects; ``odd``: infinities and not-a-number among them."""
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice(FLOATS + (ODD_FLOATS if odd else ()))
    if kind == 3:
        return rng.choice(WORDS)
    if kind == 4:
        return rng.choice((True, False, None))
    if kind == 5:
        return rng.choice(([], {}, [[]], {"": ""}, [1, "a", None], {"a": {"b": [1]}}, [0] * 70, [10**9, 10**9]))
    if kind == 6:
        return rng.randrange(-5, 70)
    deep: Any = 0
    for _ in range(rng.choice((3, 40, 1200))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return deep


def harmed(rng: random.Random, tree: Any) -> Any:
    """Return a copy of ``tree``, plain data, with one to three of its places changed."""
    tree = _copied(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return value(rng)
        owner, key = rng.choice(places)
        _change(rng, owner, key)
    return tree


def _copied(tree: Any) -> Any:
    try:
        return copy.deepcopy(tree)
    except RecursionError:
        return tree


def _places(tree: Any) -> Any:
    stack = [tree]
    while stack:
        node = stack.pop()
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in pairs:
            yield node, key
            stack.append(child)


def _change(rng: random.Random, owner: Any, key: Any) -> None:
    old = owner[key]
    act = rng.randrange(6)
    if act == 0:
        del owner[key]
    elif act == 1 and isinstance(old, (int, float)) and not isinstance(old, bool) and abs(old) < 1e300:
        owner[key] = rng.choice((old + 1, old - 1, -old, old * 2, float(old), str(old), rng.choice(NUMBERS)))
    elif act == 2 and isinstance(owner, dict):
        owner[rng.choice((*owner, *WORDS))] = _copied(old) if rng.random() < 0.5 else value(rng)
    elif act == 3 and isinstance(old, list) and old:
        owner[key] = rng.choice((old * 2, old[:-1], old[::-1], [*old, value(rng)]))
    elif act == 4 and isinstance(owner, list):
        owner.append(_copied(rng.choice(owner)))
    else:
        owner[key] = value(rng)


def json_bytes(rng: random.Random, tree: Any) -> bytes:
    """Return ``tree`` as JSON, or as near to it as its values allow; sometimes with a key that occurs twice."""
    try:
        data = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        if isinstance(tree, dict) and tree and rng.random() < 0.05:
            twice = {rng.choice(list(tree)): value(rng)}
            data = data[:-1] + b"," + json.dumps(twice).encode()[1:]
        return data
    except (RecursionError, ValueError):
        return b"[" * 3000


def toml_text(tree: dict[str, Any]) -> str:
    """Return ``tree`` as TOML; what TOML has no word for is written as Python would, which no reader takes."""
    tree = tree if isinstance(tree, dict) else {}
    tables = {name: item for name, item in tree.items() if isinstance(item, dict) and item}
    lists = {
        name: item for name, item in tree.items()
        if isinstance(item, list) and item and all(isinstance(each, dict) for each in item)
    }  # fmt: skip
    lines = [f"{_key(name)} = {_toml(item)}" for name, item in tree.items() if name not in tables and name not in lists]
    for name, item in tables.items():
        lines += [f"[{_key(name)}]", *(f"{_key(key)} = {_toml(each)}" for key, each in item.items())]
    for name, items in lists.items():
        for item in items:
            lines += [f"[[{_key(name)}]]", *(f"{_key(key)} = {_toml(each)}" for key, each in item.items())]
    return "\n".join(lines) + "\n"


def _key(name: object) -> str:
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) else json.dumps(str(name))


def _toml(item: Any, depth: int = 0) -> str:
    if depth > 300:
        return "[" * 2000
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, str):
        return json.dumps(item)
    if isinstance(item, list):
        return "[" + ", ".join(_toml(each, depth + 1) for each in item) + "]"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(each, depth + 1)}" for k, each in item.items()) + "}"
    return str(item)
