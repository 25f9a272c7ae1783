"""Settings of the prompting baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.measures.metrics import known_metric

MetricName = Annotated[str, AfterValidator(known_metric)]


class FitConfig(FrozenModel):
    """Prompting baselines of the base model, measured before training, and the target that makes training unnecessary.

    The size of the data is always checked, because that costs nothing.
    """

    enabled: bool = Field(
        False,
        description="Measure the base model with `prompt`, with examples in the prompt and with retrieved context, where "
        "configured. Each baseline costs one generation over `max_examples`, once.",
    )
    on_verdict: Literal["advise", "stop"] = Field(
        "advise",
        description="`advise`: the verdict is recorded and the run goes on. `stop`: any verdict but FINE_TUNE ends the run "
        "before training, with exit code 3.",
    )
    metric: MetricName | None = Field(
        None, description="The metric that `target` and `min_effect` are about. None: the gate's primary metric."
    )
    target: float | None = Field(
        None, description="The score that is good enough, in the metric's unit; required by `enabled`."
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=20_000,
        description="A system prompt to try in place of the rows' own. None: no such baseline.",
    )
    num_shots: int = Field(4, ge=0, le=64, description="Training examples in the prompt; 0 leaves this baseline out.")
    shots: Literal["similar", "seeded"] = Field(
        "similar",
        description="`similar`: those with the most similar questions (BM25). `seeded`: the same for all.",
    )
    documents: str | None = Field(
        None,
        description="Folder of texts (`.txt`, `.md`) to retrieve passages from (BM25), beside the rows' own contexts. They "
        "are not scrubbed: keep personal data out. None, and no row with a context: retrieval is left out.",
    )
    num_passages: int = Field(3, ge=1, le=50, description="Passages retrieved for each question.")
    max_added_chars: int = Field(
        4_000,
        ge=100,
        le=1_000_000,
        description="Examples or passages beyond this many characters are left out, so that prompts fit the context.",
    )
    max_examples: int = Field(200, ge=10, le=1_000_000, description="Frozen examples that each baseline is measured on.")
    min_examples: int = Field(30, ge=2, le=1_000_000, description="With fewer frozen examples no score counts.")
    min_train_rows: int = Field(
        50, ge=1, le=1_000_000, description="Fewer training rows are too few; 50 to 100 is a customary minimum."
    )
    min_effect: float = Field(
        0.1,
        gt=0.0,
        description="The smallest gain that makes training worthwhile, in the metric's unit. The frozen examples are too "
        "few when they would show it less often than 4 times in 5.",
    )
    confidence: float = Field(0.95, ge=0.5, lt=1.0, description="Confidence that no baseline reaches the target by chance.")
    num_resamples: int = Field(10_000, ge=1_000, le=1_000_000, description="Bootstrap resamples.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap and of `seeded` examples.")

    @model_validator(mode="after")
    def _enabled_needs_a_target(self) -> Self:
        if self.enabled and self.target is None:
            raise ValueError("fit.enabled needs fit.target: without it no score is good enough")
        return self

    def external_fingerprints(self) -> Mapping[str, str]:
        """The digest of each document, so that a changed one is read again."""
        from tasks.prompting.retrieval import document_digests

        return document_digests(self.documents) if self.enabled and self.documents else {}
