"""Three quarters of a support desk in one command: a first champion, a better one, a bad candidate, a rollback.

1. The first quarter's tickets: there is no champion yet, so the candidate has to beat the base model.
2. Half a year's tickets: the candidate has to beat the champion of the first quarter on the same frozen examples. The
   demo's general-knowledge set is too small to prove that nothing was forgotten, so the gate requests approval.
3. An export whose replies are garbled, every one alike: no audit of single rows detects it, the benchmark has to reject it.
4. A rollback to the first champion, with its reason on record.

That is what usually happens. Whatever a quarter's outcome, the demo says what it means and goes on; it fails only where a
command is broken. Every step is a command that a user would type, printed before it is run; they share one Prefect server.
A step that was done in this folder is shown again from its dossier, and one that was interrupted goes on from its last
finished stage.

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
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import generate

CONFIG = Path("examples/support_desk.yaml")
DESK = Path(".perennial/support_desk")
ROLLBACK_REASON = "demo: a rollback, tried while nothing depends on it"
OPENING = (
    "Three times, tickets of a support desk become an evaluated, registered model: a first one, a better one, a bad one.",
    "Then the champion before comes back. Everything happens on this machine, in the folder .perennial.",
    "It takes about ten minutes on two idle cores. Stop it at any time: the same command goes on where it stopped.",
)
_GATE_STOPPED, _QUESTION_CLOSED, _FAILED = 3, 2, 1
console = Console(highlight=False)


@dataclass(frozen=True)
class Quarter:
    """One retrain of the demo.

    Attributes:
        title: What happens, for the reader.
        folder: Where its export lies.
        export: Arguments of `generate` besides the folder and sizes.
        answer: What the demo answers, should the gate ask a person.
        reason: Why.
    """

    title: str
    folder: Path
    export: dict[str, Any]
    answer: Literal["approve", "reject"]
    reason: str


QUARTERS = (
    Quarter("First quarter: a first champion", DESK, {}, "approve", "demo: there is no champion yet"),
    Quarter(
        "Second quarter: half a year of tickets",
        DESK / "quarter_2",
        {"quarter": 2, "with_earlier": True},
        "approve",
        "demo: a support desk can do with less general knowledge",
    ),
    Quarter(
        "Third quarter: garbled replies",
        DESK / "quarter_3",
        {"seed": 11, "garbled": True},
        "reject",
        "demo: its replies are garbled",
    ),
)


def main() -> None:
    """Runs the steps that were not done in this folder yet, shows the others, and prints what came of each."""
    parser = argparse.ArgumentParser(description="Three retrains of a support desk and a rollback.")
    parser.add_argument("--config", type=Path, default=CONFIG, help="configuration of the first quarter")
    parser.add_argument("--rows", type=int, default=180, help="tickets a quarter (default 180)")
    parser.add_argument("--pairs", type=int, default=60, help="preference pairs a quarter (default 60)")
    options = parser.parse_args()
    for line in OPENING:
        console.print(line, soft_wrap=True)

    from perennial.operations import embedded

    embedded.prepare_environment()
    from flows.support.config import load_config

    settings = load_config(options.config)
    registry = Registry(settings.registry.registered_name)
    diary = Diary(DESK / "demo.json")
    started = time.monotonic()
    with embedded.prefect_api(lambda line: console.print(f"[dim]{escape(line)} ...[/]")):
        tell_story(options, settings.store, diary, registry)
    console.print(f"\n{time.monotonic() - started:.0f} s. `make server` shows every run in Prefect's and MLflow's pages.")


def tell_story(options: argparse.Namespace, store: str, diary: Diary, registry: Registry) -> None:
    """All steps, with what each of them means, and the last screen."""
    for number, quarter in enumerate(QUARTERS, start=1):
        _headline(f"{number}. {quarter.title}")
        _retrain(quarter, options, store, diary, registry)
    _headline("4. Rollback: the champion before comes back")
    _roll_back(options.config, diary, registry)
    _print_story(options.config, store, diary)


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


class Registry:
    """Which version is champion, as MLflow's registry says.

    Args:
        name: The registered model.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def champion(self) -> str | None:
        """The champion's version, or None."""
        return self._holds("champion")

    def previous(self) -> str | None:
        """The version that a rollback would bring back, or None."""
        return self._holds("previous")

    def _holds(self, alias: str) -> str | None:
        from tasks.registry.versions import aliases_of
        from tasks.tracking import connect

        version: str | None = aliases_of(connect(), self._name).get(alias)
        return version


# ----------------------------------------------------------------------------------------------------------------- steps


def _retrain(quarter: Quarter, options: argparse.Namespace, store: str, diary: Diary, registry: Registry) -> None:
    from tasks.dossier.summary import read_record

    settings = options.config.read_bytes() + f"{options.rows} {options.pairs}".encode()
    inputs = hashlib.sha256(settings).hexdigest()
    if run := diary.outcome(quarter.title, inputs):
        perennial("show", run, "--store", store)
        _explain(meaning_of(read_record(store, run)))
        return
    generate.generate(quarter.folder, num_rows=options.rows, num_pairs=options.pairs, **quarter.export)
    try:
        perennial("retrain", "--config", str(config_of(quarter, options.config)))
    except SystemExit as ending:
        if ending.code != _GATE_STOPPED:
            raise
        _explain(
            "A gate stopped the run before it had a candidate, for the reason above. That is an answer too: nothing moved."
        )
        return
    record = read_record(store)
    if is_open(record):
        _explain("The figures alone are inconclusive, so the gate requests approval. The demo approves.")
        _answer(quarter, record, store, registry)
        record = read_record(store, record["run_name"])
    _explain(meaning_of(record))
    diary.note(quarter.title, inputs, record["run_name"])


def _answer(quarter: Quarter, record: dict[str, Any], store: str, registry: Registry) -> None:
    """Answers the open question of a run; one that is closed by now stays as it is, and the demo says so.

    Raises:
        SystemExit: The answer failed for another reason.
    """
    run, judged_against = record["run_name"], record["decision"]["champion_version"]
    try:
        perennial(quarter.answer, run, "--name", "demo", "--reason", quarter.reason, "--store", store)
    except SystemExit as ending:
        outdated = ending.code == _FAILED and registry.champion() != judged_against
        if ending.code != _QUESTION_CLOSED and not outdated:
            raise
        _explain(
            "The question is closed: somebody answered first, it expired, or another champion came. The answer above stands."
        )


def _roll_back(config: Path, diary: Diary, registry: Registry) -> None:
    runs = " ".join(str(diary.outcome(quarter.title)) for quarter in QUARTERS)
    if done := diary.outcome("rollback", runs):
        console.print(f"Done in this folder on {done}.")
        return
    champion, previous = registry.champion(), registry.previous()
    if champion is None:
        _explain("There is nothing to go back to: no candidate became champion.")
        return
    if previous is None:
        _explain(f"There is nothing to go back to: version {champion} is the first champion.")
        return
    perennial("rollback", "--config", str(config), "--reason", ROLLBACK_REASON, "--yes")
    _explain(
        f"Version {registry.champion()} is champion again, version {champion} stays registered; the reason is on record."
    )
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
    from perennial.cli.app import app

    console.print(f"$ perennial {shlex.join(arguments)}", style="bold", soft_wrap=True)
    app(list(arguments), standalone_mode=False)


# -------------------------------------------------------------------------------------------------------------- telling


def is_open(record: dict[str, Any]) -> bool:
    """Whether a run requested approval and nobody has answered."""
    approval = record["promotion"]["approval"]
    return approval is not None and approval["verdict"] is None


def meaning_of(record: dict[str, Any]) -> str:
    """What a run's outcome means, in a sentence or two."""
    outcome, promotion = record["decision"]["outcome"], record["promotion"]
    version, champion = record["candidate"]["version"], promotion["champion_version"]
    stays = f"version {champion} stays champion" if champion else "there is still no champion"
    approval = promotion["approval"]
    if promotion["promoted"]:
        by = (
            f"{approval['by']} approved it" if approval and approval["verdict"] == "approve" else "the gate proved it better"
        )
        return f"Promoted: {by}, and version {version} is the champion now."
    if approval and approval["verdict"] == "reject":
        return f"Rejected by {approval['by']}: {stays}. The candidate stays registered as version {version}."
    if is_open(record):
        return f"Open: a person still has to answer (`perennial approve` or `reject`). Until then, {stays}."
    if outcome == "HOLD":
        return f"Held: it is not proven better, or it broke a guard; the reasons stand above. Nothing moved: {stays}."
    return f"Not promoted ({promotion['reason'].rstrip('.')}): {stays}."


def _explain(text: str) -> None:
    console.print(f"\n[green]>[/] {escape(text)}", soft_wrap=True)


def _headline(text: str) -> None:
    console.rule(escape(text), align="left")


def _print_story(config: Path, store: str, diary: Diary) -> None:
    """One line a retrain, the champions over time, and one answer before and after."""
    from tasks.dossier.summary import folder_of, read_record

    _headline("What came of it: the primary metric of each")
    table = Table(box=None, pad_edge=False)
    for column in ("", "outcome", "version", "base", "champion", "candidate"):
        table.add_column(column, justify="left" if column in ("", "outcome") else "right")
    records = {}
    for quarter in QUARTERS:
        run = diary.outcome(quarter.title)
        if run is not None:
            records[quarter.title] = read_record(store, run)
        table.add_row(quarter.title, *(story_cells(records[quarter.title]) if run is not None else ("Stopped by a gate",)))
    console.print(table)
    perennial("history", "--config", str(config))
    if not records:
        return
    promoted = [record for record in records.values() if record["promotion"]["promoted"]]
    record = promoted[-1] if promoted else next(iter(records.values()))
    _headline("One answer, before and after")
    after = f"Version {record['candidate']['version']}, {'the last one promoted' if promoted else 'not promoted'}"
    for title, text in zip(("Customer", "Base model", after), typical_answers(record, store), strict=True):
        console.print(f"[bold]{title}[/]\n{escape(text)}\n", soft_wrap=True)
    console.print(
        f"It is the example on which that model's ROUGE-L is in the middle. Its dossier: {_page(store, folder_of, record)}",
        soft_wrap=True,
    )


def _page(store: str, folder_of: Any, record: dict[str, Any]) -> str:
    from tasks.core.storage import Store

    place = Store(store)
    return f"{place.local_path or place.uri}/{folder_of(record['run_name'])}/dossier.html"


def typical_answers(record: dict[str, Any], store_uri: str) -> tuple[str, str, str]:
    """Prompt, the base model's reply and the candidate's: of the frozen example with the candidate's median ROUGE-L."""
    from tasks.contracts.run import RunEvidence
    from tasks.core.rows import prompt_messages
    from tasks.core.storage import Store

    evidence, store = RunEvidence.model_validate(record), Store(store_uri)
    base, candidate = evidence.benchmark.arm("base"), evidence.benchmark.arm("candidate")
    assert base is not None
    assert candidate is not None
    scored = store.read_table(candidate.examples, columns=["id", "reply", "rouge_l"]).to_pylist()
    ranked = sorted(scored, key=lambda row: (row["rouge_l"] or 0.0, row["id"]))
    chosen = ranked[len(ranked) // 2]
    before = {row["id"]: row["reply"] for row in store.read_table(base.examples, columns=["id", "reply"]).to_pylist()}
    example = next(row for row in store.read_rows(evidence.benchmark.dataset) if row["id"] == chosen["id"])
    return str(prompt_messages(example)[-1]["content"]), before[chosen["id"]], chosen["reply"]


def story_cells(record: dict[str, Any]) -> tuple[str, ...]:
    """Decision, version and the primary metric of base, champion and candidate, from a dossier's JSON."""
    from tasks.contracts.run import RunEvidence
    from tasks.dossier.formatting import measured, metric_unit
    from tasks.dossier.verdict import verdict_of

    evidence = RunEvidence.model_validate(record)
    metric = evidence.decision.primary_metric
    arms = (evidence.benchmark.arm(name) for name in ("base", "champion", "candidate"))
    scores = (measured(arm.score(metric), metric_unit(metric)) if arm else "" for arm in arms)
    return (verdict_of(evidence).label, str(evidence.candidate.version), *scores)


if __name__ == "__main__":
    main()
