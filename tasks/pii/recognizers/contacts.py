"""E-mail addresses that Presidio's recognizer lets through, handles, links to a person's page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.pii.reading import Reading
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.spans import Span

_EMAIL = re.compile(
    r"[\w.+%&'*/=?^`{|}~!#$-]{1,64}\s?@\s?(?:[\w-]{1,63}\.){1,6}[A-Za-z\d-]{2,24}|[\w.+%-]{1,64}@[\w-]{2,63}\b"
)
_SPELLED_EMAIL = re.compile(
    r"[\w.+-]{1,40}(?:\s{0,2}[\[({<]?(?:dot|punkt)[\])}>]?\s{0,2}[\w+-]{1,40}){0,3}"
    r"\s{0,2}(?:[\[({<]\s?(?:at|@)\s?[\])}>]|\bat\b)\s{0,2}"
    r"[\w-]{2,40}(?:\s{0,2}(?:[\[({<]\s?(?:dot|\.)\s?[\])}>]|\bdot\b|\.)\s{0,2}[A-Za-z]{2,12}){1,3}\b",
    re.IGNORECASE,
)
_HANDLE = re.compile(r"(?<![\w@/.])@[A-Za-z_]\w{1,30}(?:\.\w{1,30})?")
_USERNAME = re.compile(
    r"\b(?:user ?name|user id|login|screen ?name|handle|nick ?name|skype|telegram|discord|instagram|snapchat|twitter)"
    r"(?: name| id| handle)?(?:\s?[:=]\s?|\s(?:is|was)\s)[\"']?(?P<value>[\w.#-]{3,40})",
    re.IGNORECASE,
)
_BARE_USERNAME = re.compile(
    r"\b(?:user(?: ?name| id)?|login|account|handle|profile)\s(?P<value>[a-z][a-z._-]{2,20}\d{2,6})(?![\w@/-])",
    re.IGNORECASE,
)
"""``user jsmith1985``: letters and then two digits or more, right after a word for an account."""
_QUOTED_USERNAME = re.compile(
    r"\b(?:user(?: ?name| id)?|login|account|handle|profile)\s(?P<quote>[\"'`])(?P<value>[\w.@-]{3,40})(?P=quote)",
    re.IGNORECASE,
)
_SPEAKER = re.compile(
    r"^[ \t]*[\[(]?\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]m)?[\])]?[ \t]*[-–]?[ \t]*<?(?P<value>[a-z][\w.-]{2,30})>?:(?=\s)",
    re.MULTILINE,
)
"""Who says it, in the lines of a chat: ``[10:42] jkowalski: hi``."""
_JOINED_NAME = re.compile(r"(?<![\w@./-])[^\W\d_]{2,20}_[^\W\d_]{2,20}\d{1,6}(?![\w@/-])")
_PROFILE = re.compile(
    r"(?:https?://)?(?:www\.|m\.)?(?:linkedin\.com/in|facebook\.com|fb\.com|twitter\.com|x\.com|instagram\.com|tiktok\.com/@"
    r"|github\.com|t\.me|wa\.me|youtube\.com/@|reddit\.com/u(?:ser)?|medium\.com/@|snapchat\.com/add)/?[\w.@-]{2,60}/?",
    re.IGNORECASE,
)

_PERSONAL_PATH = re.compile(
    r"://[^\s/?#\"'<>]{1,100}(?:/[^\s/?#\"'<>]{1,100}){0,6}?"
    r"/(?:(?:u|users?|people|persons?|profiles?|members?|employees?|accounts?|customers?|clients?)/|~)"
    r"(?P<value>[^\s/?#\"'<>|)\]},;]{2,100})",
    re.IGNORECASE,
)
"""The part of an address that says whose page it is."""
_PERSONAL_QUERY = re.compile(
    r"[?&;](?:(?:first|last|full|user|given|family|sur|display|nick|screen|customer|client|contact)?[_-]?name|user|login|e?mail"
    r"|customer|client|phone|tel|owner|author|member|employee|account)(?:[_-]?id)?=(?P<value>[^\s&#\"'<>|)\]},;]{2,200})",
    re.IGNORECASE,
)
"""``?name=jane%20roe`` and its like."""


class ContactRecognizer(OwnRecognizer):
    """Ways to reach one person on the net."""

    def __init__(self) -> None:
        super().__init__(("EMAIL_ADDRESS", "USERNAME", "URL"))

    def find(self, reading: Reading) -> Iterator[Span]:
        """See :class:`OwnRecognizer`."""
        text, lower = reading.text, reading.lower
        if "@" in text:
            for match in _EMAIL.finditer(text):
                yield Span(match.start(), match.end(), "EMAIL_ADDRESS", 0.9, "own.email")
            for match in _HANDLE.finditer(text):
                yield Span(match.start(), match.end(), "USERNAME", 0.8, "own.handle")
        if ("dot" in lower and "at" in lower) or "(at)" in lower or "[at]" in lower or "{at}" in lower:
            for match in _SPELLED_EMAIL.finditer(text):
                if "dot" in match.group().lower() or re.search(r"[\[({<]", match.group()):
                    yield Span(match.start(), match.end(), "EMAIL_ADDRESS", 0.8, "own.spelled_email")
        if ":" in text or " is " in lower or "=" in text:
            for match in _USERNAME.finditer(text):
                value = match.group("value").rstrip(".")
                if value.lower() not in reading.lexicon.ordinary:
                    start = match.start("value")
                    yield Span(start, start + len(value), "USERNAME", 0.7, "own.username")
        if "user" in lower or "login" in lower or "account" in lower or "handle" in lower or "profile" in lower:
            for match in _BARE_USERNAME.finditer(text):
                yield Span(match.start("value"), match.end("value"), "USERNAME", 0.6, "own.bare_username")
            for match in _QUOTED_USERNAME.finditer(text):
                if match.group("value").lower() not in reading.lexicon.ordinary:
                    yield Span(match.start("value"), match.end("value"), "USERNAME", 0.6, "own.quoted_username")
        if ":" in text:
            for match in _SPEAKER.finditer(text):
                if match.group("value") not in reading.lexicon.ordinary:
                    yield Span(match.start("value"), match.end("value"), "USERNAME", 0.6, "own.speaker")
        yield from _initial_and_surname(reading)
        if "_" in text:
            for match in _JOINED_NAME.finditer(text):
                if any(part.lower() in reading.lexicon.names for part in re.findall(r"[^\W\d_]{3,}", match.group())):
                    yield Span(match.start(), match.end(), "USERNAME", 0.7, "own.joined_username")
        if ".com/" in lower or ".me/" in lower:
            for match in _PROFILE.finditer(text):
                yield Span(match.start(), match.end(), "URL", 0.8, "own.profile")
        if "://" in text:
            for match in _PERSONAL_PATH.finditer(text):
                yield Span(match.start("value"), match.end("value"), "USERNAME", 0.7, "own.personal_path")
        if "=" in text and ("?" in text or "&" in text):
            for match in _PERSONAL_QUERY.finditer(text):
                yield Span(match.start("value"), match.end("value"), "USERNAME", 0.7, "own.personal_query")


def _initial_and_surname(reading: Reading) -> Iterator[Span]:
    """``dsmith``: a word that is none, but for its first letter a family name."""
    known = reading.lexicon
    for token in reading.tokens:
        word = token.text
        if len(word) < 5 or not word.islower() or word[1:] not in known.last:
            continue
        if word not in known.ordinary and word not in known.english_rare and word not in known.names:
            yield Span(token.start, token.end, "USERNAME", 0.5, "own.initial_and_surname")
