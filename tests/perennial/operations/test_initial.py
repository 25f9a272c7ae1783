"""A configuration written for a file reads it: what each column is was guessed, said, and loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from perennial.cli.app import app
from perennial.operations.initial import guess_settings, schema, write_initial
from tasks.core.errors import InputError


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


def desk(number: int, **more: Any) -> dict[str, Any]:
    return {"question": f"How do I pay bill {number}?", "answer": f"Pay bill {number} in the app.", **more}


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        (
            lambda n: {"customer_name": "Ann Bell", "email": f"a{n}@b.example"},
            {"known_value_columns": ["customer_name", "email"]},
        ),
        (lambda n: {"region": "EU" if n % 2 else "US"}, {"group_columns": ["region"]}),
        (lambda n: {"Topic": f"t{n % 3}"}, {"label_column": "Topic"}),
        (lambda n: {"sent_at": 1_767_225_600 + n}, {"created_at_column": "sent_at"}),
        (lambda n: {"date": f"{n + 13}/01/2026"}, {"created_at_column": "date", "created_at_format": "%d/%m/%Y"}),
        (lambda n: {"thumbs": "up" if n % 2 else "down"}, {"feedback_column": "thumbs"}),
        (lambda n: {"url": f"https://x.example/{n}"}, {}),
    ],
)
def test_the_columns_beside_the_texts_are_guessed(tmp_path: Path, more: Any, settings: dict[str, Any]) -> None:
    path = write(tmp_path / "d.jsonl", [desk(n, **more(n)) for n in range(15)])
    assert guess_settings(str(path)).settings == {"path": str(path), **settings}


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        ([{"Frage ": "Wo?", "ANTWORT": "Da."}] * 3, {"columns": {"prompt": "Frage ", "completion": "ANTWORT"}}),
        ([{"Prompt": "Where?", "Completion": "There."}], {"columns": {"prompt": "Prompt", "completion": "Completion"}}),
        (
            [{"a": f"a question {n}", "b": f"a long answer {n}", "c": n} for n in range(9)],
            {"columns": {"prompt": "a", "completion": "b"}},
        ),
        ({"tickets": [desk(n) for n in range(3)]}, {"records": "tickets"}),
        (
            {"data": {"rows": [{"comments": [{"body": "Why?"}, {"body": "So."}]}] * 3}},
            {"records": "data.rows", "columns": {"prompt": "comments.0.body", "completion": "comments.-1.body"}},
        ),
    ],
)
def test_the_texts_are_found_and_the_configuration_loads(tmp_path: Path, rows: Any, settings: dict[str, Any]) -> None:
    path = write(tmp_path / ("d.json" if isinstance(rows, dict) else "d.jsonl"), rows)
    guess, num_rows, _ = write_initial(str(path), tmp_path / "c.yaml")
    assert num_rows == (len(rows) if isinstance(rows, list) else 3)
    assert {key: value for key, value in guess.settings.items() if key not in ("path", "format")} == settings
    document = yaml.safe_load((tmp_path / "c.yaml").read_text())
    jsonschema.validate(document, schema())
    with pytest.raises(InputError, match="a file that exists"):
        write_initial(str(path), tmp_path / "c.yaml")


def test_the_command_says_what_it_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [desk(n, customer="Ann Bell") for n in range(5)])
    result = CliRunner().invoke(app, ["init", str(path), "--out", str(tmp_path / "c.yaml")])
    assert result.exit_code == 0, result.output
    assert "known_value_columns: ['customer']" in result.output
    assert "Ann" not in result.output + (tmp_path / "c.yaml").read_text()
    assert json.loads(CliRunner().invoke(app, ["init", "--schema"]).output)["properties"]["examples"]
    assert CliRunner().invoke(app, ["init"]).exit_code == 2
