"""How often a healthy canary is aborted, and how soon a worse one is, when somebody looks after every window.

Six signals at once, whose rates vary by day and night, each tested as `perennial rollout tick` does: an odds ratio beyond
the limit, at a sixth of alpha. Beside it an ordinary one-sided test of the pooled rates at the same looks and level.

    python benchmarks/canary.py [--canaries 1000] [--looks 200]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import astuple
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from tasks.stats.sequences import Table, conditional_log_likelihood, log_evidence, log_ratio_grid

RATES = (0.001, 0.005, 0.02, 0.05, 0.10, 0.30)
"""Guard hits, errors, refusals, escalations, replies beyond the champion's 95th percentile of latency, thumbs-down."""
ALPHA = 0.01
THRESHOLD = math.log(len(RATES) / ALPHA)


@lru_cache(maxsize=200_000)
def likelihood(table: Table, limit: float) -> np.ndarray:
    return conditional_log_likelihood(table, log_ratio_grid(limit))


def evidence_at(found: np.ndarray) -> np.ndarray:
    """The log e-value against the limit after each look: what :func:`log_evidence` has in its middle, for many looks."""
    middle = found.shape[1] // 2
    alternatives = found[:, middle + 1 : middle + 1 + 64]
    evidence = np.logaddexp.reduce(alternatives, axis=1) - math.log(64) - found[:, middle]
    assert math.isclose(evidence[-1], log_evidence(found[-1])[middle], abs_tol=1e-9)
    return evidence


def rate_at(base: float, look: int) -> float:
    """The rate of a window: between half and one and a half of the base, in a period of 24 windows."""
    return base * (1 + 0.5 * math.sin(2 * math.pi * look / 24))


def window(rng: np.random.Generator, rate: float, ratio: float, requests: int, share: float) -> Table:
    """One window; the canary's odds are ``ratio`` times the champion's, and the split itself is random."""
    trials = int(rng.binomial(requests, share))
    odds = ratio * rate / (1 - rate)
    return Table(
        int(rng.binomial(trials, odds / (1 + odds))),
        trials,
        int(rng.binomial(requests - trials, rate)),
        requests - trials,
    )


def is_naively_worse(total: np.ndarray) -> bool:
    """An ordinary pooled one-sided z test of the rates, at the same level."""
    events, trials, other_events, other_trials = total
    pooled = (events + other_events) / max(1, trials + other_trials)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / max(1, trials) + 1 / max(1, other_trials)))
    difference = events / max(1, trials) - other_events / max(1, other_trials)
    return spread > 0 and difference / spread > NormalDist().inv_cdf(1 - ALPHA / len(RATES))


def healthy(canaries: int, looks: int, share: float, limit: float, ratio: float, seed: int) -> tuple[int, int]:
    """The canaries that are aborted, by the sequence and by the ordinary test."""
    aborted = naive = 0
    for canary in range(canaries):
        rng = np.random.default_rng([seed, canary])
        sequence = ordinary = False
        for base in RATES:
            tables = [window(rng, rate_at(base, look), ratio, 500, share) for look in range(looks)]
            found = np.cumsum([likelihood(table, limit) for table in tables], axis=0)
            sequence = sequence or bool((evidence_at(found) >= THRESHOLD).any())
            ordinary = ordinary or any(map(is_naively_worse, np.cumsum([astuple(table) for table in tables], axis=0)))
        aborted, naive = aborted + sequence, naive + ordinary
    return aborted, naive


def requests_until_abort(base: float, factor: float, share: float, limit: float, canaries: int = 100) -> list[int]:
    """All requests, of both versions, until each canary whose rate is ``factor`` times the champion's is aborted."""
    size = max(20, round(20 / base))  # a look about every 20 events, so that the look itself costs little
    needed = []
    for canary in range(canaries):
        rng = np.random.default_rng([99, canary])
        found, look = np.zeros(len(log_ratio_grid(limit))), 0
        while float(log_evidence(found)[len(found) // 2]) < THRESHOLD and look < 5_000:
            rate = rate_at(base, look)
            worse = min(0.95, factor * rate)
            ratio = worse / (1 - worse) / (rate / (1 - rate))
            found = found + likelihood(window(rng, rate, ratio, size, share), limit)
            look += 1
        needed.append(look * size)
    return sorted(needed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--looks", type=int, default=200)
    arguments = parser.parse_args()
    print(
        f"{arguments.canaries} canaries, {arguments.looks} looks each, 500 requests a look, six signals, alpha {ALPHA:g}\n"
    )
    print("| canary | share | limit | aborted | by an ordinary test at every look |\n|---|---|---|---|---|")
    for name, ratio, share, limit in (
        ("equal to the champion", 1.0, 0.05, 1.0),
        ("equal to the champion", 1.0, 0.25, 1.0),
        ("equal to the champion", 1.0, 0.05, 1.25),
        ("exactly at the limit", 1.25, 0.05, 1.25),
    ):
        aborted, naive = healthy(arguments.canaries, arguments.looks, share, limit, ratio, 1)
        shares = f"{aborted / arguments.canaries:.1%} | {naive / arguments.canaries:.1%}"
        print(f"| {name} | {share:.0%} | {limit:g} | {shares} |", flush=True)
    print("\nRequests to both versions until the abort: median, and 95 % of 100 canaries\n")
    print("| champion's rate | times | share | limit 1.0 | limit 1.25 |\n|---|---|---|---|---|")
    for base, factor, share in (
        (0.005, 2, 0.05), (0.02, 2, 0.05), (0.05, 2, 0.05), (0.10, 2, 0.05),
        (0.02, 1.5, 0.05), (0.02, 3, 0.05), (0.02, 5, 0.05), (0.02, 10, 0.05),
        (0.02, 2, 0.01), (0.02, 2, 0.25), (0.02, 2, 0.50),
    ):  # fmt: skip
        cells = []
        for limit in (1.0, 1.25):
            needed = requests_until_abort(base, factor, share, limit)
            cells.append(f"{needed[50]:,} / {needed[94]:,}")
        print(f"| {base:.1%} | {factor:g} | {share:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
