"""Approval of trainings above their budget ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import (
    ConfigOption,
    NameOption,
    console,
    explained_errors,
    load,
    print_pairs,
)

budget_app = typer.Typer(help="Approval of trainings above their budget ceiling.", no_args_is_help=True)
TrainingArgument = Annotated[str, typer.Argument(help="Name of the training, from the error of the run.")]
BudgetReasonOption = Annotated[str, typer.Option(help="Why; recorded with the training and in the dossier.")]


@budget_app.command("show")
def show_budget(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Prints the trainings that wait for manual approval (`training.budget.on_exceeded: ask`)."""
    with explained_errors():
        settings = load(config)
        from tasks.core.storage import Store
        from tasks.training.plan.budget import open_requests

        requests = open_requests(Store(settings.store), settings.name)
        if as_json:
            print_json(requests)
            return
        if not requests:
            console.print("No training waits for approval.")
            return
        print_pairs("Trainings above their ceiling", [(request.training, request.question) for request in requests])


@budget_app.command("approve")
def approve_budget(
    training: TrainingArgument,
    config: ConfigOption,
    name: NameOption,
    reason: BudgetReasonOption,
    as_json: JsonOption = False,
) -> None:
    """Approves a training above its ceiling; start the run again afterwards."""
    _answer_budget(training, config, "allow", name, reason, as_json)


@budget_app.command("reject")
def reject_budget(
    training: TrainingArgument,
    config: ConfigOption,
    name: NameOption,
    reason: BudgetReasonOption,
    as_json: JsonOption = False,
) -> None:
    """Rejects a training above its ceiling; a restarted run ends with an error."""
    _answer_budget(training, config, "refuse", name, reason, as_json)


def _answer_budget(
    training: str, config: Path, verdict: Literal["allow", "refuse"], name: str, reason: str, as_json: bool
) -> None:
    with explained_errors():
        settings = load(config)
        from tasks.core.storage import Store
        from tasks.training.plan.budget import answer

        answered = answer(Store(settings.store), settings.name, training, verdict, name, reason)
        if as_json:
            print_json(answered)
            return
        decision = "approved" if answered.verdict == "allow" else "rejected"
        console.print(f"{answered.training}: {decision}. {answered.question}.")
