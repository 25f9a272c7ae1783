"""Settings of validation: what a row must look like, and how many may not."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import FrozenModel


class ValidationConfig(FrozenModel):
    """The expectations of a suite; one suite is made for each kind of rows."""

    min_rows: int = Field(1, ge=1, description="The run stops when fewer rows come in, or are left.")
    max_quarantine_share: float = Field(
        0.2, ge=0.0, le=1.0, description="The run stops when more than this share of the rows fails an expectation."
    )
    min_prompt_chars: int = Field(1, ge=0, description="Shortest prompt, without system messages and surrounding space.")
    min_reply_chars: int = Field(1, ge=0, description="Shortest reply, without surrounding space.")
    max_prompt_chars: int = Field(20_000, ge=1, description="Longest prompt; longer ones are exports gone wrong.")
    max_reply_chars: int = Field(20_000, ge=1, description="Longest reply.")
    allowed_roles: tuple[str, ...] = Field(
        ("system", "user", "assistant", "tool"), min_length=1, description="Roles that messages may have."
    )
    allowed_labels: tuple[str, ...] = Field((), description="Labels that rows may have; none: any.")
    require_label: bool = Field(False, description="Whether every row must have a label.")
    max_control_share: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="Largest share of control and replacement characters in a row's text: a sign of a wrong encoding.",
    )
    min_latin_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Smallest share of Latin-script letters among a row's letters; 0 switches it off."
    )
    languages: tuple[str, ...] = Field(
        (), description="ISO 639-1 codes (`en`, `de`) of the languages that texts should be in; none: not looked at."
    )
    min_language_share: float = Field(
        0.9, ge=0.0, le=1.0, description="The run stops when a smaller share of the rows is in `languages`."
    )
    quarantine_other_languages: bool = Field(
        False,
        description="Whether single rows in other languages are quarantined as well; of very short texts about one in "
        "twenty is misjudged.",
    )
    max_divergence: float = Field(
        0.5,
        gt=0.0,
        description="Largest Kullback-Leibler divergence of lengths and labels from a given previous snapshot.",
    )
    fail_on_divergence: bool = Field(
        False, description="Whether a larger divergence stops the run; else it is noted, since new data may well differ."
    )
