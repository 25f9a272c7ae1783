"""Three quarters of a support desk in one command: a first champion, a better one, a bad candidate, and the way back.

1. The first quarter's tickets: nothing reigns yet, so the candidate has to beat the base model.
2. Half a year's tickets: the candidate has to beat the champion of the first quarter on the same frozen examples. So few
   general questions rarely settle how much the model forgot; then the gate asks a person, and the demo answers for one.
3. An export whose replies are garbled, every one alike: no audit of single rows can see it, the benchmark has to say no.
4. A rollback to the first champion, with its reason on record.

Every step is a command that a user would type, printed before it is run; they share one Prefect server. A step that was
done in this folder is shown again from its dossier, and one that was interrupted goes on from its last finished stage.

Usage::

    python examples/support_desk/demo.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import generate

CONFIG = Path("examples/support_desk.yaml")
DESK = Path(".perennial/support_desk")
ROLLBACK_REASON = "demo: the way back, tried while nothing depends on it"
console = Console(highlight=False)


@dataclass(frozen=True)
class Quarter:
    """One retrain of the demo.

    Attributes:
        title: What happens, for the reader.
        folder: Where its export lies.
        export: What `generate` is told besides the folder and sizes.
        consent: Why the demo approves the candidate, should the gate ask a person; without it nobody answers.
    """

    title: str
    folder: Path
    export: dict[str, Any]
    consent: str | None = None


QUARTERS = (
    Quarter("First quarter: a first champion", DESK, {}, "demo: nothing reigns yet"),
    Quarter(
        "Second quarter: half a year of tickets",
        DESK / "quarter_2",
        {"quarter": 2, "with_earlier": True},
        "demo: a support desk can do with less general knowledge",
    ),
    Quarter("Third quarter: garbled replies", DESK / "quarter_3", {"seed": 11, "garbled": True}),
)


def main() -> None:
    """Runs the steps that were not done in this folder yet, shows the others, and prints what came of each."""
    parser = argparse.ArgumentParser(description="Three retrains of a support desk and a rollback.")
    parser.add_argument("--config", type=Path, default=CONFIG, help="configuration of the first quarter")
    parser.add_argument("--rows", type=int, default=180, help="tickets a quarter (default 180)")
    parser.add_argument("--pairs", type=int, default=60, help="preference pairs a quarter (default 60)")
    options = parser.parse_args()

    from flows import embedded

    embedded.prepare_environment()
    from flows.config import load_config

    store, diary = load_config(options.config).store, Diary(DESK / "demo.json")
    started = time.monotonic()
    with embedded.prefect_api(lambda line: console.print(f"[dim]{escape(line)} ...[/]")):
        for number, quarter in enumerate(QUARTERS, start=1):
            _headline(f"{number}. {quarter.title}")
            _retrain(quarter, options, store, diary)
        _headline("4. Rollback: the champion before it reigns again")
        _roll_back(options.config, diary)
    _print_story(options.config, store, diary)
    console.print(f"\n{time.monotonic() - started:.0f} s. `make server` shows every run in Prefect's and MLflow's pages.")


class Diary:
    """Which steps were done in this folder, with which inputs and outcome, kept in a file.

    Args:
        path: The file; made with the first step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def outcome(self, step: str, inputs: str | None = None) -> str | None:
        """What came of a step; None when it was not done, or with other ``inputs`` than these."""
        done = self._steps.get(step)
        return done["outcome"] if done and inputs in (None, done["inputs"]) else None

    def note(self, step: str, inputs: str, outcome: str) -> None:
        """Keeps what came of a step."""
        self._steps[step] = {"inputs": inputs, "outcome": outcome}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._steps, indent=2), encoding="utf-8")


def _retrain(quarter: Quarter, options: argparse.Namespace, store: str, diary: Diary) -> None:
    from tasks.dossier.summary import read_record

    settings = options.config.read_bytes() + f"{options.rows} {options.pairs}".encode()
    inputs = hashlib.sha256(settings).hexdigest()
    if run := diary.outcome(quarter.title, inputs):
        perennial("show", run, "--store", store)
        return
    generate.generate(quarter.folder, num_rows=options.rows, num_pairs=options.pairs, **quarter.export)
    perennial("retrain", "--config", str(config_of(quarter, options.config)))
    record = read_record(store)
    if record["decision"]["outcome"] == "NEEDS_HUMAN" and quarter.consent:
        perennial("approve", record["run_name"], "--name", "demo", "--reason", quarter.consent, "--store", store)
    diary.note(quarter.title, inputs, record["run_name"])


def _roll_back(config: Path, diary: Diary) -> None:
    runs = " ".join(str(diary.outcome(quarter.title)) for quarter in QUARTERS)
    if done := diary.outcome("rollback", runs):
        console.print(f"Done in this folder on {done}.")
        return
    perennial("rollback", "--config", str(config), "--reason", ROLLBACK_REASON)
    diary.note("rollback", runs, time.strftime("%Y-%m-%d at %H:%M"))


def config_of(quarter: Quarter, config: Path) -> Path:
    """The quarter's configuration: the first quarter's, reading another folder; it is written beside its data."""
    if quarter.folder == DESK:
        return config
    text = config.read_text(encoding="utf-8").replace(f"{DESK.as_posix()}/", f"{quarter.folder.as_posix()}/")
    written = quarter.folder / "support_desk.yaml"
    written.write_text(text, encoding="utf-8")
    return written


def perennial(*arguments: str) -> None:
    """Prints and runs one command of `perennial`, in this process.

    Raises:
        SystemExit: It failed, and has said why.
    """
    from flows.cli import app

    console.print(f"$ perennial {shlex.join(arguments)}", style="bold", soft_wrap=True)
    app(list(arguments), standalone_mode=False)


def _headline(text: str) -> None:
    console.rule(escape(text), align="left")


def _print_story(config: Path, store: str, diary: Diary) -> None:
    """One line a retrain: what it scored against what reigned, and what was decided."""
    from tasks.dossier.summary import read_record

    _headline("What came of it: the primary metric of each")
    table = Table(box=None, pad_edge=False)
    for column in ("", "outcome", "version", "base", "champion", "candidate"):
        table.add_column(column, justify="left" if column in ("", "outcome") else "right")
    for quarter in QUARTERS:
        record = read_record(store, str(diary.outcome(quarter.title)))
        table.add_row(quarter.title, *story_cells(record))
    console.print(table)
    perennial("history", "--config", str(config))


def story_cells(record: dict[str, Any]) -> tuple[str, ...]:
    """Decision, version and the primary metric of base, champion and candidate, from a dossier's JSON."""
    from tasks.contracts import RunEvidence
    from tasks.dossier.notation import measured, metric_unit
    from tasks.dossier.verdict import verdict_of

    evidence = RunEvidence.model_validate(record)
    metric = evidence.decision.primary_metric
    arms = (evidence.benchmark.arm(name) for name in ("base", "champion", "candidate"))
    scores = (measured(arm.score(metric), metric_unit(metric)) if arm else "" for arm in arms)
    return (verdict_of(evidence).label, str(evidence.candidate.version), *scores)


if __name__ == "__main__":
    main()
