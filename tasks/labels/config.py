"""Settings of the label audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from tasks.contracts.base import FrozenModel

ReplyFault = Literal[
    "mismatched_response", "truncated_response", "garbled_response", "wrong_language_response", "refusal_response"
]
"""How a reply can fail its instruction; each can be made on purpose (see :mod:`tasks.labels.corruption`)."""

IssueKind = Literal[
    "wrong_label",
    "annotators_disagree",
    "mismatched_response",
    "truncated_response",
    "garbled_response",
    "wrong_language_response",
    "refusal_response",
    "contradicting_response",
    "identical_sides",
    "empty_side",
    "contradicting_pair",
    "refusal_chosen",
    "extreme_length",
]
"""What can be wrong with a row: its label, its reply, or the two sides of its preference pair."""

Action = Literal["keep", "drop", "fix", "review"]
"""``keep`` does nothing, ``drop`` moves the row to quarantine, ``fix`` takes the suggested label, ``review`` asks."""


class IssuePolicy(FrozenModel):
    """What to do with one kind of issue, by tier."""

    automatic: Action = Field("drop", description="Action on the issues that the audit is sure of.")
    review: Action = Field("review", description="Action on the issues that the audit only suspects.")


class LabelAuditConfig(FrozenModel):
    """How labels, replies and preference pairs are audited, and what becomes of the issues."""

    embedding_model: str = Field(
        "auto",
        min_length=1,
        description="`auto` (the MiniLM wheel when installed, else TF-IDF), `minilm`, `tfidf`, a folder, or a hub id.",
    )
    max_tokens: int = Field(128, ge=16, le=8192, description="Texts are cut to so many tokens before they are embedded.")
    num_folds: int = Field(5, ge=2, le=20, description="Folds of the cross-validation that gives out-of-sample scores.")
    min_class_size: int = Field(5, ge=2, le=1000, description="Smaller classes are reported and not audited.")
    audit_responses: bool = Field(True, description="Whether free-text replies are checked against their instruction.")
    policies: Mapping[IssueKind, IssuePolicy] = Field({}, description="Actions per issue kind, where not the default.")
    max_removed_share: float = Field(
        0.05, ge=0.0, le=1.0, description="Largest share of the rows removed without a person; the rest goes to review."
    )
    review_name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="Name under which the review queue and people's decisions are kept in the store across runs; "
        "a retrain's is the model's name where none is given.",
    )
    review_wait_hours: float = Field(
        0.0,
        ge=0.0,
        le=24 * 90,
        description="How long a run waits for the review queue to be answered, counted from its first publication.",
    )
    unanswered: Literal["keep", "hold", "stop"] = Field(
        "keep",
        description="What becomes of rows whose review is not answered in time: they are kept, held back in quarantine, "
        "or the run stops until they are, and the same command continues it.",
    )
    control_share: float = Field(
        0.02, ge=0.0, le=0.1, description="Share of a copy corrupted on purpose to measure the audit; 0 turns it off."
    )
    seed: int = Field(0, ge=0, description="Seed of the folds and of the planted controls.")

    def policy(self, kind: IssueKind) -> IssuePolicy:
        """The actions on one kind of issue."""
        return self.policies.get(kind, IssuePolicy())

    def pointers(self) -> tuple[str, ...]:
        """The store's pointers that the audit depends on: people's decisions (see :mod:`tasks.core.cache_key`)."""
        return (f"reviews/{self.review_name}",) if self.review_name else ()

    def external_fingerprints(self) -> Mapping[str, str]:
        """What the model's name means here (see :mod:`tasks.core.cache_key`): a wheel installed later changes the audit."""
        from tasks.modeling.embedding import source_content

        return source_content(self.embedding_model)
