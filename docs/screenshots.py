"""The pictures of docs/operating.md, taken from a real installation with a headless Chromium.

    PYTHONPATH=. python docs/screenshots.py        # writes docs/pictures/*.png; about five minutes

A tiny model is retrained on made-up tickets, and its candidate is approved by form.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.browser import Page, chromium_page
from tests.support.installation import POOLS, Installation, await_value, installation, small_job

PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1280, 860
PATIENCE_SECONDS = 7.0
"""The pages draw themselves after they have loaded; no event marks the end."""


def shooting(page: Page) -> Callable[..., None]:
    """A function that opens an address, clicks the buttons that it is given, and saves what the window then shows."""
    PICTURES.mkdir(exist_ok=True)

    def shoot(name: str, url: str, *buttons: str, width: int = WIDTH) -> None:
        page.open(url, width=width, height=HEIGHT)
        time.sleep(PATIENCE_SECONDS)
        for button in buttons:
            page.evaluate(
                f"[...document.querySelectorAll('button')].find(one => one.innerText.trim() === '{button}').click()"
            )
            time.sleep(PATIENCE_SECONDS)
        page.screenshot(PICTURES / f"{name}.png", whole=False)
        print(f"{name}.png")

    return shoot


def take(place: Installation, shoot: Callable[..., None]) -> None:
    """Starts a run as an operator does, answers its question, and takes the pictures on the way."""
    ui = place.api.removesuffix("/api")
    deployment = place.ask("deployments/name/retrain/on-demand")["id"]
    shoot("form", f"{ui}/deployments/deployment/{deployment}/run")

    run = place.start_run("retrain/on-demand", request={"reason": "New products since October.", "max_device_hours": 2})
    ended = place.await_run(run)
    if ended["state_type"] != "COMPLETED":
        raise RuntimeError("\n".join(place.log_of(run)))
    shoot("run", f"{ui}/runs/flow-run/{run}")
    shoot("artifacts", f"{ui}/artifacts")

    asking = await_value(lambda: _suspended(place), seconds=180)
    shoot("approval", f"{ui}/runs/flow-run/{asking}", "Resume")
    answer = ["--name", "Operator", "--reason", "Read the dossier.", "--store", str(place.folder / "store")]
    place.perennial("approve", "latest", *answer)
    shoot("version", f"{place.mlflow}/#/models/desk/versions/1", width=1800)  # MLflow's page wants room


def _suspended(place: Installation) -> str | None:
    """The run that waits for a person, once there is one."""
    runs = place.runs(flow_runs={"state": {"type": {"any_": ["PAUSED"]}}})
    return str(runs[0]["id"]) if runs else None


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="perennial-pictures-") as name:
        folder = Path(name)
        config = small_job(folder)
        config["training"]["sft"] |= {"max_steps": 12, "learning_rate": 0.003}
        config["promotion"] |= {"primary_metric": "nll"}
        config["registry"] = {"approval": "always"}
        with installation(folder, "prefect", "mlflow") as place:
            place.start(*POOLS)
            place.perennial("deploy", "--file", str(place.deployments(config)))
            with chromium_page(folder, webgl=True) as page:
                page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
                take(place, shooting(page))


if __name__ == "__main__":
    main()
