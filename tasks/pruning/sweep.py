"""Mark and sweep over a store: data that is reachable from the roots stays, the rest is removable once it is old.

Roots are the digests named by every pointer, by the model versions that are kept, and by the dossiers of their runs and of
recent runs. A data set leads to its parents, back to the snapshot. Dossiers, pointers and named pages are the record and are
never removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from tasks.contracts.pruning import PruneCandidate
from tasks.core.storage import Store, digests_in, thing_of
from tasks.pruning.config import PruningConfig

_KINDS: Mapping[str, Literal["data set", "file", "folder"]] = {"objects": "data set", "files": "file", "folders": "folder"}
_LONGEST_WRITE = timedelta(days=1)


def reachable(store: Store, named: Iterable[str]) -> set[str]:
    """The named digests and all that they lead to: parents of data sets, to the end of each chain."""
    reached: set[str] = set()
    waiting = list(named)
    while waiting:
        digest = waiting.pop()
        if digest in reached:
            continue
        reached.add(digest)
        dataset = store.find_dataset(digest)
        if dataset is not None:
            waiting.extend(dataset.parents)
    return reached


def roots(store: Store, versions: Iterable[str], runs: Iterable[str], config: PruningConfig, now: datetime) -> set[str]:
    """The digests that must stay: of pointers, of kept versions, of the dossiers of their runs and of recent runs.

    Args:
        store: The store to prune.
        versions: Digests that kept model versions name.
        runs: Names of the runs that registered them.
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
    """The digests in a record of the store."""
    return digests_in((store.read_named(name) or b"").decode("utf-8", "replace"))


def sweep(store: Store, kept: set[str], config: PruningConfig, now: datetime) -> list[PruneCandidate]:
    """The removable items, largest first: old stored data that is not kept, and :func:`leftovers`.

    Only complete names of the store's own form count. Other files (of a file manager, a network filesystem or an editor) are
    never removed.
    """
    found = [
        PruneCandidate(kind=kind, name=thing, size_bytes=size, age_days=_days(now - modified))
        for folder, kind in _KINDS.items()
        for thing, (size, modified) in _things(store, folder).items()
        if thing.rpartition("/")[2] not in kept and now - modified > timedelta(days=config.keep_days)
    ]
    return sorted([*found, *leftovers(store, config, now)], key=_largest_first)


def leftovers(store: Store, config: PruningConfig, now: datetime) -> list[PruneCandidate]:
    """Items that no version can need, largest first: work folders untouched for long, and interrupted writes."""
    found = [
        PruneCandidate(kind="work folder", name=thing, size_bytes=size, age_days=_days(now - modified))
        for thing, (size, modified) in _things(store, "work").items()
        if now - modified > timedelta(days=config.keep_work_days)
    ]
    found += [
        PruneCandidate(kind="unfinished write", name=name, size_bytes=size, age_days=_days(now - modified))
        for name, size, modified in store.unfinished()
        if now - modified > _LONGEST_WRITE
    ]
    return sorted(found, key=_largest_first)


def _things(store: Store, folder: str) -> dict[str, tuple[int, datetime]]:
    """Size and newest change of each item in a folder: a file with its manifest, or a folder with its contents."""
    things: dict[str, tuple[int, datetime]] = {}
    for name, size, modified in store.walk(folder):
        thing = thing_of(name)
        if thing is not None:
            before = things.get(thing, (0, modified))
            things[thing] = (before[0] + size, max(before[1], modified))
    return things


def _largest_first(item: PruneCandidate) -> tuple[int, str]:
    return -item.size_bytes, item.name


def _days(age: timedelta) -> float:
    return round(age.total_seconds() / 86_400, 1)
