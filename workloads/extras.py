"""Packages that only some commands need: asked for when they are used, with a word on how to get them."""

from __future__ import annotations

import importlib

from .errors import InputError


def need(extra: str, *modules: str) -> None:
    """Raise InputError, naming the extra that installs it, for the first of ``modules`` that cannot be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            package = {"sklearn": "scikit-learn", "vcd": "pyvcd"}.get(module, module)
            raise InputError(f"this needs {package}, which is not installed; pip install gossamer[{extra}]") from None
