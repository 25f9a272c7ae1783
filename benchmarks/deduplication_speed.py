"""Speed and recall of deduplication: exact keys, near clusters, and the peer's own deduplicator, in one run.

Run it with::

    python benchmarks/deduplication_speed.py                  # 100,000 synthetic records
    python benchmarks/deduplication_speed.py --rows 20000
    python benchmarks/deduplication_speed.py --csv FILE --column text   # recall on your own short texts as well

Records are six to twenty-two words from a vocabulary of 6,000 made-up words with natural frequencies, about 90 characters;
6 % of them are copies of others with one, two or four random single-character edits (a letter replaced, inserted or dropped
anywhere). Recall is the share of copies that land in their original's cluster, precision the share of found pairs of which
a planted copy is one. CPU seconds are those of the whole process (``time.process_time``), so that other jobs on the machine
do not count. The peer is rensa's ``RMinHashDeduplicator`` on the same character 5-grams at the same threshold.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rensa import RMinHashDeduplicator
from rich.console import Console
from rich.table import Table

from tasks.text.near_duplicates import SHINGLE_CHARS, near_clusters
from tasks.text.normalization import exact_key, placeholder_view

EDITS = (1, 2, 4)
TARGETS = {1: 0.99, 2: 0.95}
EXACT_LIMIT_SECONDS, NEAR_LIMIT_SECONDS = 1.0, 10.0
THRESHOLD = 0.7
T = TypeVar("T")
Planted = list[tuple[int, int, int]]
"""``(original, copy, edits)`` as indices into the texts."""

_SYLLABLES = "ta re mo li ka per sun do vi ne gor ba ti lo men ash qu or en st"


def make_records(count: int, rng: random.Random) -> list[str]:
    syllables = _SYLLABLES.split()
    words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(6_000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]  # Zipf's law, its head flattened
    return [" ".join(rng.choices(words, weights, k=rng.randint(6, 22))) for _ in range(count)]


def with_copies(texts: Sequence[str], per_edit: int, rng: random.Random) -> tuple[list[str], Planted]:
    everything, planted = list(texts), Planted()
    for edits in EDITS:
        for original in rng.sample(range(len(texts)), per_edit):
            copy = texts[original]
            for _ in range(edits):
                copy = edited(copy, rng)
            planted.append((original, len(everything), edits))
            everything.append(copy)
    return everything, planted


def edited(text: str, rng: random.Random) -> str:
    place, letter = rng.randrange(len(text)), rng.choice("abcdefghijklmnopqrstuvwxyz")
    kept = rng.choice((text[place:], text[place + 1 :]))
    return text[:place] + kept if rng.random() < 1 / 3 and kept != text[place:] else text[:place] + letter + kept


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def recall(clusters: Sequence[int], planted: Planted, edits: int) -> float:
    hits = [clusters[original] == clusters[copy] for original, copy, number in planted if number == edits]
    return sum(hits) / len(hits)


def precision(clusters: Sequence[int], planted: Planted) -> float:
    """Share of the texts joined to another that are a planted copy or its original (others may be alike by chance)."""
    sizes = Counter(clusters)
    known = {index for original, copy, _ in planted for index in (original, copy)}
    joined = [index for index, root in enumerate(clusters) if sizes[root] > 1]
    return sum(index in known for index in joined) / max(1, len(joined))


def peer_flags(texts: Sequence[str]) -> list[bool]:
    """Whether rensa's deduplicator keeps each text, in order."""
    peer = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True)
    shingled = ([text[i : i + SHINGLE_CHARS] for i in range(max(1, len(text) - SHINGLE_CHARS + 1))] for text in texts)
    return list(peer.add_pairs((str(number), shingles) for number, shingles in enumerate(shingled)))


def measure(console: Console, count: int) -> None:
    rng = random.Random(7)
    texts, planted = with_copies(make_records(round(count * 0.94), rng), round(count * 0.02), rng)
    keys, exact_seconds = timed(lambda: [exact_key(text) for text in texts])
    views, view_seconds = timed(lambda: [placeholder_view(text) for text in texts])
    clusters, near_seconds = timed(lambda: near_clusters(views, THRESHOLD))
    kept, peer_seconds = timed(lambda: peer_flags(texts))
    mean = sum(map(len, texts)) / len(texts)
    scale = count / 100_000
    table = Table(title=f"{len(texts):,} records of {mean:.0f} characters, {len(set(keys)):,} distinct")
    for column in ("what", "measured", "limit", "against the limit"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row(
        "exact keys, CPU s",
        f"{exact_seconds:.2f}",
        f"{EXACT_LIMIT_SECONDS * scale:.2f}",
        ratio(exact_seconds, EXACT_LIMIT_SECONDS * scale),
    )
    ours = view_seconds + near_seconds
    table.add_row("placeholder views, CPU s", f"{view_seconds:.2f}", "", "")
    table.add_row(
        "near clusters, views included, CPU s",
        f"{ours:.2f}",
        f"{NEAR_LIMIT_SECONDS * scale:.2f}",
        ratio(ours, NEAR_LIMIT_SECONDS * scale),
    )
    for edits in EDITS:
        target = TARGETS.get(edits)
        table.add_row(
            f"recall at {edits} edits", f"{recall(clusters, planted, edits):.3f}", f"{target:.2f}" if target else "", ""
        )
    table.add_row("precision", f"{precision(clusters, planted):.3f}", "", "")
    console.print(table)
    peer = Table(title="the peer: rensa's RMinHashDeduplicator, same 5-grams, same threshold")
    for column in ("what", "peer", "ours", "ratio"):
        peer.add_column(column, justify="left" if column == "what" else "right")
    peer.add_row("CPU s", f"{peer_seconds:.2f}", f"{ours:.2f}", f"{ours / peer_seconds:.1f} of the peer's")
    for edits in EDITS:
        flagged = [not kept[copy] for _, copy, number in planted if number == edits]
        found = sum(flagged) / len(flagged)
        peer.add_row(f"recall at {edits} edits", f"{found:.3f}", f"{recall(clusters, planted, edits):.3f}", "")
    unplanted = len(texts) - len(planted)
    peer.add_row("originals flagged as duplicates", f"{unplanted - sum(kept[:unplanted])}", "0", "")
    console.print(peer)


def measure_file(console: Console, path: Path, column: str) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        texts = sorted({row[column] for row in csv.DictReader(file)})
    table = Table(title=f"{len(texts):,} distinct texts of {path.name}, each with one edited copy")
    bands = ((0, 30), (30, 60), (60, 10**9))
    for name in (
        "edits",
        "CPU s",
        "recall",
        *(f"{low}-{high} chars" if high < 10**9 else f"{low}+ chars" for low, high in bands),
    ):
        table.add_column(name, justify="right")
    for edits in EDITS:
        rng = random.Random(edits)
        copies = list(texts)
        for _ in range(edits):
            copies = [edited(text, rng) for text in copies]
        views = [placeholder_view(text) for text in [*texts, *copies]]
        clusters, seconds = timed(lambda views=views: near_clusters(views, THRESHOLD))  # type: ignore[misc]
        hits = [clusters[index] == clusters[index + len(texts)] for index in range(len(texts))]
        by_band = [[hit for hit, text in zip(hits, texts, strict=True) if low <= len(text) < high] for low, high in bands]
        shares = [f"{sum(band) / len(band):.3f} ({len(band):,})" if band else "-" for band in by_band]
        table.add_row(str(edits), f"{seconds:.2f}", f"{sum(hits) / len(hits):.3f}", *shares)
    console.print(table)


def ratio(found: float, limit: float) -> str:
    return f"{found / limit:.2f} of it" + ("" if found <= limit else "  TOO SLOW")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and recall of deduplication.")
    parser.add_argument("--rows", type=int, default=100_000, help="number of synthetic records (default 100,000)")
    parser.add_argument("--csv", type=Path, help="a CSV file with short texts of your own")
    parser.add_argument("--column", default="text", help="its column (default `text`)")
    options = parser.parse_args()
    console = Console()
    measure(console, options.rows)
    if options.csv:
        measure_file(console, options.csv, options.column)


if __name__ == "__main__":
    main()
