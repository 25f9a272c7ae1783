"""Settings of the dossier."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from tasks.contracts.base import FrozenModel
from tasks.core.errors import InputError
from tasks.dossier.kpis import read_kpis


class DossierConfig(FrozenModel):
    """Additions to the evidence page, and its destinations."""

    num_answers: int = Field(
        5, ge=0, le=5, description="Answers of base and candidate shown side by side, from the scrubbed frozen set only."
    )
    intended_use: str | None = Field(None, max_length=2000, description="Purpose of the model, for the model card.")
    limitations: tuple[str, ...] = Field((), description="Known limits of the model, for the model card.")
    contact: str | None = Field(
        None, max_length=200, description="Contact for questions about the model, for the model card."
    )
    attach_to_mlflow: bool = Field(True, description="Attach page and JSON to the candidate's MLflow run.")
    kpi_file: str | None = Field(
        None,
        description="Business figures (satisfaction, time to resolution, escalation rate) to show beside the scores: CSV "
        "with a header, or a JSON list; columns `period`, `model_version` and one a figure; an empty cell was not measured.",
    )

    @field_validator("kpi_file")
    @classmethod
    def _figures_are_readable(cls, path: str | None) -> str | None:
        """Validated here too, before anything is spent: the dossier is the last stage."""
        try:
            if path is not None:
                read_kpis(Path(path))
        except InputError as error:
            raise ValueError(str(error)) from error
        return path
