"""The command `perennial`: each command calls a flow or prints a contract, and defers its heavy imports."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from perennial.cli import budgets, champions, fleet, forgetting, installation, monitoring, reviews, runs, services, stores

app = typer.Typer(
    name="perennial",
    help="Keeps fine-tuned language models fresh: prepare, train, evaluate, promote, explain.",
    no_args_is_help=True,
    epilog="Exit codes: 0 success, including a candidate that is not promoted; 1 an unexpected error; 2 a fault that the "
    "user can correct, with its remedy; 3 rejected by a gate; with `retrain --exit-on`, 4 held and 5 waiting for a person.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _commands in (runs, fleet, champions, monitoring, stores, forgetting, services, installation):
    app.add_typer(_commands.app)
app.add_typer(reviews.review_app, name="review")
app.add_typer(champions.rollout_app, name="rollout")
app.add_typer(budgets.budget_app, name="budget")
app.add_typer(stores.store_app, name="store")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"perennial {importlib.metadata.version('perennial-llm')}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point of the `perennial` command."""
    app()


if __name__ == "__main__":
    main()
