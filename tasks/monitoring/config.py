"""Settings of monitoring: limits of the signals, tests of drift, and the rule that raises an alert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel


class SignalConfig(FrozenModel):
    """Limits of the quality signals. A limit is violated when the whole 95 % interval lies above it; none: no verdict."""

    min_requests: int = Field(500, ge=1, description="Windows with fewer requests get no verdict: insufficient data.")
    min_values: int = Field(
        50,
        ge=1,
        description="Signals with fewer values, such as ratings, are shown without a verdict; at most min_requests.",
    )
    max_thumbs_down_rate: float | None = Field(0.15, ge=0.0, le=1.0, description="Of the rated replies, rated down.")
    max_escalation_rate: float | None = Field(0.10, ge=0.0, le=1.0, description="Requests that a person took over.")
    max_refusal_rate: float | None = Field(0.10, ge=0.0, le=1.0, description="Replies that refuse or say nothing.")
    max_error_rate: float | None = Field(0.05, ge=0.0, le=1.0, description="Requests that failed.")
    max_latency_p95_ms: float | None = Field(None, gt=0.0, description="Limit of the 95th percentile of latency.")


class DriftConfig(FrozenModel):
    """How the window's requests are compared with the rows that the champion was trained on."""

    vectors: str = Field(
        "auto",
        min_length=1,
        description="`minilm`, `tfidf` (with SVD), or a folder of a sentence-embedding model; `auto`: MiniLM if installed.",
    )
    alpha: float = Field(0.01, gt=0.0, le=0.2, description="The requests differ when a test's p value is below this.")
    min_rows: int = Field(500, ge=50, description="With fewer different requests, or training rows, there is no verdict.")
    max_rows: int = Field(1_000, ge=100, le=20_000, description="Compares random samples of at most so many rows of each.")
    num_permutations: int = Field(999, ge=199, le=100_000, description="Of the MMD test; its p is at least 1 / (1 + this).")
    near_duplicate_threshold: float = Field(
        0.7, gt=0.0, le=1.0, description="Requests at least this similar count once, as they do in the training rows."
    )
    min_term_requests: int = Field(5, ge=2, description="A new word is listed when so many different requests contain it.")
    seed: int = Field(0, ge=0, description="Seed of sampling and permutations.")

    def external_fingerprints(self) -> Mapping[str, str]:
        """What the vectors' name means here (see :mod:`tasks.core.cache_key`)."""
        from tasks.modeling.embedding import source_content

        return source_content(self.vectors)

    @model_validator(mode="after")
    def _can_be_significant(self) -> Self:
        if self.max_rows < self.min_rows:
            raise ValueError("drift.max_rows must not be smaller than drift.min_rows")
        if 1 / (1 + self.num_permutations) >= self.alpha:
            raise ValueError("drift.num_permutations are too few for drift.alpha: no p value could be below it")
        return self


class AlertRuleConfig(FrozenModel):
    """When violated signals become an alert: in `violated_windows` of the last `last_windows`, and in the latest."""

    violated_windows: int = Field(
        2, ge=1, le=100, description="Number of violated windows, the latest included, that raise an alert."
    )
    last_windows: int = Field(3, ge=1, le=100, description="Number of latest windows, without overlap, that are counted.")
    repeat_hours: float = Field(
        24.0, gt=0.0, le=8_760.0, description="An alert that persists is raised again after so long."
    )
    deployment: str | None = Field(
        "retrain-on-alert/retrain-on-alert",
        pattern=r"^[^/\s][^/]*/[^/]*[^/\s]$",
        description="The deployment that an alert starts; none: alerts only show in the event feed, page and exit code.",
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.violated_windows > self.last_windows:
            raise ValueError("alert.violated_windows must not exceed alert.last_windows")
        return self
