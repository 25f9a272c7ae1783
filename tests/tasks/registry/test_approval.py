"""A person's approval: requested once, answered once, about the champion that was benchmarked, and safe against kills."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.registry import Approval, ChampionEvent, RegisteredVersion
from tasks.core.errors import ClosedQuestionError, InputError, NotAnApproverError
from tasks.registry.aliases import promote, record_answer, roll_back
from tasks.registry.approval import (
    Answer,
    ApprovalTerms,
    approval_in,
    describe_approval,
    fault_of_answer,
    request_approval,
)
from tasks.registry.champion_history import champion_tenures, tenures
from tasks.registry.journal import champion_events, complete_pending_change, open_requests
from tests.support.candidates import decide
from tests.tasks.registry.test_aliases import Mortal, _KilledError

NOW, LATER, MUCH_LATER = "2026-11-01T02:00:00+00:00", "2026-11-01T09:00:00+00:00", "2026-11-09T02:00:00+00:00"
UNSURE = ApprovalTerms(when="when_unsure", timeout_hours=24)
ALWAYS = ApprovalTerms(when="always", timeout_hours=24)
YES = Answer(verdict="approve", name="Ann Lee", reason="Read twenty replies.")
NO = Answer(verdict="reject", name="Bo", reason="Too terse.")


@pytest.fixture
def versions(client: Any, name: str) -> list[RegisteredVersion]:
    """Version 1 is champion, 2 and 3 are candidates; a version's number is its place, from 1."""
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "somewhere")
    found = [RegisteredVersion(name=name, version=str(number), run_id="", source_uri="x") for number in (1, 2, 3)]
    promote(client, name, found[0], decide(), NOW)
    client.set_registered_model_alias(name, "challenger", "2")
    return found


def aliases(client: Any, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def tag(client: Any, name: str, version: str) -> Approval | None:
    return approval_in(client.get_model_version(name, version).tags)


# ------------------------------------------------------------------------------------------------- when it is required


@pytest.mark.parametrize(
    ("when", "outcome", "required"),
    [
        ("never", "NEEDS_HUMAN", False),
        ("never", "PROMOTE", False),
        ("when_unsure", "NEEDS_HUMAN", True),
        ("when_unsure", "PROMOTE", False),
        ("always", "NEEDS_HUMAN", True),
        ("always", "PROMOTE", True),
        ("always", "HOLD", False),
        ("when_unsure", "HOLD", False),
    ],
)
def test_when_approval_is_required(when: Any, outcome: str, required: bool) -> None:
    assert (request_approval(decide(outcome), ApprovalTerms(when=when), None, NOW) is not None) is required


def test_the_same_request_keeps_its_date_and_its_rejection() -> None:
    first = request_approval(decide("NEEDS_HUMAN", "1"), UNSURE, None, NOW)
    assert first is not None
    assert first.expires_at == "2026-11-02T02:00:00+00:00"
    assert request_approval(decide("NEEDS_HUMAN", "1"), UNSURE, first, LATER) == first
    assert request_approval(decide("NEEDS_HUMAN", "1"), UNSURE, NO.apply_to(first, LATER), LATER) == NO.apply_to(
        first, LATER
    )
    for before, decision in (
        (first, decide("NEEDS_HUMAN", "2")),
        (NO.apply_to(first, LATER), decide("NEEDS_HUMAN", "2")),
    ):
        renewed = request_approval(decision, UNSURE, before, LATER)
        assert renewed is not None
        assert (renewed.requested_at, renewed.verdict) == (LATER, None)
    expired = request_approval(decide("NEEDS_HUMAN", "1"), UNSURE, first, MUCH_LATER)
    assert expired is not None
    assert expired.requested_at == MUCH_LATER


@given(
    verdicts=st.lists(st.sampled_from([YES, NO]), min_size=2, max_size=6),
    hours=st.floats(0.01, 1000),
    late=st.booleans(),
)
def test_the_first_answer_counts_whatever_follows(verdicts: list[Answer], hours: float, late: bool) -> None:
    approval = request_approval(decide("NEEDS_HUMAN", "1"), ApprovalTerms(when="always", timeout_hours=hours), None, NOW)
    assert approval is not None
    moment = "2027-01-01T00:00:00+00:00" if late else NOW
    if late:
        assert fault_of_answer(approval, "1", verdicts[0], moment) is not None
        return
    approval = verdicts[0].apply_to(approval, moment)
    for answer in verdicts[1:]:
        assert (fault_of_answer(approval, "1", answer, moment) is None) is (answer.verdict == verdicts[0].verdict)


# ------------------------------------------------------------------------------------------------- requests and answers


@pytest.mark.parametrize(("outcome", "terms"), [("NEEDS_HUMAN", UNSURE), ("PROMOTE", ALWAYS)])
def test_an_approval_makes_champion_and_is_recorded(
    client: Any, name: str, versions: list[RegisteredVersion], outcome: str, terms: ApprovalTerms
) -> None:
    before = aliases(client, name)
    requested = promote(client, name, versions[1], decide(outcome, champion="1"), NOW, terms)
    assert (requested.promoted, aliases(client, name)) == (False, before)
    assert requested.approval is not None
    assert requested.approval.verdict is None
    assert client.get_model_version(name, "2").tags["perennial.promotion"] == requested.reason
    record = record_answer(client, name, versions[1], "1", YES, LATER)
    assert (record.promoted, record.champion_version, record.previous_version) == (True, "2", "1")
    assert record.approval == YES.apply_to(requested.approval, LATER) == tag(client, name, "2")
    assert aliases(client, name) == {"champion": "2", "previous": "1"}
    assert (champion_events(client, name)[-1].by, champion_events(client, name)[-1].reason) == (
        "Ann Lee",
        "Read twenty replies.",
    )
    again = record_answer(client, name, versions[1], "1", YES, MUCH_LATER)
    assert (again.promoted, again.approval) == (True, record.approval)
    assert len(champion_events(client, name)) == 2
    with pytest.raises(InputError, match="The first answer counts"):
        record_answer(client, name, versions[1], "1", NO, MUCH_LATER)


def test_a_rejection_moves_no_alias_and_is_not_requested_again(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    before = aliases(client, name)
    record = record_answer(client, name, versions[1], "1", NO, LATER)
    assert (record.promoted, aliases(client, name)) == (False, before)
    assert record.approval is not None
    assert (record.approval.verdict, record.approval.by) == ("reject", "Bo")
    again = promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), MUCH_LATER, UNSURE)
    assert (again.promoted, again.approval) == (False, record.approval)
    assert len(champion_events(client, name)) == 1


def test_an_answer_without_a_request_is_rejected(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[1], decide("HOLD", champion="1"), NOW, ALWAYS)
    with pytest.raises(InputError, match="no request for approval"):
        record_answer(client, name, versions[1], "1", YES, LATER)


def test_an_expired_request_cannot_be_answered(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    with pytest.raises(InputError, match="expired"):
        record_answer(client, name, versions[1], "1", YES, MUCH_LATER)
    assert aliases(client, name)["champion"] == "1"


def test_an_approval_is_about_the_champion_that_was_benchmarked(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    promote(client, name, versions[2], decide(champion="1"), NOW)
    before = aliases(client, name)
    for answer in (YES, NO):
        with pytest.raises(
            ClosedQuestionError, match="version 3 became champion, and version 2 was compared with version 1"
        ):
            record_answer(client, name, versions[1], "1", answer, LATER)
    assert aliases(client, name) == before
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="3"), NOW, UNSURE)
    with pytest.raises(
        InputError, match="comparison with champion version 3"
    ):  # the older run's evidence is about version 1
        record_answer(client, name, versions[1], "1", YES, LATER)
    assert record_answer(client, name, versions[1], "3", YES, LATER).champion_version == "2"


def test_a_candidate_that_is_evaluated_again_and_held_can_no_longer_be_approved(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    promote(client, name, versions[1], decide("HOLD", champion="1"), NOW, UNSURE)
    with pytest.raises(ClosedQuestionError, match="evaluated again: HOLD"):
        record_answer(client, name, versions[1], "1", YES, LATER)


@pytest.mark.parametrize("how", ["promotion", "approval", "rollback", "by hand"])
def test_another_champion_withdraws_every_request_that_it_outdates(
    client: Any, name: str, versions: list[RegisteredVersion], how: str
) -> None:
    if how == "rollback":
        promote(client, name, versions[2], decide(champion="1"), NOW)
    champion = "3" if how == "rollback" else "1"
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion=champion), NOW, UNSURE)
    if how == "promotion":
        promote(client, name, versions[2], decide(champion="1"), LATER)
    elif how == "approval":
        promote(client, name, versions[2], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
        record_answer(client, name, versions[2], "1", YES, LATER)
    elif how == "rollback":
        roll_back(client, name, "rude replies", LATER)
    else:
        client.set_registered_model_alias(name, "champion", "3")
    before = aliases(client, name)
    with pytest.raises(ClosedQuestionError):
        record_answer(client, name, versions[1], champion, YES, LATER)
    closed = tag(client, name, "2")
    assert closed is not None
    assert (closed.verdict, closed.by, closed.answered_at) == ("withdrawn", None, LATER)
    assert aliases(client, name) == before
    present = before["champion"]
    renewed = promote(client, name, versions[1], decide("NEEDS_HUMAN", champion=present), LATER, UNSURE)
    assert renewed.approval is not None
    assert renewed.approval.verdict is None, "compared with the new champion, it needs a new approval"
    assert record_answer(client, name, versions[1], present, YES, LATER).champion_version == "2"


def test_all_runs_that_wait_for_one_request_are_recorded(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    for run in ("a", "b", "b", None, "c"):
        terms = UNSURE.model_copy(update={"flow_run_id": run})
        promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, terms)
    found = tag(client, name, "2")
    assert found is not None
    assert (found.flow_run_id, found.also_waiting) == ("c", ("a", "b"))


def test_a_kill_between_any_two_steps_of_an_approval_is_completed_by_the_next_caller(client: Any, name: str) -> None:
    survived, death = False, 0
    while not survived:
        death += 1
        model = f"{name}-{death}"
        client.create_registered_model(model)
        for alias in ("champion", "challenger"):
            client.set_registered_model_alias(model, alias, client.create_model_version(model, "somewhere").version)
        candidate = RegisteredVersion(name=model, version="2", run_id="", source_uri="somewhere")
        promote(client, model, candidate, decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
        try:
            record_answer(Mortal(client, death), model, candidate, "1", YES, LATER)
            survived = True
        except _KilledError:
            assert "champion" in aliases(client, model)
        complete_pending_change(client, model)
        found = tag(client, model, "2")
        assert found is not None
        if death > 1:  # once it is written down, it is always completed, the approver's name included
            assert aliases(client, model) == {"champion": "2", "previous": "1"}
            assert (found.verdict, found.by) == ("approve", "Ann Lee")
        else:
            assert aliases(client, model) == {"champion": "1", "challenger": "2"}
            assert found.verdict is None
        record = record_answer(client, model, candidate, "1", YES, LATER)  # the person tries once more
        assert record.champion_version == "2"
        assert len(champion_events(client, model)) == 1
    assert death > 7


# ------------------------------------------------------------------------------------------------------------ who may answer

CY = Answer(verdict="approve", name="Cy", reason="Read ten more.", identity="token")
FOUR_EYES = UNSURE.model_copy(update={"required": 2, "excluded": "Dee"})
LISTED = UNSURE.model_copy(update={"approvers": ("Ann Lee", "Cy")})


def test_two_people_approve_and_both_stand_in_record_tag_and_history(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, FOUR_EYES)
    before = aliases(client, name)
    first = record_answer(client, name, versions[1], "1", YES, LATER)
    assert (first.promoted, aliases(client, name)) == (False, before)
    assert "1 of 2 approvals: Ann Lee (typed); not by Dee, who started the run" in first.reason
    again = record_answer(client, name, versions[1], "1", YES.model_copy(update={"name": " ann  LEE "}), LATER)
    assert again.approval is not None
    assert (again.promoted, len(again.approval.votes)) == (False, 1), "one person counts once, however the name is written"
    assert record_answer(client, name, versions[1], "1", CY, LATER).promoted
    found = tag(client, name, "2")
    assert found is not None
    assert (found.verdict, found.by) == ("approve", "Ann Lee (typed) and Cy (signed token)")
    assert [(vote.by, vote.identity, vote.reason) for vote in found.votes] == [
        ("Ann Lee", "typed", "Read twenty replies."),
        ("Cy", "token", "Read ten more."),
    ]
    assert champion_tenures(client, name)[-1].by == "Ann Lee (typed) and Cy (signed token)"
    assert "Ann Lee (typed) and Cy (signed token)" in client.get_model_version(name, "2").tags["perennial.promotion"]


def test_open_requests_are_found_over_all_models(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    client.set_model_version_tag(name, "2", "perennial.run_name", "desk-1")
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    promote(client, name, versions[2], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    record_answer(client, name, versions[2], "1", NO, LATER)
    found = [(version, run) for model, version, run, _ in open_requests(client) if model == name]
    assert found == [("2", "desk-1")]


def test_one_rejection_of_two_people_suffices(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, FOUR_EYES)
    record_answer(client, name, versions[1], "1", YES, LATER)
    record = record_answer(client, name, versions[1], "1", NO, LATER)
    assert record.approval is not None
    assert (record.promoted, record.approval.verdict, record.approval.by) == (False, "reject", "Bo")
    with pytest.raises(ClosedQuestionError):
        record_answer(client, name, versions[1], "1", CY, LATER)


@pytest.mark.parametrize(
    ("terms", "answer", "found", "expected"),
    [
        (LISTED, Answer(verdict="approve", name="Eve", reason="x"), "an answer by Eve", "one of Ann Lee, Cy"),
        (LISTED, Answer(verdict="reject", name="Eve", reason="x"), "an answer by Eve", "one of Ann Lee, Cy"),
        (FOUR_EYES, Answer(verdict="approve", name="DEE", reason="x"), "who started the run", "anybody else"),
        (UNSURE.model_copy(update={"excluded": "Ann Lee"}), YES, "who started the run", "anybody else"),
        (UNSURE.model_copy(update={"verified": True}), YES, "a name that was typed", "a token or a proxy"),
    ],
)
def test_an_answer_of_somebody_who_may_not_give_it_leaves_the_request_open(
    client: Any,
    name: str,
    versions: list[RegisteredVersion],
    terms: ApprovalTerms,
    answer: Answer,
    found: str,
    expected: str,
) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, terms)
    before = tag(client, name, "2")
    with pytest.raises(NotAnApproverError) as raised:
        record_answer(client, name, versions[1], "1", answer, LATER)
    assert found in raised.value.found
    assert expected in raised.value.expected
    assert tag(client, name, "2") == before
    assert record_answer(client, name, versions[1], "1", CY, LATER).approval is not None, "another may still answer"


def test_whoever_started_the_run_may_reject_it(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, FOUR_EYES)
    dee = Answer(verdict="reject", name="Dee", reason="The wrong rows.")
    assert record_answer(client, name, versions[1], "1", dee, LATER).approval.verdict == "reject"  # type: ignore[union-attr]


def test_the_terms_of_the_last_request_hold_and_a_vote_that_they_do_not_allow_is_dropped() -> None:
    decision = decide("NEEDS_HUMAN", "1")
    first = request_approval(decision, FOUR_EYES, None, NOW)
    assert first is not None
    voted = YES.apply_to(first, LATER)
    kept = request_approval(decision, FOUR_EYES.model_copy(update={"approvers": ("Ann Lee", "Cy")}), voted, LATER)
    dropped = request_approval(decision, FOUR_EYES.model_copy(update={"approvers": ("Bo", "Cy")}), voted, LATER)
    assert kept is not None
    assert dropped is not None
    assert ([vote.by for vote in kept.votes], dropped.votes) == (["Ann Lee"], ())


def test_a_kill_between_any_two_steps_of_a_second_approval_is_completed(client: Any, name: str) -> None:
    survived, death = False, 0
    while not survived:
        death += 1
        model = f"{name}-two-{death}"
        client.create_registered_model(model)
        for alias in ("champion", "challenger"):
            client.set_registered_model_alias(model, alias, client.create_model_version(model, "somewhere").version)
        candidate = RegisteredVersion(name=model, version="2", run_id="", source_uri="somewhere")
        promote(client, model, candidate, decide("NEEDS_HUMAN", champion="1"), NOW, FOUR_EYES)
        record_answer(client, model, candidate, "1", YES, LATER)
        try:
            record_answer(Mortal(client, death), model, candidate, "1", CY, LATER)
            survived = True
        except _KilledError:
            pass
        record = record_answer(client, model, candidate, "1", CY, LATER)  # the person tries once more
        found = tag(client, model, "2")
        assert found is not None
        assert (record.champion_version, found.verdict) == ("2", "approve")
        assert found.by == "Ann Lee (typed) and Cy (signed token)"
        assert len(champion_events(client, model)) == 1
    assert death > 7


def test_an_older_record_without_an_identity_is_shown_as_it_is() -> None:
    old = Approval(
        outcome="PROMOTE", champion_version=None, requested_at=NOW, verdict="approve", by="Ann", answered_at=LATER
    )
    assert describe_approval(old).startswith("Approved by Ann on")
    assert describe_approval(old.model_copy(update={"identity": "proxy"})).startswith(
        "Approved by Ann (authenticating proxy)"
    )


# ----------------------------------------------------------------------------------------------------------------- history


def test_champions_over_time(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    client.set_model_version_tag(name, "2", "perennial.run_name", "desk-20261101-020000")
    client.set_model_version_tag(name, "2", "perennial.gate.base.chrf", "+0.3000 [+0.2000, +0.4000] n=250")
    promote(client, name, versions[1], decide("NEEDS_HUMAN", champion="1"), NOW, UNSURE)
    record_answer(client, name, versions[1], "1", YES, LATER)
    roll_back(client, name, "rude replies", MUCH_LATER)
    first, second, third = champion_tenures(client, name)
    assert (first.version, first.by, first.ended) == ("1", "the gate", "replaced by version 2")
    assert (second.by, second.run_name, second.since, second.until) == (
        "Ann Lee (typed)",
        "desk-20261101-020000",
        LATER,
        MUCH_LATER,
    )
    assert second.scores == {"base.chrf": "+0.3000 [+0.2000, +0.4000] n=250"}
    assert second.ended == "rolled back to version 1: rude replies"
    assert (third.version, third.began, third.by, third.until) == ("1", "restored", "a rollback", None)


def test_there_is_no_history_before_the_first_champion(client: Any, name: str) -> None:
    assert champion_tenures(client, name) == ()


def test_a_deleted_version_keeps_its_place_in_the_history() -> None:
    event = ChampionEvent(action="promote", version="1", replaced=None, reason="Better.", at=NOW)
    (tenure,) = tenures([event], {})
    assert (tenure.version, tenure.run_name, tenure.scores) == ("1", None, {})
