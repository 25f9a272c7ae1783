"""Questions to Prefect's API by its client, as the embedded server wants them: with its credential and a CSRF token."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import get_client


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that a GET, or with a body a POST, of the API is answered."""
    with get_client(sync_client=True) as client:
        return client.request("GET" if body is None else "POST", path, **({} if body is None else {"json": body})).json()
