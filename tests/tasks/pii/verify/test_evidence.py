"""Canary recall measures what it is given, and the reviewer's sample depends on the rows alone."""

from __future__ import annotations

from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.pii.verify.evidence import ScrubbedText, Scrubber, measure_canaries, sample_rows


def scrubber(policy: Policy) -> Scrubber:
    def scrub(texts: list[str]) -> list[ScrubbedText]:
        result = scrub_batch(texts, policy)
        return [(text, result.replacements.get(index, ())) for index, text in enumerate(result.texts)]

    return scrub


def test_canary_recall_falls_when_something_is_kept(turbo: Policy) -> None:
    recall, counts = measure_canaries(scrubber(turbo), 200, seed=1)
    assert recall.value is not None
    assert recall.low is not None
    assert recall.low < recall.value
    assert recall.value > 0.95
    assert sum(planted for planted, _ in counts.values()) == 200
    lax = Policy(PiiConfig(mode="turbo", operators={"EMAIL_ADDRESS": "keep"}))
    assert measure_canaries(scrubber(lax), 200, seed=1)[1]["EMAIL_ADDRESS"][1] > 0


def test_surrogates_do_not_count_as_leaks() -> None:
    recall, _ = measure_canaries(scrubber(Policy(PiiConfig(mode="turbo", operator="surrogate"), key=b"k")), 200, seed=1)
    assert recall.value is not None
    assert recall.value > 0.95


def test_the_sample_depends_on_the_rows_alone() -> None:
    rows = [{"id": str(number), "messages": [{"role": "user", "content": "x"}]} for number in range(50)]
    assert sample_rows(rows, 5, 1) == sample_rows(rows[::-1], 5, 1)
    assert len(sample_rows(rows, 500, 1)) == 50
