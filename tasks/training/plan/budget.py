"""The budget of a training: its price, its ceilings, and a person's approval to exceed them.

A training above its ceiling requests approval where ``training.budget.on_exceeded`` is ``ask``. The run then ends, so that
it holds no GPU while it waits. Started again after the answer, it continues where it ended. An approval is for one training
(the same model, rows and settings) and covers a little more than was requested, because two measurements of a speed never
agree.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from tasks.contracts.training import BudgetRequest, TrainingPlan
from tasks.core.errors import BudgetError, InputError
from tasks.core.storage import Store
from tasks.core.typed_text import NAME_CHARACTERS, check_text
from tasks.training.config import BudgetConfig

NO_PRICE = "training.budget.price_per_device_hour"
"""Where a cost without a price is refused; there is nothing in it that a person could approve."""
APPROVAL_MARGIN = 1.25
"""The factor by which a later plan of the same training may exceed what was approved."""


@dataclass(frozen=True)
class BudgetUsed:
    """What the earlier training steps of a run took of its budget."""

    device_hours: float = 0.0
    cost: float = 0.0


def with_price(plan: TrainingPlan, budget: BudgetConfig) -> TrainingPlan:
    """The plan with the price of its device, if the table has one."""
    price = budget.price_of(plan.device, plan.device_name)
    return plan.model_copy(update={"price_per_device_hour": price, "currency": budget.currency})


def check_budget(plan: TrainingPlan, budget: BudgetConfig, used: BudgetUsed) -> None:
    """Refuses a timed and priced plan that exceeds a ceiling.

    Args:
        plan: The plan.
        budget: Its ceilings.
        used: What earlier steps of the same run took.

    Raises:
        BudgetError: The plan exceeds a ceiling, or a ceiling on cost is set and the device has no price.
    """
    remedy = (
        "Raise the ceiling, or plan less: fewer rows, `num_train_epochs` or `max_steps`, a smaller model, a faster device."
    )
    earlier = f", after {amount(used.device_hours)} device-hours before it" if used.device_hours else ""
    hours = used.device_hours + plan.device_hours
    if budget.max_device_hours is not None and hours > budget.max_device_hours:
        raise BudgetError(
            "training.budget.max_device_hours",
            f"{amount(plan.device_hours)} device-hours planned for {plan.method} ({plan.num_steps} steps on "
            f"{plan.num_devices} x {plan.device_name or plan.device}){earlier}",
            f"at most {budget.max_device_hours:g} in all",
            remedy,
        )
    if budget.max_cost is None:
        return
    if plan.cost is None:
        raise BudgetError(
            NO_PRICE,
            f"no price for `{plan.device_name or plan.device}`",
            "one, because max_cost is set",
            f"Add `{plan.device}` to the table.",
        )
    if used.cost + plan.cost > budget.max_cost:
        raise BudgetError(
            "training.budget.max_cost",
            f"{amount(plan.cost)} {plan.currency} planned for {plan.method} ({amount(plan.device_hours)} device-hours at "
            f"{plan.price_per_device_hour:g}){f', after {amount(used.cost)} before it' if used.cost else ''}",
            f"at most {budget.max_cost:g} {budget.currency} in all",
            remedy,
        )


def amount(number: float) -> str:
    """Device-hours or money as text: two decimal places, or two digits of a number below a hundredth."""
    return f"{number:.2f}" if number >= 0.01 else f"{number:.2g}"


# -------------------------------------------------------------------------------------------------------------- approvals


def request_approval(store: Store, model: str, training: str, plan: TrainingPlan, exceeded: BudgetError) -> BudgetError:
    """Stores a request for approval; returns the error that says how to answer it.

    Args:
        store: Where the rows are.
        model: The configuration's name.
        training: The training's own name, the same in every run that repeats it.
        plan: What it would take.
        exceeded: Which ceiling it exceeds.
    """
    request = BudgetRequest(
        training=training,
        device=f"{plan.num_devices} x {plan.device_name or plan.device}",
        device_hours=plan.device_hours,
        cost=plan.cost,
        currency=plan.currency,
        question=f"{exceeded.found}; {exceeded.expected}",
        requested_at=_now(),
    )
    # A person may have answered the same request since this run looked; that answer stays.
    store.update_record(
        _record_name(model, training),
        BudgetRequest,
        lambda stored: stored if stored is not None and stored.verdict is not None and _covers(stored, request) else request,
    )
    remedy = (
        f"A person may approve it with `perennial budget approve {training} --config FILE --name NAME --reason WHY`; "
        "then run again. Everything up to here is kept."
    )
    return BudgetError(exceeded.where, exceeded.found, exceeded.expected, remedy)


def apply_approved_ceiling(
    store: Store, model: str, training: str, budget: BudgetConfig, used: BudgetUsed
) -> tuple[BudgetConfig, str | None]:
    """The budget with its ceilings raised to what a person approved, and a line that records it; None without approval.

    Raises:
        BudgetError: A person refused this training.
    """
    request = store.read_record(_record_name(model, training), BudgetRequest) if budget.on_exceeded == "ask" else None
    if request is None or request.verdict is None:
        return budget, None
    if request.verdict == "refuse":
        raise BudgetError(
            "training.budget",
            f"{request.question}, refused by {request.by} ({request.reason})",
            "a person's approval",
            "Plan less, or change the answer with `perennial budget approve`.",
        )
    raised = {
        "max_device_hours": _raised(budget.max_device_hours, used.device_hours, request.device_hours),
        "max_cost": _raised(budget.max_cost, used.cost, request.cost),
    }
    event = f"{amount(request.device_hours)} device-hours, above the ceiling, allowed by {request.by}: {request.reason}"
    return budget.model_copy(update=raised), event


def open_requests(store: Store, model: str) -> list[BudgetRequest]:
    """The requests without an answer, the oldest first."""
    names = [name.removesuffix(".json") for name in store.names_in(f"pointers/budgets/{model}")]
    requests = [store.read_record(_record_name(model, name), BudgetRequest) for name in names]
    return sorted(
        (request for request in requests if request and request.verdict is None), key=lambda item: item.requested_at
    )


def answer(
    store: Store, model: str, training: str, verdict: Literal["allow", "refuse"], by: str, reason: str
) -> BudgetRequest:
    """Stores a person's answer to a request; until the training has begun, a later answer replaces it.

    Raises:
        InputError: There is no such request, or name or reason is missing or cannot be stored.
    """
    if not by.strip() or not reason.strip():
        raise InputError("--name and --reason", "an empty one", "who decides and why", "State both.")
    by, reason = check_text(by, "--name", NAME_CHARACTERS), check_text(reason, "--reason")

    def with_answer(request: BudgetRequest | None) -> BudgetRequest:
        if request is None:
            names = ", ".join(request.training for request in open_requests(store, model)) or "none is open"
            raise InputError(
                f"training {training}", "no request about its budget", f"an open request ({names})", "Check its name."
            )
        return request.model_copy(update={"verdict": verdict, "by": by, "reason": reason, "answered_at": _now()})

    return store.update_record(_record_name(model, training), BudgetRequest, with_answer)


def _raised(ceiling: float | None, used: float, approved: float | None) -> float | None:
    return ceiling if ceiling is None or approved is None else max(ceiling, used + APPROVAL_MARGIN * approved)


def _covers(answered: BudgetRequest, request: BudgetRequest) -> bool:
    """Whether an answered request is the one made now, up to the margin between two plans of one training."""
    hours = request.device_hours <= APPROVAL_MARGIN * answered.device_hours
    return hours and (
        request.cost is None or (answered.cost is not None and request.cost <= APPROVAL_MARGIN * answered.cost)
    )


def _record_name(model: str, training: str) -> str:
    return f"budgets/{model}/{training}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
