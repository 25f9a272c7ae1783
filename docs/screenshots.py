"""The pictures of docs/operating.md, taken from a real installation with a headless Chromium.

    PYTHONPATH=. python docs/screenshots.py        # writes docs/pictures/*.png; about five minutes

A tiny model is retrained on made-up tickets. Chromium (Debian: `chromium`) is driven through its own debugging protocol.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from flows.embedded import free_port
from tests.installation import POOLS, Installation, await_value, installation, small_job

PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1280, 860
PATIENCE_SECONDS = 7.0
"""The pages draw themselves after they have loaded; nothing says when they are done."""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer of the debugging protocol to a call."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, url: str) -> None:
        """Goes to an address and waits until the page has drawn itself."""
        self.call("Page.navigate", url=url)
        time.sleep(PATIENCE_SECONDS)

    def shoot(self, name: str) -> None:
        """Writes what is seen now."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(data))
        print(f"{name}.png")


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium with one empty page; gone afterwards."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="perennial-chromium-") as profile:
        arguments = [f"--remote-debugging-port={port}", f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"]
        flags = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        process = subprocess.Popen(["chromium", *flags, *arguments, "about:blank"], stderr=subprocess.DEVNULL)
        try:
            page = await_value(lambda: _page(port), seconds=60)
            with connect(page, max_size=None, open_timeout=60) as socket:
                driven = Browser(socket)
                size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                driven.call("Emulation.setDeviceMetricsOverride", **size)
                light = [{"name": "prefers-color-scheme", "value": "light"}]
                driven.call("Emulation.setEmulatedMedia", features=light)
                yield driven
        finally:
            process.terminate()
            process.wait()


def _page(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as response:
            pages = json.load(response)
    except OSError:
        return None
    return next((str(one["webSocketDebuggerUrl"]) for one in pages if one["type"] == "page"), None)


def take(place: Installation, seen: Browser) -> None:
    """Starts a run as an operator does and takes the pictures on the way."""
    ui = place.api.removesuffix("/api")
    deployment = place.ask("deployments/name/retrain/on-demand")["id"]
    seen.open(f"{ui}/deployments/deployment/{deployment}/run")
    seen.shoot("form")

    request = {"reason": "New products since October.", "max_device_hours": 2}
    run = place.start_run("retrain/on-demand", request=request)
    ended = place.await_run(run)
    if ended["state_type"] != "COMPLETED":
        raise RuntimeError("\n".join(place.log_of(run)))
    seen.open(f"{ui}/artifacts")
    seen.shoot("artifacts")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="perennial-pictures-") as name:
        folder = Path(name)
        config = small_job(folder)
        with installation(folder, "prefect", "mlflow") as place:
            place.start(*POOLS)
            place.perennial("deploy", "--file", str(place.deployments(config)))
            with browser() as seen:
                take(place, seen)


if __name__ == "__main__":
    main()
