"""The alerts of a request: Alertmanager's and Grafana's webhooks and plain JSON. Pure; no clock.

A payload is not trusted, and no message repeats it except for the names of its fields: label and annotation values may hold
personal data, so a fault names its place and the kind of value, never the value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from tasks.contracts.alerts import Alert

MAX_ALERTS = 1_000
"""In one request; Alertmanager's `max_alerts` limits a group on its side."""
_MAX_CLOCK_SKEW = timedelta(hours=1)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}", re.ASCII)

Sender = Literal["alertmanager", "grafana", "json"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]+$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]


class WebhookAlert(BaseModel):
    """The relevant fields of one alert of Alertmanager's or Grafana's webhook."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    status: Literal["firing", "resolved"] = "firing"
    labels: dict[str, str] = Field(description="`alertname`, and optionally `model` and `signal`.")
    annotations: dict[str, str] = Field({}, description="Optionally `window_start` and `window_end`, ISO 8601.")
    startsAt: AwareDatetime
    fingerprint: Fingerprint | None = None


class PlainAlert(BaseModel):
    """An alert from the user's own program, in plain JSON."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    model: str | None = None
    signal: Name | None = None
    status: Literal["firing", "resolved"] = "firing"
    starts_at: AwareDatetime
    window_start: AwareDatetime | None = None
    window_end: AwareDatetime | None = None
    fingerprint: Fingerprint | None = Field(None, description="None: made from the name, the model and the signal.")


@dataclass(frozen=True)
class Fault:
    """A fault of a request, in the parts of :mod:`tasks.core.errors`."""

    where: str
    found: str
    expected: str


@dataclass(frozen=True)
class Parsed:
    """The firing alerts of a request, the numbers of resolved and invalid ones, and the faults of the latter.

    An invalid alert may have several faults; a body that holds no alerts at all has a fault and no invalid alert.
    """

    sender: Sender
    alerts: tuple[Alert, ...] = ()
    num_resolved: int = 0
    num_invalid: int = 0
    faults: tuple[Fault, ...] = ()


@dataclass
class _FaultError(Exception):
    fault: Fault


def parse_alerts(body: bytes, models: Sequence[str], *, now: datetime, default_window: timedelta) -> Parsed:
    """The alerts in a request's body; an invalid one does not affect the others.

    Args:
        body: The bytes as received.
        models: Names of the models served. An alert that names none is for the only one, where there is one.
        now: An alert more than an hour in the future is a fault.
        default_window: Length of the window, up to its start, of an alert that names none.
    """
    try:
        document = from_json(body)
    except ValueError:
        return Parsed("json", faults=(Fault("body", f"{len(body)} bytes that are not JSON", "a JSON object"),))
    if not isinstance(document, dict):
        return Parsed("json", faults=(Fault("body", _kind_of(document), "a JSON object"),))
    if "alerts" not in document:
        return _collect("json", [("body", document)], models, now, default_window)
    sender: Sender = "grafana" if "orgId" in document else "alertmanager"
    items = document["alerts"]
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ALERTS:
        return Parsed(sender, faults=(Fault("alerts", _kind_of(items), f"a list of 1 to {MAX_ALERTS:,} alerts"),))
    return _collect(sender, [(f"alerts.{n}", item) for n, item in enumerate(items)], models, now, default_window)


def _collect(
    sender: Sender, items: Sequence[tuple[str, Any]], models: Sequence[str], now: datetime, default_window: timedelta
) -> Parsed:
    alerts: list[Alert] = []
    faults: list[Fault] = []
    num_resolved = num_invalid = 0
    for where, item in items:
        try:
            given = PlainAlert.model_validate(item) if sender == "json" else _plain(WebhookAlert.model_validate(item), where)
            if given.status == "resolved":
                num_resolved += 1
                continue
            alerts.append(_alert(given, sender, where, models, now, default_window))
        except ValidationError as error:
            num_invalid += 1
            faults.extend(_faults_of(error, where))
        except _FaultError as error:
            num_invalid += 1
            faults.append(error.fault)
    return Parsed(sender, tuple(alerts), num_resolved, num_invalid, tuple(faults))


def _plain(given: WebhookAlert, where: str) -> PlainAlert:
    """A webhook's alert in the plain form. Its own fingerprint is kept: it covers labels that are not read here."""
    if given.status == "resolved":
        return PlainAlert(name="resolved", status="resolved", starts_at=given.startsAt)
    texts = {**given.annotations, **given.labels}
    fields = {
        "name": texts.get("alertname"),
        "model": texts.get("model"),
        "signal": texts.get("signal"),
        "starts_at": given.startsAt,
        "window_start": texts.get("window_start"),
        "window_end": texts.get("window_end"),
        "fingerprint": given.fingerprint or _digest(sorted(given.labels.items())),
    }
    try:
        return PlainAlert.model_validate(fields)
    except ValidationError as error:
        fault = _faults_of(error, where)[0]
        name = fault.where.rpartition(".")[2]
        place = "annotations" if name.startswith("window") else "labels"
        label = "alertname" if name == "name" else name
        raise _FaultError(Fault(f"{where}.{place}.{label}", fault.found, fault.expected)) from None


def _alert(
    given: PlainAlert, sender: Sender, where: str, models: Sequence[str], now: datetime, default_window: timedelta
) -> Alert:
    model = given.model or (models[0] if len(models) == 1 else None)
    if model not in models:
        found = "a model that is not served" if given.model else "no model"
        raise _FaultError(Fault(f"{where}.model", found, f"one of {', '.join(sorted(models))}"))
    for name, moment in (
        ("starts_at", given.starts_at),
        ("window_start", given.window_start),
        ("window_end", given.window_end),
    ):
        if moment is not None and not _EARLIEST <= moment <= now + _MAX_CLOCK_SKEW:
            raise _FaultError(Fault(f"{where}.{name}", "a time out of range", "a time since 2000 and not in the future"))
    end = given.window_end or given.starts_at
    start = given.window_start or end - default_window
    if start >= end:
        raise _FaultError(Fault(f"{where}.window_start", "a time not before the window's end", "a window with a length"))
    signal = given.signal or given.name
    return Alert(
        fingerprint=given.fingerprint or _digest([given.name, model, signal]),
        model=model,
        name=given.name,
        signal=signal,
        sender=sender,
        starts_at=given.starts_at,
        window_start=start,
        window_end=end,
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _faults_of(error: ValidationError, where: str) -> list[Fault]:
    """Pydantic's faults without the invalid values."""
    return [
        Fault(
            ".".join([where, *(_shown(part) for part in fault["loc"])]),
            "nothing" if fault["type"] == "missing" else _kind_of(fault["input"]),
            "a value here" if fault["type"] == "missing" else _expected(fault),
        )
        for fault in error.errors(include_url=False)
    ]


def _expected(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "no such field"
    if fault["type"].startswith(("datetime", "timezone")):
        return "a time with a zone in ISO 8601, such as 2026-01-31T06:00:00Z"
    return str(fault["msg"]).removeprefix("Input should be ")


def _shown(part: str | int) -> str:
    """A field's name or position; a name with other characters might hold data and is not repeated."""
    return str(part) if isinstance(part, int) or _PLAIN_NAME.fullmatch(part) else "?"


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return f"a text of {len(value):,} characters"
        case list():
            return f"a list of {len(value):,}"
        case dict():
            return f"an object with {len(value):,} fields"
    return "a value"
