"""Preference-pair candidates from feedback: a liked reply against a disliked one, for a person to confirm.

A pair comes from near-identical requests with one liked and one disliked reply, else from a disliked reply and the one
that a person wrote instead. Nothing is trained on before a person confirms it: a thumbs-down may be about the delay.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tasks.core.rows import Row, prompt_messages, reply
from tasks.core.storage import sha256_of_json
from tasks.text.near_duplicates import near_clusters
from tasks.text.normalization import prompt_text


def pair_candidates(rows: Sequence[Row], threshold: float) -> list[dict[str, object]]:
    """Candidates in the order of the disliked rows, at most one each.

    Args:
        rows: Scrubbed rows of a log (see :mod:`tasks.ingest.log` for the group ``feedback`` and the ``context``).
        threshold: Similarity from which two requests count as one.
    """
    requests = [prompt_text(row) for row in rows]
    liked: dict[int, list[int]] = defaultdict(list)
    clusters = near_clusters(requests, threshold)
    for place, row in enumerate(rows):
        if _feedback(row) == "up":
            liked[clusters[place]].append(place)
    return list(_candidates(rows, clusters, liked))


def as_queue(candidates: Sequence[dict[str, object]]) -> bytes:
    """The candidates as a review queue: JSON lines whose `decision` a person fills in."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in candidates).encode()


def _candidates(rows: Sequence[Row], clusters: Sequence[int], liked: dict[int, list[int]]) -> Iterator[dict[str, object]]:
    for place, row in enumerate(rows):
        if _feedback(row) != "down":
            continue
        better = [reply(rows[other]) for other in liked.get(clusters[place], ()) if reply(rows[other]) != reply(row)]
        chosen, kind = (better[0], "liked_reply") if better else (row.get("context"), "corrected_reply")
        if chosen and chosen != reply(row):
            prompt = prompt_messages(row)
            sides = {
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": reply(row)}],
            }
            yield {
                "id": f"pair-{row['id']}",
                "row_sha256": sha256_of_json([prompt, sides]),
                "kinds": [kind],
                "prompt": prompt,
                **sides,
                "decision": None,
            }


def _feedback(row: Row) -> str | None:
    return next((group["value"] for group in row.get("groups") or () if group["name"] == "feedback"), None)
