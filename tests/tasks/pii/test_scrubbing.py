"""What the scrubber promises of every text: nothing planted survives, twice is once, neighbours do not matter."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import ConfigError
from tasks.pii.config import NerConfig, PiiConfig
from tasks.pii.detect.detector import Detector, detector_for
from tasks.pii.policy import Policy
from tasks.pii.replace.operators import PLACEHOLDER
from tasks.pii.scrubbing import Scrubbed, scrub_batch
from tasks.pii.spans import Span, union
from tasks.pii.verify.canaries import Canary, make_canaries

STRUCTURED = {"EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "PHONE_NUMBER"}
CANARIES = make_canaries(400, seed=11)
VALUES = sorted({canary.value for canary in CANARIES if canary.entity in STRUCTURED})
TURBO = Policy(PiiConfig(mode="turbo"))
"""Properties hold in every mode; without the model they are cheap to try many times."""

fragments = st.sampled_from([canary.text for canary in CANARIES])
noise = st.text(max_size=40)


def scrub_text(text: str, policy: Policy) -> str | None:
    return scrub_batch([text], policy).texts[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My name is Siobhan O'Leary.", "My name is <PERSON>."),
        ("mail jo.smith@corp.example now", "mail <EMAIL_ADDRESS> now"),
        ("card 4111 1111 1111 1111 please", "card <CREDIT_CARD> please"),
        ("refund DE89 3704 0044 0532 0130 00", "refund <IBAN_CODE>"),
        ("SSN 219-09-9999.", "SSN <US_SSN>."),
        ("from 192.168.10.44 today", "from <IP_ADDRESS> today"),
        ("call (415) 555-0132 soon", "call <PHONE_NUMBER> soon"),
        ("Ship to 221B Baker Street, London NW1 6XE.", "Ship to <STREET_ADDRESS>."),
        ("sent to P.O. Box 1142, Harrisburg", "sent to <STREET_ADDRESS>"),
        ("VIN 1HGCM82633A004352 is mine", "VIN <VIN> is mine"),
        ("MRN: 00482913, thanks", "MRN: <MEDICAL_RECORD_NUMBER>, thanks"),
        ("please ask <MARIA_KELLER> about it", "please ask <<PERSON>_<PERSON>> about it"),
        ("mail john.smith%40example.com now", "mail <EMAIL_ADDRESS> now"),
        ("mail john.smith&#64;example.com now", "mail <EMAIL_ADDRESS> now"),
        ("My name is Ren&eacute; Dupont.", "My name is <PERSON>."),
        ("My name is Ren\\u00e9 Dupont.", "My name is <PERSON>."),
        ("It is late.\\nCheers,\\nJohn Smith\\n", "It is late.\\nCheers,\\n<PERSON>\\n"),
        ("please ask <PERSON> about it", "please ask <PERSON> about it"),
        ("see https://acme.example/u/jane%20roe/orders", "see https://acme.example/u/<USERNAME>/orders"),
        ("at https://acme.example/~jroe?tab=2", "at https://acme.example/~<USERNAME>?tab=2"),
        ("GET /find?name=jane%20roe&amp;page=2 fails", "GET /find?name=<USERNAME>&amp;page=2 fails"),
        ("Mrs. Violet Plum fell at home.", "Mrs. <PERSON> fell at home."),
        ("Tell customer Bo to call.", "Tell customer <PERSON> to call."),
        ("She lives at 22 acacia avenue now.", "She lives at <STREET_ADDRESS> now."),
        ("my social is two one nine, zero nine, double nine nine nine", "my social is <ID_NUMBER>"),
        ("my card starts with four one one one", "my card starts with <ID_NUMBER>"),
        ("It's Hope, H-O-P-E.", "It's <PERSON>, <PERSON>."),
        ("the cvv is 123 and my pin: 4821", "the cvv is <CREDIT_CARD> and my pin: <ID_NUMBER>"),
        ("my ref is 1 85 05 78 006 084 36 here", "my ref is <ID_NUMBER> here"),
        ("his number was QQ 12 34 56 C", "his number was <UK_NINO>"),
        ("Last login from 52.5200, 13.4050.", "Last login from <LOCATION>."),
        ("Employee 004512 has left.", "Employee <ID_NUMBER> has left."),
        ("user 'bwinterbourne' was locked", "user '<USERNAME>' was locked"),
        ("[10:42] jkowalski: is it done?", "[10:42] <USERNAME>: is it done?"),
        ("it was used by dsmith on Monday", "it was used by <USERNAME> on Monday"),
        ("mi DNI es 12345678Z", "mi DNI es <ES_NIF>"),
        ("born 03/04/1985 in spring", "born <DATE_OF_BIRTH> in spring"),
        ("a 54 year old man", "a <AGE> year old man"),
        ("my passport number is 769078857", "my passport number is <US_PASSPORT>"),
        ("plate GJV-4769 blocked it", "plate <LICENSE_PLATE> blocked it"),
        ("ask @maria_92 please", "ask <USERNAME> please"),
        ("user jsmith1985 is locked out", "user <USERNAME> is locked out"),
        ("i am john smith and its late", "i am <PERSON> and its late"),
        ("the parcel of einojuhani pyysalo has not come yet", "the parcel of <PERSON> has not come yet"),
        ("I would like to remove my kid Fl0rence from the plan", "I would like to remove my kid <PERSON> from the plan"),
        ("it is late.\ncheers\nmike", "it is late.\ncheers\n<PERSON>"),
        ("four times 555-123-4567 555-987-6543 555-222-1111 555-333-1111", "four times " + " ".join(["<PHONE_NUMBER>"] * 4)),
    ],
)
def test_each_kind_of_value_is_replaced_whole(strict: Policy, text: str, expected: str) -> None:
    assert scrub_text(text, strict) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我的电话是13812345678，谢谢", "我的电话是<ID_NUMBER>，谢谢"),
        ("電話番号は090-1234-5678です", "電話番号は<PHONE_NUMBER>です"),
    ],
)
def test_numbers_are_found_in_scripts_without_spaces(text: str, expected: str) -> None:
    policy = Policy(PiiConfig(mode="turbo", ner=NerConfig(languages=("*",))))
    assert scrub_text(text, policy) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I need to reset my password, please.",
        "The plane flew 12,345,678 miles and cost $250,000,000.",
        "Add 1 2 3 4 5 6 7 8 and 9.",
        "From 2019 to 2022 sales grew by 12.5 %.",
        "You may call May the month of flowers.",
        "Open Device > Update and press Retry.",
        "Turn the iPhone off and on again on Monday.",
        "Use 5 GHz instead of 2.4 GHz.\n3. Restart it.",
        "It has 16 GB at 3200 MHz and 100 Mbps.",
        "The firewall blocks port 443 now.",
        "It is done.\nThanks\nsee below",
        "Is Canada bigger than France?",
        "Count one, two, three, four, five, six.",
        "Agent: May I help you? It is made in the U-S-A.",
        "Sort 10 25 30 45 60 75 and 1.05 2.07 3.09 4.01.",
        "[10:42] agent: hello, press 1234 on page 42.",
        "Pin 12 of the connector is the clock.",
        "Look at https://docs.intranet/guide/users?page=2&filename=report.pdf#user for more.",
        "Salt &amp; pepper&nbsp;mills are 100% off &lt;today&gt;.",
        "Open C:\\reports\\new and C:\\temp first.\\nThen restart it.",
        "Definately, it is necesary.",
        "",
        "   \n\t",
    ],
)
def test_ordinary_text_stays(strict: Policy, text: str) -> None:
    assert scrub_text(text, strict) == text


def test_a_letter_is_an_initial_unless_something_is_called_by_it(turbo: Policy) -> None:
    assert scrub_text("Signed by Pvt. D. Cole yesterday.", turbo) == "Signed by Pvt. <PERSON> yesterday."
    assert scrub_text("We chose plan B. Rose water helps.", turbo) == "We chose plan B. Rose water helps."


def test_ambiguous_words_are_names_only_with_evidence(strict: Policy) -> None:
    assert scrub_text("Will Baker asked Grace about it.", strict) == "<PERSON> asked <PERSON> about it."
    assert scrub_text("He will bake with grace.", strict) == "He will bake with grace."


@pytest.mark.parametrize(
    "text",
    [
        "please chekc my acount, i definately paied it allready last wekk",
        "i dont know why the passcode isnt shown in this timeframe",
        "kaart is zoek, geen idee waar hij gebleven is",
    ],
)
def test_without_capitals_and_without_the_model_a_slip_of_the_pen_is_no_name(text: str) -> None:
    assert scrub_text(text, TURBO) == text


def test_a_word_without_end_costs_no_more_than_its_length() -> None:
    assert scrub_text(f"please look for {'q' * 90_000} in the list of things", TURBO) is not None
    assert scrub_text(f"{'Q' + 'q' * 90_000} is in the list of things", TURBO) is not None


# -- properties


@given(prefix=noise, value=st.sampled_from(VALUES), suffix=noise)
@settings(max_examples=150, deadline=None)
def test_no_planted_value_survives(prefix: str, value: str, suffix: str) -> None:
    text = scrub_text(f"{prefix} \n{value}\n {suffix}", TURBO)
    assert text is None or value not in text


@given(parts=st.lists(st.one_of(fragments, noise), min_size=1, max_size=4), joint=st.sampled_from([" ", "\n", ", "]))
@settings(max_examples=100, deadline=None)
def test_scrubbing_twice_equals_scrubbing_once(parts: list[str], joint: str) -> None:
    once = scrub_text(joint.join(parts), TURBO)
    assert once is None or scrub_text(once, TURBO) == once


@pytest.mark.parametrize("operator", ["placeholder", "redact", "mask", "hash"])
def test_twice_is_once_with_the_model_and_every_operator(operator: str) -> None:
    policy = Policy(PiiConfig.model_validate({"operator": operator}), key=b"k")
    texts = [f"{a.text} {b.text}" for a, b in zip(CANARIES[:60], CANARIES[60:120], strict=True)]
    once = scrub_batch(texts, policy).texts
    assert None not in once
    assert scrub_batch(once, policy).texts == once


@given(order=st.permutations(range(24)), cuts=st.sets(st.integers(1, 23), max_size=4))
@settings(max_examples=10, deadline=None)
def test_order_and_batches_change_nothing(order: list[int], cuts: set[int]) -> None:
    policy = Policy(PiiConfig())
    texts = [canary.text for canary in CANARIES[:24]]
    whole = scrub_batch(texts, policy)
    detector_for(policy).forget()
    bounds = [0, *sorted(cuts), 24]
    got: dict[int, str | None] = {}
    for first, last in pairwise(bounds):
        part = order[first:last]
        got.update(zip(part, scrub_batch([texts[index] for index in part], policy).texts, strict=True))
    assert [got[index] for index in range(24)] == whole.texts


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_comes_through_or_is_refused_and_offsets_hold(text: str) -> None:
    result = scrub_batch([text], TURBO)
    assert (result.texts[0] is None) == bool(result.quarantine)
    if result.texts[0] is not None:
        assert _replayed(text, result) == result.texts[0]


def _replayed(text: str, result: Scrubbed) -> str:
    """The output rebuilt from the input and the findings alone."""
    output = result.texts[0] or ""
    parts, position = [], 0
    for finding in result.findings:
        parts += (text[position : finding.start], output[finding.output_start : finding.output_end])
        assert PLACEHOLDER.fullmatch(parts[-1])
        position = finding.end
    return "".join([*parts, text[position:]])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.sampled_from([0.3, 0.5, 0.9])), max_size=8))
def test_the_union_of_spans_covers_exactly_what_they_cover(raw: list[tuple[int, int, float]]) -> None:
    spans = [Span(start, start + length, f"E{length}", score, "d") for start, length, score in raw]
    merged = union(spans)
    covered = {place for span in spans for place in range(span.start, span.end)}
    assert [place for span in merged for place in range(span.start, span.end)] == sorted(covered)
    assert union(merged) == merged
    assert union(reversed(spans)) == merged


# -- hostile text

HOSTILE = {
    "nul_in_email": "jo\x00hn.smi\x00th@exam\x00ple.com",
    "zero_width_email": "j\u200bo\u200bhn.smith@exam\u200bple.com",
    "bidi_email": "\u202ejohn.smith@example.com\u202c",
    "full_width_card": "４１１１　１１１１　１１１１　１１１１",
    "arabic_digits": "call +٤٤ ٧٧٠٠ ٩٠٠١٢٣",
    "odd_spaces": "card 4111\u00a01111\u20091111\u202f1111",
    "combining_name": "my name is Zoe\u0308 Mu\u0308ller",
    "nested_json": '{"a": {"b": ["{\\"mail\\": \\"john.smith@example.com\\"}"]}}',
    "placeholder_trap": "<PERSON>john.smith@example.com</PERSON> <EMAIL_ADDRESS",
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_writing_hides_nothing(turbo: Policy, name: str) -> None:
    text = scrub_text(HOSTILE[name], turbo)
    assert text is not None
    for left in ("john", "4111", "٧٧٠٠", "Zoe", "Mu", "1111", "１１"):
        assert left not in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lone \ud800 surrogate of John", "invalid_unicode"),
        ("x" * 1_000_000, "too_long"),
        (None, "not_text"),
        (42, "not_text"),
        (b"bytes", "not_text"),
    ],
)
def test_what_cannot_be_read_is_refused(turbo: Policy, text: object, reason: str) -> None:
    result = scrub_batch([text, "fine"], turbo)
    assert result.texts == [None, "fine"]
    assert [(refusal.text_index, refusal.reason) for refusal in result.quarantine] == [(0, reason)]


@pytest.mark.parametrize(
    "bomb",
    [
        "a." * 20_000 + "@",
        "1 " * 20_000,
        "(" * 40_000,
        "Mr. " * 10_000,
        "12 Main Street, " * 2_500,
        "my name is " * 4_000,
        "\n" * 40_000,
    ],
)
def test_a_bomb_comes_through_or_is_refused(turbo: Policy, bomb: str) -> None:
    result = scrub_batch([bomb, "I am Siobhan O'Leary"], turbo)
    assert result.texts[1] == "I am <PERSON>"


def test_a_failing_record_is_found_by_halving_and_takes_no_other_along(
    turbo: Policy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    detector = detector_for(turbo)
    detect = detector.detect

    def failing(texts: Sequence[str], values: Sequence[Sequence[str]], records: Sequence[int]) -> list[list[Span]]:
        if any("kaboom" in text for text in texts):
            raise RuntimeError("secret text of John Smith")
        return detect(texts, values, records)

    monkeypatch.setattr(detector, "detect", failing)
    texts = [f"I am Siobhan, case {number}" for number in range(9)]
    texts[5] = "kaboom"
    result = scrub_batch(texts, turbo)
    assert [index for index, text in enumerate(result.texts) if text is None] == [5]
    assert result.quarantine[0].reason == "scrub_error:RuntimeError"
    assert "John" not in caplog.text


def test_a_slow_machine_refuses_no_text(turbo: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says between two looks at it, the same texts are let through."""
    texts = [canary.text for canary in make_canaries(40, 3)]
    expected = scrub_batch(texts, turbo)
    detector_for(turbo).forget()
    hours = count()
    for name in ("monotonic", "perf_counter", "time"):
        monkeypatch.setattr(time, name, lambda: 3600.0 * next(hours))
    slow = scrub_batch(texts, turbo)
    assert (slow.texts, slow.quarantine) == (expected.texts, expected.quarantine)


def test_a_recognizer_that_gives_up_refuses_the_record(turbo: Policy) -> None:
    from tasks.pii.detect.presidio import RecognizerFailedError, _presidio_log

    with pytest.raises(RecognizerFailedError):
        _presidio_log.makeRecord("x", 30, "f", 1, "timed out", (), None, func="__analyze_patterns") and _presidio_log.handle(
            _presidio_log.makeRecord("x", 30, "f", 1, "timed out", (), None, func="__analyze_patterns")
        )


# -- records, known values, operators


def test_names_found_in_one_text_are_masked_in_the_others_of_its_record(turbo: Policy) -> None:
    texts = ["my name is Tarjanne Wexelblatt", "did tarjanne leave", "did tarjanne leave"]
    result = scrub_batch(texts, turbo, records=[0, 0, 1])
    assert result.texts[1] == "did <PERSON> leave"
    assert result.texts[2] == "did tarjanne leave"


def test_known_values_are_masked_in_any_writing(turbo: Policy) -> None:
    values = [["Rosa Price", "VX-7 04937"]]
    text = scrub_text("x", turbo)
    assert text == "x"
    result = scrub_batch(["rosa  price, account vx-7 04937, ROSA, the price"], turbo, values)
    assert result.texts[0] == "<KNOWN_VALUE>, account <KNOWN_VALUE>, <KNOWN_VALUE>, the price"


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("Baker, Rose", "rose baker said that Rose left", "<KNOWN_VALUE> said that <KNOWN_VALUE> left"),
        ("T. K. O'Dwyer", "O'Dwyer called", "<KNOWN_VALUE> called"),
        ("QX-48 1937", "my qx481937, or QX 48-19-37", "my <KNOWN_VALUE>, or <KNOWN_VALUE>"),
        ("QX481937", "my QX-481937, not QX4819370", "my <KNOWN_VALUE>, not <ID_NUMBER>"),
    ],
)
def test_known_values_are_masked_however_they_are_put(turbo: Policy, value: str, text: str, expected: str) -> None:
    assert scrub_batch([text], turbo, [[value]]).texts[0] == expected


def test_a_known_value_of_many_words_is_masked_as_it_stands(turbo: Policy) -> None:
    value = "the long road home " * 200
    text = f"they took {value}and left, for the long way is good"
    assert scrub_batch([text], turbo, [[value]]).texts[0] == "they took <KNOWN_VALUE> and left, for the long way is good"


def test_a_known_value_is_called_what_it_is(turbo: Policy) -> None:
    result = scrub_batch(["call (415) 555-0132, SSN 219-09-9999"], turbo, [["415-555-0132", "219099999"]])
    assert result.texts[0] == "call <PHONE_NUMBER>, SSN <US_SSN>"


def test_allowed_terms_and_kept_entities_stay(turbo: Policy) -> None:
    assert scrub_text("Zorbatron ships", turbo) == "<PROPER_NOUN> ships"
    policy = Policy(PiiConfig(mode="turbo", allowed_terms=("Zorbatron",), operators={"AGE": "keep"}))
    assert scrub_text("Zorbatron ships to a 54 year old man", policy) == "Zorbatron ships to a 54 year old man"


def test_operators_by_entity(turbo: Policy) -> None:
    policy = Policy(
        PiiConfig(mode="turbo", operators={"EMAIL_ADDRESS": "hash", "PHONE_NUMBER": "mask", "US_SSN": "redact"}), key=b"one"
    )
    text = scrub_text("a@b.example, (415) 555-0132, 219-09-9999.", policy)
    assert text is not None
    hashed, masked, redacted = text.split(", ")
    assert PLACEHOLDER.fullmatch(hashed)
    assert masked == "***** ********"
    assert redacted == "."
    assert scrub_text("a@b.example", Policy(policy.config, key=b"two")) != hashed


def test_a_kind_that_no_detector_finds_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="no detector finds the entity named at place 1; did you mean PERSON"):
        PiiConfig(operators={"PERSONS": "keep"})
    with pytest.raises(ValueError, match="known are AGE, "):
        PiiConfig(operators={"?": "keep"})
    with pytest.raises(ValueError, match="Input should be 'placeholder'"):
        PiiConfig.model_validate({"operator": "keep"})


def test_a_keyed_operator_without_its_key_is_refused() -> None:
    for keyed in ({"operator": "hash"}, {"operator": "surrogate", "surrogate_scope": "corpus"}):
        with pytest.raises(ConfigError, match="PERENNIAL_PII_KEY"):
            Policy(PiiConfig.model_validate(keyed))
    assert Policy(PiiConfig(operator="surrogate")).key is None
    with pytest.raises(ConfigError, match="rotate"):
        Policy(PiiConfig(key_id="0" * 12), key=b"other")


def test_findings_and_policy_never_hold_a_value_or_the_key() -> None:
    policy = Policy(PiiConfig(mode="turbo"), key=b"top-secret-key")
    result = scrub_batch(["I am Siobhan, siobhan@corp.example"], policy)
    shown = f"{result.findings} {result.stats} {policy} {policy.sha256} {policy.key_id}"
    assert "iobhan" not in shown
    assert "top-secret" not in shown
    same = scrub_batch(["SIOBHAN@corp.example"], policy).findings[0]
    assert same.fingerprint in {finding.fingerprint for finding in result.findings}
    assert scrub_batch(["siobhan@corp.example"], Policy(policy.config)).findings[0].fingerprint is None


def test_the_policy_hash_follows_the_rules_and_not_the_execution() -> None:
    base = Policy(PiiConfig())
    assert Policy(PiiConfig(num_workers=7, batch_size=3)).sha256 == base.sha256
    assert Policy(PiiConfig(mode="turbo")).sha256 != base.sha256
    assert Policy(PiiConfig(allowed_terms=("x",))).sha256 != base.sha256


def test_canaries_are_the_same_for_a_seed_and_valid() -> None:
    assert make_canaries(50, 3) == make_canaries(50, 3)
    assert make_canaries(50, 3) != make_canaries(50, 4)
    assert all(isinstance(canary, Canary) and canary.value in canary.text for canary in make_canaries(400, 5))


def test_common_names_do_not_depend_on_the_random_state(turbo: Policy) -> None:
    random.seed(1)
    first = make_canaries(20, 9)
    random.seed(2)
    assert make_canaries(20, 9) == first


# -- time limits


@pytest.mark.parametrize("place", [0, 7, 15])
def test_a_record_that_takes_too_long_is_quarantined_alone(
    turbo: Policy, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """A pattern that never ends is interrupted; the neighbours come through, and the record is tried twice at most."""
    endless, tries = re.compile(r"(x+x+)+y"), []
    detect = Detector.detect

    def slow(self: Detector, texts: Any, *arguments: Any, **more: Any) -> Any:
        for text in texts:
            if "xxx" in text:
                tries.append(len(texts))
                endless.search(text)
        return detect(self, texts, *arguments, **more)

    monkeypatch.setattr(Detector, "detect", slow)
    policy = replace(turbo, config=turbo.config.model_copy(update={"max_record_seconds": 1.0}))
    texts = [f"hello {number}" for number in range(16)]
    texts[place] = "x" * 60
    result = scrub_batch(texts, policy)
    assert [(each.text_index, each.reason) for each in result.quarantine] == [(place, "too_slow")]
    assert [text for index, text in enumerate(result.texts) if index != place] == [t for t in texts if "xxx" not in t]
    assert tries == [16, 1]


def test_a_known_value_of_many_words_costs_no_more_than_they_do(turbo: Policy) -> None:
    long = " ".join(f"word{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(600))
    result = scrub_batch([f"by {long} today", "short"], turbo, [[long], [long]])
    assert result.texts == ["by <KNOWN_VALUE> today", "short"]


def test_a_brand_in_many_rows_is_no_person_unless_it_stands_where_a_name_does(strict: Policy) -> None:
    """The data's own brand stands in each system prompt and sign-off, and the model alone takes it for a name."""
    policy = replace(strict, common_terms=frozenset({"veltrix"}))
    texts = ["You are the support agent of Veltrix.", "Yours, the Veltrix crew.", "Ich danke dem Team von Veltrix."]
    assert list(scrub_batch(texts, policy).texts) == texts
    named = ["Dear Rose Veltrix, hello.", "Ask Mr Veltrix about it.", "My name is Veltrix."]
    assert not any("Veltrix" in str(text) for text in scrub_batch(named, policy).texts)
