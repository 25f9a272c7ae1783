"""How a sender's service confirms the bridge's address before it sends alerts: Amazon SNS, and CloudEvents' OPTIONS."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

import httpx
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import from_json

from perennial.services.alert_doors import RequestRejectedError
from tasks.alerts.accept import AcceptRule
from tasks.alerts.expressions import Received
from tasks.alerts.payloads import is_required
from tasks.alerts.sns import confirmation_url

logger = logging.getLogger(__name__)

Visit = Callable[[str], Awaitable[bool]]
"""Visits an address; whether it answered 200."""
_TIMEOUT_SECONDS = 10.0
_ORIGIN = re.compile(r"[A-Za-z0-9.:*-]{1,253}", re.ASCII)


async def visit(url: str) -> bool:
    """Whether the address answers 200 within ten seconds; a redirection is not followed."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client, client.stream("GET", url) as response:
            return response.status_code == httpx.codes.OK
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


async def answer_sns(request: Received, rule: AcceptRule, visiting: Visit) -> Response | None:
    """The answer to a message of SNS that holds no alert; None for one that may.

    Raises:
        RequestRejectedError: The address to confirm is not Amazon's, the rule's ``require`` does not hold, or Amazon did not
            take the confirmation.
    """
    try:
        message = from_json(request.body)
    except ValueError:
        return None
    if isinstance(message, dict) and message.get("Type") == "UnsubscribeConfirmation":
        return JSONResponse({"notes": ["body: the subscription has ended, which starts nothing"]})
    url = confirmation_url(message)
    if url is None:
        return None
    if not is_required(rule, request, message):
        todo = "Subscribe a topic that the rule allows."
        raise RequestRejectedError(422, "body", "a subscription", f"one that fulfils `{rule.require}`", todo)
    if not url:
        expected = "an https address of sns.REGION.amazonaws.com"
        raise RequestRejectedError(422, "body.SubscribeURL", "another address", expected, "Nothing was visited.")
    if not await visiting(url):
        logger.error("%s: the subscription could not be confirmed", rule.sender)
        raise RequestRejectedError(
            503, "body.SubscribeURL", "no confirmation", "an answer of Amazon SNS", "Request the confirmation again.", 10.0
        )
    logger.info("%s: the subscription is confirmed", rule.sender)
    return JSONResponse({"notes": ["body: the subscription is confirmed, which starts nothing"]})


def answer_options(request: Request) -> Response:
    """The permission to send, for an origin that requests it: HTTP 1.1 Web Hooks for Event Delivery, section 4.

    Each delivery is authenticated all the same.
    """
    origin = request.headers.get("WebHook-Request-Origin", "")
    if not _ORIGIN.fullmatch(origin):
        return Response(status_code=400)
    headers = {"WebHook-Allowed-Origin": origin, "Allow": "POST, OPTIONS"}
    if rate := request.headers.get("WebHook-Request-Rate", ""):
        headers |= {"WebHook-Allowed-Rate": "*" if not rate.isascii() or not rate.isdecimal() else rate}
    return Response(headers=headers)
