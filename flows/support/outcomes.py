"""The outcome of a run as the name and message of its final state: Prefect's lists of runs then show it."""

from __future__ import annotations

from typing import cast

from prefect import State
from prefect.states import Completed

from tasks.contracts.registry import RolloutTick
from tasks.contracts.run import RetrainOutcome
from tasks.dossier.formatting import interval, metric_name, signed
from tasks.registry.page import describe_tick

OUTCOMES = ("Promoted", "RollsOut", "Passed", "Held", "Rejected", "Asked", "Advanced", "Aborted")
"""Names of completed states. Prefect's events carry the name: an automation that waits for a run's end lists them all."""
_DECIDED = {"PROMOTE": "Passed", "HOLD": "Held", "NEEDS_HUMAN": "Asked"}
_ALL = 100
_OPPONENTS = ("champion", "base")


def shown_as_state(outcome: RetrainOutcome) -> RetrainOutcome:
    """The outcome as the flow's return value; callers and readers of the result get the outcome itself.

    Prefect sets a returned state as the run's, and resolves it to its data for whoever called the flow.
    """
    state: State[RetrainOutcome] = Completed(name=name_of_outcome(outcome), message=message_of(outcome), data=outcome)
    return cast(RetrainOutcome, state)


def tick_as_state(tick: RolloutTick) -> RolloutTick:
    """One look at a rollout as the flow's return value, see :func:`shown_as_state`."""
    name = {"abort": "Aborted", "advance": "Promoted" if tick.share == _ALL else "Advanced"}.get(tick.verdict.action)
    state: State[RolloutTick] = Completed(name=name, message=describe_tick(tick), data=tick)
    return cast(RolloutTick, state)


def name_of_outcome(outcome: RetrainOutcome) -> str:
    """One of :data:`OUTCOMES`; until another run promotes, it says what the gate decided."""
    record = outcome.promotion
    if record is None:
        return _DECIDED[outcome.decision.outcome]
    if record.rollout_share is not None:
        return "RollsOut"
    if record.promoted:
        return "Promoted"
    if record.approval is not None and record.approval.verdict is None:
        return "Asked"
    return "Rejected" if record.approval is not None and record.approval.verdict == "reject" else "Held"


def message_of(outcome: RetrainOutcome) -> str:
    """The figure that decided and the main reason; names and figures only."""
    decision = outcome.decision
    primary = {one.opponent: one for one in decision.comparisons if one.metric == decision.primary_metric}
    parts = []
    opponent = next((primary[name] for name in _OPPONENTS if name in primary), None)
    if opponent is not None:
        limits = interval(opponent.low, opponent.high)
        against = f"against the {opponent.opponent}{' model' if opponent.opponent == 'base' else ''}"
        parts.append(
            f"{signed(opponent.difference)} {metric_name(opponent.metric)} {against} (95\u00a0% interval {limits})."
        )
    parts += [outcome.promotion.reason] if outcome.promotion is not None else list(decision.reasons[:1])
    if outcome.promoted_by:
        parts.append(f"The run {outcome.promoted_by} registers it.")
    return " ".join(parts)
