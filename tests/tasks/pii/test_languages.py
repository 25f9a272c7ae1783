"""Texts that the name model cannot read are quarantined by name."""

from __future__ import annotations

import pytest

from tasks.pii.config import NerConfig, PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.text.languages import unknown_language

UNREAD = {
    "pl": "Dzień dobry, chciałbym zgłosić awarię pralki kupionej w zeszłym tygodniu.",
    "tr": "Merhaba, geçen hafta aldığım çamaşır makinesi çalışmıyor, yardım eder misiniz?",
    "sv": "Hej, tvättmaskinen vi köpte förra veckan fungerar inte längre riktigt bra.",
    "fi": "Hei, viime viikolla ostamani pesukone ei enää toimi lainkaan kunnolla.",
    "cyrillic": "Здравствуйте, стиральная машина не работает.",
    "cjk": "你好，我的洗衣机坏了。",
    "arabic": "مرحبا، الغسالة لا تعمل.",
}
READ = (
    "Hello, the washing machine that I bought last week does not work any more.",
    "Guten Tag, die Waschmaschine, die ich letzte Woche gekauft habe, läuft nicht mehr.",
    "Bonjour, la machine à laver que j'ai achetée la semaine dernière ne marche plus.",
    "ok thx",
    "Set α to 0.05 and µ to 1.",
    "Brzęczyszczykiewicz, Grzegorz",
)


@pytest.mark.parametrize("language", sorted(UNREAD))
def test_a_record_in_a_language_that_nobody_reads_is_quarantined_whole(strict: Policy, language: str) -> None:
    result = scrub_batch(["A reply.", UNREAD[language], READ[0]], strict, records=[0, 0, 1])
    assert result.texts == [None, None, READ[0]]
    assert [entry.reason for entry in result.quarantine] == [f"unsupported_language:{language}"]


def test_a_word_in_another_script_is_enough(strict: Policy) -> None:
    result = scrub_batch(["Please look at сломано about the order of last week."], strict)
    assert result.quarantine[0].reason == "unsupported_language:cyrillic"


def test_known_languages_short_texts_and_symbols_pass(strict: Policy) -> None:
    assert scrub_batch(READ, strict).quarantine == []


def test_placeholders_are_words_of_no_language(strict: Policy) -> None:
    scrubbed = "j <USERNAME>\n<PROPER_NOUN>:î"
    assert scrub_batch([scrubbed], strict).texts == [scrubbed]


def test_the_configuration_says_who_reads_what() -> None:
    text = UNREAD["cyrillic"]
    for languages in (("en", "ru"), ("*",)):
        policy = Policy(PiiConfig(ner=NerConfig(languages=languages)))
        assert scrub_batch([text], policy).quarantine == []
    assert unknown_language(UNREAD["pl"], ("en", "pl")) is None
    assert unknown_language("これはペンです", ("ja",)) is None
