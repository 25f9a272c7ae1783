"""A folder in which the real command runs the main job with a tiny model, on sample data with planted faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Workplace:
    """A folder with sample data, a tiny model, a configuration and embedded state of its own."""

    folder: Path
    settings: dict[str, Any]

    def write_config(self, **changes: Any) -> None:
        """Writes the configuration; ``changes`` are top-level sections to merge in."""
        merged = {**self.settings, **changes}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(merged))

    def start(self, *arguments: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Starts the command in this folder."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "perennial", *arguments],
            cwd=self.folder,
            env={
                **environment,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "PERENNIAL_HOME": str(self.folder / "home"),
            },
            stdout=log.open("w") if log else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def attempt(self, *arguments: str) -> tuple[int, str]:
        """Runs the command to its end; its exit code and what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    def run(self, *arguments: str) -> str:
        """Runs the command to its end and returns what it printed; fails the test when it failed."""
        code, output = self.attempt(*arguments)
        assert code == 0, output
        return output

    def retrain(self) -> dict[str, str]:
        """Runs `retrain`; the summary of every finished stage, in order, by its name (pairs override examples)."""
        return stages(self.run("retrain", "--config", "config.yaml"))

    def record(self) -> dict[str, Any]:
        """The newest dossier's record."""
        paths = sorted((self.folder / "store" / "dossiers").glob("*/dossier.json"), key=lambda path: path.stat().st_mtime)
        record: dict[str, Any] = json.loads(paths[-1].read_text())
        return record


def stages(output: str) -> dict[str, str]:
    """Name and printed rest of each finished-stage line; a stage that ran twice keeps both, joined."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        if line.startswith("✓ "):
            name, _, rest = line[2:].partition(" ")
            found[name] = f"{found[name]} / {rest.strip()}" if name in found else rest.strip()
    return found


def make_workplace(folder: Path, tiny_model_dir: Path) -> Workplace:
    """Sample data and a configuration in an empty folder."""
    generate = ROOT / "examples" / "support_desk" / "generate.py"
    data = folder / "data"
    subprocess.run([sys.executable, str(generate), "--out", str(data), "--rows", "160"], check=True)
    place = Workplace(
        folder,
        {
            "name": "desk",
            "store": "store",
            "examples": yaml.safe_load((ROOT / "examples" / "support_desk.yaml").read_text())["examples"]
            | {"path": str(data / "tickets.jsonl")},
            "preferences": {"path": str(data / "preferences.jsonl"), "format": "preferences"},
            "prepare": {"confidential": {"denied_terms_file": str(data / "deny_list.txt")}},
            "truth": {"path": str(data / "truth.jsonl")},
            "training": {
                "base_model": {"source": str(tiny_model_dir), "license": "apache-2.0"},
                "sft": {"num_train_epochs": 1, "learning_rate": 0.001},
                "dpo": {"num_train_epochs": 1},
            },
            "benchmark": {"max_new_tokens": 16, "max_examples": 16},
            "promotion": {"min_examples": 10},
        },
    )
    place.write_config()
    return place
