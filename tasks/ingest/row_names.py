"""The names of rows: their own ids where these are a series, else names made from their content.

Ids are named in logs, reports and pages, so that none may be somebody's name or number. Nothing tells `maria-keller` from
`blue-lamp`, or a phone number from a ticket's number, but this: a series shares its words and the front of its numbers with
many ids, and people do not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.core.secrets import load_secret
from tasks.core.storage import sha256_of_json

_PLAIN = re.compile(r"[\w.:/#+-]{1,80}", re.ASCII)
_RANDOM = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])(?=[a-f]*[0-9])(?:[0-9a-f]{8}){2,16}|[0-7][0-9A-HJKMNP-TV-Z]{25}",
    re.IGNORECASE,
)
"""UUID, hash or object id, ULID: made by machines, about nobody."""
_WORD = re.compile(r"[a-z]{1,10}")
"""One short word in lower case, as in a table made by hand (`first`): people's names and numbers have more to them."""
_PARTS = re.compile(r"[A-Za-z]{3,}|\d+(?:[.:/#+_-]\d+)*")
_MAX_FREE_DIGITS = 6
"""Shorter numbers are counters; the shortest phone and identity numbers have seven digits."""
_COUNTING_DIGITS = 4
"""A longer number is one of a series where many ids have it but for these last digits."""
_MIN_SERIES = 10


class RowNames:
    """Names rows of one source.

    Args:
        ids: The ids of all its records.
    """

    def __init__(self, ids: Iterable[str | None]) -> None:
        counts: Counter[str] = Counter()
        num_ids = 0
        for given in ids:
            num_ids += 1
            if given is not None:
                counts.update(set(_parts(given)))
        enough = min(_MIN_SERIES, max(2, num_ids // 2))
        self._series = {part for part, count in counts.items() if count >= enough}
        key = load_secret("pii.key_block", variable="PERENNIAL_PII_KEY")
        self._key = key.encode() if key else None

    def is_plain(self, given: str) -> bool:
        """Whether an id may be shown: a token that a machine drew or counted."""
        if _RANDOM.fullmatch(given) or _WORD.fullmatch(given):
            return True
        return _PLAIN.fullmatch(given) is not None and all(part in self._series for part in _parts(given))

    def of_content(self, row: Mapping[str, Any]) -> str:
        """The name of a row without an id of its own: a hash of its content, under the key of the scrubber if there is one.

        Without the key, who guesses a row's whole text can check the guess by its name.
        """
        digest = sha256_of_json({name: value for name, value in row.items() if name not in ("id", "source")})
        if self._key is not None:
            digest = hmac.new(self._key, f"row\0{digest}".encode(), hashlib.sha256).hexdigest()
        return digest[:16]


def _parts(given: str) -> Iterator[str]:
    """The words of an id, and the front of each number that is too long for a counter."""
    for match in _PARTS.finditer(given):
        part = match.group().lower()
        if part[0].isdigit():
            digits = re.sub(r"\D", "", part)
            if len(digits) > _MAX_FREE_DIGITS:
                yield digits[:-_COUNTING_DIGITS]
        else:
            yield part
