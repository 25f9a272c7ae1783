"""Scores of single replies: known values, other scripts, labels and formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.benchmark.replies import corpus_scores, text_scores
from tasks.measures.metrics import METRICS
from tasks.measures.reply_checks import format_valid, json_valid, named_label


def test_an_equal_reply_scores_full_and_an_unrelated_one_nearly_nothing() -> None:
    same = text_scores("Please restart the printer now.", "Please restart the printer now.")
    assert same == pytest.approx(
        {
            "chrf": 1.0,
            "rouge_l": 1.0,
            "bleu": 1.0,
            "meteor_exact_stem": 1 - 0.5 / 5**3,  # METEOR's penalty for one chunk of five words
            "exact_match": 1.0,
            "length_ratio": 1.0,
            "length_error": 0.0,
        }
    )
    other = text_scores("Nope!", "Please restart the printer now.")
    assert other["exact_match"] == other["rouge_l"] == 0.0
    assert other["chrf"] < 0.05  # type: ignore[operator]
    assert other["length_error"] == pytest.approx(1.82, abs=0.01)  # |log(5 / 31)|


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    # the cat sat | the cat on the mat: 2 common words of 3 and of 5
    assert text_scores("the cat sat", "the cat on the mat")["rouge_l"] == pytest.approx(
        2 * (2 / 3 * 2 / 5) / (2 / 3 + 2 / 5)
    )


def test_rouge_l_reads_every_script() -> None:
    assert text_scores("こんにちは世界", "こんにちは世界")["rouge_l"] == 1.0
    assert text_scores("ありがとう世界", "こんにちは世界")["rouge_l"] == pytest.approx(2 / 7, abs=0.15)
    assert text_scores("fär", "für")["rouge_l"] == 0.0
    assert text_scores("Straße", "STRASSE")["rouge_l"] == 1.0


SENTENCES = {
    "Chinese": ("请重新启动打印机，然后再试一次。", "请更换墨盒，然后再试一次。"),
    "Japanese": ("プリンターを再起動してください。", "プリンターの電源を切ってください。"),
    "Thai": ("กรุณารีสตาร์ทเครื่องพิมพ์", "กรุณาปิดเครื่องพิมพ์"),
    "Khmer": ("សូមចាប់ផ្ដើមម៉ាស៊ីនបោះពុម្ពឡើងវិញ។", "សូមបិទម៉ាស៊ីនបោះពុម្ព។"),
    "Arabic": ("أعد تشغيل الطابعة من فضلك الآن.", "أطفئ الطابعة من فضلك الآن."),
    "Hindi": ("कृपया प्रिंटर को अभी पुनः आरंभ करें।", "कृपया प्रिंटर को अभी बंद करें।"),
    "Korean": ("프린터를 지금 다시 시작해 주세요.", "프린터를 지금 꺼 주세요."),
}


@pytest.mark.parametrize("script", SENTENCES)
def test_an_equal_reply_scores_full_in_every_script_and_another_one_less(script: str) -> None:
    text, other = SENTENCES[script]
    scores = {**text_scores(text, text), **corpus_scores([text], [text])}
    for name in ("chrf", "rouge_l", "bleu", "exact_match", "corpus_chrf", "corpus_bleu"):
        assert scores[name] == pytest.approx(1.0), name
    assert scores["meteor_exact_stem"] > 0.99  # type: ignore[operator]
    partly = {**text_scores(other, text), **corpus_scores([other], [text])}
    for name in ("chrf", "rouge_l", "bleu", "meteor_exact_stem", "corpus_chrf", "corpus_bleu"):
        assert 0.0 < partly[name] < 0.95, name  # type: ignore[operator]


def test_meteor_matches_stems_and_knows_no_synonyms() -> None:
    stem = text_scores("restarting printers", "restarted printer")["meteor_exact_stem"]
    assert stem == pytest.approx(1 - 0.5 / 2**3)
    assert text_scores("big", "large")["meteor_exact_stem"] == 0.0
    # one of three reply words and of two reference words: P = 1/3, R = 1/2, one chunk of one match
    assert text_scores("the red cat", "cat dog")["meteor_exact_stem"] == pytest.approx(
        (10 / 6) / (1 / 2 + 9 / 3) * (1 - 0.5), rel=1e-6
    )
    assert text_scores("", "")["meteor_exact_stem"] == 1.0
    assert text_scores("", "cat")["meteor_exact_stem"] == 0.0


@pytest.mark.parametrize(
    ("reply", "valid"),
    [
        ('{"team": "billing", "urgent": true}', 1.0),
        ('{"team": "sales", "urgent": true}', 0.0),
        ('{"team": "billing"}', 0.0),
        ('Sure: {"team": "billing", "urgent": true}', 0.0),
        ('{"team": "billing", "urgent": NaN}', 0.0),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
)
def test_json_is_valid_as_a_whole_or_not(reply: str, valid: float) -> None:
    schema = {
        "type": "object",
        "properties": {"team": {"$ref": "#/$defs/team"}, "urgent": {"type": "boolean"}},
        "required": ["team", "urgent"],
        "$defs": {"team": {"enum": ["billing", "shipping"]}},
    }
    assert json_valid(reply, schema) == valid


def test_short_references_have_no_bleu() -> None:
    assert text_scores("card arrival", "card arrival")["bleu"] is None
    assert corpus_scores(["card arrival"], ["card arrival"])["corpus_bleu"] is None
    assert corpus_scores(["a-b-c-d"], ["a-b-c-d"])["corpus_bleu"] is None  # one token to BLEU
    mixed = corpus_scores(["card arrival", "Please restart it right now."], ["lost card", "Please restart it right now."])
    assert mixed["corpus_bleu"] == pytest.approx(1.0)
    assert mixed["corpus_chrf"] < 1.0  # type: ignore[operator]


def test_exact_match_looks_past_case_space_and_unicode_form() -> None:
    assert text_scores("  Cafe\u0301 OPEN\n", "café open")["exact_match"] == 1.0


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_every_score_is_within_its_range_on_any_text(reply: str, reference: str) -> None:
    for name, value in text_scores(reply, reference).items():
        assert name in METRICS
        if value is not None and METRICS[name].unit == "share":
            assert -1e-9 <= value <= 1 + 1e-9


LABELS = {"card_arrival", "lost_card", "SETUP"}


@pytest.mark.parametrize(
    ("reply", "pattern", "label"),
    [
        ("card_arrival", None, "card_arrival"),
        ("Card arrival.\nBecause you ask when it comes.", None, "card_arrival"),
        ("**lost card**", None, "lost_card"),
        ("I think it is card_arrival", None, None),
        ("", None, None),
        ("[SETUP] Open the app.", r"^\[(\w+)\]", "SETUP"),
        ("[OTHER] Open the app.", r"^\[(\w+)\]", None),
        ("Open the app.", r"^\[(\w+)\]", None),
        ("The label: setup", r"\w+$", "SETUP"),
    ],
)
def test_the_label_that_a_reply_names(reply: str, pattern: str | None, label: str | None) -> None:
    assert named_label(reply, LABELS, pattern) == label


@pytest.mark.parametrize(
    ("labels", "reply", "label"),
    [
        *(({"-1", "0", "1"}, label, label) for label in ("-1", "0", "1")),
        ({"-1", "0", "1"}, "1.", "1"),
        ({"-1", "0", "1"}, "\u22121", "-1"),
        ({"-1", "0", "1"}, "1.0", "1"),
        ({"-1", "0", "1"}, "-1.00", "-1"),
        ({"-1", "0"}, "1", None),  # a label that no frozen row has is not another one
        ({"1", "2"}, "2.0", "2"),
        ({"1.0", "2.0"}, "2", "2.0"),
        ({"1", "1.0"}, "1.0", "1.0"),
        ({"1", "1.0"}, "1.00", None),
        ({"1", "10"}, "10", "10"),
        ({"010", "10"}, "010", "010"),
        ({"us", "US"}, "US", "US"),
        ({"us", "US"}, "us.", "us"),
        ({"us", "US"}, "Us", None),
        ({"us", "fr"}, "US", "us"),
        ({"c", "c++", "c#"}, "C++", "c++"),
        ({"c", "c++", "c#"}, "C", "c"),
        ({"a-b", "a b", "a_b"}, "a_b", "a_b"),
        ({"a-b", "a b", "a_b"}, "A-B", "a-b"),
        ({"a-b", "a b"}, "a_b", None),
        ({"+", "-"}, "-", "-"),
        ({"[urgent]", "urgent"}, "[urgent]", "[urgent]"),
        ({"[urgent]", "urgent"}, "urgent", "urgent"),
        ({"yes.", "yes"}, "yes.", "yes."),
        ({"\u306f\u3044", "\u3044\u3044\u3048"}, "\u300c\u306f\u3044\u300d\u3002", "\u306f\u3044"),
        ({"\u0939\u093e\u0901", "\u0928\u0939\u0940\u0902"}, "\u0939\u093e\u0901\u0964", "\u0939\u093e\u0901"),
        ({"card_arrival"}, "_card arrival_", "card_arrival"),
        ({"4.5", "4.0"}, "4.5", "4.5"),
    ],
)
def test_labels_fold_only_where_they_stay_apart(labels: set[str], reply: str, label: str | None) -> None:
    assert named_label(reply, labels, None) == label
    assert named_label(f"Label: {reply}", labels, r"Label: (.*)") == label


@given(st.sets(st.text(alphabet="-_ 01.aAbB", min_size=1, max_size=4).map(str.strip).filter(bool), min_size=1, max_size=6))
def test_every_label_names_itself(labels: set[str]) -> None:
    assert all(named_label(label, labels, None) == label for label in labels)


def test_a_format_must_match_from_start_to_end() -> None:
    assert format_valid("[SETUP] Hello.\nYours, the crew.", r"\[\w+\] .*Yours, the crew\.") == 1.0
    assert format_valid("[SETUP] Hello.\nYours, the crew. And more", r"\[\w+\] .*Yours, the crew\.") == 0.0
