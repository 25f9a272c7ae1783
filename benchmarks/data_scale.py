"""What the data stages cost as rows grow: seconds, CPU and peak memory of each, every stage in a process of its own.

    python benchmarks/data_scale.py                                      # 10,000 and 100,000 rows, every stage
    python benchmarks/data_scale.py --rows 10000 100000 1000000 --stages ingest validate deduplicate filter
    python benchmarks/data_scale.py --rows 10000 100000 --scrub-mode strict

Rows are instructions and replies of eight to twenty frequent English words each; one in thirty carries a made-up identity,
one in fifty is copied exactly, one in fifty with a typing error, one in a thousand holds a password. Peak memory is the
largest resident set of the stage's process and of any worker it started, the 3 GB limit is for each. For a million rows,
where they were not run, a line says what a straight line through the last two sizes gives; such figures are marked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

STAGES = ("ingest", "validate", "deduplicate", "filter", "scrub", "labels", "bias", "freeze", "decontaminate", "split")
LIMIT_MB, MILLION = 3_000, 1_000_000
SHARD_ROWS = 50_000


def make_rows(count: int) -> Iterator[dict[str, Any]]:
    """Seeded rows; the first ones do not depend on how many follow."""
    from tasks.pii.lexicon import read_list
    from tasks.pii.verify.canaries import make_canaries

    rng = random.Random(11)
    words = [word for word in read_list("english_top.txt") if len(word) > 1][:4_000]
    shares = list(accumulate(1 / (rank + 20) for rank in range(len(words))))
    identities = [canary.text for canary in make_canaries(2_000, 5)]
    earlier: list[str] = []
    for number in range(count):
        chance = rng.random()
        ask = " ".join(rng.choices(words, cum_weights=shares, k=rng.randint(8, 20))).capitalize() + "?"
        reply = " ".join(rng.choices(words, cum_weights=shares, k=rng.randint(8, 20))).capitalize() + "."
        if chance < 1 / 30:
            ask += " " + rng.choice(identities)
        elif chance < 1 / 30 + 1 / 50 and earlier:
            ask, reply = rng.choice(earlier).split("\0")
        elif chance < 1 / 30 + 2 / 50 and earlier:
            ask, reply = rng.choice(earlier).split("\0")
            place = rng.randrange(len(ask))
            ask = ask[:place] + rng.choice("aeiou") + ask[place + 1 :]
        elif chance < 1 / 30 + 2 / 50 + 1 / 1000:
            reply += f" The password is hunter{rng.randrange(10_000)}!"
        elif len(earlier) < 50_000:
            earlier.append(f"{ask}\0{reply}")
        yield {"id": f"r{number:07}", "instruction": ask, "output": reply, "label": f"topic-{number % 20}"}


# ------------------------------------------------------------------------------------------- one stage, in a child process


def run_stage(stage: str, folder: Path, mode: str) -> None:
    """Runs a stage on what the one before left in ``folder``, and prints what it cost as JSON."""
    from tasks.contracts.references import DatasetRef
    from tasks.core.storage import open_store

    open_store(folder / "store")
    work = _stage_work(stage, folder, mode)
    given = folder / "dataset.json"
    dataset = DatasetRef.model_validate_json(given.read_text()) if stage != "ingest" else None
    started, cpu = time.monotonic(), _cpu_seconds()
    result, num_rows = work(dataset)
    seconds, cpu = time.monotonic() - started, _cpu_seconds() - cpu
    given.write_text(result.model_dump_json())
    own, workers = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"rows": num_rows, "seconds": seconds, "cpu": cpu, "own_mb": own, "worker_mb": workers}))


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _stage_work(stage: str, folder: Path, mode: str) -> Callable[[Any], tuple[Any, int]]:
    """The stage as the flow calls it, without Prefect; what it imports is imported before it is timed."""
    if stage == "ingest":
        from tasks.ingest import SourceConfig, take_snapshot

        def ingest(_: Any) -> tuple[Any, int]:
            report = take_snapshot.fn(SourceConfig(path=str(folder / "rows.jsonl")), str(folder / "store"))
            return report.dataset, report.num_rows_in

        return ingest
    if stage == "scrub":
        from tasks import pii

        settings = pii.PiiConfig.model_validate({"mode": mode, "rows_per_shard": SHARD_ROWS})

        def scrub(dataset: Any) -> tuple[Any, int]:
            if dataset.num_rows <= SHARD_ROWS:
                return pii.scrub.fn(dataset, settings).dataset, dataset.num_rows
            cut = pii.cut_shards.fn(dataset, settings)
            parts = [pii.scrub_shard.fn(shard, cut.common, settings, str(folder / "store")) for shard in cut.shards]
            return pii.join_shards.fn(dataset, cut, parts, settings).dataset, dataset.num_rows

        return scrub
    if stage == "validate":
        import tasks.validation.suite
        from tasks.validation import ValidationConfig, validate

        return lambda dataset: (validate.fn(dataset, ValidationConfig()).dataset, dataset.num_rows)
    if stage == "deduplicate":
        import tasks.deduplication.duplicates
        from tasks.deduplication import DeduplicationConfig, deduplicate

        return lambda dataset: (deduplicate.fn(dataset, DeduplicationConfig()).dataset, dataset.num_rows)
    if stage == "filter":
        from tasks.confidential import ConfidentialConfig, filter_confidential

        return lambda dataset: (filter_confidential.fn(dataset, ConfidentialConfig()).dataset, dataset.num_rows)
    if stage == "labels":
        import tasks.labels.audit
        from tasks.labels import LabelAuditConfig, audit_labels

        return lambda dataset: (audit_labels.fn(dataset, LabelAuditConfig()).dataset, dataset.num_rows)
    if stage == "bias":
        import tasks.bias.comparison  # noqa: F401
        from tasks.bias import BiasConfig, audit_bias

        return lambda dataset: (audit_bias.fn(dataset, BiasConfig()).dataset, dataset.num_rows)
    return _splitting_work(stage, folder)


def _splitting_work(stage: str, folder: Path) -> Callable[[Any], tuple[Any, int]]:
    import tasks.splitting.groups  # noqa: F401
    from tasks import splitting
    from tasks.core.storage import Store

    settings, name = splitting.SplitConfig(), "scale"

    def freeze(dataset: Any) -> tuple[Any, int]:
        splitting.freeze_test_set.fn(dataset, settings, name)
        return dataset, dataset.num_rows

    def decontaminate(dataset: Any) -> tuple[Any, int]:
        frozen = Store(folder / "store").read_pointer(f"benchmarks/{name}")
        assert frozen is not None
        return splitting.decontaminate.fn(dataset, frozen, settings).dataset, dataset.num_rows

    def split(dataset: Any) -> tuple[Any, int]:
        return splitting.split.fn(dataset, settings).train, dataset.num_rows

    return {"freeze": freeze, "decontaminate": decontaminate, "split": split}[stage]


# ----------------------------------------------------------------------------------------------------------------- the run


def measure(count: int, stages: list[str], mode: str) -> dict[str, dict[str, float]]:
    """What each stage costs on so many rows; prints a line a stage."""
    costs: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="perennial-scale-") as name:
        folder = Path(name)
        with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in make_rows(count))
        for stage in stages:
            command = [sys.executable, __file__, "--child", stage, "--folder", name, "--scrub-mode", mode]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{stage} on {count} rows failed:\n{done.stderr[-2_000:]}")
            cost = json.loads(done.stdout.splitlines()[-1])
            costs[stage] = cost
            show(stage, count, cost)
    return costs


def show(stage: str, count: int, cost: dict[str, float], note: str = "") -> None:
    peak = max(cost["own_mb"], cost["worker_mb"])
    verdict = note or ("ok" if peak < LIMIT_MB else "TOO MUCH")
    print(
        f"{stage:12}{count:>11,}{cost['seconds']:>10.1f}{cost['cpu']:>10.1f}{1e6 * cost['cpu'] / cost['rows']:>10.0f}"
        f"{cost['own_mb']:>10,.0f}{cost['worker_mb']:>10,.0f}  {verdict}",
        flush=True,
    )


def extrapolate(before: dict[str, float], last: dict[str, float]) -> dict[str, float]:
    """A million rows by the straight line through two sizes (of the rows that reached the stage)."""
    scale = (MILLION - last["rows"]) / (last["rows"] - before["rows"])
    return {name: last[name] + scale * max(0.0, last[name] - before[name]) for name in last} | {"rows": MILLION}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--scrub-mode", default="strict")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_stage(options.child, options.folder, options.scrub_mode)
        return
    print(f"{'stage':12}{'rows':>11}{'wall s':>10}{'CPU s':>10}{'us/row':>10}{'peak MB':>10}{'worker':>10}")
    sizes = sorted(options.rows)
    costs = [measure(count, options.stages, options.scrub_mode) for count in sizes]
    if len(sizes) > 1:
        for stage in options.stages:
            if sizes[-1] < MILLION:
                show(stage, MILLION, extrapolate(costs[-2][stage], costs[-1][stage]), "extrapolated")
        for stage in options.stages:
            per_row = [cost[stage]["cpu"] / cost[stage]["rows"] for cost in costs]
            print(f"{stage:12} CPU a row, {sizes[-1]:,} against {sizes[-2]:,} rows: x {per_row[-1] / per_row[-2]:.2f}")


if __name__ == "__main__":
    main()
