"""`perennial history`: the champions of a model over time, as lines for a terminal."""

from __future__ import annotations

from tasks.registry import RegistryConfig

Lines = list[tuple[str, ...]]


def history_blocks(config: RegistryConfig) -> list[tuple[str, Lines]]:
    """Champions over time, oldest first: a title and lines for each tenure; empty without a champion."""
    from tasks.registry.champion_history import champion_tenures
    from tasks.tracking import connect

    blocks: list[tuple[str, Lines]] = []
    for tenure in champion_tenures(connect(), config.registered_name):
        until = f"until {minute_of(tenure.until)}" if tenure.until else "until now"
        lines: Lines = [(tenure.began, f"by {tenure.by}"), ("run", tenure.run_name or "no longer known")]
        lines += [("gate", f"{figures} against {name.partition('.')[0]}") for name, figures in tenure.scores.items()]
        if len(tenure.verdicts) > 1:
            said = (f"{verdict.outcome} by {verdict.primary_metric} in {verdict.run_name}" for verdict in tenure.verdicts)
            lines += [("verdict", each) for each in said]
        lines += [("then", tenure.ended)] if tenure.ended else []
        blocks.append((f"Version {tenure.version}, champion since {minute_of(tenure.since)} {until}", lines))
    return blocks


def minute_of(moment: str) -> str:
    """An ISO 8601 time to the minute, for a person."""
    return moment[:16].replace("T", " ")
