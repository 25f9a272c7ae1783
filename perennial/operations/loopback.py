"""The embedded servers as applications that only this folder's user reaches: not other accounts, not pages in a browser.

Prefect's and MLflow's own applications stand behind one guard. It refuses a ``Host`` that is not this address (DNS
rebinding) and an ``Origin`` that is not this page (any other page in the user's browser), and it asks for the folder's
credential where the application does not ask for it itself. Started by :mod:`perennial.operations.embedded` under uvicorn.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CREDENTIAL_VARIABLE = "PERENNIAL_SERVER_CREDENTIAL"
"""How a server of the embedded mode gets the credential that it asks for: ``user:password``."""
PROOF_PATH = "/perennial/proof"
NONCE_HEADER = "Perennial-Nonce"
_MAX_NONCE_CHARS = 100
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
"""Of a page of these servers: nothing from elsewhere, nothing to elsewhere (Prefect's asks a company for its telemetry's
settings), and no other page around it."""


def proof_of(credential: str, port: int, nonce: str) -> str:
    """What only a server that has the credential can answer on this port."""
    return hmac.new(credential.encode(), f"{port}:{nonce}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """Lets a request pass that comes from this machine's user; ASGI middleware.

    Args:
        app: What is guarded.
        credential: ``user:password`` of HTTP's basic authentication.
        authenticates_itself: The application asks for the credential; else the guard does.
        open_paths: Paths for which the guard asks for none.
    """

    def __init__(
        self, app: ASGIApp, credential: str, *, authenticates_itself: bool = False, open_paths: Collection[str] = ()
    ) -> None:
        self._app = app
        self._credential = credential
        self._basic = b"Basic " + base64.b64encode(credential.encode())
        self._authenticates_itself = authenticates_itself
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_policy(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, port = Headers(scope=scope), int(scope["server"][1])
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return PlainTextResponse(f"This server answers to 127.0.0.1:{port} alone.", 400)
        if origin is not None and origin != f"http://{host}":
            return PlainTextResponse("Only this server's own page may ask it.", 403)
        if scope["path"] == PROOF_PATH:
            nonce = headers.get(NONCE_HEADER, "")[:_MAX_NONCE_CHARS]
            return PlainTextResponse(proof_of(self._credential, port, nonce))
        if self._authenticates_itself:
            if host.startswith("localhost") and "text/html" in headers.get("accept", ""):
                return RedirectResponse(f"http://127.0.0.1:{port}{scope['path']}")  # where the page looks for its API
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if scope["path"] in self._open_paths or hmac.compare_digest(given, self._basic):
            return None
        return PlainTextResponse("Log in.", 401, {"WWW-Authenticate": 'Basic realm="Perennial", charset="UTF-8"'})


def _with_policy(send: Send) -> Send:
    """What sends an answer with :data:`_POLICY`."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.append("Content-Security-Policy", _POLICY)
            headers.append("Referrer-Policy", "no-referrer")
        await send(message)

    return sent


def prefect_app() -> ASGIApp:
    """Prefect's server; its API asks for ``PREFECT_SERVER_API_AUTH_STRING``, its page for the same."""
    from prefect.server.api.server import create_app

    return Guard(create_app(), os.environ[CREDENTIAL_VARIABLE], authenticates_itself=True)


def mlflow_app() -> ASGIApp:
    """MLflow's server, which knows no accounts without further packages; the guard asks.

    It serves what ``MLFLOW_BACKEND_STORE_URI`` and ``MLFLOW_ARTIFACTS_DESTINATION`` name, as MLflow's command would, which
    takes no application but its own.
    """
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = os.environ["MLFLOW_BACKEND_STORE_URI"]
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = os.environ["MLFLOW_ARTIFACTS_DESTINATION"]
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(os.environ["MLFLOW_BACKEND_STORE_URI"])
    return Guard(app, os.environ[CREDENTIAL_VARIABLE], open_paths=("/health", "/version"))
