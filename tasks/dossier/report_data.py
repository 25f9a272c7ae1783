"""The page's data from the store, beyond the evidence: tables, counts, a few scrubbed answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.contracts.evaluation import ArmScores, BenchmarkReport
from tasks.contracts.preparation import PreparedDataset
from tasks.contracts.references import DatasetRef
from tasks.contracts.run import RunEvidence
from tasks.contracts.training import TrainingResult
from tasks.core.errors import GateError, IntegrityError
from tasks.core.rare_values import withheld_counts
from tasks.core.rows import Row, TableRows, iter_texts, prompt_messages, reply
from tasks.core.storage import Store, run_store
from tasks.dossier.formatting import ARM_NAMES

GATES = ("ingested", "validated", "deduplicated", "confidential_filtered", "scrubbed", "label_audited", "decontaminated")
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Loss by step."""

    train: Sequence[Point]
    held_out: Sequence[Point]


@dataclass(frozen=True)
class RowFacts:
    """Counts of the training rows."""

    labels: Mapping[str, int]
    groups: Mapping[str, Mapping[str, int]]
    first_day: str | None
    last_day: str | None


@dataclass(frozen=True)
class AnsweredExample:
    """One frozen example: the question, the reference reply, and each arm's reply with its primary score."""

    row_id: str
    question: str
    reference: str
    replies: Mapping[str, tuple[str, float | None]]


@dataclass(frozen=True)
class SliceScores:
    """One slice: how many examples, and each model's mean with its interval where there are enough."""

    dimension: str
    value: str
    num_examples: int
    means: dict[str, tuple[float, float | None, float | None]]


@dataclass(frozen=True)
class ReportData:
    """The data of one dossier; ``lineage_fault`` is None when the chain of digests is valid."""

    curves: Mapping[str, Curve]
    issue_actions: Mapping[str, Mapping[str, int]]
    differences: Sequence[Mapping[str, Any]]
    facts: RowFacts
    chain: Sequence[DatasetRef]
    lineage_fault: str | None
    num_leaked_rows: int = 0
    """Training rows with the words of a held-out row."""
    answers: Sequence[AnsweredExample] = field(default_factory=tuple)
    slices: Sequence[SliceScores] = field(default_factory=tuple)


def read_report_data(evidence: RunEvidence, num_answers: int) -> ReportData:
    """Reads what the page shows, each table checked against its digest."""
    store = run_store()
    table = store.read_table(evidence.examples.labels.issues, columns=["kind", "action"])
    actions: dict[str, Counter[str]] = {}
    for issue in table.to_pylist():
        actions.setdefault(str(issue["kind"]), Counter())[str(issue["action"])] += 1
    return ReportData(
        curves={result.method: _curve(store, result) for result in evidence.steps},
        issue_actions=actions,
        differences=_differences(store, evidence.examples),
        facts=_facts(store, evidence.sft.dataset),
        chain=_chain(evidence),
        lineage_fault=lineage_fault(store, evidence),
        num_leaked_rows=count_leaked_rows(store, evidence),
        slices=_slices(store, evidence.benchmark, evidence.decision.primary_metric),
        answers=_answers(store, evidence.benchmark, evidence.decision.primary_metric, num_answers),
    )


def lineage_fault(store: Store, evidence: RunEvidence) -> str | None:
    """Why the rows trained on do not descend from the snapshot through every gate; None when they do."""
    try:
        store.verify_lineage(evidence.sft.dataset, descends_from=evidence.snapshots, passed=GATES)
    except (GateError, IntegrityError) as error:
        return str(error)
    return None


def count_leaked_rows(store: Store, evidence: RunEvidence) -> int:
    """The number of training rows with the words of a held-out row.

    Counted on the tables themselves, by other means than the stage that keeps them apart, so that the dossier does not take
    that stage's word for it.
    """
    fresh = evidence.examples.fresh
    held_out = [evidence.benchmark.dataset, *([fresh.dataset] if fresh and fresh.dataset else [])]
    known = {_words(row) for ref in held_out for row in store.read_rows(ref)}
    trained = (evidence.split.train, evidence.split.validation)
    return sum(_words(row) in known for ref in trained for row in TableRows(store.read_table(ref)))


def sources_of(evidence: RunEvidence) -> list[tuple[str, PreparedDataset]]:
    """The run's prepared data sets by their titles: examples, further sources, preference pairs."""
    sources = [("Examples", evidence.examples)]
    if evidence.mixture:
        further = zip(evidence.mixture.parts[1:], evidence.mixture.prepared, strict=True)
        sources += [(f"Further rows, {part.name}", prepared) for part, prepared in further]
    return sources + ([("Preference pairs", evidence.preferences)] if evidence.preferences else [])


def _words(row: Row) -> str:
    return " ".join(word for _, text in iter_texts(row) for word in text.casefold().split())


def _chain(evidence: RunEvidence) -> list[DatasetRef]:
    examples = evidence.examples
    mixed = [evidence.mixture.dataset] if evidence.mixture and evidence.mixture.prepared else []
    refs = [stage.dataset for stage in examples.stages] + mixed + [evidence.split.train, evidence.sft.dataset]
    return list(dict.fromkeys(refs))


def _curve(store: Store, result: TrainingResult) -> Curve:
    table = store.read_table(result.curves)
    return Curve(_points(table, "loss"), _points(table, "eval_loss"))


def _points(table: pa.Table, name: str) -> list[Point]:
    if name not in table.column_names or "step" not in table.column_names:
        return []
    pairs = zip(table["step"].to_pylist(), table[name].to_pylist(), strict=True)
    return [(float(step), float(value)) for step, value in pairs if step is not None and value is not None]


def _differences(store: Store, prepared: PreparedDataset) -> list[dict[str, Any]]:
    """The groups whose outcomes differ, largest difference first."""
    table = store.read_table(prepared.bias.table)
    if "finding" not in table.column_names:
        return []
    found = [row for row in table.to_pylist() if row["finding"] == "difference"]
    return sorted(found, key=lambda row: (-abs(row["difference"] or 0.0), row["dimension"], row["group"], row["measure"]))


def _facts(store: Store, rows: DatasetRef) -> RowFacts:
    table = store.read_table(rows, columns=["label", "groups", "created_at"])
    groups: dict[str, Counter[str]] = {}
    for row_groups in table["groups"].to_pylist():
        for group in row_groups or ():
            groups.setdefault(group["name"], Counter())[group["value"]] += 1
    days = sorted(str(moment)[:10] for moment in table["created_at"].to_pylist() if moment)
    labels = Counter(label for label in table["label"].to_pylist() if label)
    return RowFacts(
        labels=dict(withheld_counts(labels).most_common()),
        groups={name: dict(withheld_counts(counts).most_common()) for name, counts in groups.items()},
        first_day=days[0] if days else None,
        last_day=days[-1] if days else None,
    )


def _answers(store: Store, benchmark: BenchmarkReport, metric: str, count: int) -> list[AnsweredExample]:
    """Answers spread evenly from the candidate's largest gain to its largest loss, so that none are hand-picked.

    Only from a data set that went through scrubbing; else none.
    """
    arms = [arm for name in ("base", "champion", "candidate") if (arm := benchmark.arm(name))]
    if not count or "scrubbed" not in benchmark.dataset.passed or not {"base", "candidate"} <= {arm.arm for arm in arms}:
        return []
    replies = {arm.arm: _replies(store, arm, metric) for arm in arms}
    rows = {str(row["id"]): row for row in store.read_rows(benchmark.dataset)}
    shared = [name for name in rows if all(name in answered for answered in replies.values())]

    def gain(name: str) -> float:
        return (replies["candidate"][name][1] or 0.0) - (replies["base"][name][1] or 0.0)

    ordered = sorted(shared, key=lambda name: (-gain(name), name))
    places = {round(step * (len(ordered) - 1) / max(1, count - 1)) for step in range(count)} if ordered else set()
    return [
        AnsweredExample(
            row_id=ordered[place],
            question="\n\n".join(message["content"] for message in prompt_messages(rows[ordered[place]])),
            reference=reply(rows[ordered[place]]),
            replies={arm.arm: replies[arm.arm][ordered[place]] for arm in arms},
        )
        for place in sorted(places)
    ]


def _replies(store: Store, arm: ArmScores, metric: str) -> dict[str, tuple[str, float | None]]:
    table = store.read_table(arm.examples)
    if "reply" not in table.column_names:
        return {}
    scores = table[metric].to_pylist() if metric in table.column_names else [None] * table.num_rows
    return {
        str(name): (str(text or ""), score)
        for name, text, score in zip(table["id"].to_pylist(), table["reply"].to_pylist(), scores, strict=True)
    }


def _slices(store: Store, benchmark: BenchmarkReport, metric: str) -> list[SliceScores]:
    """The slices that the candidate was measured on, by dimension, largest first."""
    slices: dict[tuple[str, str], SliceScores] = {}
    for arm in benchmark.arms:
        if arm.arm not in ARM_NAMES or arm.slices is None:
            continue
        for row in store.read_table(arm.slices).to_pylist():
            if row["metric"] == metric:
                key = (row["dimension"], row["value"])
                scores = slices.setdefault(key, SliceScores(*key, row["num_examples"], {}))
                scores.means[arm.arm] = (row["mean"], row["low"], row["high"])
    measured = (scores for scores in slices.values() if "candidate" in scores.means)
    return sorted(measured, key=lambda scores: (scores.dimension, -scores.num_examples, scores.value))
