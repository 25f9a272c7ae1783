"""Settings of the confidential-content filter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.storage import sha256_of_file
from tasks.core.term_lists import Listing


class SecretPattern(FrozenModel):
    """A secret format of one's own, looked for only in texts that hold its keyword."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,64}$", description="Name shown in findings and reports.")
    keyword: str = Field(
        min_length=2, description="Literal text that every such secret holds, in any case (a prefix, a word)."
    )
    regex: str = Field(
        min_length=2, description="Regular expression of the secret; group `secret`, where named, is its span."
    )

    @model_validator(mode="after")
    def _the_expression_compiles(self) -> Self:
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"the regular expression does not compile, at its character {error.pos}") from None
        return self


class ConfidentialConfig(FrozenModel):
    """What counts as confidential, and what becomes of a row that holds it."""

    action: Literal["quarantine", "drop"] = Field(
        "quarantine", description="Quarantine keeps a removed row's content for people to look at; drop keeps its id only."
    )
    secrets: bool = Field(True, description="Look for credentials: vendor keys, private keys, tokens, passwords in prose.")
    disabled_patterns: tuple[str, ...] = Field((), description="Names of built-in secret patterns not to use.")
    extra_patterns: tuple[SecretPattern, ...] = Field((), description="Secret formats of one's own.")
    denied_terms: Listing = Field(
        (),
        description="Confidential terms and code names, matched as whole words in any case, width and spacing: a list, or "
        "`{file: PATH}` (UTF-8, one a line).",
    )
    denied_terms_file: str | None = Field(
        None,
        description="A UTF-8 file with one term a line (`#` starts a comment), for terms that must not stand in a config.",
    )
    max_text_chars: int = Field(
        200_000, ge=1_000, le=10_000_000, description="Longer texts are quarantined unread, as `too_long`."
    )
    max_removed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The run fails when a larger share of rows is removed: a pattern or a term is too broad.",
    )

    def external_fingerprints(self) -> Mapping[str, str]:
        """The digest of the file of denied terms, so that a changed list is a changed setting."""
        path = Path(self.denied_terms_file) if self.denied_terms_file else None
        if path is None or not path.is_file():
            return {}
        return {"denied_terms_file": sha256_of_file(path)}
