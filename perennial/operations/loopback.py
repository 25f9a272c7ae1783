"""The embedded servers, protected from other accounts of the machine and from other pages in the user's browser.

A guard wraps the applications of Prefect and MLflow. It rejects a foreign ``Host`` (DNS rebinding) and a foreign ``Origin``
(another page in the browser), and requires the folder's credential if the application does not. uvicorn runs them, started
by :mod:`perennial.operations.embedded`.
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
"""The variable with the credential that an embedded server requires: ``user:password``."""
PROOF_PATH = "/perennial/proof"
NONCE_HEADER = "Perennial-Nonce"
_MAX_NONCE_CHARS = 100
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
"""For the pages of these servers: no external content, no external requests (Prefect's UI would request telemetry settings),
and no embedding in other pages."""


def proof_of(credential: str, port: int, nonce: str) -> str:
    """The proof that a server on this port knows the credential: an HMAC over port and nonce."""
    return hmac.new(credential.encode(), f"{port}:{nonce}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """Passes only requests of this folder's user; ASGI middleware.

    Args:
        app: The protected application.
        credential: ``user:password`` of HTTP basic authentication.
        authenticates_itself: The application checks the credential; otherwise the guard does.
        open_paths: Paths that need no credential.
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
        """Forwards the request, or rejects it."""
        rejection = None if scope["type"] == "lifespan" else self._rejection(scope)
        if rejection is None:
            await self._app(scope, receive, _with_policy(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await rejection(scope, receive, send)

    def _rejection(self, scope: Scope) -> Response | None:
        headers, port = Headers(scope=scope), int(scope["server"][1])
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return PlainTextResponse(f"This server answers only requests to 127.0.0.1:{port}.", 400)
        if origin is not None and origin != f"http://{host}":
            return PlainTextResponse("Only pages of this server may send requests to it.", 403)
        if scope["path"] == PROOF_PATH:
            nonce = headers.get(NONCE_HEADER, "")[:_MAX_NONCE_CHARS]
            return PlainTextResponse(proof_of(self._credential, port, nonce))
        if self._authenticates_itself:
            if host.startswith("localhost") and "text/html" in headers.get("accept", ""):
                return RedirectResponse(f"http://127.0.0.1:{port}{scope['path']}")  # the origin of the page's API
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if scope["path"] in self._open_paths or hmac.compare_digest(given, self._basic):
            return None
        return PlainTextResponse("Log in.", 401, {"WWW-Authenticate": 'Basic realm="Perennial", charset="UTF-8"'})


def _with_policy(send: Send) -> Send:
    """A ``send`` that adds :data:`_POLICY` to the response."""

    async def send_with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.append("Content-Security-Policy", _POLICY)
            headers.append("Referrer-Policy", "no-referrer")
        await send(message)

    return send_with_policy


def prefect_app() -> ASGIApp:
    """Prefect's server; its API and UI require ``PREFECT_SERVER_API_AUTH_STRING``."""
    from prefect.server.api.server import create_app

    return Guard(create_app(), os.environ[CREDENTIAL_VARIABLE], authenticates_itself=True)


def mlflow_app() -> ASGIApp:
    """MLflow's server; the guard authenticates, because MLflow supports accounts only with further packages.

    It serves ``MLFLOW_BACKEND_STORE_URI`` and ``MLFLOW_ARTIFACTS_DESTINATION`` like MLflow's command, which accepts no
    wrapped application.
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
