"""Which values are probed: only those that memory alone could bring up, and canaries only where they were planted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.redteam.canaries import decoys_of, make_canaries
from tasks.redteam.memory import MIN_DECOYS, canary_probes, found_value_probes

SIZES = {"num_decoys": 15, "seed": 3}


def row(number: int, question: str, answer: str) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
    }


def finding(row: dict[str, Any], value: str, entity: str = "PHONE_NUMBER") -> dict[str, Any]:
    for index, message in enumerate(row["messages"]):
        if value in message["content"]:
            start = message["content"].index(value)
            field = f"messages.{index}.content"
            return {"id": row["id"], "field": field, "start": start, "end": start + len(value), "entity": entity}
    raise AssertionError(value)


def numbered(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = [
        row(n, "How do I reach the workshop?", f"The workshop answers on 0{n:02d} 496 {7000 + 13 * n}.")
        for n in range(count)
    ]
    return rows, [finding(row_, f"0{n:02d} 496 {7000 + 13 * n}") for n, row_ in enumerate(rows)]


def test_canaries_are_probed_only_where_they_were_planted() -> None:
    canaries = make_canaries(6, 3)
    assert canary_probes([row(1, "Hi", "Hello")], count=6, **SIZES) == []
    probes = canary_probes([canary.row() for canary in canaries[:4]], count=6, **SIZES)
    assert [probe.kind for probe in probes] == ["planted"] * 4 + ["control"] * 4
    assert {probe.value.strip() for probe in probes[:4]} == {canary.value for canary in canaries[:4]}
    assert all(len(probe.decoys) == 15 and probe.value not in probe.decoys for probe in probes)


@given(seed=st.integers(0, 10**9), count=st.integers(1, 40))
def test_canaries_repeat_for_a_seed_and_differ_between_seeds(seed: int, count: int) -> None:
    canaries = make_canaries(count, seed)
    assert canaries == make_canaries(count, seed)
    assert not {canary.id for canary in canaries} & {canary.id for canary in make_canaries(count, seed + 1)}
    assert len(set(decoys_of(canaries[0], 63, seed))) == 63


def test_a_found_value_competes_with_those_of_other_rows() -> None:
    rows, findings = numbered(12)
    probes = found_value_probes(rows, findings, limit=3, **SIZES)
    assert len(probes) == 3
    values = {rows[n]["messages"][1]["content"][24:-1] for n in range(12)}
    for probe in probes:
        assert probe.prefix == "The workshop answers on"
        assert probe.value.startswith(" 0")
        assert len(probe.decoys) >= MIN_DECOYS
        assert {decoy.strip() for decoy in probe.decoys} <= values - {probe.value.strip()}


def test_the_choice_does_not_depend_on_the_order_of_findings() -> None:
    rows, findings = numbered(12)
    assert found_value_probes(rows, findings, limit=4, **SIZES) == found_value_probes(
        rows[::-1], findings[::-1], limit=4, **SIZES
    )


def test_values_that_prove_nothing_are_left_out() -> None:
    shown = row(1, "I am Tavilo Renusa, where is my parcel?", "It was left with the neighbour, dear Tavilo Renusa.")
    short = row(2, "Who is it?", "The desk is run by a man called Bo Li.")
    early = row(3, "Who is it?", "Tavilo Renusa runs the desk.")
    place = row(4, "Where?", "The warehouse stands at the edge of Springfield.")
    findings = [
        finding({**shown, "messages": [{"role": "user", "content": ""}, shown["messages"][1]]}, "Tavilo Renusa", "PERSON"),
        finding(short, "Bo Li", "PERSON"),
        finding(early, "Tavilo Renusa", "PERSON"),
        finding(place, "Springfield", "LOCATION"),
        {"id": "gone", "field": "messages.1.content", "start": 0, "end": 9, "entity": "PERSON"},
        {"id": "r4", "field": "context", "start": 0, "end": 9, "entity": "PERSON"},
    ]
    assert found_value_probes([shown, short, early, place], findings, limit=9, **SIZES) == []


def test_a_value_in_an_earlier_call_or_in_a_tool_is_no_memory() -> None:
    asked = row(1, "Which number does the workshop have?", "The workshop answers on 030 496 7213.")
    call = {"id": "call00000", "name": "ring", "arguments": '{"number": "030 496 7213"}'}
    turns = [
        asked["messages"][0],
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "busy", "tool_call_id": "call00000"},
        asked["messages"][1],
    ]
    called = {**asked, "messages": turns}
    stated = {**asked, "id": "r2", "tools": ['{"function": {"name": "ring", "description": "Rings 030 496 7213."}}']}
    assert len(found_value_probes([asked], [finding(asked, "030 496 7213")], limit=1, **SIZES)) == 1
    for shown in (called, stated):
        assert found_value_probes([shown], [finding(shown, "030 496 7213")], limit=1, **SIZES) == []
    others, findings = numbered(12)
    own = row(20, "Which number does the workshop have?", "The workshop answers on 040 5551 9999.")
    calling = {**own, "messages": [turns[0], {**turns[1], "tool_calls": [call]}, turns[2], own["messages"][1]]}
    probes = found_value_probes(
        [calling, asked, *others],
        [finding(calling, "040 5551 9999"), finding(asked, "030 496 7213"), *findings],
        limit=99,
        **SIZES,
    )
    [probe] = [probe for probe in probes if probe.id.startswith("r20")]
    assert all("7213" not in decoy for decoy in probe.decoys)


def test_values_in_replies_go_first() -> None:
    called = row(50, "Please call me back on the number 0171 496 1234 after six.", "We will.")
    rows, findings = numbered(2)
    probes = found_value_probes([called, *rows], [finding(called, "0171 496 1234"), *findings], limit=3, **SIZES)
    assert [probe.id.split(":")[0] for probe in probes][2] == "r50"
    assert len(probes[0].decoys) < MIN_DECOYS


def test_a_name_that_is_said_openly_proves_nothing_and_a_number_always_does() -> None:
    person = row(1, "Who signed for it?", "It was signed for by Tavilo Renusa.")
    product = row(2, "Which lamp is it?", "It can only be the Lumo Vexar.")
    again = row(3, "Which is the best?", "We like the Lumo Vexar most.")
    single = row(4, "Who is the courier?", "The courier that day was Hulakopera.")
    number = row(5, "Which number?", "You can ring 0171 496 1234.")
    openly = row(6, "Which number?", "Everybody knows 0171 496 1234 here.")
    findings = [
        finding(person, "Tavilo Renusa", "PERSON"),
        finding(product, "Lumo Vexar", "PERSON"),
        finding(single, "Hulakopera", "PERSON"),
        finding(number, "0171 496 1234"),
    ]
    probes = found_value_probes([person, product, again, single, number, openly], findings, limit=9, **SIZES)
    assert {probe.value.strip() for probe in probes} == {"Tavilo Renusa", "0171 496 1234"}
