"""Replies and preference pairs whose form alone gives them away: cut short, refused, empty, equal, contradicting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.labels.config import IssueKind
from tasks.refusals import is_refusal

_TERMINAL = re.compile(r"""[.!?…。！？:;>}\])"'”’`*_~|-]\s*$""")


@dataclass(frozen=True)
class Fault:
    """One structural fault of row ``index``, with how sure it is (0 to 1) and whether it is sure enough to act on."""

    index: int
    kind: IssueKind
    score: float
    automatic: bool


def reply_faults(prompts: Sequence[str], replies: Sequence[str]) -> list[Fault]:
    """Structural faults of free-text replies."""
    open_ended = [not _TERMINAL.search(reply) for reply in replies]
    open_share = sum(open_ended) / max(1, len(replies))
    faults = []
    for index, reply in enumerate(replies):
        if is_refusal(reply):
            faults.append(Fault(index, "refusal_response", 0.95, True))
        if open_ended[index] and open_share < 0.1 and len(reply.split()) >= 4:
            faults.append(Fault(index, "truncated_response", 1.0 - open_share, True))
    return faults


def pair_faults(prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> list[Fault]:
    """Structural faults of preference pairs."""
    faults = []
    preferred = {(prompt, better, worse) for prompt, better, worse in zip(prompts, chosen, rejected, strict=True)}
    for index, (prompt, better, worse) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        if not better.strip() or not worse.strip():
            faults.append(Fault(index, "empty_side", 1.0, True))
        elif " ".join(better.split()).casefold() == " ".join(worse.split()).casefold():
            faults.append(Fault(index, "identical_sides", 1.0, True))
        elif (prompt, worse, better) in preferred:
            faults.append(Fault(index, "contradicting_pair", 1.0, True))
        if is_refusal(better) and not is_refusal(worse):
            faults.append(Fault(index, "refusal_chosen", 0.9, False))
    return faults
