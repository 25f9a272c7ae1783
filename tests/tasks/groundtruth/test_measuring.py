"""Figures count what was planted and reached a stage, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import PreparedDataset, Snapshot
from tasks.core.errors import InputError
from tasks.core.quarantine import quarantine_row
from tasks.core.storage import Store, open_store
from tasks.groundtruth import GroundTruthConfig, measure_against_truth
from tasks.groundtruth.measuring import Tally, measure_prepared
from tasks.groundtruth.planted import PlantedFault, faults_in, read_planted_faults
from tasks.stats.intervals import wilson_interval
from tests.support.prepared import Flagged, Masked, prepare_by_hand, ticket

QUESTION, ANSWER = "messages.0.content", "messages.1.content"


def fault(row_id: str, kind: str, **more: Any) -> PlantedFault:
    return PlantedFault(row_id=row_id, kind=kind, file="tickets.jsonl", **more)  # type: ignore[arg-type]


def rows(*names: str) -> list[dict[str, Any]]:
    return [ticket(name, f"Question of {name}?", f"Answer to {name}.") for name in names]


def figures(prepared: PreparedDataset, *faults: PlantedFault) -> dict[str, Measurement]:
    tally = Tally()
    measure_prepared(prepared, faults, tally)
    return {figure.name: figure for figure in tally.measurements()}


def share(figure: Measurement) -> tuple[float | None, int | None]:
    return figure.value, figure.num_samples


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_malformed_lines_are_found_by_id_or_by_line(store: Store) -> None:
    prepared = prepare_by_hand(
        store,
        rows("a", "b", "c", "d", "empty", "missed"),
        unread={"line-2": "not_json", "b2": "missing_reply"},
        invalid={"empty": "empty_reply", "a": "too_short"},
    )
    found = figures(
        prepared,
        fault("line-2", "malformed", line=2),
        fault("b2", "malformed", line=4),
        fault("empty", "malformed", line=5),
        fault("missed", "malformed", line=6),
        fault("line-900", "malformed", line=900),  # beyond a row limit: never read
    )
    assert share(found["ingest.malformed.recall"]) == (3 / 4, 4)
    assert share(found["ingest.malformed.precision"]) == (3 / 4, 4), "row a was fine"


def test_rows_beyond_a_row_limit_count_neither_way(store: Store) -> None:
    snapshot = prepare_by_hand(store, rows("a", "b", "c"), unread={"line-2": "not_json"}).snapshot
    dropped = [quarantine_row("ingest", name, "not_sampled", "", disposition="dropped") for name in ("d", "e")]
    quarantine = store.write_rows(dropped, kind="quarantine")
    fields = {**snapshot.model_dump(), "num_rows_in": 5, "quarantined": {}, "dropped": {"not_sampled": 2}}
    limited = Snapshot.model_validate({**fields, "quarantine": quarantine})
    prepared = prepare_by_hand(store, rows("a", "b", "c")).model_copy(update={"snapshot": limited})
    found = figures(prepared, fault("d", "malformed", line=4))
    assert "ingest.malformed.recall" not in found
    assert "ingest.malformed.precision" not in found


def test_of_a_duplicate_pair_either_row_may_go_and_the_second_is_a_false_alarm(store: Store) -> None:
    grouped = [ticket(name, f"{name}?", "y", split_group="s") for name in ("g", "g2")]
    prepared = prepare_by_hand(
        store,
        [*rows("a", "a2", "b", "b2", "c", "d", "d2", "e", "f"), *grouped],
        repeated={"a": "exact_duplicate", "d": "near_duplicate", "d2": "near_duplicate", "e": "near_duplicate"},
    )
    found = figures(
        prepared,
        fault("a2", "exact_duplicate", duplicate_of="a"),
        fault("b2", "exact_duplicate", duplicate_of="b"),
        fault("d2", "near_duplicate", duplicate_of="d"),
        fault("g2", "near_duplicate", duplicate_of="g"),
        fault("z2", "near_duplicate", duplicate_of="z"),  # removed before
    )
    assert share(found["deduplication.exact_duplicate.recall"]) == (1 / 2, 2)
    assert share(found["deduplication.exact_duplicate.precision"]) == (1.0, 1)
    assert share(found["deduplication.near_duplicate.recall"]) == (1.0, 2), "g and g2 share a cluster"
    assert share(found["deduplication.near_duplicate.precision"]) == (0.0, 3), "both of d, and e, which had no copy"


def test_confidential_rows(store: Store) -> None:
    prepared = prepare_by_hand(
        store,
        rows("a", "b", "c", "d", "e"),
        repeated={"e": "exact_duplicate"},
        confidential={"a": "secret", "b": "denied_term", "c": "secret"},
    )
    found = figures(
        prepared,
        fault("a", "secret", value="x"),
        fault("d", "secret", value="x"),
        fault("e", "secret", value="x"),
        fault("b", "code_name", value="x"),
    )
    assert share(found["confidential.secret.recall"]) == (1 / 2, 2), "e left before"
    assert share(found["confidential.code_name.recall"]) == (1.0, 1)
    assert share(found["confidential.precision"]) == (2 / 3, 3)


def test_personal_data_by_value_and_by_character(store: Store) -> None:
    text = "I am Ann Lee, mail ann@example.com, plate ABC-123, model LumaPlug."
    at = {value: text.index(value) for value in ("Ann Lee", "ann@example.com", "ABC-123", "LumaPlug")}
    prepared = prepare_by_hand(
        store,
        [ticket("a", text, "Thanks, Ann Lee.", known_values=["Ann Lee"]), *rows("b", "c", "d")],
        masked=[
            Masked("a", QUESTION, at["Ann Lee"], at["Ann Lee"] + 3, "PERSON"),  # half a name
            Masked("a", QUESTION, at["ann@example.com"], at["ann@example.com"] + 15, "EMAIL_ADDRESS"),
            Masked("a", QUESTION, at["LumaPlug"], at["LumaPlug"] + 8, "PERSON"),
            Masked("a", ANSWER, 8, 15, "PERSON"),
        ],
    )
    found = figures(
        prepared,
        fault("a", "pii", field=QUESTION, value="Ann Lee", entity="PERSON"),
        fault("a", "pii", field=ANSWER, value="Ann Lee", entity="PERSON"),
        fault("a", "pii", field=QUESTION, value="ann@example.com", entity="EMAIL_ADDRESS"),
        fault("a", "pii", field=QUESTION, value="ABC-123", entity="LICENSE_PLATE"),
    )
    assert share(found["pii.recall"]) == (3 / 4, 4), "no whole name stands anywhere; the plate does"
    assert share(found["pii.recall.LICENSE_PLATE"]) == (0.0, 1)
    assert share(found["pii.characters.recall"]) == ((3 + 6 + 13) / (6 + 6 + 13 + 6), 31)
    assert share(found["pii.precision"]) == (3 / 4, 4)
    assert share(found["pii.characters.precision"]) == ((3 + 13 + 6) / (3 + 13 + 8 + 6), 30)
    assert found["pii.recall"].low is not None
    assert found["pii.characters.recall"].low is None, "characters of one value are not independent"


def test_a_value_that_survives_elsewhere_in_its_row_is_not_gone(store: Store) -> None:
    prepared = prepare_by_hand(
        store,
        [ticket("a", "I am Ann Lee.", "Thanks, Ann Lee."), *rows("b", "c")],
        masked=[Masked("a", QUESTION, 5, 12, "PERSON")],
    )
    found = figures(prepared, fault("a", "pii", field=QUESTION, value="Ann Lee", entity="PERSON"))
    assert share(found["pii.recall"]) == (0.0, 1)
    assert share(found["pii.characters.recall"]) == (1.0, 6)


def test_mislabelled_rows_and_bad_replies_are_no_false_alarms_of_each_other(store: Store) -> None:
    prepared = prepare_by_hand(
        store,
        rows("a", "b", "c", "d", "e", "f", "g"),
        flagged=[
            Flagged("a", "wrong_label", "drop"),
            Flagged("b", "wrong_label"),
            Flagged("c", "wrong_label"),  # its reply was swapped: a fair suspicion
            Flagged("c", "mismatched_response", "drop"),
            Flagged("d", "wrong_label"),
            Flagged("b", "contradicting_response"),  # its label is wrong: likewise
            Flagged("e", "truncated_response"),
        ],
    )
    found = figures(
        prepared,
        fault("a", "wrong_label", correct_label="X"),
        fault("b", "wrong_label", correct_label="X"),
        fault("f", "wrong_label", correct_label="X"),
        fault("c", "swapped", field=ANSWER),
        fault("g", "garbled", field=ANSWER),
    )
    assert share(found["labels.wrong_label.recall"]) == (2 / 3, 3)
    assert share(found["labels.wrong_label.precision"]) == (2 / 3, 3)
    assert share(found["labels.wrong_label.automatic.recall"]) == (1 / 3, 3)
    assert share(found["labels.wrong_label.automatic.precision"]) == (1.0, 1)
    assert share(found["responses.recall"]) == (1 / 2, 2)
    assert share(found["responses.precision"]) == (1 / 2, 2)
    assert share(found["responses.garbled.recall"]) == (0.0, 1)


def test_nothing_planted_gives_no_recall_but_false_alarms_count(store: Store) -> None:
    prepared = prepare_by_hand(store, rows("a", "b", "c"), confidential={"a": "secret"})
    found = figures(prepared)
    assert share(found["confidential.precision"]) == (0.0, 1)
    assert not [name for name in found if "recall" in name]


def test_two_data_sets_add_up(store: Store, tmp_path: Path) -> None:
    examples = prepare_by_hand(store, rows("a", "b", "c"), confidential={"a": "secret"})
    pairs = [
        {"id": name, **{part: [{"role": "user", "content": part}] for part in ("prompt", "chosen", "rejected")}}
        for name in ("p", "q", "r")
    ]
    preferences = prepare_by_hand(store, pairs, kind="preferences", source_uri="file:///data/pairs.jsonl")
    lines = [
        {"row_id": "a", "kind": "secret", "value": "x", "file": "tickets.jsonl"},
        {"row_id": "p", "kind": "secret", "value": "x", "file": "pairs.jsonl"},
    ]
    path = tmp_path / "truth.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    report = measure_against_truth.fn(GroundTruthConfig(path=str(path)), examples, preferences)
    measured = {figure.name: figure for figure in report.measurements}
    assert share(measured["confidential.secret.recall"]) == (1 / 2, 2)


def test_without_a_path_the_report_is_empty(store: Store) -> None:
    assert (
        measure_against_truth.fn(GroundTruthConfig(), prepare_by_hand(store, rows("a", "b", "c")), None).measurements == ()
    )


def test_a_list_of_other_files_is_rejected(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text(json.dumps({"row_id": "a", "kind": "secret", "file": "other.jsonl"}))
    with pytest.raises(InputError, match=r"faults of other\.jsonl"):
        measure_against_truth.fn(GroundTruthConfig(path=str(path)), prepare_by_hand(store, rows("a", "b", "c")), None)


def test_invalid_lists_are_rejected_with_line_numbers_and_without_values(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with pytest.raises(InputError, match="FileNotFoundError"):
        read_planted_faults(str(path))
    path.write_text("\n")
    with pytest.raises(InputError, match="no lines"):
        read_planted_faults(str(path))
    path.write_text('{"row_id": "a", "kind": "pii", "value": "Ann Lee"}\n{"row_id": "b", "kind": "Ann Lee"}\n[1]\n{')
    with pytest.raises(InputError, match=r"3 .* line 2 \(kind\), line 3 \(not an object\), line 4 \(not JSON\)") as error:
        read_planted_faults(str(path))
    assert "Ann Lee" not in str(error.value)


def test_faults_belong_to_the_file_that_they_name() -> None:
    faults = [fault("a", "pii"), PlantedFault(row_id="b", kind="pii", file="x.jsonl"), PlantedFault(row_id="c", kind="pii")]
    assert [one.row_id for one in faults_in("s3://bucket/tickets.jsonl", faults)] == ["a", "c"]


def test_another_list_is_other_content(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    config = GroundTruthConfig(path=str(path))
    assert config.external_fingerprints() == {}
    path.write_text("a")
    first = config.external_fingerprints()
    path.write_text("b")
    assert config.external_fingerprints() != first


def test_wilson_intervals_agree_with_published_values() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
