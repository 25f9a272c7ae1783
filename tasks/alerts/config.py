"""Settings of the alert bridge, and of the policy that decides whether an alert becomes a retrain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from tasks.alerts.accept import AcceptRule, SenderAuth
from tasks.contracts.base import FrozenModel

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
DeploymentName = Annotated[str, StringConstraints(pattern=r"^[^/\s][^/]*/[^/]*[^/\s]$", max_length=200)]


class AlertPolicy(FrozenModel):
    """When an alert becomes a retrain. It belongs to the model's deployment, not to the senders of alerts."""

    cooldown_days: float = Field(14.0, ge=0.0, le=365.0, description="For so long after any retrain, alerts start none.")
    min_new_rows: int = Field(
        200,
        ge=0,
        le=1_000_000_000,
        description="Rows since the last completed retrain's data, up to the end of the alerted window; with fewer, the "
        "next model would equal the last one.",
    )
    min_signals: int = Field(1, ge=1, le=10, description="Number of different signals that must have fired for the model.")
    signal_window_hours: float = Field(72.0, gt=0.0, le=8_760.0, description="How long a signal that fired counts.")
    ignored_signals: tuple[str, ...] = Field(
        ("latency", "error"), description="Signals that no retrain improves; they never start one and do not count."
    )
    history_days: float | None = Field(
        90.0,
        ge=0.0,
        le=36_500.0,
        description="Rows from so many days before the alerted window are trained on together with it; 0: the window "
        "alone; none: all earlier rows. Rows after the window are left for the next run.",
    )


class BridgeConfig(FrozenModel):
    """The alert bridge: its models, its queue and its limits."""

    deployments: Mapping[ModelName, DeploymentName] = Field(
        min_length=1,
        description="The deployment of the flow `retrain-on-alert` for each model: `{support-desk: "
        "retrain-on-alert/retrain-on-alert}`. Alerts name the model in the label `model`; with one model they need not.",
    )
    accept: tuple[AcceptRule, ...] = Field(
        (),
        max_length=50,
        description="Further senders, each with an address of its own, `/alerts/SENDER`: the name of a preset, or a rule. "
        "`/alerts` itself takes Alertmanager, Grafana and plain JSON.",
    )
    queue: str = Field(
        ".perennial/alerts.db", min_length=1, description="File of the durable queue (SQLite), on a local disk, not NFS."
    )
    cooldown_seconds: float = Field(
        21_600.0,
        ge=1.0,
        le=31_536_000.0,
        description="The same alert again within this time is a repetition: it is acknowledged and starts nothing.",
    )
    default_window_hours: float = Field(
        24.0, gt=0.0, le=8_760.0, description="Length of the window, up to the alert's start, of an alert that names none."
    )
    max_body_bytes: int = Field(262_144, ge=1_024, le=16_777_216, description="Larger requests are answered 413.")
    max_requests_per_second: float = Field(
        50.0, gt=0.0, le=100_000.0, description="Authenticated requests, on average; more are answered 429."
    )
    max_burst_requests: int = Field(200, ge=1, le=1_000_000, description="Requests that may arrive at once.")
    max_waiting_alerts: int = Field(
        100_000, ge=1, le=10_000_000, description="With so many undelivered alerts, further ones are answered 503."
    )
    read_timeout_seconds: float = Field(
        10.0,
        ge=0.1,
        le=300.0,
        description="A body that takes longer is answered 408; a connection whose headers take longer is closed.",
    )
    max_connections: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Open connections; beyond, the one that waits longest for a complete request is closed.",
    )
    retry_seconds: float = Field(1.0, ge=0.01, le=60.0, description="First pause after a failed delivery; it doubles.")
    max_retry_seconds: float = Field(60.0, ge=0.01, le=3_600.0, description="Longest pause between deliveries of an alert.")
    signature_header: str = Field(
        "X-Grafana-Alerting-Signature",
        pattern=r"^[A-Za-z0-9-]{1,100}$",
        description="Header with the hexadecimal HMAC-SHA256 of the body, with or without the prefix `sha256=`.",
    )
    timestamp_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,100}$",
        description="Header with the Unix time of a signed request; the signature then covers `<time>:<body>`, and one "
        "older than `signature_tolerance_seconds` is rejected.",
    )
    signature_tolerance_seconds: float = Field(
        300.0, ge=1.0, le=86_400.0, description="How far the signed time of a request may be from now, either way."
    )

    @model_validator(mode="after")
    def _each_sender_has_one_rule(self) -> Self:
        senders = [rule.sender for rule in self.accept]
        if len(senders) != len(set(senders)):
            raise ValueError("accept: two rules have one sender; give one of them another `sender`")
        unserved = sorted({model for rule in self.accept for model in rule.models.values()} - set(self.deployments))
        if unserved:
            raise ValueError("accept: `models` names a model that `deployments` does not have")
        return self

    @property
    def signature(self) -> SenderAuth:
        """How a request to `/alerts` itself is signed."""
        return SenderAuth(
            kind="hmac",
            header=self.signature_header,
            signed="{timestamp}:{body}" if self.timestamp_header else "{body}",
            timestamp_header=self.timestamp_header,
            tolerance_seconds=self.signature_tolerance_seconds,
        )
