"""Several runs at once, and kills, in a folder and on an S3-compatible server: `benchmarks/store_races.py`, shorter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store_races import RACES, Place, run_kills, run_race


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place("folder", str(tmp_path / "stores"), tmp_path)
    return Place("bucket", f"s3://bucket/{tmp_path.name}", tmp_path, request.getfixturevalue("bucket"))


@pytest.mark.parametrize("race", RACES)
def test_nothing_is_lost_where_four_processes_do_the_same_at_once(place: Place, race: str) -> None:
    assert run_race(place, race, rounds=20 if place.name == "folder" else 8) == []


def test_nothing_is_lost_or_torn_by_kills(place: Place) -> None:
    assert run_kills(place, rounds=20 if place.name == "folder" else 8) == []
