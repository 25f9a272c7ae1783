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
from collections.abc import Callable, Mapping, Sequence
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
from tasks.dossier.verdict import verdict_of
from tasks.registry import Answer
from tasks.registry.approval import describe_approval, fault_of_person
from tasks.registry.journal import open_requests
from tasks.tracking import connect, registry_errors

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
ListOpen = Callable[[], Sequence[tuple[str, str, str, Approval]]]
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


class ApprovalsPage:
    """The pages and their form.

    Args:
        secret: What the proxy sends in :data:`SECRET_HEADER`.
        name_header: The header in which it sends the person's name.
        waiting: Lists the open requests: model, version, run, request.
        read: Reads a run, and the present request for approval of its candidate.
        answer: Answers it.
    """

    def __init__(self, secret: bytes, name_header: str, waiting: ListOpen, read: ReadRun, answer: AnswerRun) -> None:
        self._secret = secret
        self._name_header = name_header
        self._waiting = waiting
        self._read = read
        self._answer = answer

    async def show_all(self, request: Request) -> Response:
        """The open requests, with those first that this person may answer."""
        person = self._person_of(request)
        if person is None:
            return _REFUSED
        try:
            requests = await run_in_threadpool(self._waiting)
        except PerennialError as error:
            return _fault(error)
        return _page("What awaits approval", _list(requests, person))

    async def show(self, request: Request, run: str) -> Response:
        """The question, with a form while it is open."""
        person = self._person_of(request)
        if person is None or not _RUN.fullmatch(run):
            return _REFUSED if person is None else _NO_RUN
        try:
            evidence, approval = await run_in_threadpool(self._read, run)
        except PerennialError as error:
            return _fault(error)
        title = f"{evidence.candidate.name}, version {evidence.candidate.version}"
        return _page(title, _question(evidence, approval, person, self._seal(person, run)))

    async def take(self, request: Request, run: str) -> Response:
        """Takes an answer."""
        person = self._person_of(request)
        if person is None or not _RUN.fullmatch(run):
            return _REFUSED if person is None else _NO_RUN
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return _page("Too long", "<p>The reason is too long.</p>", 413)
        fields = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if not hmac.compare_digest(fields.get("seal", "").encode(), self._seal(person, run).encode()):
            return _page("Not accepted", "<p>The form is not of this page. Open the page again, and answer there.</p>", 403)
        answer = {"verdict": fields.get("verdict"), "reason": fields.get("reason", "")}
        try:
            given = Answer.model_validate({**answer, "name": person, "identity": "proxy"})
        except ValidationError:
            return _page(
                "Not accepted", "<p>Choose approve or reject, and give a reason of at most 1000 characters.</p>", 422
            )
        try:
            record = await run_in_threadpool(self._answer, run, given)
        except PerennialError as error:
            return _fault(error)
        logger.info("approvals: %s was answered: %s", run, given.verdict)
        return _page("Recorded", f"<p>{html.escape(record.reason)}</p>")

    def _person_of(self, request: Request) -> str | None:
        """The authenticated person; None for a request that did not come through the proxy."""
        given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "surrogateescape")
        try:
            written = _written(request.headers.get(self._name_header, ""))
            name = check_text(written, self._name_header, most=NAME_CHARACTERS)
        except InputError:
            name = ""
        return name if hmac.compare_digest(given, self._secret) and name else None

    def _seal(self, person: str, run: str) -> str:
        """Binds a form to a person and a run, so that no other site can send it."""
        return hmac.new(self._secret, f"{person}\n{run}".encode(), hashlib.sha256).hexdigest()


def create_app(page: ApprovalsPage) -> FastAPI:
    """The application that serves the pages."""
    app = FastAPI(title="Perennial approvals", openapi_url=None)
    app.get("/")(page.show_all)
    app.get("/runs/{run}")(page.show)
    app.post("/runs/{run}")(page.take)
    return app


def _list(requests: Sequence[tuple[str, str, str, Approval]], person: str) -> str:
    """The requests as a list; those that the person may approve come first and are links."""
    lines: dict[bool, list[str]] = {True: [], False: []}
    for model, version, run, approval in requests:
        refusal = fault_of_person(approval, person, "proxy", "approve")
        title = html.escape(f"{model}, version {version}")
        link = f'<a href="runs/{html.escape(run)}">{title}</a>' if refusal is None and _RUN.fullmatch(run) else title
        lines[refusal is None].append(f"<li>{link}: {html.escape(describe_approval(approval))}</li>")
    listed = [*lines[True], *lines[False]]
    return f"<ul>{''.join(listed)}</ul>" if listed else "<p>Nothing.</p>"


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
    parts.append(f"<p>{html.escape(describe_approval(approval))}</p>")
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
    page = ApprovalsPage(
        secret,
        name_header,
        _open_requests,
        lambda run: read_request(store, run),
        lambda run, given: answer_run(store, run, given)[0],
    )
    uvicorn.run(create_app(page), host=host, port=port, access_log=False, log_config=None, server_header=False)


def _open_requests() -> list[tuple[str, str, str, Approval]]:
    client = connect()
    with registry_errors("the registry"):
        return list(open_requests(client))


_NO_RUN = _page("No such run", "<p>This is no name of a run.</p>", 404)
_REFUSED = _page("Not signed in", "<p>This page is reached through the proxy that authenticates people.</p>", 401)
