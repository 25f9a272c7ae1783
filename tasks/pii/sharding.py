"""One process per core: shards of rows in and scrubbed shards out by files without a name.

A worker is this module run as a program, guarded so that it never outlives the run (see :mod:`tasks.core.processes`). What
passes between the processes are rows as they came, and the values that were found; so it has no name on any disk, and is
gone with them (see :func:`tasks.core.scratch.unnamed_file`). The output does not depend on the number of workers: a row's
result depends on that row alone, shards are put back in order, and the check of the whole corpus runs on all together.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.cpu_limit import is_limitable
from tasks.core.errors import PerennialError
from tasks.core.processes import start_guarded, stop_group
from tasks.core.progress import OnProgress
from tasks.core.rows import iter_texts, rows_of
from tasks.core.scratch import unnamed_file
from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.rows import ScrubbedRows, scrub_rows

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
        num_workers: Processes; with one, no process is started unless a record's time could not be limited here.
        on_progress: Called as rows are done.

    Raises:
        PerennialError: A worker died.
    """
    if num_workers <= 1 and (is_limitable() or not rows):
        return scrub_rows(rows, policy, on_progress=on_progress)
    result = ScrubbedRows()
    with ExitStack() as stack:
        settings = stack.enter_context(unnamed_file())
        rules = {
            "config": policy.config.model_dump(mode="json"),
            "common_terms": sorted(policy.common_terms),
            "class_values": sorted(policy.class_values),
        }
        settings.write(json.dumps(rules).encode())
        settings.flush()
        shards = _split(rows, max(1, num_workers))
        sources, targets = ([stack.enter_context(unnamed_file()) for _ in shards] for _ in range(2))
        for shard, source in zip(shards, sources, strict=True):
            pq.write_table(pa.Table.from_pylist(list(shard), schema=schema), source)
            source.flush()
        _run_workers(settings, sources, targets, policy.key, len(rows), on_progress)
        for target in targets:
            result.extend(_read_result(target))
    return result


def _read_result(file: IO[bytes]) -> ScrubbedRows:
    document = json.loads(_content(file.fileno()))
    document["values"] = {tuple(words) for words in document["values"]}
    return ScrubbedRows(**document)


def _content(descriptor: int) -> bytes:
    """All of a file, wherever the processes that share its descriptor have read or written to."""
    size, parts, place = os.fstat(descriptor).st_size, [], 0
    while place < size and (part := os.pread(descriptor, size - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


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


def _run_workers(
    settings: IO[bytes],
    sources: Sequence[IO[bytes]],
    targets: Sequence[IO[bytes]],
    key: bytes | None,
    num_rows: int,
    on_progress: OnProgress | None,
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({_KEY_VARIABLE: key.hex()} if key else {})}
    read_end, write_end = os.pipe()
    workers = []
    for source, target in zip(sources, targets, strict=True):
        files = [settings.fileno(), source.fileno(), target.fileno()]
        arguments = [str(number) for number in files]
        workers.append(
            start_guarded("tasks.pii.sharding", arguments, environment=environment, files=files, stdout=write_end)
        )
    os.close(write_end)
    counter = threading.Thread(target=_count, args=(read_end, num_rows, on_progress), daemon=True)
    counter.start()
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            stop_group(worker, grace_seconds=1.0)
        counter.join(timeout=5)
    failed = [number for number, code in enumerate(codes) if code]
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


def main(settings: int, source: int, target: int) -> None:
    """A worker: scrubs one shard.

    Args:
        settings: Descriptor of the rules, as JSON.
        source: Descriptor of the rows, as Parquet.
        target: Descriptor that receives what became of them, as JSON.
    """
    rules = json.loads(_content(settings))
    key = os.environ.pop(_KEY_VARIABLE, "")
    policy = Policy(
        PiiConfig.model_validate(rules["config"]),
        bytes.fromhex(key) or None,
        frozenset(rules["common_terms"]),
        frozenset(rules["class_values"]),
    )
    last = 0

    def report(done: int, total: int) -> None:
        nonlocal last
        print(done - last, flush=True)
        last = done

    rows = rows_of(pq.read_table(io.BytesIO(_content(source))))
    result = scrub_rows(rows, policy, on_progress=report)
    with os.fdopen(target, "wb") as file:
        file.write(json.dumps({**vars(result), "values": sorted(result.values)}).encode())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
