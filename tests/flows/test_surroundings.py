"""The data sets are a function of the rows and the settings: hash seed, time zone, locale, threads and load have no part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile import hostile_lines, ordinary_lines

ROOT = Path(__file__).parents[2]
_PREPARE = """
import json, os, sys, time
from pathlib import Path

from flows.support.config import PrepareConfig
from tasks import bias, confidential, deduplication, ingest, labels, pii, splitting, validation

if os.environ.get("LEAPING_CLOCK"):  # every look at a clock finds it an hour later
    ticks = iter(range(10**9))
    time.monotonic = time.perf_counter = lambda: 3600.0 * next(ticks)
settings = PrepareConfig.model_validate(
    {
        "validation": {"max_quarantine_share": 1.0},
        "confidential": {"max_removed_share": 1.0},
        "pii": {"max_quarantined_share": 1.0, "verification": {"min_canary_recall": 0.5}},
        "labels": {"embedding_model": "minilm"},
        "splitting": {"fresh_share": 0.2},
    }
)
rows, folder = sys.argv[1:]
snapshot = ingest.take_snapshot.fn(ingest.SourceConfig(path=rows, max_rows=240), folder)
validated = validation.validate.fn(snapshot.dataset, settings.validation)
unique = deduplication.deduplicate.fn(validated.dataset, settings.deduplication)
filtered = confidential.filter_confidential.fn(unique.dataset, settings.confidential)
scrubbed = pii.scrub.fn(filtered.dataset, settings.pii)
verified = pii.verify_scrub.fn(scrubbed, settings.pii)
audited = labels.audit_labels.fn(verified.dataset, settings.labels)
compared = bias.audit_bias.fn(audited.dataset, settings.bias)
frozen = splitting.freeze_test_set.fn(audited.dataset, settings.splitting, "desk")
fresh = splitting.hold_out_fresh.fn(audited.dataset, frozen, settings.splitting)
clean = splitting.decontaminate.fn(audited.dataset, frozen, settings.splitting, fresh)
split = splitting.split.fn(clean.dataset, settings.splitting)
made = {
    "snapshot": snapshot.dataset, "validated": validated.dataset, "unique": unique.dataset, "filtered": filtered.dataset,
    "scrubbed": scrubbed.dataset, "findings": scrubbed.findings, "sample": verified.sample, "audited": audited.dataset,
    "issues": audited.issues, "bias": compared.table, "frozen": frozen, "fresh": fresh.dataset, "clean": clean.dataset,
    "train": split.train, "validation": split.validation,
}
print(json.dumps({name: ref.sha256 if ref else None for name, ref in made.items()}))
"""


def prepared(rows: Path, folder: Path, **environment: str) -> dict[str, str | None]:
    """The hash of every data set that a process with these surroundings makes of the rows."""
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE, str(rows), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    hashes: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return hashes


@pytest.mark.slow
def test_no_surroundings_change_a_data_set(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    dated = []
    for number, line in enumerate(ordinary_lines(220)):
        row = json.loads(line)
        row["created_at"] = f"2026-{1 + number % 9:02}-{1 + number % 28:02}T0{number % 10}:30:00"
        row["category"] = ("billing", "setup", "returns")[number % 3]
        dated.append(json.dumps(row))
    rows.write_text("\n".join([*dated, *hostile_lines(60)]) + "\n", encoding="utf-8")
    here = prepared(rows, tmp_path / "here", PYTHONHASHSEED="1", TZ="UTC", LC_ALL="C.UTF-8", OMP_NUM_THREADS="1")
    assert here["train"]
    elsewhere = {"PYTHONHASHSEED": "77", "TZ": "Pacific/Auckland", "LC_ALL": "C", "OMP_NUM_THREADS": "2"}
    assert prepared(rows, tmp_path / "elsewhere", LEAPING_CLOCK="1", **elsewhere) == here
