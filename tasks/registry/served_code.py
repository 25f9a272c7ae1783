"""The modules that a registered version carries, so that it writes conversations as training did, without this project."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tasks.core.source_hash import file_of, read_source

_SHARED = "tasks.modeling.conversations"


def write_served_code(folder: Path) -> Path:
    """Writes the rendering of conversations and what it imports from this project; returns the package's folder.

    The package is named by its content. So one process serves versions of different releases, each with its own code, and
    an environment that serves may hold another release of this project.
    """
    sources: dict[str, str] = {}
    waiting = [_SHARED]
    while waiting:
        module = waiting.pop()
        if module in sources or not (path := file_of(module)).is_file():
            continue
        sources[module] = path.read_text(encoding="utf-8")
        waiting += [name for name in read_source(sources[module].encode()).names if name.startswith("tasks.")]
    content = "\0".join(part for item in sorted(sources.items()) for part in item)
    package = folder / f"perennial_rendering_{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    for module, source in sources.items():
        copy = package.joinpath(*module.split(".")[1:]).with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        renamed = re.sub(r"^(\s*(?:from|import) )tasks\b", rf"\g<1>{package.name}", source, flags=re.MULTILINE)
        copy.write_text(renamed, encoding="utf-8")
    return package
