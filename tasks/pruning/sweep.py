"""Mark and sweep over a store: what can be reached from what is in use stays, the rest goes once it is old.

Roots are the digests named by every pointer, by the model versions that are kept, and by the dossiers of their runs and of
recent runs. From a data set one gets to its parents, back to the snapshot. Dossiers, pointers and named pages are the record
and are never removed themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from tasks.contracts import Prunable
from tasks.pruning.config import PruningConfig
from tasks.storage import Store, digests_in

_KINDS = {"objects": "data set", "files": "file", "folders": "folder"}


def reachable(store: Store, named: Iterable[str]) -> set[str]:
    """The digests that the named ones lead to, with them: parents of data sets, to the end of each chain."""
    found: set[str] = set()
    waiting = list(named)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        dataset = store.find_dataset(digest)
        if dataset is not None:
            waiting.extend(dataset.parents)
    return found


def roots(store: Store, versions: Iterable[str], runs: Iterable[str], config: PruningConfig, now: datetime) -> set[str]:
    """The digests that must stay: of pointers, of kept versions, of the dossiers of their runs and of recent runs.

    Args:
        store: What is pruned.
        versions: Digests that kept model versions name.
        runs: Names of the runs that made them.
        config: What is recent.
        now: With a zone.
    """
    kept = set(versions)
    for name, _, _ in store.walk("pointers"):
        kept |= _named_in(store, name)
    wanted = set(runs)
    since = now - timedelta(days=config.keep_days)
    for name, _, modified in store.walk("dossiers"):
        run, _, file = name.removeprefix("dossiers/").partition("/")
        if file == "dossier.json" and (run in wanted or modified >= since):
            kept |= _named_in(store, name)
    return kept


def _named_in(store: Store, name: str) -> set[str]:
    """The digests that stand in a record of the store."""
    return digests_in((store.read_named(name) or b"").decode("utf-8", "replace"))


def sweep(store: Store, kept: set[str], config: PruningConfig, now: datetime) -> list[Prunable]:
    """What may go, largest first: old stored data that is not kept, and work folders that nobody touched for long."""
    found = [
        Prunable(kind=kind, name=f"{folder}/{key}", size_bytes=size, age_days=_days(now - modified))
        for folder, kind in _KINDS.items()
        for key, (size, modified) in _grouped(store, folder, depth=2).items()
        if _digest_of(key) not in kept and now - modified > timedelta(days=config.keep_days)
    ]
    found += [
        Prunable(kind="work folder", name=f"work/{key}", size_bytes=size, age_days=_days(now - modified))
        for key, (size, modified) in _grouped(store, "work", depth=1).items()
        if now - modified > timedelta(days=config.keep_work_days)
    ]
    return sorted(found, key=lambda one: (-one.size_bytes, one.name))


def _grouped(store: Store, folder: str, depth: int) -> dict[str, tuple[int, datetime]]:
    """Size and newest change of each thing in a folder: a file with its manifest, or a folder with all that lies in it."""
    things: dict[str, tuple[int, datetime]] = {}
    for name, size, modified in store.walk(folder):
        parts = name.split("/")[1 : depth + 1]
        if depth == 2:  # <two digits>/<digest>[.<suffix>]: the data set and its manifest are one thing
            parts[-1] = parts[-1].partition(".")[0]
        key = "/".join(parts)
        before = things.get(key, (0, modified))
        things[key] = (before[0] + size, max(before[1], modified))
    return things


def _digest_of(key: str) -> str:
    return key.rpartition("/")[2]


def _days(age: timedelta) -> float:
    return round(age.total_seconds() / 86_400, 1)
