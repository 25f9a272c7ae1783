"""Mark and sweep over a store: what can be reached from what is in use stays, the rest goes once it is old.

Roots are the digests named by every pointer, by the model versions that are kept, and by the dossiers of their runs and of
recent runs. From a data set one gets to its parents, back to the snapshot. Dossiers, pointers and named pages are the record
and are never removed themselves.
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


def sweep(store: Store, kept: set[str], config: PruningConfig, now: datetime) -> list[PruneCandidate]:
    """What may go, largest first: old stored data that is not kept, and :func:`leftovers`.

    Only what has, in full, a name that the store gives is looked at. Whatever else lies there (a file manager's or a network
    filesystem's own, an editor's copy) is not this program's to remove.
    """
    found = [
        PruneCandidate(kind=kind, name=thing, size_bytes=size, age_days=_days(now - modified))
        for folder, kind in _KINDS.items()
        for thing, (size, modified) in _things(store, folder).items()
        if thing.rpartition("/")[2] not in kept and now - modified > timedelta(days=config.keep_days)
    ]
    return sorted([*found, *leftovers(store, config, now)], key=_largest_first)


def leftovers(store: Store, config: PruningConfig, now: datetime) -> list[PruneCandidate]:
    """What no version can need, largest first: work folders that nobody touched for long, and writes that a kill cut off."""
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
    """Size and newest change of each thing in a folder: a file with its manifest, or a folder with all that lies in it."""
    things: dict[str, tuple[int, datetime]] = {}
    for name, size, modified in store.walk(folder):
        thing = thing_of(name)
        if thing is not None:
            before = things.get(thing, (0, modified))
            things[thing] = (before[0] + size, max(before[1], modified))
    return things


def _largest_first(one: PruneCandidate) -> tuple[int, str]:
    return -one.size_bytes, one.name


def _days(age: timedelta) -> float:
    return round(age.total_seconds() / 86_400, 1)
