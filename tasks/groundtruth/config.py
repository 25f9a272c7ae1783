"""Settings of the measurement against planted ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from tasks.contracts.base import FrozenModel
from tasks.core.storage import sha256_of_file


class GroundTruthConfig(FrozenModel):
    """The list of planted faults, if the data has one."""

    path: str | None = Field(
        None,
        min_length=1,
        description="JSON Lines file with one planted fault per line (see examples/support_desk); none measures nothing.",
    )

    def external_fingerprints(self) -> Mapping[str, str]:
        """The digest of the file, so that another list is measured again."""
        path = Path(self.path) if self.path else None
        if path is None or not path.is_file():
            return {}
        return {"path": sha256_of_file(path)}
