"""Settings of the measurement against planted ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.storage import sha256_of_file


class TruthConfig(BaseModel):
    """Where the list of planted faults is, if the data has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: str | None = Field(
        None,
        min_length=1,
        description="JSON Lines file with one planted fault a line (see examples/support_desk); none measures nothing.",
    )

    def outside_content(self) -> Mapping[str, str]:
        """The digest of the file, so that another list is measured anew."""
        path = Path(self.path) if self.path else None
        if path is None or not path.is_file():
            return {}
        return {"path": sha256_of_file(path)}
