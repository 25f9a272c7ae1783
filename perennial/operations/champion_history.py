"""`perennial history`: the champions of a model over time, as lines for a terminal."""

from __future__ import annotations

from tasks.registry.champion_history import ChampionTenure

Lines = list[tuple[str, ...]]


def history_block(tenure: ChampionTenure) -> tuple[str, Lines]:
    """A title and lines for the time in which one version was champion."""
    until = f"until {minute_of(tenure.until)}" if tenure.until else "until now"
    lines: Lines = [(tenure.began, f"by {tenure.by}"), ("run", tenure.run_name or "no longer known")]
    lines += [("gate", f"{figures} against {name.partition('.')[0]}") for name, figures in tenure.scores.items()]
    if len(tenure.verdicts) > 1:
        said = (f"{verdict.outcome} by {verdict.primary_metric} in {verdict.run_name}" for verdict in tenure.verdicts)
        lines += [("verdict", each) for each in said]
    lines += [("then", tenure.ended)] if tenure.ended else []
    return f"Version {tenure.version}, champion since {minute_of(tenure.since)} {until}", lines


def minute_of(moment: str) -> str:
    """An ISO 8601 time to the minute, for a person."""
    return moment[:16].replace("T", " ")
