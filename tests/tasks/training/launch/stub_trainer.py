"""A trainer process for the supervisor's tests: it has no model, but ends in every way that a trainer can end.

What to do in each attempt stands in ``script.json`` in the work folder, one action an attempt, followed by the steps to
report first. Plain JSON and no imports of the project, so that it starts in a moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

REPORTS: dict[str, dict[str, Any]] = {
    "finish": {"outcome": "done"},
    "oom": {"outcome": "out_of_memory", "detail": "ran out of memory"},
    "crash": {"outcome": "crashed", "detail": "failed with ValueError in somewhere.py:1"},
    "refuse": {
        "outcome": "refused",
        "fault": {"type": "QualityLimitError", "where": "here", "found": "this", "expected": "that", "todo": "Do it."},
    },
}


def main(path: str) -> None:
    spec = json.loads(Path(path).read_text())
    work = Path(spec["work_dir"])
    seen = work / "seen.jsonl"
    number = len(seen.read_text().splitlines()) if seen.exists() else 0
    if spec["plan"] is None and (work / "untimed.json").exists():
        (work / "plan.json").write_bytes((work / "untimed.json").read_bytes())
    with seen.open("a") as file:
        file.write(json.dumps(spec["plan"]) + "\n")
    action, *steps = json.loads((work / "script.json").read_text())[number].split()
    lines = "".join(json.dumps({"kind": "step", "phase": "sft", "step": int(step), "loss": 1.0}) + "\n" for step in steps)
    if action == "die":
        lines += '{"kind": "st'  # torn by the kill
    with (work / "progress.jsonl").open("a") as file:
        file.write(lines)
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang":
        time.sleep(600)
    if action == "finish":
        (work / "adapter").mkdir()
    report = {"outcome": "planned", "plan": spec["plan"]} if action == "plan" else REPORTS[action]
    (work / "report.json").write_text(json.dumps(report))


def supervise_quietly(spec_json: str) -> None:
    """What a parent process does in these tests."""
    from tasks.training.launch.protocol import TrainerSpec
    from tasks.training.launch.supervisor import supervise

    supervise(TrainerSpec.model_validate_json(spec_json), lambda event: None, worker=__name__)


if __name__ == "__main__":
    main(sys.argv[1])
