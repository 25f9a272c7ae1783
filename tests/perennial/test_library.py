"""The page on the library: its code runs without a server, and connects to nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
_BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(encoding="utf-8"), re.DOTALL)
_GUARD = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        print("CONNECTS", event, arguments[-1], file=sys.stderr)
        raise OSError("no connection in this test")

sys.addaudithook(refuse)
"""


def run(folder: Path, code: str) -> str:
    """The output of a program in a folder, which must not connect to anything."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW", "DO_NOT"))}
    done = subprocess.run(
        [sys.executable, "-c", _GUARD + code],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "PERENNIAL_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CONNECTS" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_prepares_scores_and_decides(tmp_path: Path, tiny_model_dir: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_dir), lora).save_pretrained(tmp_path / "adapters/new")
    topics = ("router", "invoice", "printer", "account", "parcel", "screen", "keyboard", "battery", "cable", "licence")
    rows = [
        {
            "question": f"What is the best way to {verb} the {topic} here?",
            "answer": f"Open the {topic} menu, then {verb} it.",
        }
        for topic in topics
        for verb in ("reset", "update", "cancel", "replace", "clean")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = {
        "name": "desk",
        "store": "store",
        "examples": {"path": "rows.jsonl"},
        "prepare": {
            "validation": {"languages": ["en"]},
            "splitting": {"fresh_share": 0},
            "labels": {"audit_responses": False},
        },
        "training": {"base_model": {"source": str(tiny_model_dir)}},
        "benchmark": {"max_new_tokens": 4, "retention": False},
        "redteam": {"enabled": False},
        "promotion": {"max_retention_loss": None, "safety_guards": []},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (code,) = (block for block in _BLOCKS if "library.prepare" in block)
    notebook = json.loads((ROOT / "examples/library.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert "\n\n".join(cells) == code.rstrip()
    assert len(code.splitlines()) < 20
    told = run(tmp_path, code)
    assert re.search(r"\d+ rows to train on, \d+ frozen", told)
    assert re.search(r"^(HOLD|NEEDS_HUMAN)$", told, re.MULTILINE)


@pytest.mark.parametrize(("name", "printed"), [("deduplicate(", "['0', '2']"), ("verdict = decide(", "PROMOTE")])
def test_one_stage_runs_alone(tmp_path: Path, name: str, printed: str) -> None:
    (code,) = (block for block in _BLOCKS if name in block)
    assert run(tmp_path, code).strip() == printed


@pytest.mark.parametrize("package", ["flows.promote", "perennial.services.notifier"])
def test_importing_any_package_turns_telemetry_off(tmp_path: Path, package: str) -> None:
    code = (
        f"import {package}, os\nfrom prefect._internal.analytics import is_telemetry_enabled\nprint(is_telemetry_enabled())"
    )
    assert run(tmp_path, code).strip() == "False"
