"""`perennial quarantine`: the rows that a run took out, each with stage, reason, field and what to do; never their text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.core.errors import InputError
from tasks.core.reasons import remedy_for
from tasks.core.storage import Store

Block = tuple[str, list[tuple[str, ...]]]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COLUMNS = ["id", "stage", "reason", "field", "disposition"]


@dataclass(frozen=True)
class OutRow:
    """A row that was taken out. ``disposition`` is ``dropped`` where a policy excludes it, else ``quarantined``."""

    source: str
    id: str
    stage: str
    reason: str
    field: str | None
    disposition: str
    remedy: str


def read_out_rows(store_uri: str, run: str, reason: str | None = None, stage: str | None = None) -> list[OutRow]:
    """The rows that a run took out, in the order of its stages.

    Args:
        store_uri: The store that the run wrote to.
        run: The run's name, ``latest``, or the address or hash of a quarantine data set, as an error of a run that stopped
            names it.
        reason: Only rows with this reason code.
        stage: Only rows that this stage took out.

    Raises:
        InputError: There is no such run or data set, or no row has this reason or stage.
    """
    rows = list(_rows(store_uri, run))
    reasons, stages = Counter(row.reason for row in rows), Counter(row.stage for row in rows)
    for name, wanted, given in (("reason", reason, reasons), ("stage", stage, stages)):
        if wanted is not None and wanted not in given:
            known = ", ".join(f"{key} ({count})" for key, count in given.most_common()) or "none"
            raise InputError(f"--{name}", "no row with it", f"one of {known}", "Name one of them, or leave it out.")
    return [row for row in rows if reason in (None, row.reason) and stage in (None, row.stage)]


def _rows(store_uri: str, run: str) -> Iterable[OutRow]:
    from tasks.contracts.run import RunEvidence
    from tasks.dossier.report_data import sources_of
    from tasks.dossier.summary import read_record

    store = Store(store_uri)
    if digest := _DIGEST.search(run):
        ref = store.find_dataset(digest.group())
        if ref is None or ref.kind != "quarantine":
            raise InputError(run, "no quarantine data set of this store", "one that an error names", "Name --store too.")
        sources = [("data set", [ref])]
    else:
        evidence = RunEvidence.model_validate(read_record(store_uri, run))
        sources = [
            (title, [report.quarantine for report in prepared.stages if report.quarantine is not None])
            for title, prepared in sources_of(evidence)
        ]
    for title, refs in sources:
        for ref in refs:
            for row in store.read_table(ref, columns=_COLUMNS).to_pylist():
                yield OutRow(source=title, remedy=remedy_for(row["stage"], row["reason"]), **row)


def counted(rows: Sequence[OutRow]) -> list[Block]:
    """A block for each source and stage: counts by reason and field, with the remedy."""
    blocks: dict[str, Counter[tuple[str, str]]] = {}
    for row in rows:
        what = f"{row.reason} in {row.field}" if row.field else row.reason
        blocks.setdefault(f"{row.source}: {row.stage}", Counter())[what, row.remedy] += 1
    return [
        (title, [(str(count), what, remedy) for (what, remedy), count in counts.most_common()])
        for title, counts in blocks.items()
    ]


def listed(rows: Sequence[OutRow]) -> Block:
    """A line for each row: id, stage, reason and field."""
    return "Rows", [(row.id, row.stage, row.reason, row.field or "") for row in rows]
