"""A rollout that decides for itself: what it waits for, what aborts it, and that a kill leaves one share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest

from tasks.contracts.registry import RegisteredVersion, RolloutVerdict
from tasks.core.errors import ConfigError
from tasks.registry.aliases import promote
from tasks.registry.config import AbortCondition, LiveSignal, RolloutConfig, RolloutStep, WatchConfig
from tasks.registry.journal import complete_pending_change, read_events
from tasks.registry.live import read_traffic, tick_rollout
from tasks.registry.live_signals import EventCount, VersionWindow
from tasks.registry.rollout import Rollout, rollout_in, start
from tasks.registry.rollout_verdict import weigh
from tests.support.candidates import decide
from tests.tasks.registry.test_aliases import Mortal, _KilledError

NOW = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
WATCH = WatchConfig(
    signals=(LiveSignal(name="error_rate"), LiveSignal(name="thumbs_down_rate", max_odds_ratio=1.5)), min_requests=500
)
PLAN = RolloutConfig(
    at_promotion=True,
    steps=(RolloutStep(share=5, bake_hours=4), RolloutStep(share=25, bake_hours=2), RolloutStep(share=100)),
    watch=WATCH,
)


def at(hours: float) -> dt.datetime:
    return NOW + dt.timedelta(hours=hours)


def hour(
    number: float,
    version: str,
    requests: int,
    errors: int,
    down: int = 0,
    ratings: int | None = None,
    length: float = 1.0,
) -> VersionWindow:
    rated = requests // 5 if ratings is None else ratings
    return VersionWindow(
        version=version,
        start=at(number),
        end=at(number + length),
        requests=requests,
        signals={
            "error_rate": EventCount(events=errors, trials=requests),
            "thumbs_down_rate": EventCount(events=down, trials=rated),
        },
    )


def traffic(hours: Sequence[int], requests: int = 200, errors: int = 2, share: int = 5) -> list[VersionWindow]:
    """Windows in which both versions fail at a rate of 1 %, but for the errors given."""
    champion = requests * (100 - share) // share
    return [w for h in hours for w in (hour(h, "2", requests, errors), hour(h, "1", champion, champion // 100))]


RARELY_RATED = [hour(h, *side) for h in range(4) for side in (("2", 200, 2, 0, 9), ("1", 3_800, 38, 0, 9))]


def look(windows: Sequence[VersionWindow], hours: float, plan: RolloutConfig = PLAN) -> RolloutVerdict:
    return weigh(start(plan, "1", NOW.isoformat()), "2", windows, at(hours).isoformat())


# ---------------------------------------------------------------------------------------------------------------- verdict


def test_a_healthy_version_advances_once_it_was_watched_for_long_enough() -> None:
    for hours in range(4):
        verdict = look(traffic(range(hours)), hours)
        assert verdict.action == "wait", hours
    verdict = look(traffic(range(4)), 4)
    assert (verdict.action, verdict.reason) == ("advance", "no signal is shown to exceed its limit")
    assert [(reading.name, reading.events, reading.trials) for reading in verdict.readings] == [
        ("error_rate", 8, 800),
        ("thumbs_down_rate", 0, 160),
    ]


@pytest.mark.parametrize(
    ("windows", "hours", "reason"),
    [
        ([], 9, "0 of 500 requests at 5 %"),
        (traffic(range(3)), 9, "3.0 h of windows"),  # the bake time is over, the counts stopped
        (traffic(range(9)), 3, "bake time lasts until 2026-11-02T04:00"),
        (traffic(range(4), requests=100), 4, "400 of 500 requests"),
        (traffic(range(4), share=50), 4, "the new version got 50.0% of the requests, not 5 %"),
        ([w for w in traffic(range(4)) if w.version == "2"], 4, "0.0 h of windows"),
        ([w for w in traffic(range(4)) if w.version == "1"], 4, "0 of 500 requests"),
        ([w.model_copy(update={"signals": {}}) for w in traffic(range(4))], 4, "error_rate was counted 0 times"),
        (
            RARELY_RATED,
            4,
            "thumbs_down_rate was counted 36",
        ),
        (traffic(range(-9, 0)), 4, "0.0 h of windows"),  # before the rollout
        ([hour(h, v, 200, 2) for h in range(4) for v in ("2", "3")], 4, "0.0 h of windows"),  # another champion
    ],
)
def test_what_is_missing_is_waited_for(windows: list[VersionWindow], hours: float, reason: str) -> None:
    verdict = look(windows, hours)
    assert verdict.action == "wait"
    assert reason in verdict.reason


def test_a_step_without_traffic_needs_its_bake_time_alone() -> None:
    plan = PLAN.model_copy(update={"steps": (RolloutStep(share=0, bake_hours=1), RolloutStep(share=100))})
    assert look([], 0.5, plan).action == "wait"
    assert look([], 1, plan).action == "advance"


def test_limits_on_typed_figures_leave_the_advance_to_a_person() -> None:
    plan = PLAN.model_copy(update={"abort_when": (AbortCondition(metric="csat", below=4),)})
    assert look(traffic(range(4)), 4, plan).action == "wait"
    assert look(traffic(range(2), errors=60), 2, plan).action == "abort"


def test_a_worse_version_is_aborted_before_its_bake_time_is_over() -> None:
    verdict = look(traffic(range(1), errors=40), 1)
    assert verdict.action == "abort"
    assert verdict.reason.startswith("error_rate: 40 of 200 against 38 of 3,800, odds at least ")
    assert verdict.reason.endswith("times the champion's, limit 1.25")


@pytest.mark.parametrize("errors", [0, 1, 3])
def test_a_better_or_an_equal_version_is_not_aborted(errors: int) -> None:
    assert look(traffic(range(20), errors=errors), 20).action == "advance"


def test_an_outage_of_both_versions_aborts_nothing() -> None:
    outage = [w for h in range(2) for w in (hour(h, "2", 200, 160), hour(h, "1", 3_800, 3_040))]
    assert look([*outage, *traffic(range(2, 4))], 4).action == "advance"


def test_a_difference_too_small_to_matter_aborts_nothing() -> None:
    rare = [w for h in range(4) for w in (hour(h, "2", 50_000, 100), hour(h, "1", 950_000, 950))]
    assert look(rare, 4).action == "abort"
    signals = (LiveSignal(name="error_rate", max_difference=0.002),)
    tolerant = PLAN.model_copy(update={"watch": WATCH.model_copy(update={"signals": signals})})
    assert look(rare, 4, tolerant).action == "advance"


def test_a_window_that_is_not_over_counts_later() -> None:
    assert look(traffic(range(1), errors=40), 0.5).readings[0].trials == 0


def test_a_window_in_which_the_share_changed_is_left_out() -> None:
    moved = start(PLAN, "1", at(-0.5).isoformat())
    change = moved.changes[0].model_copy(update={"at": at(0.5).isoformat(), "share": 25, "note": "advanced"})
    moved = moved.model_copy(update={"share": 25, "since": at(0.5).isoformat(), "changes": (*moved.changes, change)})
    verdict = weigh(moved, "2", traffic(range(2), errors=40), at(2).isoformat())
    assert verdict.readings[0].trials == 200


def test_evidence_is_kept_from_step_to_step_and_forgotten_after_a_new_start() -> None:
    first = start(PLAN, "1", NOW.isoformat())
    change = first.changes[0].model_copy(update={"at": at(4).isoformat(), "share": 25, "note": "advanced"})
    second = first.model_copy(update={"share": 25, "since": at(4).isoformat(), "changes": (*first.changes, change)})
    assert weigh(second, "2", traffic(range(5), errors=1), at(5).isoformat()).readings[0].trials == 1_000
    again = start(PLAN, "1", at(4).isoformat(), first.model_copy(update={"state": "aborted", "share": 0}))
    assert weigh(again, "2", traffic(range(5), errors=1), at(5).isoformat()).readings[0].trials == 200


def test_a_rollout_that_watches_nothing_says_so() -> None:
    with pytest.raises(ConfigError, match="at least one signal"):
        look([], 1, PLAN.model_copy(update={"watch": WatchConfig()}))


def test_a_tag_of_an_earlier_release_still_reads() -> None:
    tag = start(PLAN, "1", NOW.isoformat()).model_dump(mode="json")
    del tag["watch"]
    assert Rollout.model_validate(tag).watch == WatchConfig()


def test_the_largest_plan_fits_into_a_tag() -> None:
    signals = tuple(LiveSignal(name=f"signal_{number:02}_{'x' * 39}") for number in range(12))
    steps = tuple(RolloutStep(share=share, bake_hours=8_760.0) for share in range(81, 101))
    plan = RolloutConfig(steps=steps, watch=WatchConfig(signals=signals))
    assert len(start(plan, "1", NOW.isoformat()).model_dump_json()) < 8_000


# --------------------------------------------------------------------------------------------------------------- registry


@pytest.fixture
def rolled(client: Any, name: str) -> str:
    return begin(client, name)


def begin(client: Any, name: str) -> str:
    """Version 2 beside champion 1."""
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, "somewhere")
    client.set_registered_model_alias(name, "champion", "1")
    candidate = RegisteredVersion(name=name, version="2", run_id="", source_uri="somewhere")
    promote(client, name, candidate, decide(champion="1"), NOW.isoformat(), plan=PLAN)
    return name


def state(client: Any, name: str) -> tuple[dict[str, str], int]:
    """The aliases, and the share of the version under ``rollout``: all that a router reads."""
    aliases = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    found = rollout_in(client.get_model_version(name, aliases["rollout"]).tags) if "rollout" in aliases else None
    return aliases, found.share if found else 0


def test_a_rollout_runs_to_the_end_by_itself(client: Any, rolled: str) -> None:
    windows = [*traffic(range(4)), *traffic(range(4, 8), requests=400, errors=4, share=25)]
    seen = []
    for hours in range(1, 9):
        _, verdict = tick_rollout(client, rolled, windows[: 2 * hours], at(hours).isoformat())
        seen.append((verdict.action, state(client, rolled)[1]))
        _, repeated = tick_rollout(client, rolled, windows[: 2 * hours], at(hours).isoformat())
        assert repeated.action in ("wait", "none"), "a look is never worth two steps"
    assert seen == [("wait", 5)] * 3 + [("advance", 25)] + [("wait", 25), ("advance", 0)] + [("none", 0)] * 2
    assert state(client, rolled)[0] == {"champion": "2", "previous": "1"}
    assert [event.action for event in read_events(client, rolled)] == ["rollout", "promote"]


def test_a_bad_version_is_taken_back_by_itself(client: Any, rolled: str) -> None:
    traffic_now, verdict = tick_rollout(client, rolled, traffic(range(1), errors=40), at(1).isoformat())
    assert (verdict.action, traffic_now.champion) == ("abort", "1")
    assert state(client, rolled) == ({"champion": "1", "challenger": "2"}, 0)
    assert "error_rate: 40 of 200" in read_events(client, rolled)[-1].reason
    _, again = tick_rollout(client, rolled, traffic(range(1), errors=40), at(1).isoformat())
    assert again.action == "none"


@pytest.mark.parametrize("action", ["advance", "complete", "abort"])
def test_a_kill_between_any_two_writes_leaves_one_share(client: Any, name: str, action: str) -> None:
    windows, death, survived = [*traffic(range(4)), *traffic(range(4, 8), requests=400, errors=4, share=25)], 0, False
    if action == "abort":
        windows = traffic(range(4), errors=40)
    before, after, hours = {
        "advance": (({"champion": "1", "rollout": "2"}, 5), ({"champion": "1", "rollout": "2"}, 25), 4),
        "complete": (({"champion": "1", "rollout": "2"}, 25), ({"champion": "2", "previous": "1"}, 0), 6),
        "abort": (({"champion": "1", "rollout": "2"}, 5), ({"champion": "1", "challenger": "2"}, 0), 4),
    }[action]
    while not survived:
        death += 1
        model = begin(client, f"{name}-{death}")
        if action == "complete":
            tick_rollout(client, model, windows, at(4).isoformat())
        try:
            tick_rollout(Mortal(client, death), model, windows, at(hours).isoformat())
            survived = True
        except _KilledError:
            complete_pending_change(client, model)
            assert state(client, model) in (before, after), "one share and one truth"
        tick_rollout(client, model, windows, at(hours).isoformat())
        assert state(client, model) == after
        assert read_traffic(client, model).champion == ("2" if action == "complete" else "1")
    assert death > 1
