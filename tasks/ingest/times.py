"""When a record was made, read from the forms in which exports write it, and written as ISO 8601.

A form that can mean two days (``03/04/2026``) is not guessed: ``created_at_format`` says what it is.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tasks.core.errors import InputError
from tasks.core.timestamps import ensure_utc, parse_timestamp
from tasks.ingest.config import SourceConfig

_UNITS = {"unix": 1, "unix_ms": 1_000, "unix_us": 1_000_000, "unix_ns": 1_000_000_000}
_UNIX = re.compile(r"\d{9,10}(\.\d+)?|\d{12,13}(\.\d+)?|\d{15,16}|\d{18,19}")
"""Seconds, milliseconds, microseconds or nanoseconds from 1973 to 2286; 20260301 is a date."""
_FORMS = (
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S.%f %z",
    "%Y%m%d%H%M%S",
    "%Y-%m",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d %B %Y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%Y %H:%M:%S",
    "%d %b %Y %H:%M",
    "%d %b %Y %H:%M:%S",
    "%d %B %Y %H:%M",
    "%d %B %Y %H:%M:%S",
    "%B %d, %Y",
    "%b %d, %Y",
    "%b %d, %Y %I:%M %p",
    "%b %d, %Y, %I:%M %p",
    "%B %d, %Y %I:%M %p",
    "%B %d, %Y at %I:%M %p",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%d/%b/%Y:%H:%M:%S %z",
)
"""Forms that have one meaning: the year first, dots (always day first), or the month as a word."""


def iso_time(value: Any, form: str | None = None) -> str | None:
    """The time as ISO 8601; None where there is none. An ISO 8601 text stays as it stands.

    Args:
        value: A text, a number of Unix time, or a time.
        form: What the texts are: a form of ``strptime``, or ``unix``, ``unix_ms``, ``unix_us``, ``unix_ns``; None: as found.

    Raises:
        ValueError: It is in no known form, or not in this one.
    """
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    if value is None or isinstance(value, bool | list | tuple | dict | bytes):
        if value is None:
            return None
        raise ValueError("no time")
    text = f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value).strip()
    if not text:
        return None
    if form in _UNITS:
        return _of_unix(float(text) / _UNITS[form])
    if form:
        return ensure_utc(datetime.strptime(text, form)).isoformat()
    if isinstance(value, int | float) or _UNIX.fullmatch(text):
        return _of_number(text)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _of_words(text).isoformat()
    return text


def _of_number(text: str) -> str:
    if not _UNIX.fullmatch(text):
        if re.fullmatch(r"\d{8}", text):
            return datetime.fromisoformat(text).isoformat()
        raise ValueError("a number that is no Unix time of these decades")
    num_digits = len(text.partition(".")[0])
    return _of_unix(float(text) / 1_000 ** ((num_digits - 8) // 3))


def _of_unix(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, OSError) as error:
        raise ValueError("no time") from error


def _of_words(text: str) -> datetime:
    text = re.sub(r" ?\b(?:UTC|GMT|Z)$", " +0000", text)
    for form in _FORMS:
        try:
            return ensure_utc(datetime.strptime(text, form))
        except ValueError:
            continue
    try:
        return ensure_utc(parsedate_to_datetime(text))
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError("no time") from error


def shape_of(time: str) -> str:
    """The form of a time without its value, for an error: ``03/04/2026`` is ``99/99/9999``."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", time))[:40]


class TimeCheck:
    """Counts the times of a source that are in no known form.

    Args:
        config: The source's settings.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._num_read = self._num_unread = 0
        self._shape = ""

    def see(self, time: str | None) -> None:
        """Counts the time of a row, as :func:`iso_time` gave it or as it stood."""
        if time is None:
            return
        try:
            parse_timestamp(time)
        except ValueError:
            self._num_unread += 1
            self._shape = self._shape or shape_of(time)
        else:
            self._num_read += 1

    def check(self, where: str) -> list[str]:
        """A note on the times that cannot be read.

        Raises:
            InputError: They are most of the times.
        """
        if not self._num_unread:
            return []
        column = self._config.created_at_column or "created_at"
        found = f"{self._num_unread} of {self._num_read + self._num_unread} times in `{column}` of the form {self._shape}"
        form = self._config.created_at_format
        if self._num_unread <= self._num_read:
            return [f"{found} cannot be read and count as none"]
        raise InputError(
            where,
            found,
            f"times as `created_at_format: {form}` says" if form else "times in a form with one meaning (ISO 8601 is best)",
            "Set `created_at_format` to their form, such as `%d/%m/%Y` (day first), `%m/%d/%Y` (month first) or `unix_ms`; "
            "or `created_at_column` to another column.",
        )
