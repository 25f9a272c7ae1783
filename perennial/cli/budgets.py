"""A training above its ceiling: the question, and a person's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from perennial.cli.shared import (
    ConfigOption,
    NameOption,
    console,
    explained_errors,
    load,
    print_pairs,
)

budget_app = typer.Typer(help="A training above its ceiling: the question, and a person's answer.", no_args_is_help=True)
TrainingArgument = Annotated[str, typer.Argument(help="The training, as the run named it.")]
BudgetReasonOption = Annotated[str, typer.Option(help="Why; kept with the training and in the dossier.")]


@budget_app.command("show")
def show_budget(config: ConfigOption) -> None:
    """Prints the trainings that wait for a person's word, `training.budget.on_exceeded: ask`."""
    with explained_errors():
        settings = load(config)
        from tasks.core.storage import Store
        from tasks.training.plan.budget import open_requests

        requests = open_requests(Store(settings.store), settings.name)
        if not requests:
            console.print("No training waits.")
            return
        print_pairs("Trainings above their ceiling", [(one.training, one.question) for one in requests])


@budget_app.command("allow")
def allow_budget(training: TrainingArgument, config: ConfigOption, name: NameOption, reason: BudgetReasonOption) -> None:
    """Lets a training go above its ceiling; start the run again afterwards."""
    _answer_budget(training, config, "allow", name, reason)


@budget_app.command("refuse")
def refuse_budget(training: TrainingArgument, config: ConfigOption, name: NameOption, reason: BudgetReasonOption) -> None:
    """Lets a training not go above its ceiling; the run says so when it is started again."""
    _answer_budget(training, config, "refuse", name, reason)


def _answer_budget(training: str, config: Path, verdict: Literal["allow", "refuse"], name: str, reason: str) -> None:
    with explained_errors():
        settings = load(config)
        from tasks.core.storage import Store
        from tasks.training.plan.budget import answer

        answered = answer(Store(settings.store), settings.name, training, verdict, name, reason)
        console.print(f"{answered.training}: {answered.verdict}. {answered.question}.")
