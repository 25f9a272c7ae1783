"""Settings of the model registry."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.errors import ConfigError
from tasks.core.typed_text import Name


class RolloutStep(FrozenModel):
    """One step of a rollout: a share of the traffic, held for a while."""

    share: int = Field(
        ge=0, le=100, description="The new version's share of the traffic in per cent; `champion` gets the rest."
    )
    bake_hours: float = Field(0.0, ge=0.0, le=8_760.0, description="How long this step lasts at least.")


class AbortCondition(FrozenModel):
    """A limit on a live metric; beyond it the rollout is aborted."""

    metric: str = Field(min_length=1, max_length=100, description="Name of the metric, such as `error_rate`.")
    above: float | None = Field(None, description="Abort when the metric is above this.")
    below: float | None = Field(None, description="Abort when the metric is below this.")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a condition on a metric needs `above` or `below`")
        return self


class LiveSignal(FrozenModel):
    """One kind of bad event that is counted for the new version and for the champion in the same windows."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,49}$",
        description="Its name in the file of live signals, such as `error_rate`; `slow_rate` comes from its latencies: "
        "requests slower than the champion's 95th percentile.",
    )
    max_odds_ratio: float = Field(
        1.25,
        ge=1.0,
        le=20.0,
        description="The new version's odds of the event may be so many times the champion's; for rare events that is the "
        "ratio of the rates. 1: any increase that is shown aborts.",
    )
    max_difference: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="A measured difference of the rates up to this never aborts, however certain: 0.001 is 0.1 points.",
    )


class WatchConfig(FrozenModel):
    """What `perennial rollout tick` compares, and how certain an abort is."""

    signals: tuple[LiveSignal, ...] = Field(
        (), max_length=12, description="What is compared with the champion; at least one for `perennial rollout tick`."
    )
    alpha: float = Field(
        0.01,
        gt=0.0,
        le=0.2,
        description="Probability that a version within all limits is ever aborted, however often it is looked at. The "
        "signals share it.",
    )
    min_requests: int = Field(
        1_000, ge=1, description="Each step with traffic advances only after so many requests to the new version."
    )
    min_trials: int = Field(
        50, ge=1, description="The same for what each signal counts on both sides, such as ratings for thumbs-down."
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [signal.name for signal in self.signals]
        if len(names) != len(set(names)):
            raise ValueError("each signal of registry.rollout.watch is named once")
        return self


class RolloutConfig(FrozenModel):
    """How a new champion takes over the traffic from the one before it; kept in its version's tags for a router."""

    at_promotion: bool = Field(
        False, description="A champion that replaces another starts at the first step. False: it is champion at once."
    )
    steps: tuple[RolloutStep, ...] = Field(
        (
            RolloutStep(share=0),
            RolloutStep(share=5, bake_hours=24),
            RolloutStep(share=25, bake_hours=72),
            RolloutStep(share=100),
        ),
        min_length=1,
        max_length=20,
        description="Shares of the traffic, each larger than the one before; the last is 100.",
    )
    abort_when: tuple[AbortCondition, ...] = Field(
        (),
        max_length=50,
        description="Limits on live metrics, which every advance by hand then requires; `perennial rollout tick` does not "
        "advance where there are any.",
    )
    watch: WatchConfig = Field(WatchConfig(), description="How a rollout decides for itself.")

    @model_validator(mode="after")
    def _rises_to_all(self) -> Self:
        shares = [step.share for step in self.steps]
        if shares != sorted(set(shares)) or shares[-1] != 100:
            raise ValueError(f"shares must rise and end at 100, not {shares}")
        return self


class IdentityConfig(FrozenModel):
    """How an approver proves who it is: a signed token (JWT), or the page of `perennial approvals` behind a proxy."""

    algorithm: Literal["RS256", "ES256", "HS256"] = Field(
        "RS256", description="How tokens are signed. The key is a public one (PEM), for HS256 a shared secret."
    )
    variable: str = Field(
        "PERENNIAL_IDENTITY_KEY",
        pattern=r"^[A-Z][A-Z0-9_]{0,99}$",
        description="Environment variable with the key, where no block is named; workers and whoever answers need it. "
        "Several public keys, one after another, hold while one is replaced.",
    )
    block: str | None = Field(None, min_length=1, max_length=200, description="Prefect Secret block with the key.")
    audience: str = Field("perennial", min_length=1, max_length=200, description="A token must be meant for this audience.")
    issuer: str | None = Field(None, min_length=1, max_length=200, description="Who must have issued it; none: any.")
    claim: str = Field("email", min_length=1, max_length=100, description="The claim with the person's name.")


class RegistryConfig(FrozenModel):
    """How versions are registered. The registry itself is where ``MLFLOW_TRACKING_URI`` points."""

    model_name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the registered model. None: the name of the retrain.",
    )
    accounts: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="Accounts of an MLflow server that may edit the registered model and the experiment, beside "
        "administrators and the account of the workers. Where another account may, nothing is registered.",
    )
    lock_timeout_seconds: float = Field(
        300.0, ge=1.0, le=86_400.0, description="How long to wait until another promotion of the same model ends."
    )
    lock_lease_seconds: float = Field(
        60.0, ge=60.0, le=3_600.0, description="The lock of a killed process is free after this time at most."
    )
    approval: Literal["never", "when_unsure", "always"] = Field(
        "when_unsure",
        description="When a person decides: `when_unsure` after `NEEDS_HUMAN`, `always` before every promotion, `never`: "
        "a `NEEDS_HUMAN` is not promoted. No approval is requested after `HOLD`.",
    )
    approval_timeout_hours: float | None = Field(
        168.0,
        ge=0.01,
        le=8_760.0,
        description="A request for approval without an answer expires then: the candidate stays `challenger`, a run that "
        "waits fails. None: it never expires.",
    )
    approvers: tuple[Name, ...] = Field(
        (),
        max_length=50,
        description="Who may answer a request for approval; none: anybody. `operate.approvers` is the same.",
    )
    required_approvals: int = Field(
        1, ge=1, le=5, description="How many different people must approve. One rejection closes the request."
    )
    starter_may_approve: bool | None = Field(
        None,
        description="Whether the person who started the run may approve its candidate. None: where one approval suffices.",
    )
    identity: IdentityConfig | None = Field(
        None, description="How approvers prove who they are; with it a typed name does not count. None: names are typed."
    )
    rollout: RolloutConfig = Field(RolloutConfig(), description="How a new champion takes over the traffic.")

    @model_validator(mode="after")
    def _can_be_approved(self) -> Self:
        if self.approvers and len(self.approvers) < self.required_approvals:
            raise ValueError("registry.required_approvals: more than there are approvers")
        return self

    def excluded(self, started_by: str | None) -> str | None:
        """The person who may not approve a run's candidate, as its starter; None where the starter may."""
        allowed = self.starter_may_approve if self.starter_may_approve is not None else self.required_approvals == 1
        return None if allowed else started_by

    @property
    def registered_name(self) -> str:
        """The registered model's name.

        Raises:
            ConfigError: No name was configured, and no retrain filled it in.
        """
        if self.model_name is None:
            raise ConfigError("registry.model_name", "nothing", "the name of a registered model", "Set it.")
        return self.model_name
