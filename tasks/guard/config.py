"""Settings of the filters around a served model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel


class GuardRulesConfig(FrozenModel):
    """What `perennial guard` does with a text; personal data and confidential content are those of `prepare`."""

    max_chars: int = Field(20_000, ge=1, le=1_000_000, description="Longer texts are blocked.")
    personal_data: Literal["mask", "block", "off"] = Field(
        "mask", description="Personal data: replaced as in the training data, or reason to block."
    )
    confidential: Literal["block", "off"] = Field("block", description="Secrets and denied terms.")
    injection: Literal["block", "off"] = Field("block", description="Instructions to the model in its input.")
    injection_patterns: Mapping[str, str] = Field(
        {},
        description="Regular expressions by name, beside the built-in ones; they see lower case, single spaces and no "
        "invisible characters.",
    )
    blocked_reply: str = Field(
        "This cannot be answered here.", min_length=1, max_length=2_000, description="What a wrapped model says instead."
    )

    @model_validator(mode="after")
    def _the_expressions_compile(self) -> Self:
        for number, pattern in enumerate(self.injection_patterns.values(), start=1):
            try:
                re.compile(pattern)
            except re.error as error:
                place = f"the one at place {number}, at its character {error.pos}"
                raise ValueError(f"injection_patterns must be regular expressions, and {place}, does not compile") from None
        return self
