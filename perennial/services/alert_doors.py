"""The doors of the alert bridge: a sender proves who it is, and the body of its request is read in bounds.

A token is checked before the body is read; a signature needs the body, which is read up to its limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fastapi import Request
from starlette.requests import ClientDisconnect

from tasks.alerts import BridgeConfig
from tasks.alerts.accept import AcceptRule
from tasks.alerts.authentication import Credential, Secrets, admits, is_signed, may_be_signed, usual_credentials
from tasks.alerts.expressions import Received
from tasks.alerts.limits import RateLimit
from tasks.alerts.payloads import Fault


class RequestRejectedError(Exception):
    """A request failed one of the checks; carries the response."""

    def __init__(self, code: int, where: str, found: str, expected: str, todo: str, retry_after: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.fault = Fault(where, found, expected)
        self.todo = todo
        self.retry_after = retry_after


@dataclass(frozen=True)
class Door:
    """The way in of one sender: its rule, None for ``/alerts`` itself, and its credentials."""

    rule: AcceptRule | None
    credentials: Sequence[Credential]

    async def enter(self, request: Request, in_path: str | None, config: BridgeConfig, limit: RateLimit) -> Received:
        """The request of an authenticated sender, with its body.

        Raises:
            RequestRejectedError: The request failed a check.
        """
        received = _received(request)
        if any([admits(credential, received, in_path) for credential in self.credentials]):
            _check_rate(limit)
            return replace(received, body=await read_body(request, config))
        signed = [credential for credential in self.credentials if may_be_signed(credential, received)]
        if signed:
            received = replace(received, body=await read_body(request, config))
            if any([is_signed(credential, received) for credential in signed]):
                _check_rate(limit)
                return received
        raise RequestRejectedError(
            401, "headers", "no valid token or signature", self._expected(), "Compare the secret at both ends."
        )

    def _expected(self) -> str:
        """The ways in, none of which is a secret."""
        if self.rule is None:
            return "`Authorization: Bearer ...` or a signature"
        return " or ".join(_WAYS[each.auth.kind].format(auth=each.auth) for each in self.credentials)


_WAYS = {
    "bearer": "`Authorization: Bearer ...`",
    "basic": "a user and password",
    "header": "a token in the header `{auth.header}`",
    "query": "a token in the parameter `{auth.parameter}`",
    "path": "a token as the last part of the path",
    "hmac": "a signature in the header `{auth.header}`",
    "sns": "a message signed by Amazon SNS",
}


def doors_of(config: BridgeConfig, secrets: Secrets, credentials: Mapping[str, Sequence[Credential]]) -> dict[str, Door]:
    """The door of each sender by its name; that of ``/alerts`` itself has no name.

    Args:
        config: The accept rules, and the signature of ``/alerts``.
        secrets: Credentials of ``/alerts``.
        credentials: Those of each sender.
    """
    doors = {rule.sender: Door(rule, credentials[rule.sender]) for rule in config.accept}
    return {"": Door(None, usual_credentials(secrets, config.signature)), **doors}


def _received(request: Request) -> Received:
    """The request without its body; of a repeated header or parameter, the first."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), value)
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        query.setdefault(name, value)
    return Received(b"", datetime.fromtimestamp(time.time(), UTC), headers, query)


def _check_rate(limit: RateLimit) -> None:
    wait = limit.take(time.monotonic())
    if wait > 0:
        raise RequestRejectedError(429, "requests", "more than allowed", "a slower pace", "Send it again later.", wait)


async def read_body(request: Request, config: BridgeConfig) -> bytes:
    """The body of a request, within the limits of size and time.

    Raises:
        RequestRejectedError: The body is too large, or does not arrive in time.
    """
    most = config.max_body_bytes
    too_large = RequestRejectedError(
        413, "body", f"more than {most:,} bytes", f"at most {most:,} bytes", "Send fewer alerts at once."
    )
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
        raise RequestRejectedError(408, "body", "an incomplete body", "the whole body in time", "Send it again.") from error
    return bytes(body)
