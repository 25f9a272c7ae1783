"""`perennial serve`: an OpenAI-compatible server for the champion and for the version under rollout.

The embedded default: one reply at a time, no batches; for more traffic the versions go to an engine of their own behind a
router (`perennial rollout render`). Replies are greedy. A streamed reply comes as one chunk, since the guard sees it whole.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from perennial.services.serving_counts import LiveCounts
from perennial.services.serving_log import RequestLog
from perennial.services.serving_versions import Engine, Versions
from tasks.alerts.authentication import Secrets, has_token

if TYPE_CHECKING:
    from tasks.guard.filtering import Guard

logger = logging.getLogger(__name__)

BodyT = TypeVar("BodyT", bound=BaseModel)

POLL_SECONDS = 10.0
MAX_BODY_BYTES = 1 << 20
MAX_WAITING = 32
"""Requests that wait for a reply; more are answered 429."""
VERSION_HEADER = "X-Model-Version"


class _Turn(BaseModel):
    """A message; fields of other kinds of messages are rejected."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str


class _Verdict(BaseModel):
    """What a user thinks of a reply, by the id of its response."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(pattern=r"^chatcmpl-[0-9a-f]{32}$")
    feedback: Literal["up", "down"]


class _Question(BaseModel):
    """What is read of a request; sampling parameters are ignored, since replies are greedy."""

    messages: Annotated[list[_Turn], Field(min_length=1)]
    stream: bool = False
    max_tokens: int | None = Field(None, ge=1, le=4_096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4_096)
    n: Literal[1] = 1
    tools: None = None
    user: str | None = Field(None, max_length=1_000)


def create_app(
    name: str,
    versions: Versions,
    counts: LiveCounts,
    token: str,
    guard: Guard | None = None,
    log: RequestLog | None = None,
) -> FastAPI:
    """The server of one registered model.

    Args:
        name: The registered model.
        versions: What is served; it has followed the registry once.
        counts: Where requests are counted.
        token: What clients send as ``Authorization: Bearer``.
        guard: Filters every message and the reply; None filters nothing.
        log: Where requests and verdicts are written; None writes none.
    """
    waiting = asyncio.Semaphore(MAX_WAITING)
    one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def follow(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(_follow(versions, counts))
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            counts.turn(_serving(versions), _now(), last=True)

    app = FastAPI(title=f"Perennial: {name}", docs_url=None, redoc_url=None, openapi_url=None, lifespan=follow)

    @app.get("/healthz")
    def health() -> Response:
        status = 503 if versions.is_behind(3 * POLL_SECONDS) else 200
        return JSONResponse({"status": "ok" if status == 200 else "the registry is not followed"}, status)

    @app.get("/v1/models")
    def models(request: Request) -> Response:
        if denied := _denied(request, token):
            return denied
        shares = versions.table.shares if versions.table else {}
        data = [{"id": f"{name}@{v}", "object": "model", "owned_by": "perennial", "share": shares[v]} for v in shares]
        return JSONResponse({"object": "list", "data": data})

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        if denied := _denied(request, token):
            return denied
        question = await _read(request, _Question)
        if isinstance(question, Response):
            return question
        table = versions.table
        if table is None:
            return _fault(503, "no version is loaded")
        if waiting.locked():
            return _fault(429, f"{MAX_WAITING} requests wait already")
        version, at, name_of_reply = table.choose(question.user), _now(), f"chatcmpl-{uuid.uuid4().hex}"
        start = time.perf_counter()
        async with waiting, one_at_a_time:
            outcome = await run_in_threadpool(_answer, question, version, table.engines[version], guard)
        milliseconds = 1_000 * (time.perf_counter() - start)
        counts.add(version, milliseconds, failed=outcome.failed, guarded=outcome.guarded)
        if log is not None:
            messages = [{"role": turn.role, "content": turn.content} for turn in question.messages]
            line = partial(log.add, name_of_reply, version, messages, outcome.reply, at=at, milliseconds=milliseconds)
            await run_in_threadpool(line)
        if outcome.reply is None:
            return _fault(500, "the reply failed", version)
        head = {"id": name_of_reply, "created": int(at.timestamp()), "model": f"{name}@{version}"}
        return _response(head, outcome.reply, outcome.reason, version, stream=question.stream)

    _take_verdicts(app, log, token)
    return app


def _take_verdicts(app: FastAPI, log: RequestLog | None, token: str) -> None:
    @app.post("/v1/feedback")
    async def take_verdict(request: Request) -> Response:
        if denied := _denied(request, token):
            return denied
        if log is None:
            return _fault(404, "no log is written; start the server with --log")
        verdict = await _read(request, _Verdict)
        if isinstance(verdict, Response):
            return verdict
        await run_in_threadpool(partial(log.add_verdict, verdict.id, verdict.feedback, at=_now()))
        return JSONResponse({"id": verdict.id, "feedback": verdict.feedback})


async def _read(request: Request, kind: type[BodyT]) -> BodyT | Response:
    """The body of a request, or the answer to one that is too long or of another form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return _fault(413, f"a body of more than {MAX_BODY_BYTES:,} bytes")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        return _fault(422, f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}")


@dataclass(frozen=True)
class _Outcome:
    """A reply, None where it failed; why it ends, and whether the guard blocked it, or masked anything new in it."""

    reply: str | None
    reason: str = "stop"
    guarded: bool = False

    @property
    def failed(self) -> bool:
        return self.reply is None


def _answer(question: _Question, version: str, engine: Engine, guard: Guard | None) -> _Outcome:
    """The work of one request; an error of the engine is logged by its kind, and never quoted."""
    try:
        return _guarded_reply(question, engine, guard)
    except Exception as error:
        logger.error("serving: version %s failed: %s", version, type(error).__name__)
        return _Outcome(None)


def _guarded_reply(question: _Question, engine: Engine, guard: Guard | None) -> _Outcome:
    messages = [{"role": turn.role, "content": turn.content} for turn in question.messages]
    limit = question.max_completion_tokens or question.max_tokens or 256
    entering = None
    if guard is not None:
        for message in messages:  # a client sends its earlier turns as it wrote them, or others
            entering = guard.check(message["content"], "input")
            if entering.text is None:
                return _Outcome(guard.blocked_reply, "content_filter", True)
            message["content"] = entering.text
    reply, is_cut = engine(messages, limit)
    reason = "length" if is_cut else "stop"
    if guard is None or entering is None:
        return _Outcome(reply, reason)
    leaving = guard.check(reply, "output")
    if leaving.text is None:
        return _Outcome(guard.blocked_reply, "content_filter", True)
    return _Outcome(leaving.text, reason, (entering.action, leaving.action) != ("passed", "passed"))


async def _follow(versions: Versions, counts: LiveCounts) -> None:
    while True:
        counts.turn(_serving(versions), _now())
        await asyncio.sleep(POLL_SECONDS)
        await run_in_threadpool(versions.try_to_follow)


def _serving(versions: Versions) -> tuple[str, ...]:
    return tuple(versions.table.shares) if versions.table else ()


def _denied(request: Request, token: str) -> Response | None:
    secrets = Secrets(tokens=(token.encode(),))
    return None if has_token(secrets, request.headers.get("authorization")) else _fault(401, "no valid token")


def _fault(status: int, message: str, version: str | None = None) -> Response:
    headers = {VERSION_HEADER: version} if version else None
    return JSONResponse({"error": {"message": message, "type": "perennial", "code": status}}, status, headers)


def _response(head: Mapping[str, Any], reply: str, reason: str, version: str, *, stream: bool) -> Response:
    headers = {VERSION_HEADER: version}
    if not stream:
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice]}, headers=headers)

    def events() -> Iterator[str]:
        for delta, end in (({"role": "assistant", "content": reply}, None), ({}, reason)):
            choice = {"index": 0, "delta": delta, "finish_reason": end}
            yield f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
