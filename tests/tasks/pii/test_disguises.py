"""Values in disguise come out masked, and what only looks like one stays."""

from __future__ import annotations

import base64

import pytest

from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch

CARD = ("5105", "1051", "0510", "5100")
DIVIDERS = (" - ", "_", " _ ", " , ", "·", "\t", "\n", " / ", ".", "|", "<b></b>", "&nbsp;", "\u200b", "\u00ad", " ~ ")


@pytest.mark.parametrize("divider", DIVIDERS)
def test_a_number_divided_by_any_sign_is_masked(strict: Policy, divider: str) -> None:
    texts = [
        f"please charge {divider.join(CARD)} now",
        f"ring {divider.join(('646', '555', '9183'))} later",
        f"mine is {divider.join(('219', '09', '9999'))} ok",
    ]
    for text, left in zip(scrub_batch(texts, strict).texts, ("5105", "9183", "9999"), strict=True):
        assert left not in (text or ""), text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("it is 6 4 6 5 5 5 9 1 8 3 ok", "5 5 9"),
        (" ".join("".join(CARD)), "0 5 1"),
        ("to DE89.3704.0044.0532.0130.00 asap", "0532"),
        ("x=" + "".join(f"%{ord(letter):02X}" for letter in "ida.brandt@corp.example"), "%62%72"),
        ("auth " + base64.b64encode(b"ida.brandt@corp.example").decode(), "aWRhLm"),
        ("see <ID_NUMBER:646555918312> please", "918312"),
        ("OCR: TEL 0l6I8 496 O71", "496"),
        ("ring oh double six one five five nine double hundred", "five five"),
        ("bel nul zes een vijf vijf acht drie", "vijf vijf"),
        ('{"assignee":"tbaker","latitude":"52.37","surname":"Roe"}', "tbaker"),
        ("login failed user=tbaker src=cron", "tbaker"),
        ("my card is 5105 1051\nAgent: go on\nCustomer: 0510 5100", "5100"),
        ("i d a @ c o r p . e x a m p l e", "c o r p"),
        ("DOB: 02-Nov-1957", "1957"),
        ("née le 12 août 1990 à Lyon", "1990"),
        ("Kennzeichen M-AB 1234 und FX 447 KR", "447"),
    ],
)
def test_other_disguises_are_seen_through(strict: Policy, text: str, left: str) -> None:
    assert left not in (scrub_batch([text], strict).texts[0] or "")


@pytest.mark.parametrize(
    "text",
    [
        "see section 10.2.3.4 for it",
        "ISBN 978-0-306-40615-7 is the one",
        "version 4.18.2.1 fixes it",
        "scores 3, 4, 5, 6, 7, 8, 9, 10",
        "matrix 1 0 0 1 0 0 1 1",
        "10, 200, 3000, 45000",
        "rooms 101, 102, 103 and 104",
        "the Ontology of it is hard",
    ],
)
def test_ordinary_numbers_and_terms_stay(strict: Policy, text: str) -> None:
    assert scrub_batch([text], strict).texts[0] == text
