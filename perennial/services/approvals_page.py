"""The page on which approvers answer, behind a proxy that authenticates people: their names come from its header.

The page trusts a header alone if the request also holds the secret that the page shares with the proxy. Answers go the way
of `perennial approve`: the first counts, and the run's settings say who may give one.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import logging
import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from flows.support.approvals import answer_run, read_request
from perennial.services.json_lines import log_as_json
from tasks.contracts.registry import Approval, PromotionRecord
from tasks.contracts.run import RunEvidence
from tasks.core.errors import ConfigError, InputError, PerennialError, RegistryError
from tasks.core.typed_text import NAME_CHARACTERS, check_text
from tasks.dossier.verdict import approval_line, verdict_of
from tasks.registry import Answer
from tasks.registry.approval import progress_of

logger = logging.getLogger(__name__)

SECRET_VARIABLE = "PERENNIAL_PROXY_SECRET"
SECRET_HEADER = "X-Perennial-Proxy"
_MIN_SECRET_LENGTH = 32
_MAX_BODY_BYTES = 20_000
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

ReadRun = Callable[[str], tuple[RunEvidence, Approval | None]]
AnswerRun = Callable[[str, Answer], PromotionRecord]


def read_proxy_secret(environment: Mapping[str, str]) -> bytes:
    """The secret that the proxy sends with every request.

    Raises:
        ConfigError: There is none, or it is short.
    """
    secret = environment.get(SECRET_VARIABLE, "").strip()
    if len(secret) < _MIN_SECRET_LENGTH:
        raise ConfigError(
            f"environment variable {SECRET_VARIABLE}",
            f"a secret of {len(secret)} characters" if secret else "no secret",
            f"at least {_MIN_SECRET_LENGTH} characters, which the proxy sends in {SECRET_HEADER}",
            "Make one with `openssl rand -hex 32`, and set it here and at the proxy.",
        )
    return secret.encode()


def create_app(secret: bytes, name_header: str, read: ReadRun, answer: AnswerRun) -> FastAPI:
    """The page.

    Args:
        secret: What the proxy sends in :data:`SECRET_HEADER`.
        name_header: The header in which it sends the person's name.
        read: Reads a run, and the present request for approval of its candidate.
        answer: Answers it.
    """
    app = FastAPI(title="Perennial approvals", openapi_url=None)

    def person_of(request: Request) -> str | None:
        """The authenticated person; None for a request that did not come through the proxy."""
        given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "surrogateescape")
        try:
            name = check_text(_written(request.headers.get(name_header, "")), name_header, most=NAME_CHARACTERS)
        except InputError:
            name = ""
        return name if hmac.compare_digest(given, secret) and name else None

    def seal(person: str, run: str) -> str:
        """Binds a form to a person and a run, so that no other site can send it."""
        return hmac.new(secret, f"{person}\n{run}".encode(), hashlib.sha256).hexdigest()

    @app.get("/runs/{run}")
    async def show(request: Request, run: str) -> Response:
        """The question, with a form while it is open."""
        person = person_of(request)
        if person is None or not _RUN.fullmatch(run):
            return _REFUSED if person is None else _page("No such run", "", 404)
        try:
            evidence, approval = await run_in_threadpool(read, run)
        except PerennialError as error:
            return _fault(error)
        title = f"{evidence.candidate.name}, version {evidence.candidate.version}"
        return _page(title, _question(evidence, approval, person, seal(person, run)))

    @app.post("/runs/{run}")
    async def take(request: Request, run: str) -> Response:
        """Takes an answer."""
        person = person_of(request)
        if person is None or not _RUN.fullmatch(run):
            return _REFUSED if person is None else _page("No such run", "", 404)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return _page("Too long", "<p>The reason is too long.</p>", 413)
        fields = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if not hmac.compare_digest(fields.get("seal", "").encode(), seal(person, run).encode()):
            return _page("Not accepted", "<p>The form is not of this page. Open the page again, and answer there.</p>", 403)
        try:
            given = Answer.model_validate(
                {"verdict": fields.get("verdict"), "name": person, "reason": fields.get("reason", ""), "identity": "proxy"}
            )
        except ValidationError:
            return _page(
                "Not accepted", "<p>Choose approve or reject, and give a reason of at most 1000 characters.</p>", 422
            )
        try:
            record = await run_in_threadpool(answer, run, given)
        except PerennialError as error:
            return _fault(error)
        logger.info("approvals: %s was answered: %s", run, given.verdict)
        return _page("Recorded", f"<p>{html.escape(record.reason)}</p>")

    return app


def _written(header: str) -> str:
    """A header's text: proxies send UTF-8, which HTTP's libraries read as Latin-1."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _question(evidence: RunEvidence, approval: Approval | None, person: str, seal: str) -> str:
    """The question and its state; a form while it is open."""
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in evidence.decision.reasons)
    parts = [f"<p>{html.escape(verdict_of(evidence).sentence)}</p>", f"<ul>{reasons}</ul>"]
    if approval is None:
        return "".join([*parts, "<p>No approval is requested.</p>"])
    state = [approval_line(approval)]
    if approval.verdict is None and (progress := progress_of(approval)):
        state.append(progress)
    parts.append(f"<p>{html.escape('; '.join(state))}.</p>")
    if approval.verdict is None:
        parts.append(_FORM.format(seal=seal, person=html.escape(person)))
    return "".join(parts)


_FORM = """
<form method="post">
<input type="hidden" name="seal" value="{seal}">
<p>You answer as <strong>{person}</strong>.</p>
<p><label><input type="radio" name="verdict" value="approve" required> approve: it becomes champion</label><br>
<label><input type="radio" name="verdict" value="reject"> reject: nothing changes</label></p>
<p><label>Why? It is recorded with the version.<br>
<textarea name="reason" rows="4" maxlength="1000" required></textarea></label></p>
<p><button>Answer</button></p>
</form>
"""
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>body{{font:16px/1.5 system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}}
textarea{{width:100%;font:inherit}}button{{font:inherit;padding:.4rem 1.2rem}}</style><h1>{title}</h1>{content}</html>"""


def _page(title: str, content: str, code: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=html.escape(title), content=content), code, _HEADERS)


def _fault(error: PerennialError) -> HTMLResponse:
    code = 503 if isinstance(error, RegistryError) else 409 if isinstance(error, InputError) else 500
    return _page("Not accepted", f"<p>{html.escape(str(error))}</p>", code)


def serve(secret: bytes, name_header: str, store: str, host: str, port: int) -> None:
    """Serves the page until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: ``PREFECT_API_URL`` is not set; the locks of the models are on that server.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "environment variable PREFECT_API_URL",
            "nothing, and no `perennial server` running here",
            "the Prefect server whose runs wait for approval",
            "Set it, or start `perennial server` in this folder first.",
        )
    log_as_json()
    logger.info("listening on %s port %d for the approvers in %s", host, port, name_header)
    app = create_app(
        secret,
        name_header,
        lambda run: read_request(store, run),
        lambda run, given: answer_run(store, run, given)[0],
    )
    uvicorn.run(app, host=host, port=port, access_log=False, log_config=None, server_header=False)


_REFUSED = _page("Not signed in", "<p>This page is reached through the proxy that authenticates people.</p>", 401)
