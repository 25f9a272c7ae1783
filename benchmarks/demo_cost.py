"""What the demo costs: CPU seconds by stage, Prefect's server apart, from an empty folder.

    python benchmarks/demo_cost.py                # three quarters, the rollback, and a retrain in which nothing changed
    python benchmarks/demo_cost.py --quarters 1   # the first decision, and the same retrain again

CPU seconds of every process that the demo starts, live or ended: wall time says nothing on a shared machine. A stage's
figure is what was spent from its start to its end; importing, loading and Prefect's own work stand in "between stages".
Wanted are 260 to the first decision, 800 for the whole demo and 10 for a retrain in which nothing changed, without set-up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from tasks.core.progress import Progress, listening

ROOT = Path(__file__).parents[1]
BETWEEN, SERVER = "between stages", "Prefect's server"
_LEAST_SHOWN = 0.05


class _Enough(Exception):
    """As many quarters as were wanted are done."""


class Meter:
    """Books the CPU seconds of this process and of what it starts under the stage that works, a column for each command."""

    def __init__(self) -> None:
        self.column = "start"
        self._spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._last = _cpu_seconds()

    def book(self, line: str) -> None:
        """Books what was spent since the last call."""
        now = _cpu_seconds()
        (total, server), (total_before, server_before) = now, self._last
        if server < server_before:  # the server has ended, and what it took counts among this process's children now
            total_before, server_before = total_before + server_before, server
        self._spent[line][self.column] += total - total_before
        self._spent[SERVER][self.column] += server - server_before
        self._last = now

    def __call__(self, progress: Progress, /) -> None:
        """Listens to the stages."""
        if progress.finished:
            self.book(progress.stage)
        elif not progress.done:
            self.book(BETWEEN)

    def print(self) -> None:
        """The table so far."""
        columns = list(dict.fromkeys(column for line in self._spent.values() for column in line))
        print("| stage, CPU-s | " + " | ".join(columns) + " | sum |")
        print("|---|" + "---|" * (len(columns) + 1))
        sums = [sum(line[column] for line in self._spent.values()) for column in columns]
        lines = {name: [line[column] for column in columns] for name, line in self._spent.items()}
        lines = {name: figures for name, figures in lines.items() if sum(figures) >= _LEAST_SHOWN}
        for name, figures in (*lines.items(), ("sum", sums)):
            print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in (*figures, sum(figures))) + " |", flush=True)


def _cpu_seconds() -> tuple[float, float]:
    """CPU seconds so far: of this process, its ended children and live descendants; and of Prefect's server."""
    total, server = sum(os.times()[:4]), 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times, is_server = child.cpu_times(), "uvicorn" in child.cmdline()
        except psutil.Error:
            continue
        seconds = times.user + times.system + times.children_user + times.children_system
        total, server = (total, server + seconds) if is_server else (total + seconds, server)
    return total, server


def run_demo(meter: Meter, num_quarters: int) -> None:
    """The demo in this folder, up to the wanted number of retrains."""
    sys.path.insert(0, str(ROOT / "examples" / "support_desk"))
    import demo

    run, num_retrains = demo.perennial, 0

    def metered(*arguments: str) -> Any:
        nonlocal num_retrains
        num_retrains += arguments[0] == "retrain"
        if num_retrains > num_quarters:
            raise _Enough
        meter.book(BETWEEN)
        meter.column = f"{arguments[0]} {num_retrains}"
        try:
            return run(*arguments)
        finally:
            meter.book(BETWEEN)
            meter.column = "demo"
            meter.print()

    demo.perennial = metered
    sys.argv = ["demo", "--config", str(ROOT / "examples" / "support_desk.yaml")]
    try:
        with listening(meter):
            demo.main()
    except _Enough:
        pass
    meter.book(BETWEEN)
    meter.print()


def rerun() -> float:
    """CPU seconds of the first quarter's retrain by its command, when nothing changed since."""
    before = os.times()
    command = [sys.executable, "-m", "perennial", "retrain", "--config", str(ROOT / "examples" / "support_desk.yaml")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds of the demo by stage.")
    parser.add_argument("--quarters", type=int, default=3, help="how many retrains; the rollback comes after the third")
    parser.add_argument("--folder", type=Path, help="where to run; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perennial-demo-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        run_demo(Meter(), options.quarters)
        print(f"a retrain in which nothing changed: {rerun():.1f} CPU-s")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
