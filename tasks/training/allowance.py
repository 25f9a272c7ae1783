"""A training above its ceiling asks a person, where the budget says so: the question and the answer, kept in the store.

The run that asks ends, and so holds no GPU while it waits; started again after the answer it goes on where it ended, since
everything before is kept. An answer is for one training (the same model, rows and settings) and holds up to a little more
than was asked for, because no two measurements of a speed agree.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from tasks.contracts.training import BudgetRequest, TrainingPlan
from tasks.core.errors import BudgetError, InputError
from tasks.core.storage import Store
from tasks.core.typed_text import NAME_CHARACTERS, check_text
from tasks.training.config import BudgetConfig
from tasks.training.planning import Spent, amount

MARGIN = 1.25
"""How far a later plan of the same training may go beyond what was allowed."""


def ask(store: Store, model: str, training: str, plan: TrainingPlan, refused: BudgetError) -> BudgetError:
    """Leaves the question in the store; the error that says how to answer it.

    Args:
        store: Where the rows lie.
        model: The configuration's name.
        training: The training's own name, the same whenever it is asked for.
        plan: What it would take.
        refused: Which ceiling it would pass.
    """
    request = BudgetRequest(
        training=training,
        device=f"{plan.num_devices} x {plan.device_name or plan.device}",
        device_hours=plan.device_hours,
        cost=plan.cost,
        currency=plan.currency,
        question=f"{refused.found}; {refused.expected}",
        asked_at=_now(),
    )
    # A person may have answered the same question since this run looked: that word stays.
    store.update_record(
        _name(model, training),
        BudgetRequest,
        lambda known: known if known is not None and known.verdict is not None and _covers(known, request) else request,
    )
    todo = (
        f"A person may allow it: `perennial budget allow {training} --config FILE --name NAME --reason WHY`; then run again."
    )
    return BudgetError(refused.where, refused.found, refused.expected, f"{todo} Everything up to here is kept.")


def with_allowance(
    store: Store, model: str, training: str, budget: BudgetConfig, spent: Spent
) -> tuple[BudgetConfig, str | None]:
    """The budget with its ceilings raised to what a person has allowed, and that word for the record; None without one.

    Raises:
        BudgetError: A person has refused this training.
    """
    request = store.read_record(_name(model, training), BudgetRequest) if budget.on_exceeded == "ask" else None
    if request is None or request.verdict is None:
        return budget, None
    if request.verdict == "refuse":
        raise BudgetError(
            "training.budget",
            f"{request.question}, and the answer of {request.by} to the question whether it may be: no ({request.reason})",
            "a yes",
            "Plan less, or change the answer with `perennial budget allow`.",
        )
    raised = {
        "max_device_hours": _raised(budget.max_device_hours, spent.device_hours, request.device_hours),
        "max_cost": _raised(budget.max_cost, spent.cost, request.cost),
    }
    word = f"{amount(request.device_hours)} device-hours, above the ceiling, allowed by {request.by}: {request.reason}"
    return budget.model_copy(update=raised), word


def open_requests(store: Store, model: str) -> list[BudgetRequest]:
    """The questions that nobody has answered, the oldest first."""
    names = [name.removesuffix(".json") for name in store.names_in(f"pointers/budgets/{model}")]
    requests = [store.read_record(_name(model, name), BudgetRequest) for name in names]
    return sorted((one for one in requests if one and one.verdict is None), key=lambda one: one.asked_at)


def answer(
    store: Store, model: str, training: str, verdict: Literal["allow", "refuse"], by: str, reason: str
) -> BudgetRequest:
    """Records a person's answer; a later one replaces it, until the training has begun.

    Raises:
        InputError: Nobody has asked, or name or reason is missing or cannot be kept.
    """
    if not by.strip() or not reason.strip():
        raise InputError("--name and --reason", "an empty one", "who decides and why", "State both.")
    by, reason = check_text(by, "--name", NAME_CHARACTERS), check_text(reason, "--reason")
    word = {"verdict": verdict, "by": by, "reason": reason, "answered_at": _now()}

    def answered(request: BudgetRequest | None) -> BudgetRequest:
        if request is None:
            known = ", ".join(one.training for one in open_requests(store, model)) or "none is open"
            raise InputError(
                f"training {training}", "no question about its budget", f"one that was asked ({known})", "Check its name."
            )
        return request.model_copy(update=word)

    return store.update_record(_name(model, training), BudgetRequest, answered)


def _raised(ceiling: float | None, spent: float, allowed: float | None) -> float | None:
    return ceiling if ceiling is None or allowed is None else max(ceiling, spent + MARGIN * allowed)


def _covers(answered: BudgetRequest, request: BudgetRequest) -> bool:
    """Whether what was answered is the question that is put now, by the margin within which two plans are alike."""
    hours = request.device_hours <= MARGIN * answered.device_hours
    return hours and (request.cost is None or (answered.cost is not None and request.cost <= MARGIN * answered.cost))


def _name(model: str, training: str) -> str:
    return f"budgets/{model}/{training}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
