"""Words in scripts with and without spaces between them."""

from __future__ import annotations

import unicodedata

import pytest

from tasks.measures.reply_checks import exact_match
from tasks.measures.words import unicode_words, with_spaces


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("你好世界 hello世界abc", ["你", "好", "世", "界", "hello", "世", "界", "abc"]),
        ("カタカナー。", ["カ", "タ", "カ", "ナ", "ー"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("សួស្តី", ["សួ", "ស្", "តី"]),
        ("ພາສາ", ["ພ", "າ", "ສ", "າ"]),
        ("नमस्ते दुनिया है।", ["नमस्ते", "दुनिया", "है"]),
        ("مَرْحَبًا بالعالم؟", ["مَرْحَبًا", "بالعالم"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("It's foo_bar 12", ["it", "s", "foo", "bar", "12"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert unicode_words(text) == [unicodedata.normalize("NFKC", word).casefold() for word in words]


def test_vowel_signs_tell_words_apart() -> None:
    assert unicode_words("मेरा") != unicode_words("मारी")
    assert unicode_words("มา") != unicode_words("มี")


def test_only_letters_without_spaces_get_some() -> None:
    assert with_spaces("Print 打印机, please.").split() == ["Print", "打", "印", "机", ",", "please."]
    assert with_spaces("Grüße, नमस्ते и 한국어") == "Grüße, नमस्ते и 한국어"


@pytest.mark.parametrize(
    ("reply", "reference"),
    [
        ("កំពុង\u200bផ្ញើ", "កំពុងផ្ញើ"),
        ("\u200fنعم", "نعم"),
        ("\ufeffyes", "yes"),
        ("ｶﾀｶﾅ", "カタカナ"),
    ],
)
def test_what_shows_nothing_does_not_count(reply: str, reference: str) -> None:
    assert exact_match(reply, reference) == 1.0
    assert exact_match(f"{reply}x", reference) == 0.0


def test_a_joiner_inside_a_word_counts() -> None:
    assert exact_match("می\u200cروم", "میروم") == 0.0
