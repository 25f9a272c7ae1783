"""One process per core: shards of rows in by path, scrubbed shards out by path.

A worker is this module run as a program, guarded so that it never outlives the run (see :mod:`tasks.processes`). The output
does not depend on the number of workers: a row's result depends on that row alone, shards are put back in order, and the
check of the whole corpus runs on all of them together. :func:`scrub_shard` is what any other runner would call.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import PerennialError
from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.rows import ScrubbedRows, scrub_rows
from tasks.processes import start_guarded, stop_group
from tasks.progress import OnProgress
from tasks.rows import iter_texts

CHARACTERS_PER_WORKER = 2_000_000
"""Below this much text per worker, loading the models (about 7 CPU-seconds) costs more than a second process gains."""
_KEY_VARIABLE = "PERENNIAL_PII_SHARD_KEY"


def num_useful_workers(rows: Sequence[dict[str, Any]], configured: int) -> int:
    """How many processes to use: as configured, or one per core where each gets enough to do."""
    if configured:
        return min(configured, max(1, len(rows)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_characters = sum(len(text) for row in rows for _, text in iter_texts(row) if isinstance(text, str))
    return max(1, min(cores, num_characters // CHARACTERS_PER_WORKER))


def scrub_in_processes(
    rows: Sequence[dict[str, Any]],
    schema: pa.Schema,
    policy: Policy,
    num_workers: int,
    *,
    on_progress: OnProgress | None = None,
) -> ScrubbedRows:
    """The same as :func:`tasks.pii.rows.scrub_rows`, by several processes.

    Args:
        rows: Canonical rows.
        schema: Their Arrow schema.
        policy: The frozen rules; its key reaches the workers through their environment.
        num_workers: Processes; with one, no process is started.
        on_progress: Told as rows are done.

    Raises:
        PerennialError: A worker died.
    """
    if num_workers <= 1:
        return scrub_rows(rows, policy, on_progress=on_progress)
    result = ScrubbedRows()
    with tempfile.TemporaryDirectory(prefix="perennial-scrub-") as name:
        folder = Path(name)
        (folder / "config.json").write_text(policy.config.model_dump_json(), encoding="utf-8")
        (folder / "common_terms.json").write_text(json.dumps(sorted(policy.common_terms)), encoding="utf-8")
        shards = _split(rows, num_workers)
        for number, shard in enumerate(shards):
            pq.write_table(pa.Table.from_pylist(list(shard), schema=schema), folder / f"{number}.parquet")
        _run_workers(folder, len(shards), policy.key, len(rows), on_progress)
        for number in range(len(shards)):
            result.extend(_read_result(folder / f"{number}.out.json"))
    return result


def scrub_shard(source: Path, target: Path, policy: Policy, *, on_progress: OnProgress | None = None) -> None:
    """Scrubs a Parquet file of rows and writes what became of them, as JSON; the unit of work of every runner."""
    rows = pq.read_table(source).to_pylist()
    result = scrub_rows(rows, policy, on_progress=on_progress)
    document = {**vars(result), "values": sorted(result.values)}
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(document), encoding="utf-8")
    partial.rename(target)


def _read_result(path: Path) -> ScrubbedRows:
    document = json.loads(path.read_text(encoding="utf-8"))
    document["values"] = {tuple(words) for words in document["values"]}
    return ScrubbedRows(**document)


def _split(rows: Sequence[dict[str, Any]], num_shards: int) -> list[Sequence[dict[str, Any]]]:
    """Consecutive shards of about equal amounts of text."""
    sizes = [sum(len(str(text)) for _, text in iter_texts(row)) + 1 for row in rows]
    target = sum(sizes) / num_shards
    shards: list[Sequence[dict[str, Any]]] = []
    first = taken = 0
    for index, size in enumerate(sizes):
        taken += size
        if taken >= target * (len(shards) + 1) or index == len(rows) - 1:
            shards.append(rows[first : index + 1])
            first = index + 1
    return [shard for shard in shards if shard]


def _run_workers(folder: Path, count: int, key: bytes | None, num_rows: int, on_progress: OnProgress | None) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({_KEY_VARIABLE: key.hex()} if key else {})}
    read_end, write_end = os.pipe()
    workers = [
        start_guarded("tasks.pii.sharding", [str(folder), str(number)], environment=environment, stdout=write_end)
        for number in range(count)
    ]
    os.close(write_end)
    counter = threading.Thread(target=_count, args=(read_end, num_rows, on_progress), daemon=True)
    counter.start()
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            stop_group(worker, grace_seconds=1.0)
        counter.join(timeout=5)
    failed = [number for number, code in enumerate(codes) if code or not (folder / f"{number}.out.json").exists()]
    if failed:
        raise PerennialError(
            "scrub workers",
            f"exit code {', '.join(str(codes[number]) for number in failed)} of worker {', '.join(map(str, failed))}",
            "every worker to finish",
            "If memory ran out, set pii.num_workers lower; the log above says more.",
        )


def _count(read_end: int, num_rows: int, on_progress: OnProgress | None) -> None:
    """Adds up the row counts that workers print, one a line."""
    done = 0
    with os.fdopen(read_end, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.strip().isdigit():
                done += int(line)
                if on_progress is not None:
                    on_progress(min(done, num_rows), num_rows)


def main(folder: str, number: str) -> None:
    """A worker: scrubs one shard."""
    base = Path(folder)
    config = PiiConfig.model_validate_json((base / "config.json").read_text(encoding="utf-8"))
    common_terms = json.loads((base / "common_terms.json").read_text(encoding="utf-8"))
    key = os.environ.pop(_KEY_VARIABLE, "")
    last = 0

    def report(done: int, total: int) -> None:
        nonlocal last
        print(done - last, flush=True)
        last = done

    scrub_shard(
        base / f"{number}.parquet",
        base / f"{number}.out.json",
        Policy(config, bytes.fromhex(key) or None, frozenset(common_terms)),
        on_progress=report,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
