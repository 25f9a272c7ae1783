"""The same benchmark and decision again and again, beside busy processes: what the clock says, and what is decided.

Every run begins with an empty store, so nothing is kept. A tiny pretrained model takes the candidate's part, and two
of its size that learned less those of base and champion, so the candidate is better and no slower. The table shows
what a guard on kept latencies would have compared, the 95th percentile of the candidate's times over that of the first run's
champion; what the models timed in turns show, with the champion against itself; and the decision. Run it as::

    python benchmarks/decision_under_load.py --runs 20 --busy 4
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.benchmark import BenchmarkConfig, LatencyConfig, score_model, time_in_turns
from tasks.contracts.evaluation import ArmScores, BenchmarkReport, LatencyRounds, PromotionDecision
from tasks.contracts.registry import Champion, RegisteredVersion
from tasks.contracts.training import BaseLanguageModel
from tasks.core.storage import open_store
from tasks.promotion import PromotionConfig, decide_promotion
from tasks.promotion.latency import check_latency
from tests.support.tiny_model import build_tiny_model, desk_row

MARGIN = 0.2
SCORING = BenchmarkConfig(max_new_tokens=12, num_resamples=200, retention=False, latency=LatencyConfig(max_examples=8))
GATE = PromotionConfig(min_examples=30, max_retention_loss=None)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=20)
    options.add_argument("--busy", type=int, default=4, help="processes that compute beside it")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name, busy(chosen.busy):
        folder = Path(name)
        model = build_tiny_model(folder / "model")
        others = {arm: build_tiny_model(folder / arm, steps=steps) for arm, steps in (("base", 10), ("champion", 20))}
        print(f"{chosen.runs} runs beside {chosen.busy} busy processes")
        print("run  p95, kept  in turns (95 %)               itself  guard      decision  tables")
        decisions, kept = [], None
        for number in range(chosen.runs):
            arms, timed, decision, tables = benchmark(folder / f"store-{number}", model, others)
            kept = kept or p95(arms["champion"])
            verdict = check_latency(timed, MARGIN, GATE.confidence, "the champion")
            shown = verdict.comparison
            assert shown is not None
            noise = shown.rule.rpartition(" ")[2]
            interval = f"{shown.difference:+.3f} ({shown.low:+.3f} to {shown.high:+.3f})"
            print(
                f"{number + 1:>3}  {p95(arms['candidate']) / kept - 1:>+9.3f}  {interval:<28}  {noise:>6}  "
                f"{verdict.state:<9}  {decision.outcome:<8}  {tables[:12]}",
                flush=True,
            )
            decisions.append((decision, tables))
    same = sum(one == decisions[0] for one in decisions)
    print(f"{same} of {chosen.runs} decisions, reasons and tables are the first one's: {decisions[0][0].reasons[0]}")
    sys.exit(same < chosen.runs)


def benchmark(
    folder: Path, model: Path, others: dict[str, Path]
) -> tuple[dict[str, ArmScores], LatencyRounds, PromotionDecision, str]:
    """One run from nothing: the scores by arm, the models timed in turns, the decision, and the tables' digest."""
    store = open_store(folder)
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(model), license="apache-2.0", num_parameters=130_000)
    own = {arm: store.add_folder(path) for arm, path in others.items()}
    rows = [desk_row(number) for number in range(32)]
    frozen = store.write_rows(rows, kind="messages", passed=["scrubbed"])
    arms = (("base", base, own["base"]), ("candidate", base, None), ("champion", base, own["champion"]))
    scores = {arm[0]: score_model.fn(*arm, frozen, SCORING) for arm in arms}
    timed = time_in_turns.fn(arms, frozen, SCORING)
    assert timed is not None
    version = RegisteredVersion(name="desk", version="1", run_id="r", source_uri="s")
    champion = Champion(version=version, base=base, adapter=own["champion"])
    report = BenchmarkReport(dataset=frozen, arms=tuple(scores.values()), latency=timed)
    decision = decide_promotion.fn(report, GATE, champion)
    return scores, timed, decision, "".join(arm.examples.sha256[:4] for arm in scores.values())


def p95(scores: ArmScores) -> float:
    """The 95th percentile of one model's times."""
    measured = scores.score("latency_p95_seconds")
    assert measured is not None
    assert measured.value is not None
    return measured.value


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
