"""The alert bridge: an HTTP service between whoever watches production and the flow ``retrain-on-alert``.

A request passes five checks, each with its own status: authentication (401), rate (429), size and time (413, 408), content
(422), storage (503). Then it is accepted (202): its run will be started, whatever happens to Prefect or to this process. The
first three are in :mod:`perennial.services.alert_doors`; what a sender sends, and the queue, are in :mod:`tasks.alerts`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.support.alert_runs import PrefectRuns
from perennial.services.alert_doors import Door, RequestRejectedError, doors_of
from perennial.services.alert_handshakes import Visit, answer_options, answer_sns, visit
from perennial.services.json_lines import log_as_json
from tasks.alerts import BridgeConfig
from tasks.alerts.accept import SENDER, AcceptRule
from tasks.alerts.authentication import Credential, Secrets, credentials_of
from tasks.alerts.connections import BoundedConnection, Closed
from tasks.alerts.delivery import Courier, StartRun, keep_running
from tasks.alerts.expressions import Received
from tasks.alerts.limits import RateLimit
from tasks.alerts.payloads import MAX_ALERTS, Served, parse_alerts
from tasks.alerts.queue import AlertQueue, QueueFullError
from tasks.core.errors import ConfigError

logger = logging.getLogger(__name__)


_NOBODY: Mapping[str, Sequence[Credential]] = {}
MAX_HEAD_BYTES = 32_768
"""Limit of request line and headers together; beyond it the answer is 400."""


class Metrics:
    """The metrics of ``/metrics``; no label contains text that a caller can choose."""

    def __init__(self, queue: AlertQueue) -> None:
        self.registry = CollectorRegistry()
        prefix = "perennial_alert_bridge"
        self.requests = Counter(f"{prefix}_requests", "Requests to /alerts by answer.", ["code"], registry=self.registry)
        self.alerts = Counter(f"{prefix}_alerts", "Alerts by what became of them.", ["outcome"], registry=self.registry)
        self.deliveries = Counter(f"{prefix}_deliveries", "Attempts to make a run.", ["result"], registry=self.registry)
        self.seconds = Histogram(f"{prefix}_request_seconds", "Time to answer /alerts.", registry=self.registry)
        self._waiting = Gauge(f"{prefix}_waiting", "Accepted alerts without a run.", registry=self.registry)
        self._oldest = Gauge(f"{prefix}_oldest_waiting_seconds", "Age of the oldest of them.", registry=self.registry)
        self._parked = Gauge(f"{prefix}_parked", "Accepted alerts that this release cannot read.", registry=self.registry)
        self.delivering = Gauge(f"{prefix}_delivering", "1 while delivery works, else 0.", registry=self.registry)
        self.deaths = Counter(f"{prefix}_courier_deaths", "How often delivery ended.", registry=self.registry)
        self.closed = Counter(
            f"{prefix}_connections_closed", "Connections closed without an answer.", ["reason"], registry=self.registry
        )
        self._queue = queue
        for outcome in ("accepted", "repeated", "resolved", "ignored", "invalid"):
            self.alerts.labels(outcome)
        for result in ("delivered", "refused", "unavailable", "failed"):
            self.deliveries.labels(result)
        for reason in ("slow", "crowd"):
            self.closed.labels(reason)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        backlog = self._queue.backlog()
        self._waiting.set(backlog.num_waiting)
        self._oldest.set(max(0.0, time.time() - backlog.oldest_accepted_at) if backlog.oldest_accepted_at else 0.0)
        self._parked.set(backlog.num_parked)
        return generate_latest(self.registry)


class RequestCounter:
    """Counts every request to ``/alerts`` once, by the status of its response; ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards the request."""
        if scope["type"] != "http" or not (scope["path"] == "/alerts" or scope["path"].startswith("/alerts/")):
            await self._app(scope, receive, send)
            return
        started, code = time.monotonic(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            self._metrics.requests.labels(str(code)).inc()
            self._metrics.seconds.observe(time.monotonic() - started)


class AlertService:
    """Accepts and delivers alerts, behind the endpoints of :func:`create_app`.

    Args:
        config: Limits and the models served.
        queue: The queue of accepted alerts.
        start_run: Starts the run of an alert.
    """

    def __init__(self, config: BridgeConfig, queue: AlertQueue, start_run: StartRun) -> None:
        self.metrics = Metrics(queue)
        self._config = config
        self._queue = queue
        self._is_delivering = False
        self._courier = Courier(
            queue,
            start_run,
            retry_seconds=config.retry_seconds,
            max_retry_seconds=config.max_retry_seconds,
            report=lambda result: self.metrics.deliveries.labels(result).inc(),
        )

    @asynccontextmanager
    async def delivering(self, app: FastAPI) -> AsyncIterator[None]:
        """Delivers alerts while the application runs."""
        pauses = {"retry_seconds": self._config.retry_seconds, "max_retry_seconds": self._config.max_retry_seconds}
        task = asyncio.create_task(keep_running(self._courier.run, on_change=self._note_delivery, **pauses))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _note_delivery(self, works: bool) -> None:
        self._is_delivering = works
        self.metrics.delivering.set(int(works))
        if not works:
            self.metrics.deaths.inc()

    async def accept(self, request: Received, rule: AcceptRule | None) -> Response:
        """Queues the alerts in an authenticated request.

        Args:
            request: The request.
            rule: Its sender's; None for ``/alerts`` itself.

        Raises:
            RequestRejectedError: The alerts cannot be stored.
        """
        now = request.now.timestamp()
        window = timedelta(hours=self._config.default_window_hours)
        parsed = parse_alerts(request, rule, Served(list(self._config.deployments), window))
        try:
            taken = await run_in_threadpool(self._queue.offer, parsed.alerts, now) if parsed.alerts else []
        except (sqlite3.Error, OSError, QueueFullError) as error:
            logger.error("alerts could not be stored: %s", type(error).__name__)
            raise RequestRejectedError(
                503, "queue", "an alert that cannot be stored", "room on the disk", "Send it again later.", 10.0
            ) from error
        counts = {
            "accepted": sum(taken),
            "repeated": len(taken) - sum(taken),
            "resolved": parsed.num_resolved,
            "ignored": parsed.num_ignored,
            "invalid": parsed.num_invalid,
        }
        for outcome, count in counts.items():
            self.metrics.alerts.labels(outcome).inc(count)
        if counts["accepted"]:
            self._courier.wake()
        if counts["accepted"] or parsed.faults:
            found = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
            logger.info("%s: %s", parsed.sender, found or "a body without alerts")
        faults = [vars(fault) for fault in parsed.faults]
        code = 422 if faults else 202 if counts["accepted"] else 200
        return JSONResponse({**counts, "faults": faults, "notes": list(parsed.notes)}, code)

    async def health(self) -> Response:
        """200 while alerts can be stored and are being delivered."""
        try:
            backlog = await run_in_threadpool(self._queue.backlog)
        except sqlite3.Error as error:
            return JSONResponse({"status": f"the queue cannot be used ({type(error).__name__})"}, 503)
        counts = {"waiting": backlog.num_waiting, "parked": backlog.num_parked}
        if not self._is_delivering:
            return JSONResponse({"status": "delivery has stopped", **counts}, 503)
        return JSONResponse({"status": "ok", **counts})

    async def render_metrics(self) -> Response:
        """The metrics in Prometheus' text format."""
        try:
            return PlainTextResponse(await run_in_threadpool(self.metrics.render), media_type="text/plain; version=0.0.4")
        except sqlite3.Error as error:
            return PlainTextResponse(f"# the queue cannot be used ({type(error).__name__})\n", 503)


def create_app(
    config: BridgeConfig,
    secrets: Secrets,
    queue: AlertQueue,
    start_run: StartRun,
    credentials: Mapping[str, Sequence[Credential]] = _NOBODY,
    visiting: Visit = visit,
) -> FastAPI:
    """The service; delivery runs while the application does.

    Args:
        config: Limits and the models served.
        secrets: Credentials of ``/alerts`` itself.
        queue: The queue of accepted alerts.
        start_run: Starts the run of an alert; :class:`PrefectRuns`, or a replacement in a test.
        credentials: Those of each sender of ``config.accept``.
        visiting: Visits the address that confirms a subscription.
    """
    limit = RateLimit(config.max_requests_per_second, config.max_burst_requests, time.monotonic())
    service = AlertService(config, queue, start_run)
    app = FastAPI(title="Perennial alert bridge", version="1", lifespan=service.delivering, docs_url=None, redoc_url=None)
    app.add_middleware(RequestCounter, metrics=service.metrics)
    app.state.metrics = service.metrics
    doors = doors_of(config, secrets, credentials)

    async def take(request: Request, sender: str, token: str | None) -> Response:
        try:
            door = _door_of(doors, sender)
            received = await door.enter(request, token, config, limit)
            answer = None
            if door.rule and door.rule.handshake == "sns":
                answer = await answer_sns(received, door.rule, visiting)
            return answer or await service.accept(received, door.rule)
        except RequestRejectedError as rejection:
            return _response_of(rejection)

    @app.post("/alerts", openapi_extra=_REQUEST_BODY, responses=_RESPONSES, status_code=202)
    async def post_alerts(request: Request) -> Response:
        """Accepts alerts from Alertmanager, Grafana or a program of your own."""
        return await take(request, "", None)

    @app.post("/alerts/{sender}", responses=_RESPONSES, status_code=202)
    @app.post("/alerts/{sender}/{token}", responses=_RESPONSES, status_code=202)
    async def post_alerts_of(request: Request, sender: str, token: str | None = None) -> Response:
        """Accepts alerts of a sender of `accept`, whose rule says what it sends and how it proves who it is."""
        return await take(request, sender, token)

    @app.options("/alerts/{sender}")
    async def permit(request: Request, sender: str) -> Response:
        """Permits an origin of CloudEvents to send."""
        door = doors.get(sender)
        is_known = door is not None and door.rule is not None and door.rule.handshake == "cloudevents"
        return answer_options(request) if is_known else Response(status_code=404)

    @app.get("/healthz")
    async def healthz() -> Response:
        """200 while alerts can be stored and are being delivered; `/metrics` shows whether Prefect responds."""
        return await service.health()

    @app.get("/metrics")
    async def get_metrics() -> Response:
        """Prometheus' text format."""
        return await service.render_metrics()

    return app


def _door_of(doors: Mapping[str, Door], sender: str) -> Door:
    if sender not in doors:
        found = "a sender without a rule" if re.fullmatch(SENDER, sender) else "no name of a sender"
        todo = "Name the sender of a rule of `accept`; /alerts itself takes Alertmanager, Grafana and plain JSON."
        raise RequestRejectedError(404, "path", found, "/alerts/SENDER of a rule", todo)
    return doors[sender]


_TEXT = {"type": "string"}
_MOMENT = {"type": "string", "format": "date-time"}
_WEBHOOK_ALERT = {
    "type": "object",
    "required": ["labels", "startsAt"],
    "properties": {
        "status": {"enum": ["firing", "resolved"]},
        "labels": {"type": "object", "description": "`alertname`, and optionally `model` and `signal`."},
        "annotations": {"type": "object", "description": "Optionally `window_start` and `window_end`."},
        "startsAt": _MOMENT,
        "fingerprint": _TEXT,
    },
}
_WEBHOOK_SCHEMA = {
    "type": "object",
    "required": ["alerts"],
    "properties": {"alerts": {"type": "array", "minItems": 1, "maxItems": MAX_ALERTS, "items": _WEBHOOK_ALERT}},
}
_PLAIN_SCHEMA = {
    "type": "object",
    "required": ["name", "starts_at"],
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(("name", "model", "signal", "fingerprint"), _TEXT),
        "status": {"enum": ["firing", "resolved"]},
        **dict.fromkeys(("starts_at", "window_start", "window_end"), _MOMENT),
    },
}
_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"anyOf": [_WEBHOOK_SCHEMA, _PLAIN_SCHEMA]}}},
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Nothing new: repeated, resolved or ignored alerts, which `notes` explains."},
    401: {"description": "No valid token or signature."},
    404: {"description": "No rule of this sender."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    422: {"description": "Some alerts are invalid and listed; the others were accepted."},
    429: {"description": "Too many requests."},
    503: {"description": "The alerts cannot be stored."},
}


def _response_of(rejection: RequestRejectedError) -> Response:
    headers = {"Retry-After": str(max(1, round(rejection.retry_after)))} if rejection.retry_after else {}
    if rejection.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"faults": [vars(rejection.fault)], "todo": rejection.todo}, rejection.code, headers)


# --------------------------------------------------------------------------------------------------------------- service


def server_settings(app: FastAPI, config: BridgeConfig, host: str, port: int) -> uvicorn.Config:
    """The server of the application, with limits on time and number of connections before authentication."""
    metrics: Metrics = app.state.metrics

    def note_closed(reason: Closed) -> None:
        metrics.closed.labels(reason).inc()

    protocol = functools.partial(
        BoundedConnection,
        head_seconds=config.read_timeout_seconds,
        max_connections=config.max_connections,
        report=note_closed,
    )
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,  # type: ignore[arg-type]  # a class with some of its arguments
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=10,
    )


def serve(config: BridgeConfig, secrets: Secrets, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C. While Prefect is unavailable, alerts wait in the queue.

    Raises:
        ConfigError: ``PREFECT_API_URL`` is not set.
        StoreError: The queue cannot be created.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "environment variable PREFECT_API_URL",
            "nothing, and no `perennial server` running here",
            "the Prefect server whose workers retrain",
            "Set it, or start `perennial server` in this folder first.",
        )
    credentials = {rule.sender: credentials_of(rule, os.environ) for rule in config.accept}
    queue = AlertQueue(Path(config.queue), cooldown_seconds=config.cooldown_seconds, max_waiting=config.max_waiting_alerts)
    log_as_json()
    waiting = queue.backlog().num_waiting
    logger.info("listening on %s port %d for %s; %d alerts wait", host, port, ", ".join(sorted(config.deployments)), waiting)
    app = create_app(config, secrets, queue, PrefectRuns(dict(config.deployments)), credentials)
    try:
        # The courier has its own retries; those of the client would delay every alert by the length of one attempt.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            uvicorn.Server(server_settings(app, config, host, port)).run()
    finally:
        queue.close()
