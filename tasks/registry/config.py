"""Settings of the model registry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import ConfigError


class RegistryConfig(BaseModel):
    """How versions are registered. The registry itself is where ``MLFLOW_TRACKING_URI`` points."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the registered model. None: the name of the retrain.",
    )
    lock_timeout_seconds: float = Field(
        300.0, ge=1.0, le=86_400.0, description="How long to wait for another promotion of the same model to end."
    )
    lock_lease_seconds: float = Field(
        60.0, ge=60.0, le=3_600.0, description="A promoter that was killed frees the lock after this time at most."
    )

    @property
    def registered_name(self) -> str:
        """The registered model's name.

        Raises:
            ConfigError: None was given and no retrain filled it in.
        """
        if self.model_name is None:
            raise ConfigError("registry.model_name", "nothing", "the name of a registered model", "Set it.")
        return self.model_name
