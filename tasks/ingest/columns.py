"""The columns of a source: what a configured name reaches in a record, and which configured names no record has."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tasks.core.errors import InputError
from tasks.ingest.config import SourceConfig

Fields = Mapping[str, Any]

_COLUMN_SETTINGS = re.compile(r"\w+_columns?")
_SPARSE_SHARE = 0.5
_SHOWN_NAMES = 20
_PLAIN_NAME = re.compile(r"[^\W\d][\w .:/-]*")
_PROGRAM_NAME = re.compile(r"[a-z][a-z_]*\d{0,3}")
_MAX_DIGITS = 6
"""A name with as many digits may be a number of a person or a card."""
_TABLE = re.compile(r"\.[ct]sv\b", re.IGNORECASE)
_ABSENT = object()
LABEL_NAMES = ("label", "category", "intent")
"""Customary names of the column with the class."""
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")
_MAX_NAMES = 10_000
"""Distinct names that are counted; records whose keys are data would have a name each."""


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, or the number that is not a number, as pandas writes a missing one."""
    return value is None or (isinstance(value, float) and value != value)


def _reach(fields: Fields, column: str) -> Any:
    """The value of a column. A name that is no column of its own is a path: ``comments.0.body`` is in the first comment."""
    if column in fields:
        return fields[column]
    if "." not in column:
        return _ABSENT
    value: Any = fields
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and re.fullmatch(r"-?\d+", part):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else _ABSENT
        else:
            return _ABSENT
    return value


class ColumnSurvey:
    """Which columns the records have, counted while another reads them.

    Args:
        config: The source's settings, which name columns.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.num_records = 0
        self.filled: Counter[str] = Counter()
        """Records with a value, by column."""
        self._present: Counter[str] = Counter()
        self._named = named_columns(config)
        self._paths = [name for name in self._named if "." in name]
        labels = (config.label_column,) if config.label_column else LABEL_NAMES
        self._labels = {*labels, *config.annotation_columns}
        self._not_whole: set[str] = set()
        self._may_be_truth = not (config.label_column or config.feedback_column)

    def watching(self, records: Iterable[Fields]) -> Iterator[Fields]:
        """The records as :meth:`resolved` gives them, counted as they pass."""
        for raw in records:
            fields = self.resolved(raw)
            self.num_records += 1
            for name, value in fields.items():
                if name not in self._present and len(self._present) >= _MAX_NAMES:
                    continue
                self._present[name] += 1
                self.filled[name] += value is not None and value != ""
            for name in self._labels:
                value = fields.get(name)
                if isinstance(value, str) and value.strip() and not _WHOLE_NUMBER.fullmatch(value.strip()):
                    self._not_whole.add(name)
            label = fields.get("label")
            self._may_be_truth &= label in (None, "") or isinstance(label, bool) or _truth_of(label) is not None
            yield fields

    def resolved(self, fields: Fields) -> Fields:
        """The record with the values of configured paths as columns of their own, and None for a number that is none."""
        changes = {name: None for name, value in fields.items() if is_missing(value)}
        for name in self._paths:
            if name not in fields and (value := _reach(fields, name)) is not _ABSENT:
                changes[name] = None if is_missing(value) else value
        return {**fields, **changes} if changes else fields

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order in which they appear."""
        return list(self._present)

    def check(self, where: str, *, is_log: bool = False) -> list[str]:
        """Checks the configured names of columns; returns notes on those that most records lack.

        Args:
            where: The source's name.
            is_log: Whether a window of a log is read, which may lack a column that others have: such a name is an error
                only where a similar column exists.

        Raises:
            InputError: A configured column stands in no record.
        """
        if not self.num_records:
            return []
        absent = {name: settings for name, settings in self._named.items() if not self._present[name]}
        similar = {name: did_you_mean(name, self.columns) for name in absent}
        wrong = {name: settings for name, settings in absent.items() if similar[name] or not is_log}
        if wrong:
            faults = "; ".join(
                f"`{setting}: {name}`" + (f" (did you mean `{similar[name]}`?)" if similar[name] else "")
                for name, settings in wrong.items()
                for setting in settings
            )
            raise InputError(
                where,
                f"no record with the configured column{'s' if len(wrong) > 1 else ''} {faults}, but "
                f"{shown_columns(self.columns, where)}",
                "columns that the records have",
                "Correct each name, or leave its setting out.",
            )
        notes = [f"no record has the column `{name}` of `{', '.join(settings)}`" for name, settings in absent.items()]
        return notes + [
            f"`{', '.join(settings)}: {name}` has a value in {self.filled[name]} of {self.num_records} records"
            for name, settings in self._named.items()
            if self._present[name] and self.filled[name] <= _SPARSE_SHARE * self.num_records
        ]

    def prepared(self, fields: Fields) -> Fields:
        """The record as :meth:`resolved`, with ``1`` for a label written as ``1.0`` where all labels are whole numbers.

        A table with a missing value writes whole numbers with a fraction, and the next one without: both are one label.
        Where another label of the column is no whole number (``1.5``, a version ``2.10``), each stays as it stands. Likewise
        a table of text has ``True`` and ``False`` as words; where every label beside a completion is one, they are meant.
        """
        fields = self.resolved(fields)
        if self._may_be_truth and "completion" in fields and (truth := _truth_of(fields.get("label"))) is not None:
            fields = {**fields, "label": truth}
        for name in self._labels - self._not_whole:
            value = fields.get(name)
            if isinstance(value, str) and "." in value and _WHOLE_NUMBER.fullmatch(value.strip()):
                fields = {**fields, name: value.strip().split(".")[0]}
        return fields


def _truth_of(label: object) -> bool | None:
    return {"true": True, "false": False}.get(label.strip().lower()) if isinstance(label, str) else None


def named_columns(config: SourceConfig) -> dict[str, list[str]]:
    """The columns that the configuration names, each with the settings that name it; defaults are not named."""
    named: dict[str, list[str]] = {}
    for setting, field in type(config).model_fields.items():
        value = getattr(config, setting)
        if not _COLUMN_SETTINGS.fullmatch(setting) or value == field.default:
            continue
        for column in (value,) if isinstance(value, str) else value or ():
            named.setdefault(column, []).append(setting)
    for role, column in config.columns.items():
        named.setdefault(column, []).append(f"columns.{role}")
    return named


def did_you_mean(name: str, columns: Iterable[str]) -> str | None:
    """The column most similar to a name, but for case, blanks and separators; None where none is."""
    plain = {plain_name(column): column for column in reversed(list(columns))}
    if (same := plain.get(plain_name(name))) is not None:
        return same
    close = difflib.get_close_matches(plain_name(name), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close and is_shown(plain[close[0]]) else None


def plain_name(name: str) -> str:
    """A column's name without case, outer blanks and the choice of separator: ``Agent Reply `` is ``agent_reply``."""
    return re.sub(r"[\s_.-]+", "_", name.strip().casefold())


def is_shown(name: str) -> bool:
    """Whether a column's name may stand in an error: it has the form of a name, and not of a value."""
    return bool(_PLAIN_NAME.fullmatch(name.strip())) and len(name) <= 60 and sum(map(str.isdigit, name)) < _MAX_DIGITS


def shown_columns(names: Iterable[str], where: str, known: Iterable[str] = ()) -> str:
    """The names of columns for an error. A table without a header has a row in place of names, and no error quotes a row.

    The names of a table are shown where one of them is known, or where all have the form of a name in a program.
    """
    ordered = sorted(names)
    plain = {plain_name(name) for name in ordered}
    is_header = bool({plain_name(name) for name in known} & plain) or all(map(_PROGRAM_NAME.fullmatch, ordered))
    if _TABLE.search(where) and not is_header:
        return f"{len(ordered)} columns, none with a known name; their names are not shown, because line 1 may be a row"
    shown = [name for name in ordered if is_shown(name)]
    rest = f" and {len(ordered) - len(shown)} whose names may be values" if len(shown) < len(ordered) else ""
    return f"columns {', '.join(name[:40] for name in shown[:_SHOWN_NAMES]) or 'none'}{rest}"
