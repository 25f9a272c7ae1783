"""E-mail addresses that Presidio's recognizer lets through, handles, links to a person's page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.pii.detect.rules import Match, PatternRule, Rule
from tasks.pii.detect.tokens import TokenizedText
from tasks.pii.lexicon import vocabulary

_EMAIL = re.compile(
    r"[\w.+%&'*/=?^`{|}~!#$-]{1,64}\s?@\s?(?:[\w-]{1,63}\.){1,6}[A-Za-z\d-]{2,24}|[\w.+%-]{1,64}@[\w-]{2,63}\b"
)
_SPELLED_EMAIL = re.compile(
    r"[\w.+-]{1,40}(?:\s{0,2}[\[({<]?(?:dot|punkt)[\])}>]?\s{0,2}[\w+-]{1,40}){0,3}"
    r"\s{0,2}(?:[\[({<]\s?(?:at|@)\s?[\])}>]|\bat\b)\s{0,2}"
    r"[\w-]{2,40}(?:\s{0,2}(?:[\[({<]\s?(?:dot|\.)\s?[\])}>]|\bdot\b|\.)\s{0,2}[A-Za-z]{2,12}){1,3}\b",
    re.IGNORECASE,
)
_SPACED_EMAIL = re.compile(
    r"(?<!\S)(?:[\w.+-]\s){2,64}@(?:\s[\w.-]){4,64}(?!\S)"
    r"|(?<!\S)[\w+-]{1,40}(?:\s?\.\s?[\w+-]{1,40}){0,3}\s@\s[\w-]{2,40}(?:\s\.\s[A-Za-z]{2,12}){1,3}(?!\S)"
)
_HANDLE = re.compile(r"(?<![\w@/.])@[A-Za-z_]\w{1,30}(?:\.\w{1,30})?")
_USERNAME = re.compile(
    r"\b(?:user ?name|user id|login|screen ?name|handle|nick ?name|skype|telegram|discord|instagram|snapchat|twitter)"
    r"(?: name| id| handle)?(?:\s?[:=]\s?|\s(?:is|was)\s)[\"']?(?=[\w.#-]{3})(?P<value>[\w.#-]{0,39}[\w#-])",
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


_FIELD = re.compile(
    r"(?<![A-Za-z])(?P<key>[A-Za-z][A-Za-z_-]{1,30})"
    r"(?:[\"']?\s?[:=]\s?[\"'](?P<quoted>[^\"'<>\n]{1,60})|=(?P<bare>[^\s\"'<>&;,=]{1,60})|>(?P<inner>[^<>\n]{1,60})</)"
)
"""A field of JSON, XML, a log line or an address: ``"lastName": "Roe"``, ``<user>jroe</user>``, ``user=jroe``."""
_FIELDS = {
    "USERNAME": vocabulary("user_fields"),
    "PERSON": vocabulary("person_fields"),
    "STREET_ADDRESS": vocabulary("address_fields"),
    "ID_NUMBER": vocabulary("id_fields"),
}
_CHAT_NAME = re.compile(r"^[ \t]*<?(?P<value>[a-z][a-z\d]{1,20}(?:[._]?[a-z\d]{1,20}){0,2})>?(?=:\s|\s\[\d)", re.MULTILINE)
"""Who says it, at the start of a line: ``eda.krc: selam``."""
_NUMBERED_NAME = re.compile(r"(?<![\w@./-])(?P<value>(?P<word>[a-z]{5,20})\d{2,4})(?![\w@/-])")
"""``elpaco83``: letters that are no word, and two to four digits."""


def _fields(text: TokenizedText) -> Iterator[tuple[int, int, str | None]]:
    for match in _FIELD.finditer(text.plain):
        key = match.group("key").replace("_", "").replace("-", "").lower()
        value = match.group(match.lastgroup or 0)
        words = [word.lower() for word in re.findall(r"[^\W_]+", value)]
        if value.islower() and all(word in text.lexicon.ordinary for word in words):
            continue
        for entity, keys in _FIELDS.items():
            if key in keys and (entity != "ID_NUMBER" or any(map(str.isdigit, value))):
                yield *match.span(match.lastgroup or 0), entity


def _is_handle(match: Match, text: TokenizedText) -> bool:
    """A sign or a digit in it, or no word of a dictionary: ``agent:`` stays."""
    value = match.group("value")
    is_marked = any(not character.isalpha() for character in value)
    return is_marked and not all(part in text.lexicon.ordinary for part in re.findall(r"[^\W\d_]+", value))


def _is_numbered_name(match: Match, text: TokenizedText) -> bool:
    word = match.group("word")
    return word not in text.lexicon.ordinary and word not in text.lexicon.english_rare


def _is_no_word(match: Match, text: TokenizedText) -> bool:
    return match.group("value").lower() not in text.lexicon.ordinary


def _is_spelled_out(match: Match, text: TokenizedText) -> bool:
    return "dot" in match.group().lower() or re.search(r"[\[({<]", match.group()) is not None


def _holds_name(match: Match, text: TokenizedText) -> bool:
    return any(part.lower() in text.lexicon.names for part in re.findall(r"[^\W\d_]{3,}", match.group()))


def _initial_and_surname(text: TokenizedText) -> Iterator[tuple[int, int, None]]:
    """``dsmith``: a word that is none, but for its first letter a family name."""
    lexicon = text.lexicon
    for token in text.tokens if text.is_english else ():
        word = token.text
        if len(word) < 5 or not word.islower() or word[1:] not in lexicon.last:
            continue
        if word not in lexicon.ordinary and word not in lexicon.english_rare and word not in lexicon.names:
            yield token.start, token.end, None


_ACCOUNT_WORDS = ("user", "login", "account", "handle", "profile")

CONTACT_RULES: tuple[PatternRule, ...] = (
    Rule(
        id="own.email",
        entity="EMAIL_ADDRESS",
        score=0.9,
        pattern=_EMAIL,
        keywords=("@",),
        hits=("mail «jo.smith@corp.example» now", "mail «jo@intranet» now"),
        misses=("no mail here @ all", "meet @ 10:30"),
    ),
    Rule(
        id="own.handle",
        entity="USERNAME",
        score=0.8,
        pattern=_HANDLE,
        keywords=("@",),
        hits=("ask «@maria_92» please",),
        misses=("meet @ 10:30", "jo@corp.example"),
    ),
    Rule(
        id="own.spelled_email",
        entity="EMAIL_ADDRESS",
        score=0.8,
        pattern=_SPELLED_EMAIL,
        keywords=("dot", "(at)", "[at]", "{at}"),
        validator=_is_spelled_out,
        hits=("«john dot smith at example dot com»", "it is «jo [at] corp.example»"),
        misses=("we met at noon. Nobody came", "the dot is at the end"),
    ),
    Rule(
        id="own.spaced_email",
        entity="EMAIL_ADDRESS",
        score=0.8,
        pattern=_SPACED_EMAIL,
        keywords=(" @ ",),
        hits=("write to «j o @ c o r p . e x» now", "an «k . mueller @ beispiel . de» bitte"),
        misses=("meet @ 1 0 a m today", "dinner @ the place . de facto"),
    ),
    Rule(
        id="own.username",
        entity="USERNAME",
        score=0.7,
        pattern=_USERNAME,
        keywords=(":", " is ", "="),
        validator=_is_no_word,
        hits=("my username is «kestrel99».", "skype: «j.doe_x»"),
        misses=("the login is slow", "login: required"),
    ),
    Rule(
        id="own.bare_username",
        entity="USERNAME",
        score=0.6,
        pattern=_BARE_USERNAME,
        keywords=_ACCOUNT_WORDS,
        hits=("user «jsmith1985» is locked out",),
        misses=("user 1985 is locked out", "account closed in 1985"),
    ),
    Rule(
        id="own.quoted_username",
        entity="USERNAME",
        score=0.6,
        pattern=_QUOTED_USERNAME,
        keywords=_ACCOUNT_WORDS,
        validator=_is_no_word,
        hits=("user '«bwinterbourne»' was locked",),
        misses=("the profile 'default' was loaded",),
    ),
    Rule(
        id="own.speaker",
        entity="USERNAME",
        score=0.6,
        pattern=_SPEAKER,
        keywords=(":",),
        validator=_is_no_word,
        hits=("[10:42] «jkowalski»: is it done?",),
        misses=("[10:42] agent: hello", "it is 10:42, dsmith: go"),
    ),
    Rule(
        id="own.field",
        entity="USERNAME",
        score=0.75,
        predicate=_fields,
        may_hold=lambda text: any(sign in text.plain for sign in (":", "=", ">")),
        hits=(
            '{"lastName": "«Roe»", "city": "Leeds"}',
            "<user>«jroe»</user> <role>admin</role>",
            "denied user=«jroe» from=10",
            '"customer_name" : "«Mia Roe»"',
        ),
        misses=("user=admin", '{"name": "router"}', "a > b and owner: me", "status=open"),
    ),
    Rule(
        id="own.chat_name",
        entity="USERNAME",
        score=0.6,
        pattern=_CHAT_NAME,
        validator=_is_handle,
        hits=("«eda.krc»: selam\n«mertcan_06»: naber",),
        misses=("agent: hello\nerror404: no", "note: it is late", "line.number: 4"),
    ),
    Rule(
        id="own.numbered_name",
        entity="USERNAME",
        score=0.5,
        pattern=_NUMBERED_NAME,
        validator=_is_numbered_name,
        hits=("was it «elpaco83» again",),
        misses=("sha256 and python3 and windows11 and release2024",),
    ),
    Rule(
        id="own.initial_and_surname",
        entity="USERNAME",
        score=0.5,
        predicate=_initial_and_surname,
        hits=("it was used by «dsmith» on Monday",),
        misses=("it was used by Smith", "a blacksmith came"),
    ),
    Rule(
        id="own.joined_username",
        entity="USERNAME",
        score=0.7,
        pattern=_JOINED_NAME,
        keywords=("_",),
        validator=_holds_name,
        hits=("ask «maria_keller92» there",),
        misses=("the column order_total2 is empty",),
    ),
    Rule(
        id="own.profile",
        entity="URL",
        score=0.8,
        pattern=_PROFILE,
        keywords=(".com/", ".me/"),
        hits=("see «https://www.linkedin.com/in/jane-roe-77»",),
        misses=("see https://docs.example.com/guide",),
    ),
    Rule(
        id="own.personal_path",
        entity="USERNAME",
        score=0.7,
        pattern=_PERSONAL_PATH,
        keywords=("://",),
        hits=("see https://acme.example/u/«jane%20roe»/orders", "at https://acme.example/~«jroe»?tab=2"),
        misses=("see https://acme.example/orders/open",),
    ),
    Rule(
        id="own.personal_query",
        entity="USERNAME",
        score=0.7,
        pattern=_PERSONAL_QUERY,
        keywords=("=",),
        hits=("GET /find?name=«jane%20roe»&page=2 fails",),
        misses=("GET /find?page=2&filename=report.pdf",),
    ),
)
"""Ways to reach one person on the net."""
