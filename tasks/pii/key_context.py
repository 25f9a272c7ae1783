"""What the key of a JSON value says about the value: ``{"ssn": "078051120"}`` is a number until its key is read.

A value in a call's arguments or in a result stands alone, while the detector's rules look at the words before it. Its keys
are written before it for detection, and what was found is moved back to the value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from tasks.core.rows import Row, iter_texts
from tasks.core.tool_calls import keys_of
from tasks.pii.scrubbing import Finding, Scrubbed

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PERSONAL_KEY = re.compile(
    r"(?:account holder|account|billing|caller|client|contact|customer|employee|family|first|full|given|guest|holder|last|"
    r"legal|maiden|member|middle|owner|passenger|patient|payee|payer|person|recipient|requester|sender|user) ?name"
    r"|surname|username|nickname|(?:[a-z]+ )?e ?mail(?: address)?|(?:[a-z]+ )?(?:phone|mobile|telephone|fax)(?: number)?"
    r"|(?:customer|account|member|patient|passport|user|client) (?:id|number|no)"
)
"""Keys whose values are personal whatever they look like, as the customary columns of tickets are."""


def prefix_of(path: str) -> str:
    """What a value's keys say, to be written before it; empty for a field that is plain text."""
    words = _words(keys_of(path)[-2:])
    return f"{words}: " if words else ""


def personal_values(row: Row) -> list[str]:
    """The values under keys that name personal data, for the row's deny list."""
    return [
        text
        for path, text in iter_texts(row)
        if (keys := keys_of(path)) and any(_PERSONAL_KEY.fullmatch(_words(keys[-n:])) for n in (1, 2))
    ]


def without_prefixes(scrubbed: Scrubbed, prefixes: Sequence[str]) -> Scrubbed:
    """What was scrubbed, without the prefixes; a finding that begins in a prefix begins with the value."""
    texts, findings = list(scrubbed.texts), []
    by_text = {index: list(found) for index, found in groupby(scrubbed.findings, lambda finding: finding.text_index)}
    for index, prefix in enumerate(prefixes):
        found, text = by_text.get(index, []), texts[index]
        start = len(prefix)
        if not start or text is None:
            findings += found
            continue
        cut = _output_place(found, start)
        texts[index] = text[cut:]
        findings += [
            replace(
                finding,
                start=max(0, finding.start - start),
                end=finding.end - start,
                output_start=finding.output_start - cut,
                output_end=finding.output_end - cut,
            )
            for finding in found
            if finding.end > start
        ]
    return scrubbed._replace(texts=texts, findings=findings)


def _output_place(findings: Sequence[Finding], place: int) -> int:
    """Where a place of the original stands in the output; inside a replaced span, where its replacement begins."""
    moved = place
    for finding in sorted(findings, key=lambda finding: finding.start):
        if finding.start < place < finding.end:
            return finding.output_start
        if finding.end <= place:
            moved = finding.output_end + place - finding.end
    return moved


def _words(keys: Sequence[str]) -> str:
    """Keys as lower-case words: ``customerName`` and ``customer_name`` are one."""
    return " ".join(word.lower() for key in keys for word in _WORD.findall(key))
