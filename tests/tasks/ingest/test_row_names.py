"""A row keeps its own id where a machine counted or drew it, and is named by its content where it may be a person's."""

from __future__ import annotations

import pytest

from tasks.ingest.row_names import RowNames

SERIES = [f"ticket-{number:05d}" for number in range(200)] + [str(35_436_000 + number) for number in range(200)]


@pytest.mark.parametrize(
    "given",
    [
        "219-09-9999",
        "maria.keller",
        "Maria_Keller",
        "jo@corp.example",
        "keller-1985",
        "+4915112345678",
        "QX4819377",
        "078051120",
    ],
)
def test_an_id_that_may_be_a_persons_is_not_shown(given: str) -> None:
    assert not RowNames([*SERIES, given, given]).is_plain(given)


@pytest.mark.parametrize(
    "given",
    [
        "ticket-00017",
        "35436123",
        "4711",
        "a/17#3",
        "first",
        "0b0f1d5e-6b1c-4d8e-9a55-0f8f1b7f2c11",
        "507f1f77bcf86cd799439011",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ],
)
def test_an_id_of_a_series_or_a_machine_is_kept(given: str) -> None:
    assert RowNames([*SERIES, given]).is_plain(given)


def test_a_key_decides_the_name_of_a_row_without_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": "maria.keller", "source": "x", "messages": []}
    monkeypatch.delenv("PERENNIAL_PII_KEY", raising=False)
    plain = RowNames([]).of_content(row)
    assert plain == RowNames([]).of_content({**row, "id": None}), "the id is no part of it"
    monkeypatch.setenv("PERENNIAL_PII_KEY", "one")
    one = RowNames([]).of_content(row)
    monkeypatch.setenv("PERENNIAL_PII_KEY", "other")
    assert len({plain, one, RowNames([]).of_content(row)}) == 3
