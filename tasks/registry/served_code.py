"""The modules that a registered version carries, so that it writes conversations as training did, without this project."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.core.source_hash import file_of, read_source

PACKAGE = "perennial_rendering"
"""Their package in a version: a name of its own, because an environment that serves may hold another release."""
_SHARED = "tasks.modeling.conversations"


def write_served_code(folder: Path) -> Path:
    """Writes the rendering of conversations and what it imports from this project; returns the package's folder."""
    package = folder / PACKAGE
    waiting, written = [_SHARED], set()
    while waiting:
        module = waiting.pop()
        if module in written or not (path := file_of(module)).is_file():
            continue
        written.add(module)
        source = path.read_text(encoding="utf-8")
        waiting += [name for name in read_source(source.encode()).names if name.startswith("tasks.")]
        copy = package.joinpath(*module.split(".")[1:]).with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        renamed = re.sub(r"^(\s*(?:from|import) )tasks\b", rf"\g<1>{PACKAGE}", source, flags=re.MULTILINE)
        copy.write_text(renamed, encoding="utf-8")
    return package
