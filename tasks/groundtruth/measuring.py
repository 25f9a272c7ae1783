"""Compares the stages' results with the planted faults: hits, misses and false alarms of each stage.

Only rows that reached a stage count for it: rows that an earlier stage removed are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import PreparedDataset, StageReport
from tasks.contracts.references import DatasetRef
from tasks.core.rows import Row, iter_strings
from tasks.core.storage import run_store
from tasks.groundtruth.planted import PlantedFault
from tasks.stats.intervals import wilson_interval

Span = tuple[int, int]
Place = tuple[str, str]
"""Row id and field path."""

BAD_REPLIES = ("swapped", "truncated", "garbled")
REPLY_ISSUES = frozenset(
    {
        "mismatched_response",
        "truncated_response",
        "garbled_response",
        "wrong_language_response",
        "refusal_response",
        "contradicting_response",
    }
)


@dataclass
class Tally:
    """Hits and trials of each figure by its name; figures of several data sets add up."""

    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    trials: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, hits: int, trials: int) -> None:
        """Adds ``hits`` of ``trials`` to the figure ``name``."""
        self.hits[name] += hits
        self.trials[name] += trials

    def rows(self, name: str, found: Collection[str], planted: Collection[str], neutral: Collection[str] = ()) -> None:
        """Adds precision and recall of a set of found rows against the planted ones; neutral rows are no false alarms."""
        hits = len(set(found) & set(planted))
        false_alarms = len(set(found) - set(planted) - set(neutral))
        self.add(f"{name}.recall", hits, len(set(planted)))
        self.add(f"{name}.precision", hits, hits + false_alarms)

    def measurements(self) -> tuple[Measurement, ...]:
        """The figures in the order they were first added, those without a single trial left out.

        Shares of rows and values carry a Wilson interval; shares of characters none, since the characters of one value
        are not independent of each other.
        """
        figures = []
        for name, trials in self.trials.items():
            if trials:
                low, high = (None, None) if ".characters." in name else wilson_interval(self.hits[name], trials)
                figures.append(
                    Measurement(name=name, value=self.hits[name] / trials, low=low, high=high, num_samples=trials)
                )
        return tuple(figures)


def measure_prepared(prepared: PreparedDataset, faults: Sequence[PlantedFault], tally: Tally) -> None:
    """Adds the figures of one prepared data set.

    Names are ``<stage>.<what>.recall`` and ``.precision``: the share of planted faults that the stage found, and the share
    of what it found that had been planted.

    Args:
        prepared: The stage reports; their tables are read from the store.
        faults: What was planted in this data set's source.
        tally: Receives the figures.
    """
    by_kind: dict[str, list[PlantedFault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    _measure_malformed(prepared, by_kind, tally)
    _measure_duplicates(prepared, by_kind, tally)
    _measure_confidential(prepared, by_kind, tally)
    _measure_personal_data(prepared, by_kind["pii"], tally)
    _measure_labels(prepared, by_kind, tally)


# --------------------------------------------------------------------------------------------------------- row by row


def _measure_malformed(prepared: PreparedDataset, by_kind: Mapping[str, list[PlantedFault]], tally: Tally) -> None:
    quarantined = _removed_ids(prepared.snapshot) | _removed_ids(prepared.validation)
    read = _ids(prepared.snapshot.dataset) | quarantined
    left_out = _removed_ids(prepared.snapshot, "dropped")  # by a row limit
    planted, aliases = set(), {}
    for fault in by_kind["malformed"]:
        names = {fault.row_id, f"line-{fault.line}"}
        was_read = names & read or (fault.line or 0) <= prepared.snapshot.num_rows_in
        if was_read and not names & left_out:
            planted.add(fault.row_id)
            aliases.update(dict.fromkeys(names, fault.row_id))
    found = {aliases.get(name, name) for name in quarantined}
    tally.rows("ingest.malformed", found, planted, neutral=_row_ids(by_kind, *BAD_REPLIES))


def _measure_duplicates(prepared: PreparedDataset, by_kind: Mapping[str, list[PlantedFault]], tally: Tally) -> None:
    groups = _split_groups(prepared.deduplication.dataset)
    reasons = _removal_reasons(prepared.deduplication, "dropped")
    input_ids = groups.keys() | reasons.keys()
    partners: dict[str, str] = {}
    for kind in ("exact_duplicate", "near_duplicate"):
        pairs = [
            (fault.row_id, fault.duplicate_of)
            for fault in by_kind[kind]
            if fault.duplicate_of and {fault.row_id, fault.duplicate_of} <= input_ids
        ]
        for one, other in pairs:
            partners.update({one: other, other: one})
        found = sum(one in reasons or other in reasons or groups[one] == groups[other] is not None for one, other in pairs)
        tally.add(f"deduplication.{kind}.recall", found, len(pairs))
    for kind in ("exact_duplicate", "near_duplicate"):
        dropped = [name for name, reason in reasons.items() if reason == kind]
        # Dropping one row of a pair is right; a row whose partner is removed as well was the last of its kind.
        right = sum(partners.get(name) in groups for name in dropped)
        tally.add(f"deduplication.{kind}.precision", right, len(dropped))


def _measure_confidential(prepared: PreparedDataset, by_kind: Mapping[str, list[PlantedFault]], tally: Tally) -> None:
    removed = _removed_ids(prepared.confidential, "quarantined", "dropped")
    input_ids = _ids(prepared.confidential.dataset) | removed
    for kind in ("secret", "code_name"):
        planted = _row_ids(by_kind, kind) & input_ids
        tally.add(f"confidential.{kind}.recall", len(planted & removed), len(planted))
    planted = _row_ids(by_kind, "secret", "code_name")
    tally.add("confidential.precision", len(planted & removed), len(removed))


def _measure_labels(prepared: PreparedDataset, by_kind: Mapping[str, list[PlantedFault]], tally: Tally) -> None:
    store = run_store()
    input_ids = _ids(prepared.scrub.dataset)
    issues = store.read_table(prepared.labels.issues).to_pylist()
    mislabelled = _row_ids(by_kind, "wrong_label") & input_ids
    bad_replies = _row_ids(by_kind, *BAD_REPLIES) & input_ids
    if mislabelled:
        found = {issue["id"] for issue in issues if issue["kind"] == "wrong_label"}
        acted_on = {issue["id"] for issue in issues if issue["kind"] == "wrong_label" and issue["action"] in ("drop", "fix")}
        tally.rows("labels.wrong_label", found, mislabelled, neutral=bad_replies)
        tally.rows("labels.wrong_label.automatic", acted_on, mislabelled, neutral=bad_replies)
    if bad_replies:
        found = {issue["id"] for issue in issues if issue["kind"] in REPLY_ISSUES}
        tally.rows("responses", found, bad_replies, neutral=mislabelled)
        for kind in BAD_REPLIES:
            planted = _row_ids(by_kind, kind) & input_ids
            tally.add(f"responses.{kind}.recall", len(found & planted), len(planted))


# ------------------------------------------------------------------------------------------------------- personal data


def _measure_personal_data(prepared: PreparedDataset, faults: Sequence[PlantedFault], tally: Tally) -> None:
    store = run_store()
    before = {str(row["id"]): row for row in store.read_rows(prepared.confidential.dataset)}
    after = {str(row["id"]): row for row in store.read_rows(prepared.scrub.dataset)}
    masked = _spans_by_place(store.read_table(prepared.scrub.findings).to_pylist())
    planted: dict[Place, list[Span]] = defaultdict(list)
    for fault in faults:
        text = dict(iter_strings(before[fault.row_id])).get(fault.field or "", "") if fault.row_id in before else ""
        if not fault.value or fault.value not in text:
            continue
        start = text.index(fault.value)
        span = (start, start + len(fault.value))
        planted[fault.row_id, fault.field or ""].append(span)
        gone = fault.row_id not in after or not _still_holds(after[fault.row_id], fault.value)
        tally.add("pii.recall", int(gone), 1)
        tally.add(f"pii.recall.{fault.entity or 'OTHER'}", int(gone), 1)
        if fault.row_id in after:
            covered = masked.get((fault.row_id, fault.field or ""), [])
            tally.add("pii.characters.recall", *_covered_characters(text, span, covered))
    quarantined = _removed_ids(prepared.scrub)
    tally.add("pii.refused_rows.precision", len(quarantined & {name for name, _ in planted}), len(quarantined))
    for place, spans in masked.items():
        text = dict(iter_strings(before[place[0]])).get(place[1], "")
        planted_spans = planted.get(place, [])
        for span in spans:
            overlaps = any(start < span[1] and span[0] < end for start, end in planted_spans)
            tally.add("pii.precision", int(overlaps), 1)
            tally.add("pii.characters.precision", *_covered_characters(text, span, planted_spans))


def _still_holds(row: Row, value: str) -> bool:
    known = row.get("known_values") or ()
    return any(value in text for _, text in iter_strings(row)) or any(value in other for other in known)


def _covered_characters(text: str, span: Span, others: Iterable[Span]) -> tuple[int, int]:
    """The number of letters and digits of the span that the others cover, and the number in the span."""
    places = {place for place in range(*span) if text[place].isalnum()}
    covered = {place for start, end in others for place in range(max(start, span[0]), min(end, span[1]))}
    return len(places & covered), len(places)


def _spans_by_place(findings: Iterable[Mapping[str, Any]]) -> dict[Place, list[Span]]:
    spans: dict[Place, list[Span]] = defaultdict(list)
    for finding in findings:
        spans[str(finding["id"]), str(finding["field"])].append((finding["start"], finding["end"]))
    return spans


# -------------------------------------------------------------------------------------------------------------- reading


def _row_ids(by_kind: Mapping[str, list[PlantedFault]], *kinds: str) -> set[str]:
    return {fault.row_id for kind in kinds for fault in by_kind[kind]}


def _ids(ref: DatasetRef) -> set[str]:
    return set(run_store().read_table(ref, columns=["id"])["id"].to_pylist())


def _split_groups(ref: DatasetRef) -> dict[str, str | None]:
    table = run_store().read_table(ref, columns=["id", "split_group"])
    return dict(zip(table["id"].to_pylist(), table["split_group"].to_pylist(), strict=True))


def _removal_reasons(report: StageReport, *dispositions: str) -> dict[str, str]:
    if report.quarantine is None:
        return {}
    removed = run_store().read_table(report.quarantine, columns=["id", "reason", "disposition"])
    return {str(row["id"]): str(row["reason"]) for row in removed.to_pylist() if row["disposition"] in dispositions}


def _removed_ids(report: StageReport, *dispositions: str) -> set[str]:
    return set(_removal_reasons(report, *(dispositions or ("quarantined",))))
