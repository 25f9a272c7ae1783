"""The command's mistakes-you-can-mend: one explained error, exit code 2, no trace, and the input untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from perennial.cli import shared
from perennial.cli.app import app


def plan(folder: Path, **settings: object) -> Result:
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "desk", "store": "store", **settings}))
    return CliRunner().invoke(app, ["plan", "--config", "config.yaml"])


def explained(result: Result) -> str:
    """The error's text, unwrapped; fails the test when it is not a user's error told in one message."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_a_missing_data_file_is_named(workplace: Path) -> None:
    assert "absent.jsonl" in explained(plan(workplace, examples={"path": "absent.jsonl"}))


def test_an_empty_data_file_is_named(workplace: Path) -> None:
    (workplace / "empty.jsonl").write_bytes(b"")
    assert "empty.jsonl" in explained(plan(workplace, examples={"path": "empty.jsonl"}))


def test_a_wrong_encoding_names_the_place_and_leaves_the_file_alone(workplace: Path) -> None:
    data = b'{"instruction": "caf\xe9?", "output": "Yes."}\n'
    (workplace / "latin.jsonl").write_bytes(data)
    assert "latin.jsonl" in explained(plan(workplace, examples={"path": "latin.jsonl"}))
    assert (workplace / "latin.jsonl").read_bytes() == data


def test_missing_columns_are_listed(workplace: Path) -> None:
    (workplace / "rows.csv").write_text("colour,shape\nred,round\n")
    message = explained(plan(workplace, examples={"path": "rows.csv"}))
    assert "colour" in message


def test_an_unknown_setting_is_named_with_its_nearest_neighbour(workplace: Path) -> None:
    assert "did you mean `examples`?" in explained(plan(workplace, exampels={"path": "a"}))


def test_an_unknown_base_model_is_named(workplace: Path) -> None:
    rows = "".join(f'{{"instruction": "Question {n}?", "output": "Answer {n}."}}\n' for n in range(20))
    (workplace / "rows.jsonl").write_text(rows)
    settings = {"base_model": {"source": str(workplace / "no-such-model")}}
    assert "no-such-model" in explained(plan(workplace, examples={"path": "rows.jsonl"}, training=settings))


def test_an_unknown_run_is_named(workplace: Path) -> None:
    result = CliRunner().invoke(app, ["show", "no-such-run", "--store", str(workplace / "store")])
    assert "no-such-run" in explained(result)


def test_a_home_that_cannot_be_written_is_named(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "file").write_text("in the way")
    monkeypatch.setenv("PERENNIAL_HOME", str(workplace / "file" / "home"))
    assert "PERENNIAL_HOME" in explained(plan(workplace, examples={"path": "a.jsonl"}))


def test_a_store_that_cannot_be_written_is_named(workplace: Path, tiny_model_dir: Path) -> None:
    rows = "".join(f'{{"instruction": "Question {n}?", "output": "Answer {n}."}}\n' for n in range(20))
    (workplace / "rows.jsonl").write_text(rows)
    settings = {"base_model": {"source": str(tiny_model_dir)}}
    message = explained(plan(workplace, store="/proc/store", examples={"path": "rows.jsonl"}, training=settings))
    assert "StoreError" in message
    assert "/proc/store" in message


@pytest.mark.parametrize(
    ("settings", "environment", "words"),
    [
        ({}, {}, "deployments: is required"),
        ({"deployments": {"desk": "no-slash"}}, {}, "deployments.?: String should match"),
        ({"deployments": {"desk": "a/b"}, "queu": "x"}, {}, "did you mean `queue`?"),
        ({"deployments": {"desk": "a/b"}}, {}, "PERENNIAL_ALERT_TOKEN"),
        ({"deployments": {"desk": "a/b"}}, {"PERENNIAL_ALERT_TOKEN": "a-long-enough-token"}, "PREFECT_API_URL"),
        (
            {"deployments": {"desk": "a/b"}, "queue": "config.yaml/q.db"},
            {"PERENNIAL_ALERT_TOKEN": "a-long-enough-token", "PREFECT_API_URL": "http://localhost:1/api"},
            "alert queue",
        ),
    ],
)
def test_a_bridge_that_cannot_start_says_why(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    environment: dict[str, str],
    words: str,
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (workplace / "config.yaml").write_text(yaml.safe_dump(settings))
    assert words in explained(CliRunner().invoke(app, ["alert-bridge", "--config", "config.yaml"]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve", "no-such-run", "--name", "Ann", "--reason", "why", "--store", "store"),
        ("reject", "latest", "--name", "Ann", "--reason", " ", "--store", "store"),
        ("rollout", "tick", "--config", "config.yaml", "--signals", "absent.jsonl"),
        ("rollout", "advance", "--config", "config.yaml", "--metric", "rate=high"),
        ("rollout", "abort", "--config", "config.yaml", "--reason", " "),
        ("search", "--config", "config.yaml", "--trials", "2", "--out", "config.yaml"),
        ("check", "--config", "config.yaml"),
        ("retrain", "--config", "absent.yaml"),
        ("prune", "--config", "absent.yaml"),
    ],
)
def test_no_server_starts_for_a_wrong_argument(
    workplace: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a server was started")

    (workplace / "config.yaml").write_text("name: desk\nstore: store\nexamples: {path: rows.jsonl}\n")
    monkeypatch.setattr("perennial.operations.embedded.prefect_api", start)
    explained(CliRunner().invoke(app, list(arguments)))


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_path_is_broken_by_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared.console, "_width", width)
    path = "/srv/perennial/" + "a-long-folder/" * 10 + "dossier.html"
    shared.print_pairs(
        f"A title with {path}", [("dossier", path), ("note", f"Many words stand before {path} and after it.")]
    )
    shared.print_pairs("Three", [("x", path, "1"), ("many words in a cell", "/tmp/y", "2")], num_text_columns=2)
    assert capsys.readouterr().out.count(path) == 4


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(option: str) -> None:
    group: Any = typer.main.get_command(app)
    names = [[name] for name in group.commands]
    names += [[name, each] for name, command in group.commands.items() for each in getattr(command, "commands", ())]
    for name in names:
        result = CliRunner().invoke(app, [*name, option])
        assert (result.exit_code, "Usage" in result.stdout) == (0, True), name
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("perennial ")
