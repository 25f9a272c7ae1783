"""A promotion record, and a look at a rollout, as the run's page shows them."""

from __future__ import annotations

from tasks.contracts.registry import PromotionRecord, RolloutTick, SignalReading


def describe_outcome(record: PromotionRecord) -> str:
    """What became of the candidate, in a sentence."""
    champion = f"champion is {record.champion_version or 'none'}"
    if record.promoted:
        outcome = "is champion"
    elif record.rollout_share is not None:
        outcome = f"starts its rollout with {record.rollout_share} % of the traffic; {champion}"
    elif record.approval is not None and record.approval.verdict is None:
        outcome = f"awaits a person's approval; {champion}"
    else:
        outcome = f"is registered and not promoted; {champion}"
    return f"version {record.candidate.version} {outcome}"


def alias_table(record: PromotionRecord) -> str:
    """The aliases as a Markdown table, and the reason."""
    rows = [("champion", record.champion_version or "none"), ("previous", record.previous_version or "none")]
    if record.rollout_share is not None:
        rows.append((f"rollout, {record.rollout_share} %", record.candidate.version))
    lines = ["| alias | version |", "|---|---|", *(f"| {alias} | {version} |" for alias, version in rows)]
    return "\n".join([*lines, "", record.reason])


def describe_tick(tick: RolloutTick) -> str:
    """What one look at a rollout did, in a sentence."""
    verdict = tick.verdict
    if verdict.action == "none":
        return f"{tick.name}: {verdict.reason}"
    done = {
        "advance": f"advances to {tick.share} %",
        "wait": f"stays at {tick.share} %",
        "abort": f"is aborted; version {tick.champion} has all the traffic",
    }
    return f"version {tick.version} {done[verdict.action]}: {verdict.reason}"


def tick_table(tick: RolloutTick) -> str:
    """The signals as a Markdown table, and what the look did."""
    header = ["| signal | new version | champion | odds ratio, at all looks | limit | |", "|---|---|---|---|---|---|"]
    rows = [f"| {' | '.join(signal_cells(reading))} |" for reading in tick.verdict.readings]
    return "\n".join([*(header + rows if rows else []), "", describe_tick(tick)])


def signal_cells(reading: SignalReading) -> tuple[str, ...]:
    """A signal's name, counts, bounds, limit and verdict as cells of a table."""
    low = f"{reading.low:.2f}" if reading.low is not None else "0"
    high = f"{reading.high:.2f}" if reading.high is not None else "unbounded"
    return (
        reading.name,
        f"{reading.events:,} of {reading.trials:,}",
        f"{reading.champion_events:,} of {reading.champion_trials:,}",
        f"{low} to {high}",
        f"{reading.limit:g}",
        "exceeded" if reading.exceeds else "not exceeded",
    )
