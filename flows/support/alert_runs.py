"""An alert becomes a run of ``retrain-on-alert``, whoever raises it: the bridge, or the check of production."""

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

from tasks.alerts.delivery import RefusedError, UnavailableError
from tasks.contracts.alerts import Alert
from tasks.contracts.monitoring import WindowCheck
from tasks.core.errors import PerennialError
from tasks.core.typed_text import cut

logger = logging.getLogger(__name__)

DELIVERY_TIMEOUT_SECONDS = 30.0
FEED_TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 32 * 2**20
"""An answer of Prefect about one deployment or run is some kilobytes; one that does not end must not fill the memory."""
_REFUSES = frozenset({400, 409, 413, 422})
"""Answers of Prefect that are about the alert; every other error says that it is down, busy, elsewhere, or knows us not."""


class PrefectRuns:
    """Makes alerts runs of their models' deployments, through Prefect's client.

    Args:
        deployments: ``flow/deployment`` by model.
    """

    def __init__(self, deployments: dict[str, str]) -> None:
        self._deployments = deployments

    async def __call__(self, alert: Alert, key: str) -> str:
        """The id of the alert's run; the same key again gives the same run.

        Raises:
            UnavailableError: Prefect does not answer, or does not let us in.
            RefusedError: There is no such deployment, or it does not take an alert.
        """
        name = self._deployments.get(alert.model)
        if name is None:  # accepted under an earlier configuration
            raise RefusedError(f"no deployment is configured for {alert.model}")
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS), get_client(httpx_settings=_BOUNDED) as client:
                deployment = await client.read_deployment_by_name(name)
                run = await client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters={"alert": alert.model_dump(mode="json")},
                    idempotency_key=key,
                    tags=["alert", f"model:{alert.model}", *origin_tags(alert)],
                )
                await _tell_feed(client.request, alert, str(run.id))
        except ObjectNotFound as error:
            raise RefusedError(f"there is no deployment {name}") from error
        except PrefectHTTPStatusError as error:
            code = error.response.status_code
            if code in _REFUSES:
                raise RefusedError(f"status {code} from deployment {name}") from error
            raise UnavailableError(f"status {code}") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, PrefectException, OSError) as error:
            raise UnavailableError(type(error).__name__) from error
        except ValueError as error:  # not JSON (a proxy's page, nothing at all), or JSON that Prefect's client cannot read
            raise UnavailableError(f"an answer that is not Prefect's, {type(error).__name__}") from error
        return str(run.id)


class _BoundedAnswer(httpx.AsyncByteStream):
    """An answer's bytes, up to :data:`MAX_ANSWER_BYTES`."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > MAX_ANSWER_BYTES:
                raise httpx.ReadError(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    response.stream = _BoundedAnswer(response.stream)


_BOUNDED: dict[str, Any] = {"event_hooks": {"response": [_bound]}}


def origin_tags(alert: Alert) -> list[str]:
    """The tags of a run that say which alert it is about; Prefect's page filters by them."""
    return [cut(tag) for tag in (f"alert:{alert.name}", f"signal:{alert.signal}", f"sender:{alert.sender}")]


async def _tell_feed(request: Callable[..., Awaitable[Any]], alert: Alert, run_id: str) -> None:
    """Puts the alert into Prefect's event feed; that it may get lost there costs nothing, the run exists."""
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
        logger.warning("the event feed was not told: %s", type(error).__name__)


def raise_alerts(check: WindowCheck, deployment: str | None) -> tuple[dict[str, str], list[str]]:
    """Starts a run for each signal that is worth an alert; the same check again starts nothing twice.

    Args:
        check: A window with its verdict.
        deployment: The deployment of ``retrain-on-alert``; None starts nothing.

    Returns:
        Ids of the runs by signal, and what is worth telling about those that were not started.

    Raises:
        PerennialError: Prefect does not answer; the check is to be run again.
    """
    runs: dict[str, str] = {}
    notes: list[str] = []
    for signal in check.alerted:
        if deployment is None:
            notes.append(f"{signal}: alert.deployment is not set; no retrain was asked for")
            continue
        try:
            runs[signal] = asyncio.run(PrefectRuns({check.model: deployment})(_alert(check, signal), _key(check, signal)))
        except RefusedError as error:
            logger.error("monitoring: the alert on %s was refused: %s", signal, error)
            notes.append(f"{signal}: no retrain was asked for, {error}")
        except UnavailableError as error:
            raise PerennialError(
                f"alert on {signal} of {check.model}",
                f"Prefect does not answer ({error})",
                "a run of retrain-on-alert",
                "Run the check again for this window; nothing was forgotten.",
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
