"""What MkDocs does before it builds: finds the package, titles blocks with their files, keeps a figure and its ±."""

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
    """Return the page with the name of a block's file as the block's title, and no line break around ±."""
    return NAMED.sub(r'```\1 title="\2"', markdown).replace(" ± ", "\u00a0±\u00a0")
