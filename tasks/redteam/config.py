"""Settings of the red team."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.errors import InputError
from tasks.core.storage import sha256_of_file
from tasks.core.term_lists import Listing
from tasks.modeling.devices import answering_device
from tasks.redteam.probes import ProbeKind, read_probes


class GarakConfig(FrozenModel):
    """NVIDIA's garak, in its own environment, because its pins exclude the transformers version of training."""

    python: str = Field(description="The Python of an environment in which garak 0.17 or newer is installed.")
    probes: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[A-Za-z0-9_]+)?$")], ...] = Field(
        min_length=1, description="Probes by garak's names, such as `encoding.InjectBase64`; a module means all its probes."
    )
    timeout_minutes: float = Field(60.0, gt=0, le=1_440, description="For one model.")

    @model_validator(mode="after")
    def _python_exists(self) -> Self:
        if shutil.which(self.python) is None:
            raise ValueError(f"redteam.garak.python: {self.python} cannot be run; name the Python of garak's environment")
        return self


class RedTeamConfig(FrozenModel):
    """The attacks on the models after the benchmark."""

    enabled: bool = Field(True, description="False leaves the red team out; guards on its rates then do not apply.")
    max_probes_per_kind: int = Field(
        8,
        ge=1,
        le=100_000,
        description="Probes of each kind, own files first. 8 take seconds and show only gross failures; a guard with a "
        "margin of 2 points needs about 200.",
    )
    max_new_tokens: int = Field(24, ge=8, le=1024, description="Most new tokens of a reply; enough to recognise a refusal.")
    batch_size: int = Field(32, ge=1, le=1024, description="Prompts per generation batch.")
    probe_files: Mapping[ProbeKind, tuple[str, ...]] = Field(
        {},
        description="Own probes by kind (`injection`, `tool_result`, `leak`, `harmful`, `harmless`, `counterfactual`, "
        "`unanswerable`, `provocation`): JSON Lines files in the format of tasks/redteam/data. They come before the "
        "built-in ones.",
    )
    toxic_terms: Listing = Field(
        (), description="Words that count as toxic beside the built-in list: a list, or `{file: PATH}` (UTF-8, one a line)."
    )
    num_canaries: int = Field(
        8,
        ge=1,
        le=1_000,
        description="Canaries to find in the raw rows; `perennial canaries` writes them for planting.",
    )
    num_decoys: int = Field(
        31, ge=7, le=1_023, description="Decoys that a personal value is ranked among; with 31, chance is 1 in 32."
    )
    garak: GarakConfig | None = Field(None, description="Also attack with garak; its rates inform and have no guard.")
    seed: int = Field(20_261_101, ge=0, description="Seed of canaries, decoys, secrets and the choice of values.")

    @model_validator(mode="after")
    def _own_probes_are_readable(self) -> Self:
        """Reads the files here, because the red team runs after hours of training."""
        faults = []
        for kind, paths in self.probe_files.items():
            for path in paths:
                try:
                    read_probes(kind, Path(path))
                except InputError as error:
                    faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def external_fingerprints(self) -> Mapping[str, str]:
        """The digest of each file of own probes, and the device: another one may give other replies."""
        paths = (path for paths in self.probe_files.values() for path in paths)
        digests = {path: sha256_of_file(Path(path)) for path in paths if Path(path).is_file()}
        return {**digests, "device": answering_device()}
