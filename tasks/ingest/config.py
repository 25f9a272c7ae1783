"""Settings of ingestion: where the raw rows are, and which column means what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.errors import ConfigError
from tasks.core.timestamps import ensure_utc
from tasks.ingest.kinds import DATABASE_URL, check_no_password

InputFormat = Literal["alpaca", "prompt_completion", "chat", "classification", "tickets", "preferences"]
ColumnRole = Literal[
    "id", "instruction", "input", "output", "prompt", "completion", "messages", "text", "subject", "body", "reply",
    "chosen", "rejected",
]  # fmt: skip


@dataclass(frozen=True)
class Ceilings:
    """How much of a source is read, at most; what is above is an error, since a part of a source is another source.

    Args:
        max_bytes: Bytes, unpacked.
        max_records: Records.
        max_record_characters: Characters of one record.
    """

    max_bytes: int = 4 << 30
    max_records: int = 2_000_000
    max_record_characters: int = 8 << 20


class SourceConfig(FrozenModel):
    """One source of raw rows and how to read it."""

    path: str = Field(
        min_length=1,
        description="A JSONL, JSON, CSV, TSV, Parquet, Arrow or Excel file, also packed (gzip, bzip2, xz, zstd, zip), local "
        "or a URL such as s3://...; a folder or pattern (`part-*.jsonl`) of such parts; a folder written by "
        "`datasets.save_to_disk`; a database, as SQLAlchemy writes its address, such as "
        "`postgresql://reader:${DB_PASSWORD}@host/desk` with the name of an environment variable for the password; or a hub "
        "id such as PolyAI/banking77 (needs internet).",
    )
    query: str | None = Field(
        None,
        min_length=1,
        description="What is read from a database: a table, or one SELECT statement; none: the only table.",
    )
    records: str | None = Field(
        None,
        min_length=1,
        description="Where the rows stand in a JSON document, such as `tickets` or `data.items`; none: the file "
        "is the rows.",
    )
    sheet: str | None = Field(None, description="The sheet of an Excel workbook; none: the only one with rows.")
    format: InputFormat | Literal["auto"] = Field(
        "auto", description="What the rows are; `auto` takes the format that most rows fit, and the report names it."
    )
    columns: Mapping[ColumnRole, str] = Field(
        {},
        description="Column names that differ from the customary ones, such as `{text: query}`; a path such as "
        "`comments.0.body` names a nested value.",
    )
    label_column: str | None = Field(
        None,
        description="Column with the class label; none: the customary one for classification and tickets, else `label`.",
    )
    annotation_columns: tuple[str, ...] = Field((), description="Columns that each hold one annotator's label.")
    context_column: str | None = Field(None, description="Column with text that the prompt refers to.")
    group_columns: tuple[str, ...] = Field(
        (), description="Columns (region, language) across which the bias audit compares."
    )
    known_value_columns: tuple[str, ...] = Field(
        (),
        description="Columns with the record's own personal values (customer name, account id), scrubbed from its texts.",
    )
    created_at_column: str | None = Field(None, description="Column with the time a row was made; none: `created_at`.")
    created_at_format: str | None = Field(
        None,
        description="What the times are: a form of Python's `strptime` such as `%d/%m/%Y %H:%M`, or `unix`, `unix_ms`, "
        "`unix_us`, `unix_ns`; none: ISO 8601, Unix time, or another form with one meaning.",
    )
    created_after: datetime | None = Field(
        None,
        description="Keep only rows made at this time or later (UTC where no zone is given); rows whose time is not known "
        "go to quarantine.",
    )
    created_before: datetime | None = Field(None, description="Keep only rows made before this time.")
    feedback_column: str | None = Field(
        None,
        description="Column with the user's verdict on the reply: up or down, 1 or -1, true or false, empty for none. A "
        "row with a negative one is not learned from: it is dropped, unless `correction_column` holds a better reply.",
    )
    correction_column: str | None = Field(
        None, description="Column with a reply that a person wrote instead; where it holds one, that is the reply to learn."
    )
    system_prompt: str | None = Field(None, description="A system message put before every conversation that has none.")
    prompt_template: str = Field(
        "{text}", description="Classification: the user's message; `{text}` stands for the row's text."
    )
    reply_from_label: Literal["readable", "verbatim"] = Field(
        "readable",
        description="Classification: the reply is the label as words (`card arrival`) or as it stands (`card_arrival`).",
    )
    encoding: str = Field("utf-8", description="Text encoding of JSONL, JSON and CSV files.")
    hub_split: str = Field("train", description="Split of a hub data set or of a saved `DatasetDict`.")
    hub_revision: str | None = Field(None, description="Commit of a hub data set, so that the same rows are read again.")
    max_bytes: int = Field(
        4 << 30, ge=1, description="Largest source in bytes, unpacked; a larger one is an error. Rows take up to twice that."
    )
    max_records: int = Field(
        2_000_000, ge=1, description="Most records in the source, before any sample; with more it is an error."
    )
    max_record_characters: int = Field(
        8 << 20,
        ge=1,
        le=1 << 30,
        description="Longest record, such as a line; a longer one is an error: a line end is missing.",
    )
    max_rows: int | None = Field(None, ge=1, description="Keep a random sample of at most so many rows; none: all.")
    seed: int = Field(0, ge=0, description="Another seed draws another sample.")

    @property
    def ceilings(self) -> Ceilings:
        """How much of the source is read, at most."""
        return Ceilings(self.max_bytes, self.max_records, self.max_record_characters)

    @field_validator("created_after", "created_before")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        return ensure_utc(value) if value else None

    @model_validator(mode="after")
    def _check_database(self) -> Self:
        if DATABASE_URL.match(self.path):
            try:
                check_no_password(self.path)
            except ConfigError as error:
                raise ValueError(f"path: holds {error.found}. {error.todo}") from None
        elif self.query is not None:
            raise ValueError("query is for a database, and path names none; leave it out")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.created_after and self.created_before and self.created_after >= self.created_before:
            raise ValueError("created_after must lie before created_before")
        if "{text}" not in self.prompt_template:
            raise ValueError("prompt_template must hold `{text}`, the place of the row's text")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError("encoding is none that Python knows; try utf-8, utf-16 or cp1252") from None
        return self


class LogConfig(SourceConfig):
    """A production log: a source whose rows are measured, not trained on."""

    feedback_column: str | None = Field("feedback", description="Column with the user's verdict on the reply.")
    max_rows: int | None = Field(
        5_000, ge=1, description="Of a random sample of at most so many requests the texts are read; figures count all."
    )
    latency_column: str | None = Field("latency_ms", description="Column with the milliseconds until the reply was there.")
    error_column: str | None = Field(
        "error",
        description="Column that is true or holds an error where the request failed; empty, 0 or false elsewhere.",
    )
    escalation_column: str | None = Field("escalated", description="Column that is true where a person took over.")
