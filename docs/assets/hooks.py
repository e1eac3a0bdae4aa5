"""What MkDocs does before it builds: the package is found under its name, and fences that name a file show it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("models", "reports", "simulator", "workloads", "__init__.py", "__main__.py", "py.typed")
NAMED = re.compile(r"^```(\w+) +([\w./-]+)$", re.MULTILINE)


def on_config(config):
    """Lay links to the package's parts into build/.api/gossamer, whatever the checkout's folder is called."""
    package = ROOT / "build" / ".api" / "gossamer"
    package.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        link = package / part
        if not link.is_symlink():
            link.symlink_to(ROOT / part)
    return config


def on_page_markdown(markdown, **_):
    """Return the page with the name of a block's file as the block's title."""
    return NAMED.sub(r'```\1 title="\2"', markdown)
