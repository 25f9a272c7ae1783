"""Named levels at which texts are compared, from the bytes' meaning up to what a row asks.

- :func:`normalize`: the exact level. Texts that differ in case, spacing or Unicode form alone are exact duplicates.
- :func:`exact_key`: a key of one or several texts at that level.
- :func:`placeholder_view`: the near level. What looks like personal data (e-mails, links, phone numbers, ids) is masked, so
  that two tickets that differ in an account number alone are near duplicates.
- :func:`prompt_views` and :func:`reply_view`: that level of a row's prompt and reply.
- :func:`answer_view`: that level of a reply beside its prompt; only what the prompt names is masked.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, takewhile

from tasks.core.rows import Row, prompt_messages, reply
from tasks.core.tool_calls import TOOLS_ROLE, message_text

MIN_TEMPLATE_SHARE, MIN_TEMPLATE_CHARS = 0.9, 16
_MASK = "#"
_PUNCTUATION = ".,;:!?)]}\"'"

_LINKS = re.compile(r"(?:https?://|www\.)\S+|(?<!\S)[^\s@]*+@\S+")
_GROUPED_DIGITS = re.compile(r"(?<!\d)(?:\d{1,3}(?:\.\d{1,3}){3}|\+?\(?\d{1,4}\)?(?:[ ./:-]\(?\d{2,4}\)?){2,}+)(?!\w)")
"""IP addresses; phones, cards, dates, social security numbers."""
_CODE = re.compile(r"(?<![\w-])(?:[^\W\d]|-)*+\d[\w-]*+")
"""A token with a digit; possessive, so that a megabyte without a space takes no longer than one with spaces."""
_DIGIT = re.compile(r"\d")


def normalize(text: str) -> str:
    """The text in NFKC, case-folded, with runs of white space collapsed: equal results are exact duplicates."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def exact_key(*texts: str) -> str:
    """A 32-digit hexadecimal key that is equal for texts that are equal when normalized (BLAKE2b, 128 bits)."""
    joined = normalize(" \x00 ".join(texts))  # no text contains a NUL: ingestion rejects it
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _masked(part: str) -> str:
    return _MASK


def placeholder_view(text: str, known_values: Iterable[str] = (), mask: Callable[[str], str] = _masked) -> str:
    """The normalized text with personal-looking parts masked.

    Quantities stay (``45 kilometers`` is not ``60 kilometers``); ids, phones, dates, e-mails and links become ``#``.

    Args:
        text: Any text.
        known_values: The record's own personal values (name, account), masked wherever they stand.
        mask: What stands for each of the other parts.
    """
    view = normalize(text)
    for value in sorted({normalize(value) for value in known_values}, key=lambda value: (-len(value), value)):
        if len(value) > 2:
            view = view.replace(value, _MASK)
    if "@" in view or "www." in view or "://" in view:
        view = _LINKS.sub(lambda match: mask(match.group()), view)
    if not _DIGIT.search(view):
        return view
    view = _GROUPED_DIGITS.sub(lambda match: mask(match.group()), view)
    return _CODE.sub(lambda match: mask(match.group()) if _is_id(match.group()) else match.group(), view)


def _is_id(code: str) -> bool:
    """Whether it looks like an account, an order number or a plate: five digits, or six characters with three digits."""
    digits = sum(map(str.isdigit, code))
    return digits >= 5 or (digits >= 3 and len(code) >= 6)


def answer_view(text: str, question: str, known_values: Iterable[str] = ()) -> str:
    """The placeholder view of a reply, in which what the reply adds to its prompt stays as it stands.

    An id that the prompt names too is a reference to it, written by its place in the prompt, so that two tickets that differ
    in an account number have equal replies. An id, a date or a link that the prompt lacks is what the reply says.
    """
    places: dict[str, int] = {}
    known_values = list(known_values)

    def note(part: str) -> str:
        places.setdefault(part.rstrip(_PUNCTUATION), len(places))
        return _MASK

    placeholder_view(question, known_values, note)

    def refer(part: str) -> str:
        place = places.get(part.rstrip(_PUNCTUATION))
        return part if place is None else f"{_MASK}{place}"

    return placeholder_view(text, known_values, refer)


def prompt_views(*parts: Sequence[Row]) -> list[str]:
    """The placeholder view of what each row of all parts asks: its prompt without system messages, and its context.

    A head or tail that nine in ten prompts share is an instruction template, not content: it is cut away, else every pair
    of short texts under a long template would be near. A row that asks nothing is represented by its reply.
    """
    prompts = strip_template([prompt_text(row) for rows in parts for row in rows])
    views = []
    for row, text in zip(chain(*parts), prompts, strict=True):
        view = placeholder_view(f"{text}\n{row.get('context') or ''}", row.get("known_values") or ())
        views.append(view or reply_view(row))
    return views


def prompt_text(row: Row) -> str:
    """What a row asks, as one text: what its prompt's messages say, but the system's and the tools."""
    if not (row.get("messages") or row.get("prompt")):
        return ""
    turns = (message for message in prompt_messages(row) if message["role"] not in ("system", TOOLS_ROLE))
    return "\n".join(map(message_text, turns))


def reply_view(row: Row) -> str:
    """The placeholder view of what each row answers (empty for a row without messages)."""
    if not (row.get("messages") or row.get("chosen")):
        return ""
    return placeholder_view(reply(row), row.get("known_values") or ())


def strip_template(texts: Sequence[str]) -> list[str]:
    """The texts without the head and the tail that at least nine in ten of them share word for word."""
    heads = _without_common_head(list(texts))
    return [text[::-1] for text in _without_common_head([text[::-1] for text in heads])]


def _without_common_head(texts: list[str]) -> list[str]:
    distinct = set(texts)
    starts = Counter(text[:MIN_TEMPLATE_CHARS] for text in distinct if len(text) > MIN_TEMPLATE_CHARS)
    start, count = max(starts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    if count < 20 or count < MIN_TEMPLATE_SHARE * len(distinct):
        return texts
    sharing = [text for text in distinct if text.startswith(start)]
    pairs = zip(min(sharing), max(sharing), strict=False)
    head = min(sharing)[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))]
    return [text.removeprefix(head) for text in texts]
