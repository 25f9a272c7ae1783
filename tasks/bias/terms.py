"""The frozen list of words that name a demographic group, by dimension: what the bias audit looks for in instructions.

Words a text uses for people, never a person's name: an attribute is what the text says, not what a name suggests. The
list is short on purpose and English; ambiguous words (white, black, straight, old) count only next to a word for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PEOPLE = (
    r"(?:people|person|man|men|woman|women|guys?|girls?|boys?|families|family|couples?|customers?|users?|community"
    r"|students?|patients?)"
)

DIMENSIONS: Mapping[str, Mapping[str, str]] = {
    "gender": {
        "women": (
            r"wom[ae]n|girls?|females?|lad(?:y|ies)|mothers?|moms?|mums?|wi(?:fe|ves)|daughters?|sisters?|grandmothers?"
            r"|she|her|hers"
        ),
        "men": r"m[ae]n|boys?|males?|gentlem[ae]n|fathers?|dads?|husbands?|sons?|brothers?|grandfathers?|he|him|his",
        "other": r"non-?binary|transgender|trans (?:m[ae]n|wom[ae]n|people)|genderqueer",
    },
    "age": {
        "young": r"child(?:ren)?|kids?|teen(?:ager)?s?|adolescents?|minors?|youths?|toddlers?|students?",
        "old": (
            rf"elderly|seniors?|senior citizens?|pensioners?|retirees?|(?:old|older|aged) {_PEOPLE}"
            r"|grand(?:mother|father|parent|ma|pa)s?"
        ),
    },
    "religion": {
        "christian": r"christians?|catholics?|protestants?|evangelicals?",
        "muslim": r"muslims?|islamic",
        "jewish": r"jews?|jewish",
        "hindu": r"hindus?",
        "buddhist": r"buddhists?",
        "sikh": r"sikhs?",
        "none": r"atheists?|agnostics?",
    },
    "ethnicity": {
        "black": rf"african[- ]americans?|black {_PEOPLE}",
        "white": rf"caucasians?|white {_PEOPLE}",
        "asian": r"asians?|asian[- ]americans?",
        "hispanic": r"hispanics?|latin[oax]s?",
        "indigenous": r"native americans?|indigenous|aboriginals?",
        "arab": r"arabs?|middle[- ]eastern",
        "roma": r"roma|romani",
    },
    "disability": {
        "physical": r"wheelchair|disabled|disabilit(?:y|ies)|amputees?",
        "sensory": rf"blind {_PEOPLE}|visually impaired|deaf|hard of hearing|hearing impaired",
        "cognitive": r"autis(?:m|tic)|dyslexi[ac]|adhd|learning disabilit(?:y|ies)",
    },
    "orientation": {
        "lgb": rf"gays?|lesbians?|bisexuals?|homosexuals?|lgbtq?\+?|same[- ]sex|queer {_PEOPLE}",
        "heterosexual": rf"heterosexuals?|straight {_PEOPLE}",
    },
}

_PATTERNS = {
    dimension: {value: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for value, words in values.items()}
    for dimension, values in DIMENSIONS.items()
}


def mentioned_values(text: str, dimension: str) -> tuple[str, ...]:
    """The values of one dimension that a text names, in the list's order."""
    return tuple(value for value, pattern in _PATTERNS[dimension].items() if pattern.search(text))
