"""Replies that refuse or say nothing, recognised by their wording: shared by the stages that count them.

English only, and openings only: a reply that helps first and declines a part of it later is not a refusal.
"""

from __future__ import annotations

import re

_CANNOT = (
    r"(?:can't|cant|can ?not|couldn't|won't|(?:am|are|is|'m|'re) (?:not able|unable) to|not something (?:i|we) can"
    r"|must decline)"
)
_HELP = (
    r"(?:help|assist|provide|answer|comply|fulfil|do (?:that|this)|discuss|respond|process|complete|generate|create|engage"
    r"|support|share|give|offer|fulfill)"
)
_OPENINGS = re.compile(
    "|".join(
        (
            rf"(?:(?:i am|i'm)(?: \w+)? (?:sorry|afraid)|sorry|apologies|my apologies|i apologi[sz]e|unfortunately)"
            rf"\b[^.?!]{{0,60}}?\b(?:i|we) ?{_CANNOT}(?: \w+)? {_HELP}",
            rf"(?:i|we) ?{_CANNOT}(?: \w+)? {_HELP}",
            r"as an? (?:ai\b|artificial intelligence|large language|language model|virtual assistant)",
            r"(?:i am|i'm)(?: just| only)? an? (?:ai\b|(?:large )?language model)",
            r"(?:i am|i'm)(?: \w+)? (?:sorry|afraid)[^.?!]{0,30}\b(?:i )?(?:don't|do not) (?:know|understand|have)",
            r"i (?:don't|do not) (?:know\b|have (?:enough|access|any) )",
            r"(?:n/?a|none|null|todo|tbd|no (?:answer|response|comment|output)|not applicable|lorem ipsum[^?]*)\W*$",
        )
    )
)


def is_refusal(text: str) -> bool:
    """Whether a reply opens by refusing, by the boilerplate of a language model, or is a stand-in for a reply."""
    opening = " ".join(text[:300].replace("’", "'").lower().split()).lstrip("\"'*#-–… ")
    return _OPENINGS.match(opening) is not None
