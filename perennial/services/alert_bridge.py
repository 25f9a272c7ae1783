"""The alert bridge: an HTTP service between whoever watches production and the flow ``retrain-on-alert``.

A request goes through five doors, each with its own answer: who are you (401), how often (429), how much (413, 408), what
do you say (422), is it on the disk (503). Behind the last one it is accepted (202), and whatever happens then to Prefect
or to this process, its run will come. The work is in :mod:`tasks.alerts`; here are the doors.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.support.alert_runs import PrefectRuns
from tasks.alerts import BridgeConfig
from tasks.alerts.authentication import Secrets, has_signature, has_token, signed_bytes
from tasks.alerts.connections import BoundedConnection, Closed
from tasks.alerts.delivery import Courier, StartRun, keep_running
from tasks.alerts.limits import RateLimit
from tasks.alerts.payloads import MAX_ALERTS, Fault, PlainAlert, WebhookAlert, parse_alerts
from tasks.alerts.queue import AlertQueue, QueueFullError
from tasks.core.errors import ConfigError

logger = logging.getLogger(__name__)


MAX_HEAD_BYTES = 32_768
"""Request line and headers together; more are answered 400."""


class Answer(Exception):
    """The end of a request at one of the doors."""

    def __init__(self, code: int, where: str, found: str, expected: str, todo: str, retry_after: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.fault = Fault(where, found, expected)
        self.todo = todo
        self.retry_after = retry_after


class Metrics:
    """What ``/metrics`` tells; no label holds anything that a caller can choose."""

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
        for outcome in ("accepted", "repeated", "resolved", "invalid"):
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


class CountedAnswers:
    """Counts every request to ``/alerts`` once, by the answer that it got, whoever gave it; ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http" or scope["path"] != "/alerts":
            await self._app(scope, receive, send)
            return
        started, code = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.requests.labels(str(code)).inc()
            self._metrics.seconds.observe(time.monotonic() - started)


def create_app(config: BridgeConfig, secrets: Secrets, queue: AlertQueue, start_run: StartRun) -> FastAPI:
    """The service; delivery runs while the application does.

    Args:
        config: Limits and the models served.
        secrets: Who may send.
        queue: Where accepted alerts lie.
        start_run: Makes an alert a run; :class:`PrefectRuns`, or a test's own.
    """
    metrics = Metrics(queue)
    limit = RateLimit(config.max_requests_per_second, config.max_burst_requests, time.monotonic())
    courier = Courier(
        queue,
        start_run,
        retry_seconds=config.retry_seconds,
        max_retry_seconds=config.max_retry_seconds,
        report=lambda result: metrics.deliveries.labels(result).inc(),
    )
    is_delivering = False

    def note_delivery(works: bool) -> None:
        nonlocal is_delivering
        is_delivering = works
        metrics.delivering.set(int(works))
        if not works:
            metrics.deaths.inc()

    @asynccontextmanager
    async def delivering(app: FastAPI) -> AsyncIterator[None]:
        pauses = {"retry_seconds": config.retry_seconds, "max_retry_seconds": config.max_retry_seconds}
        task = asyncio.create_task(keep_running(courier.run, on_change=note_delivery, **pauses))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    app = FastAPI(title="Perennial alert bridge", version="1", lifespan=delivering, docs_url=None, redoc_url=None)
    app.add_middleware(CountedAnswers, metrics=metrics)
    app.state.metrics = metrics

    @app.post("/alerts", openapi_extra=_REQUEST_BODY, responses=_RESPONSES, status_code=202)
    async def post_alerts(request: Request) -> Response:
        """Takes alerts of Alertmanager, Grafana or a program of one's own."""
        try:
            return await _accept(await _authenticated_body(request, config, secrets, limit))
        except Answer as answer:
            return _response_of(answer)

    async def _accept(body: bytes) -> Response:
        now = time.time()
        parsed = parse_alerts(
            body,
            list(config.deployments),
            now=datetime.fromtimestamp(now, UTC),
            default_window=timedelta(hours=config.default_window_hours),
        )
        try:
            taken = await run_in_threadpool(queue.offer, parsed.alerts, now) if parsed.alerts else []
        except (sqlite3.Error, OSError, QueueFullError) as error:
            logger.error("alerts could not be stored: %s", type(error).__name__)
            raise Answer(
                503, "queue", "an alert that cannot be stored", "room on the disk", "Send it again later.", 10.0
            ) from error
        counts = {
            "accepted": sum(taken),
            "repeated": len(taken) - sum(taken),
            "resolved": parsed.num_resolved,
            "invalid": parsed.num_invalid,
        }
        for outcome, count in counts.items():
            metrics.alerts.labels(outcome).inc(count)
        if counts["accepted"]:
            courier.wake()
        if counts["accepted"] or parsed.faults:
            logger.info(
                "%s: %s",
                parsed.sender,
                ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "a body without alerts",
            )
        faults = [vars(fault) for fault in parsed.faults]
        code = 422 if faults else 202 if counts["accepted"] else 200
        return JSONResponse({**counts, "faults": faults}, code)

    @app.get("/healthz")
    async def healthz() -> Response:
        """200 while alerts can be stored and are being delivered; whether Prefect answers is told by `/metrics`."""
        try:
            backlog = await run_in_threadpool(queue.backlog)
        except sqlite3.Error as error:
            return JSONResponse({"status": f"the queue cannot be used ({type(error).__name__})"}, 503)
        counts = {"waiting": backlog.num_waiting, "parked": backlog.num_parked}
        if not is_delivering:
            return JSONResponse({"status": "delivery has stopped", **counts}, 503)
        return JSONResponse({"status": "ok", **counts})

    @app.get("/metrics")
    async def get_metrics() -> Response:
        """Prometheus' text format."""
        try:
            return PlainTextResponse(await run_in_threadpool(metrics.render), media_type="text/plain; version=0.0.4")
        except sqlite3.Error as error:
            return PlainTextResponse(f"# the queue cannot be used ({type(error).__name__})\n", 503)

    return app


_WEBHOOK_SCHEMA = {
    "type": "object",
    "required": ["alerts"],
    "properties": {
        "alerts": {"type": "array", "minItems": 1, "maxItems": MAX_ALERTS, "items": WebhookAlert.model_json_schema()}
    },
}
_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"anyOf": [_WEBHOOK_SCHEMA, PlainAlert.model_json_schema()]}}},
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Nothing new: repeated or resolved alerts."},
    401: {"description": "No valid token or signature."},
    408: {"description": "The body did not come in time."},
    413: {"description": "The body is too large."},
    422: {"description": "Some alerts are faulty and named; the others were accepted."},
    429: {"description": "Too many requests."},
    503: {"description": "The alerts cannot be stored."},
}


async def _authenticated_body(request: Request, config: BridgeConfig, secrets: Secrets, limit: RateLimit) -> bytes:
    """The body of a request that may be read.

    A bearer token is checked before anything is read; a signature needs the body, which is read up to its limit.

    Raises:
        Answer: At the door where the request ends.
    """
    stranger = Answer(
        401, "headers", "no valid token or signature", "`Authorization: Bearer ...` or a signature", "Check the secret."
    )
    signature = request.headers.get(config.signature_header)
    known = has_token(secrets, request.headers.get("Authorization"))
    if not known and not (secrets.hmac_keys and signature):
        raise stranger
    if known:
        _pass(limit)
    body = await _read(request, config)
    if not known:
        stamp = request.headers.get(config.timestamp_header) if config.timestamp_header else None
        signed = signed_bytes(body, stamp, time.time()) if config.timestamp_header else body
        if signed is None or not has_signature(secrets, signed, signature):
            raise stranger
        _pass(limit)
    return body


def _pass(limit: RateLimit) -> None:
    wait = limit.take(time.monotonic())
    if wait > 0:
        raise Answer(429, "requests", "more than allowed", "a slower pace", "Send it again later.", wait)


async def _read(request: Request, config: BridgeConfig) -> bytes:
    most = config.max_body_bytes
    too_large = Answer(413, "body", f"more than {most:,} bytes", f"at most {most:,} bytes", "Send fewer alerts at once.")
    announced = request.headers.get("Content-Length", "0")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(config.read_timeout_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except (TimeoutError, ClientDisconnect) as error:
        raise Answer(408, "body", "bytes that did not come", "the whole body in time", "Send it again.") from error
    return bytes(body)


def _response_of(answer: Answer) -> Response:
    headers = {"Retry-After": str(max(1, round(answer.retry_after)))} if answer.retry_after else {}
    if answer.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"faults": [vars(answer.fault)], "todo": answer.todo}, answer.code, headers)


# --------------------------------------------------------------------------------------------------------------- service


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the type of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False)


def server_settings(app: FastAPI, config: BridgeConfig, host: str, port: int) -> uvicorn.Config:
    """How the application is served: every connection within its time and its number, before anyone is authenticated."""
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
    """Serves until SIGTERM or Ctrl-C. Prefect need not be up: alerts wait for it.

    Raises:
        ConfigError: It is not said where Prefect is.
        StoreError: The queue cannot be made.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "environment variable PREFECT_API_URL",
            "nothing, and no `perennial server` running here",
            "the Prefect server whose workers retrain",
            "Set it, or start `perennial server` in this folder first.",
        )
    queue = AlertQueue(Path(config.queue), cooldown_seconds=config.cooldown_seconds, max_waiting=config.max_waiting_alerts)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    waiting = queue.backlog().num_waiting
    logger.info("listening on %s port %d for %s; %d alerts wait", host, port, ", ".join(sorted(config.deployments)), waiting)
    app = create_app(config, secrets, queue, PrefectRuns(dict(config.deployments)))
    try:
        # The courier has its own pauses; the client's would hold every alert for the length of one attempt.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            uvicorn.Server(server_settings(app, config, host, port)).run()
    finally:
        queue.close()
