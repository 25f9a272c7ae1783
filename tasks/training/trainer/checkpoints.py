"""The checkpoint to resume from: the newest complete one.

The Trainer writes a checkpoint file by file, so a kill leaves one that looks newest and cannot be loaded; transformers'
``get_last_checkpoint`` would choose it. Here a checkpoint is complete when its marker, written last and atomically, lists
files that all exist at their size.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from tasks.core.storage import write_file_atomically

logger = logging.getLogger(__name__)

_MARKER = "COMPLETE.json"


def mark_complete(checkpoint: Path) -> None:
    """Writes the marker into a saved checkpoint."""
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size for path in sorted(checkpoint.rglob("*")) if path.is_file()
    }
    sizes.pop(_MARKER, None)
    write_file_atomically(checkpoint / _MARKER, json.dumps(sizes, indent=2).encode())


def is_complete(checkpoint: Path) -> bool:
    """Whether every file that the marker lists exists at its size."""
    try:
        sizes: dict[str, int] = json.loads((checkpoint / _MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items())


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name, -1 for any other folder."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under ``folder``, or None; the log names incomplete ones."""
    candidates = sorted((path for path in folder.glob("checkpoint-*") if step_of(path) >= 0), key=step_of, reverse=True)
    for path in candidates:
        if is_complete(path):
            return path
        logger.warning("checkpoint %s is incomplete; it is skipped", path.name)
    return None
