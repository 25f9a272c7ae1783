"""Starts a run of ``retrain-on-alert`` for an alert, raised by the alert bridge or by a check of production."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event, Resource
from prefect.exceptions import ObjectNotFound, PrefectException, PrefectHTTPStatusError

from tasks.alerts.delivery import AlertRejectedError, UnavailableError
from tasks.contracts.alerts import Alert
from tasks.contracts.monitoring import WindowCheck
from tasks.core.errors import PerennialError
from tasks.core.typed_text import cut

logger = logging.getLogger(__name__)

DELIVERY_TIMEOUT_SECONDS = 30.0
FEED_TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 32 * 2**20
"""A response about one deployment or run takes some kilobytes; an endless one must not fill the memory."""
_REJECTIONS = frozenset({400, 409, 413, 422})
"""Status codes by which Prefect rejects the alert; any other error means that it is unavailable or denies access."""


class PrefectRuns:
    """Starts runs of the models' deployments for alerts, through Prefect's client.

    Args:
        deployments: ``flow/deployment`` by model.
    """

    def __init__(self, deployments: dict[str, str]) -> None:
        self._deployments = deployments

    async def __call__(self, alert: Alert, key: str) -> str:
        """The id of the alert's run; a repeated key returns the same run.

        Raises:
            UnavailableError: Prefect does not respond, or denies access.
            AlertRejectedError: The deployment does not exist, or does not accept an alert.
        """
        name = self._deployments.get(alert.model)
        if name is None:  # accepted under an earlier configuration
            raise AlertRejectedError(f"no deployment is configured for {alert.model}")
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS), get_client(httpx_settings=_BOUNDED) as client:
                deployment = await client.read_deployment_by_name(name)
                run = await client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters={"alert": alert.model_dump(mode="json")},
                    idempotency_key=key,
                    tags=["alert", f"model:{alert.model}", *origin_tags(alert)],
                )
                await _emit_event(client.request, alert, str(run.id))
        except ObjectNotFound as error:
            raise AlertRejectedError(f"there is no deployment {name}") from error
        except PrefectHTTPStatusError as error:
            code = error.response.status_code
            if code in _REJECTIONS:
                raise AlertRejectedError(f"status {code} from deployment {name}") from error
            raise UnavailableError(f"status {code}") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, PrefectException, OSError) as error:
            raise UnavailableError(type(error).__name__) from error
        except ValueError as error:  # not JSON (a proxy's page, nothing at all), or JSON that Prefect's client cannot read
            raise UnavailableError(f"a response that is not Prefect's, {type(error).__name__}") from error
        return str(run.id)


class _BoundedStream(httpx.AsyncByteStream):
    """A response's bytes, up to :data:`MAX_RESPONSE_BYTES`."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > MAX_RESPONSE_BYTES:
                raise httpx.ReadError(f"a response of more than {MAX_RESPONSE_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    response.stream = _BoundedStream(response.stream)


_BOUNDED: dict[str, Any] = {"event_hooks": {"response": [_bound]}}


def origin_tags(alert: Alert) -> list[str]:
    """The tags that identify the alert of a run; Prefect's UI filters by them."""
    return [cut(tag) for tag in (f"alert:{alert.name}", f"signal:{alert.signal}", f"sender:{alert.sender}")]


async def _emit_event(request: Callable[..., Awaitable[Any]], alert: Alert, run_id: str) -> None:
    """Puts the alert into Prefect's event feed; a failure is only logged, since the run exists."""
    event = Event(
        occurred=datetime.now(UTC),
        event="perennial.alert.accepted",
        resource=Resource({"prefect.resource.id": f"perennial.model.{alert.model}", "prefect.resource.name": alert.model}),
        related=[{"prefect.resource.id": f"prefect.flow-run.{run_id}", "prefect.resource.role": "flow-run"}],
        payload={"fingerprint": alert.fingerprint, "sender": alert.sender},
    )
    try:
        async with asyncio.timeout(FEED_TIMEOUT_SECONDS):
            await request("POST", "/events", json=[event.model_dump(mode="json")])
    except (httpx.HTTPError, PrefectException, TimeoutError, ValueError) as error:
        logger.warning("the alert was not added to the event feed: %s", type(error).__name__)


def raise_alerts(check: WindowCheck, deployment: str | None) -> tuple[dict[str, str], list[str]]:
    """Starts a run for each alerted signal; a repeated check starts no second run.

    Args:
        check: A window with its verdict.
        deployment: The deployment of ``retrain-on-alert``; None starts no run.

    Returns:
        Ids of the runs by signal, and notes on the runs that were not started.

    Raises:
        PerennialError: Prefect does not respond; the check has to be repeated.
    """
    runs: dict[str, str] = {}
    notes: list[str] = []
    for signal in check.alerted:
        if deployment is None:
            notes.append(f"{signal}: alert.deployment is not set; no retrain was requested")
            continue
        try:
            runs[signal] = asyncio.run(PrefectRuns({check.model: deployment})(_alert(check, signal), _key(check, signal)))
        except AlertRejectedError as error:
            logger.error("monitoring: the alert on %s was rejected: %s", signal, error)
            notes.append(f"{signal}: no retrain was requested, {error}")
        except UnavailableError as error:
            raise PerennialError(
                f"alert on {signal} of {check.model}",
                f"Prefect does not respond ({error})",
                "a run of retrain-on-alert",
                "Run the check again for this window; no result is lost.",
            ) from error
    return runs, notes


def _alert(check: WindowCheck, signal: str) -> Alert:
    return Alert(
        fingerprint=f"check-{signal}",
        model=check.model,
        name=f"production-check-{signal}",
        signal=signal,
        sender="check",
        starts_at=check.window_end,
        window_start=check.window_start,
        window_end=check.window_end,
    )


def _key(check: WindowCheck, signal: str) -> str:
    return f"check-{check.model}-{signal}-{check.window_start:%Y%m%dT%H%M}-{check.window_end:%Y%m%dT%H%M}"
