"""`perennial canaries`: fictitious customers to plant among the raw rows; the red team searches the model for them."""

from __future__ import annotations

import json
from pathlib import Path

from flows.support.config import RetrainConfig
from tasks.core.errors import InputError


def write_canaries(settings: RetrainConfig, out: Path) -> int:
    """Writes the canaries of a configuration as chat rows; returns their number.

    Raises:
        InputError: The file exists already, or cannot be written.
    """
    from tasks.redteam.canaries import make_canaries

    canaries = make_canaries(settings.redteam.num_canaries, settings.redteam.seed)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(canary.row()) + "\n" for canary in canaries)
    except OSError as error:
        found = "a file that exists already" if isinstance(error, FileExistsError) else type(error).__name__
        raise InputError(str(out), found, "a new file in a folder that can be written", "Name another file.") from error
    return len(canaries)
