"""Promotion is a compare-and-set, a second rollback undoes the first, and a kill between two steps changes no outcome."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from tasks.contracts.registry import RegisteredVersion
from tasks.core import paging
from tasks.core.errors import InputError, RegistryError
from tasks.core.storage import Store
from tasks.registry.aliases import plan_rollback, promote, roll_back
from tasks.registry.champion_history import champion_tenures
from tasks.registry.journal import champion_events, complete_pending_change
from tests.support.candidates import decide

NOW = "2026-11-01T02:00:00+00:00"


@pytest.fixture
def versions(client: Any, name: str, store: Store, tmp_path: Path) -> list[RegisteredVersion]:
    """Three registered candidates; the version's number is its place, from 1."""
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "somewhere")
    return [RegisteredVersion(name=name, version=str(number), run_id="", source_uri="x") for number in (1, 2, 3)]


def aliases(client: Any, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def test_the_first_champion_replaces_nobody(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    client.set_registered_model_alias(name, "challenger", "1")
    record = promote(client, name, versions[0], decide(), NOW)
    assert (record.promoted, record.champion_version, record.previous_version) == (True, "1", None)
    assert record.candidate.aliases == ("champion",)
    assert aliases(client, name) == {"champion": "1"}


def test_the_second_champion_makes_the_first_previous(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[0], decide(), NOW)
    record = promote(client, name, versions[1], decide(champion="1"), NOW)
    assert (record.promoted, record.champion_version, record.previous_version) == (True, "2", "1")
    assert aliases(client, name) == {"champion": "2", "previous": "1"}
    assert [(event.action, event.version, event.replaced) for event in champion_events(client, name)] == [
        ("promote", "1", None),
        ("promote", "2", "1"),
    ]


@pytest.mark.parametrize("outcome", ["HOLD", "NEEDS_HUMAN"])
def test_a_hold_is_recorded_and_moves_no_alias(
    client: Any, name: str, versions: list[RegisteredVersion], outcome: str
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    client.set_registered_model_alias(name, "challenger", "2")
    before = aliases(client, name)
    record = promote(client, name, versions[1], decide(outcome, champion="1"), NOW)
    assert (record.promoted, record.champion_version) == (False, "1")
    assert record.reason.startswith(f"{outcome}: Better than")
    assert aliases(client, name) == before
    assert client.get_model_version(name, "2").tags["perennial.promotion"] == record.reason
    assert len(champion_events(client, name)) == 1


def test_a_champion_that_changed_since_the_benchmark_is_an_error(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    for stale in ("1", None):
        with pytest.raises(RegistryError, match="with which version 3 was compared"):
            promote(client, name, versions[2], decide(champion=stale), NOW)
    assert aliases(client, name) == {"champion": "2", "previous": "1"}


def test_promoting_twice_is_promoting_once(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    again = promote(client, name, versions[1], decide(champion="1"), NOW)
    assert (again.promoted, again.champion_version, again.previous_version) == (True, "2", "1")
    assert len(champion_events(client, name)) == 2


def test_a_second_rollback_changes_nothing_and_a_named_version_comes_back(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    with pytest.raises(RegistryError, match="nothing to go back to"):
        roll_back(client, name, "too early", NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    record = roll_back(client, name, "rude replies", NOW)
    assert (record.champion_version, record.previous_version) == ("1", "2")
    assert aliases(client, name) == {"champion": "1", "previous": "2"}
    assert "rude replies" in client.get_model_version(name, "2").tags["perennial.rolled_back"]
    for reason in ("rude replies", "once more", "and again"):  # neither the same command nor another one brings it back
        assert plan_rollback(client, name).already
        record = roll_back(client, name, reason, NOW)
        assert (record.champion_version, record.reason[:20]) == ("1", "Nothing was changed:")
    assert len(champion_events(client, name)) == 3
    for _ in range(2):
        assert roll_back(client, name, "was a false alarm", NOW, to="2").champion_version == "2"
    assert "perennial.rolled_back" not in client.get_model_version(name, "2").tags
    assert [event.reason for event in champion_events(client, name)][2:] == ["rude replies", "was a false alarm"]


def test_each_rollback_goes_further_back_only_by_name(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    for number, version in enumerate(versions):
        promote(client, name, version, decide(champion=str(number) if number else None), NOW)
    assert roll_back(client, name, "rude replies", NOW).champion_version == "2"
    assert roll_back(client, name, "rude replies", NOW).champion_version == "2"
    assert roll_back(client, name, "that one too", NOW, to="1").champion_version == "1"
    shown = plan_rollback(client, name, "3")
    assert (shown.returns, shown.leaves, shown.already) == ("3", "1", False)
    assert roll_back(client, name, "after all", NOW, "Ann", shown).champion_version == "3"
    for unknown in ("9", "0", "latest"):
        with pytest.raises(RegistryError, match="champion before: 1, 2, 3"):
            plan_rollback(client, name, unknown)


def test_no_rollback_returns_to_a_version_that_was_rolled_back(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    roll_back(client, name, "rude replies", NOW)
    client.set_registered_model_alias(name, "champion", "3")  # by hand, past the journal
    with pytest.raises(RegistryError, match=r"previous version 2, which was rolled back .*rude replies"):
        roll_back(client, name, "worse still", NOW)
    assert aliases(client, name) == {"champion": "3", "previous": "2"}


def test_a_rollback_carries_out_the_shown_plan_and_records_the_person(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    client.set_model_version_tag(name, "1", "perennial.run_name", "desk-1")
    promote(client, name, versions[1], decide(champion="1"), NOW)
    shown = plan_rollback(client, name)
    assert (shown.returns, shown.leaves, shown.returns_run, shown.returns_since) == ("1", "2", "desk-1", NOW)
    promote(client, name, versions[2], decide(champion="2"), NOW)  # a change after the plan was shown
    with pytest.raises(RegistryError, match="version 2 to come back in place of version 3"):
        roll_back(client, name, "rude replies", NOW, "Ann", shown)
    assert aliases(client, name) == {"champion": "3", "previous": "2"}
    shown = plan_rollback(client, name)
    for _ in range(2):  # the same one again, after a kill or an outage, does not undo itself
        assert roll_back(client, name, "rude replies", NOW, "Ann", shown).champion_version == "2"
    assert aliases(client, name) == {"champion": "2", "previous": "3"}
    last = champion_events(client, name)[-1]
    assert (last.action, last.version, last.replaced, last.by) == ("rollback", "2", "3", "Ann")
    assert "by Ann: rude replies" in client.get_model_version(name, "2").tags["perennial.promotion"]
    tenure = champion_tenures(client, name)[-2]
    assert tenure.ended == "rolled back to version 2 by Ann: rude replies"


def test_a_version_rolled_back_is_not_promoted_again_automatically(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    roll_back(client, name, "rude replies", NOW)
    record = promote(client, name, versions[1], decide(champion="1"), NOW)  # the same run again, all of it cached
    assert (record.promoted, record.champion_version) == (False, "1")
    assert "rude replies" in record.reason
    assert promote(client, name, versions[2], decide(champion="1"), NOW).champion_version == "3"


def test_an_unknown_model_is_a_registry_error_and_has_no_history(client: Any, name: str) -> None:
    assert champion_events(client, name) == ()
    with pytest.raises(RegistryError):
        roll_back(client, name, "why not", NOW)


# ------------------------------------------------------------------------------------------------------- kills in between


class _KilledError(BaseException):
    """Stands for kill -9: nothing catches it."""


class Mortal:
    """A client that dies before its n-th write."""

    def __init__(self, client: Any, death: int) -> None:
        self._client, self._writes_left = client, death

    def __getattr__(self, attribute: str) -> Any:
        method = getattr(self._client, attribute)
        if not attribute.startswith(("set_", "delete_", "create_")):
            return method

        def write(*arguments: Any) -> Any:
            self._writes_left -= 1
            if self._writes_left == 0:
                raise _KilledError
            return method(*arguments)

        return write


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_kill_between_any_two_steps_is_completed_by_the_next_caller(client: Any, name: str, action: str) -> None:
    survived, death = False, 0
    while not survived:
        death += 1
        model = f"{name}-{death}"
        client.create_registered_model(model)
        for alias in ("previous", "champion", "challenger"):
            version = client.create_model_version(model, "somewhere").version
            client.set_registered_model_alias(model, alias, version)
        candidate = RegisteredVersion(name=model, version="3", run_id="", source_uri="somewhere")
        try:
            if action == "promote":
                promote(Mortal(client, death), model, candidate, decide(champion="2"), NOW)
            else:
                roll_back(Mortal(client, death), model, "rude replies", NOW)
            survived = True
        except _KilledError:
            assert {"champion", "previous"} <= set(aliases(client, model))  # at no moment is one of them missing
        complete_pending_change(client, model)
        begun = len(champion_events(client, model)) == 1
        assert begun is (death > 1)  # once it is written down, it is always completed
        done = {
            "promote": {"champion": "3", "previous": "2"},
            "rollback": {"champion": "1", "previous": "2", "challenger": "3"},
        }
        untouched = {"champion": "2", "previous": "1", "challenger": "3"}
        assert aliases(client, model) == (done[action] if begun else untouched)
        assert "perennial.intent" not in client.get_registered_model(model).tags
    assert death > 7  # each of the seven or more writes was a place to die


# ------------------------------------------------------------------------------- invalid texts and deleted versions


class Strict:
    """The client of a registry on PostgreSQL: no NUL in a text, and a registered model's tag ends at 5,000 characters."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, called: str) -> Any:
        real = getattr(self._client, called)

        def checked(*arguments: Any, **options: Any) -> Any:
            texts = [str(one) for one in (*arguments, *options.values())]
            if any("\x00" in text for text in texts) or (called == "set_registered_model_tag" and len(texts[2]) > 5000):
                raise MlflowException("(psycopg2.DataError) refused", error_code=INTERNAL_ERROR)
            return real(*arguments, **options)

        return checked


@pytest.mark.parametrize(
    "reason",
    ["rude\x00replies", "bell \x07", "\u202etsop", "lone \ud800", "", "  ", "x" * 1001],
    ids=["nul", "bell", "bidi", "surrogate", "empty", "blank", "long"],
)
def test_an_invalid_reason_is_rejected_before_anything_moves(
    client: Any, name: str, versions: list[RegisteredVersion], reason: str
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    before = dict(client.get_registered_model(name).tags)
    with pytest.raises(InputError) as error:
        roll_back(Strict(client), name, reason, NOW)
    assert dict(client.get_registered_model(name).tags) == before
    if reason.strip():
        assert reason not in str(error.value)


def test_a_pending_change_with_an_invalid_reason_is_completed(
    client: Any, name: str, versions: list[RegisteredVersion]
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    event = {"action": "rollback", "version": "1", "replaced": "2", "reason": "rude\x00" * 2000, "at": NOW}
    client.set_registered_model_tag(name, "perennial.intent", json.dumps({"number": 3, "event": event}))
    record = promote(Strict(client), name, versions[2], decide(champion="1"), NOW)
    assert record.champion_version == "3"
    assert aliases(client, name) == {"champion": "3", "previous": "1"}
    events = champion_events(client, name)
    assert [event.action for event in events] == ["promote", "promote", "rollback", "promote"]
    assert "\x00" not in events[2].reason


def test_reasons_of_a_gate_of_any_length_fit_the_registry(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    wordy = decide().model_copy(update={"reasons": tuple(f"Slice {number} is not worse." for number in range(500))})
    assert promote(Strict(client), name, versions[0], wordy, NOW).promoted


@pytest.mark.parametrize("gone", ["1", "2"])
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_version_deleted_within_a_change_blocks_nothing(
    client: Any, name: str, versions: list[RegisteredVersion], action: str, gone: str
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    event = {"action": action, "version": "2", "replaced": "1", "reason": "why", "at": NOW}
    client.set_registered_model_tag(name, "perennial.intent", json.dumps({"number": 2, "event": event}))
    client.delete_model_version(name, gone)
    complete_pending_change(client, name)
    champion = "2" if gone == "1" else "1"
    assert aliases(client, name) == {"champion": champion}
    record = promote(client, name, versions[2], decide(champion=champion), NOW)
    assert (record.promoted, record.previous_version) == (True, champion)


@pytest.mark.parametrize(("gone", "back"), [(["1"], "2"), (["2"], "1"), (["1", "2"], None)])
def test_the_history_keeps_versions_that_were_deleted(
    client: Any, name: str, versions: list[RegisteredVersion], gone: list[str], back: str | None
) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    for version in gone:
        client.delete_model_version(name, version)
    assert [tenure.version for tenure in champion_tenures(client, name)] == ["1", "2"]
    champion = None if "2" in gone else "2"
    record = promote(client, name, versions[2], decide(champion=champion), NOW)
    assert record.champion_version == "3"
    with pytest.raises(RegistryError, match="nothing to go back to") if back is None else nullcontext():
        assert roll_back(client, name, "rude replies", NOW).champion_version == back


def test_an_event_is_never_written_over_another(client: Any, name: str, versions: list[RegisteredVersion]) -> None:
    promote(client, name, versions[0], decide(), NOW)
    promote(client, name, versions[1], decide(champion="1"), NOW)
    client.delete_registered_model_tag(name, "perennial.event.000001")
    roll_back(client, name, "rude replies", NOW)
    assert [event.action for event in champion_events(client, name)] == ["promote", "rollback"]


def test_a_history_of_more_versions_than_a_page_is_whole(
    client: Any, name: str, versions: list[RegisteredVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", 2)
    for number, version in enumerate(versions):
        client.set_model_version_tag(name, version.version, "perennial.run_name", f"run-{number}")
        promote(client, name, version, decide(champion=str(number) if number else None), NOW)
    assert [tenure.run_name for tenure in champion_tenures(client, name)] == ["run-0", "run-1", "run-2"]
