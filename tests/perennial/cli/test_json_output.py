"""Every command that says something says it as one JSON document too, alone on standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from perennial.cli.app import app
from perennial.cli.json_output import JsonOption, print_json
from perennial.cli.shared import console
from tasks.contracts.registry import RegisteredVersion

SERVERS = {"server", "alert-bridge", "notify", "serve", "guard", "approvals"}
"""They run until they are stopped, or answer line by line."""
WRITERS = {"rollout render"}
"""It prints the document of another program."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_that_ends_takes_json() -> None:
    lacking = {name for name, command in commands(typer.main.get_command(app)) if "--json" not in options_of(command)}
    assert lacking == SERVERS | WRITERS


def options_of(command: Any) -> list[str]:
    return [option for parameter in command.params for option in parameter.opts]


def document_of(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_is_kept_in_a_store_is_printed_without_a_server(fleet_files: Path) -> None:
    store = ("--store", str(fleet_files.parent / "store"))
    config = ("--config", str(fleet_files / "support-desk.yaml"))
    record = document_of("show", *store)
    assert record["decision"]["outcome"] == "HOLD"
    assert document_of("compare", "latest", "latest", *store)[0]["lines"]
    assert {"stage", "reason", "remedy"} <= set(document_of("quarantine", *store)[0])
    assert document_of("terms", *store) == record["examples"]["scrub"]["frequent_terms"]
    assert document_of("budget", "show", *config) == []


def test_a_written_file_is_named(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"question": "What is {n}?", "answer": "It is {n}."}}\n' for n in range(30)))
    out = tmp_path / "config.yaml"
    made = document_of("init", str(rows), "--out", str(out))
    assert (made["file"], made["rows"]) == (str(out), 30)
    assert document_of("canaries", "--config", str(out), "--out", str(tmp_path / "canaries.jsonl"))["canaries"] > 0


def test_an_error_leaves_standard_output_empty(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["show", "no-such-run", "--store", str(tmp_path), "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no-such-run" in result.stderr


@pytest.fixture
def other() -> typer.Typer:
    """An application whose command also prints for people."""
    made = typer.Typer()

    @made.command()
    def report(as_json: JsonOption = False) -> None:
        console.print("Reading ...")
        print("a library's line")
        if as_json:
            version = RegisteredVersion(name="débâcle", version="3", run_id="r", source_uri="s")
            address = "postgresql://ann:secret@db/x"
            print_json({"version": version, "score": float("nan"), "at": address, "path": Path("a/b")})

    return made


def test_the_document_stands_alone_and_holds_no_password(other: typer.Typer) -> None:
    result = CliRunner().invoke(other, ["--json"])
    document = json.loads(result.stdout)
    assert (document["score"], document["path"], document["version"]["name"]) == (None, "a/b", "débâcle")
    assert "secret" not in result.output
    assert {"Reading ...", "a library's line"} <= set(result.stderr.splitlines())
    plain = CliRunner().invoke(other, [])
    assert plain.stdout.splitlines() == ["Reading ...", "a library's line"]


_NOISY = """
import os, subprocess, typer
from perennial.cli.json_output import JsonOption, print_json
app = typer.Typer()

@app.command()
def report(as_json: JsonOption = False):
    print("python"); os.write(1, b"library"); subprocess.run(["echo", "child"])
    print_json({"text": "caf\\u00e9 \\udc80"})
    print("after")

app()
"""


def test_what_libraries_and_children_print_goes_to_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", _NOISY, "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["text"].startswith("café")
    assert all(word in done.stderr for word in (b"python", b"library", b"child", b"after"))
