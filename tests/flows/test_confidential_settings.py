"""No value of a configuration is shown by an error, and no list of it reaches Prefect, whatever goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from pydantic import BaseModel
from typer.testing import CliRunner

from flows.prepare import prepare_dataset
from flows.retrain import retrain
from flows.support.config import RetrainConfig, load_config, sent_to_prefect
from perennial.cli.app import app
from perennial.operations.deployment import deploy
from tasks.core.errors import ConfigError
from tasks.core.term_lists import KeptList, ListFile, is_listing, listings_in
from tests.support.answering import answer, answering
from tests.support.hostile import ordinary_lines
from tests.support.workplace import make_workplace

CANARY = "Vermilion-Heron-7731"
LISTS = ("prepare.confidential.denied_terms", "prepare.pii.allowed_terms", "redteam.toxic_terms")
NAMES_A_FILE = ("redteam.garak.python", "dossier.kpi_file", "benchmark.lm_eval.folder", "redteam.probe_files")
"""Settings whose value is the name of a file that is looked for at once, and named when it is not there."""


def settings_in(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The paths of all settings that hold no section."""
    for name, field in model.model_fields.items():
        options = [field.annotation, *typing.get_args(field.annotation)]
        sections = [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]
        if sections and not is_listing(field):
            yield from settings_in(sections[0], f"{path}{name}.")
        else:
            yield f"{path}{name}"


def document_with(path: str, value: Any, **more: Any) -> dict[str, Any]:
    """A configuration in which one setting has a value."""
    document: dict[str, Any] = {"name": "desk", "store": "store", "examples": {"path": "rows.jsonl"}, **more}
    place = document
    *sections, last = path.split(".")
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return document


def told_about(folder: Path, text: str) -> str:
    """The error about a configuration, with the errors behind it, as a trace shows them; empty where it is taken."""
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    try:
        load_config(folder / "config.yaml")
    except ConfigError:
        return traceback.format_exc()
    return ""


@pytest.mark.parametrize("path", sorted(set(settings_in(RetrainConfig)) - set(NAMES_A_FILE)))
def test_no_setting_s_value_is_shown_whatever_is_wrong_with_it(tmp_path: Path, path: str) -> None:
    wrong = ["--bad--"] if path != "training.sft.seed" else {}
    for value in (CANARY, [CANARY, 7], {CANARY: CANARY}, [[CANARY]], {"file": [CANARY]}, f"({CANARY}[", f"{CANARY}\n" * 9):
        told = told_about(tmp_path, yaml.safe_dump(document_with(path, value, training={"sft": {"seed": wrong}})))
        assert CANARY not in told
        assert "Heron" not in told
        assert told


@pytest.mark.parametrize("listing", LISTS)
@pytest.mark.parametrize(
    "line",
    [
        f"- *{CANARY}",
        f"- !{CANARY} x",
        f"- &{CANARY}",
        f"- {CANARY}: [",
        f"- '{CANARY}",
        f'- "{CANARY}\\q"',
        f"  {CANARY}: x",
    ],
)
def test_what_yaml_cannot_read_is_not_shown(tmp_path: Path, listing: str, line: str) -> None:
    text = yaml.safe_dump(document_with(listing, ["HERE"])).replace("- HERE", f"- HERE\n    {line}")
    told = told_about(tmp_path, text)
    assert CANARY not in told


def test_what_yaml_takes_for_an_impossible_date_is_an_explained_error(tmp_path: Path) -> None:
    assert "ValueError" in told_about(tmp_path, "name: desk\nexamples: {path: a.jsonl}\nx: 2026-13-45\n")


def many_terms(number: int = 45_000) -> list[str]:
    return [f"{CANARY} {number}" for number in range(number)]


def test_lists_of_any_length_go_by_reference(workplace: Path) -> None:
    config = RetrainConfig.model_validate(document_with(LISTS[0], many_terms()))
    sent = sent_to_prefect(config)
    assert CANARY not in sent.model_dump_json()
    assert len(sent.model_dump_json()) < 20_000
    assert CANARY not in repr(sent)
    assert (listing := listings_in(sent)[LISTS[0]]) == KeptList.model_validate(listing.model_dump())  # type: ignore[union-attr]
    assert sent_to_prefect(sent) == sent


@pytest.mark.parametrize("path", ["prepare.validation.allowed_labels", "dossier.limitations", "examples.system_prompt"])
def test_what_is_too_long_for_prefect_is_refused_by_name(workplace: Path, path: str) -> None:
    value: Any = many_terms() if path != "examples.system_prompt" else " ".join(many_terms())
    with pytest.raises(ConfigError, match=path) as refused:
        sent_to_prefect(RetrainConfig.model_validate(document_with(path, value)))
    assert CANARY not in str(refused.value)


def test_prepared_rows_are_filtered_and_prefect_has_no_term(embedded_home: Path, tmp_path: Path) -> None:
    rows = [*ordinary_lines(40), json.dumps({"instruction": f"What of {CANARY} 44999?", "output": "It is late."})]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "terms.txt").write_text(f"{CANARY} 44999\n")
    lenient = {"labels": {"embedding_model": "tfidf", "control_share": 0.0}, "validation": {"max_quarantine_share": 1.0}}
    store = str(tmp_path / "store")
    places: list[Any] = [many_terms(), {"file": str(tmp_path / "terms.txt")}]
    for place in places:
        document = document_with(LISTS[0], place)
        document["prepare"] |= lenient
        document["prepare"]["pii"] = {"mode": "turbo", "allowed_terms": [f"{CANARY} allowed"], "rows_per_shard": 20}
        config = sent_to_prefect(RetrainConfig.model_validate({**document, "store": store}))
        source = config.examples.model_copy(update={"path": str(tmp_path / "rows.jsonl")})
        prepared = prepare_dataset(source, config.prepare, store, "desk")
        assert prepared.confidential.num_quarantined == 1
    written = [path for path in embedded_home.rglob("*") if path.is_file() and "mlflow" not in path.name]
    assert any(path.name.startswith("prefect.db") for path in written)
    assert [path.name for path in written if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.usefixtures("embedded_home")
@pytest.mark.parametrize("command", [["retrain"], ["search", "--trials", "1", "--out", "best.yaml"], ["check"], ["prune"]])
def test_no_command_gives_a_list_to_its_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"sent-by-{command[0]}"
    document = document_with(LISTS[0], many_terms(), monitoring={"log": {"path": "absent.jsonl"}}) | {"name": name}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(app, [*command, "--config", "config.yaml"])
    assert CANARY not in result.output
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs(limit=200) if name in json.dumps(run.parameters)]
    assert runs, result.output
    assert all(CANARY not in json.dumps(run.parameters) for run in runs)


ECHO = answer("422 Unprocessable Entity", b'{"exception_message": "Vermilion-Heron-7731"}', "Content-Type: application/json")


@pytest.mark.parametrize("fault", ["echo", "too large", "nobody"])
def test_a_server_s_refusal_is_told_without_what_it_repeats(tmp_path: Path, fault: str) -> None:
    """Also of what does go to Prefect: here a system prompt, which is short enough."""
    document = document_with("examples.system_prompt", CANARY, prepare={"confidential": {"denied_terms": many_terms(100)}})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    sent = ECHO if fault == "echo" else answer("413 Payload Too Large", CANARY.encode())
    with answering(b"" if fault == "nobody" else sent) as url:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        environment |= {
            "PERENNIAL_HOME": str(tmp_path / "home"),
            "PREFECT_API_URL": url,
            "PREFECT_CLIENT_MAX_RETRIES": "0",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        command = [sys.executable, "-m", "perennial", "retrain", "--config", "config.yaml"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert CANARY not in told
    assert "Traceback" not in told
    assert "perennial doctor" in told


@pytest.mark.parametrize("faulty", [False, True])
def test_a_deployment_with_confidential_terms_in_place_is_refused_before_anything_is_sent(
    tmp_path: Path, faulty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.operations.deployment.get_client", None)
    config = document_with(LISTS[0], many_terms())
    if faulty:
        config["training"] = {"sft": {"seed": [CANARY]}}
    one = {
        "name": "quarterly",
        "entrypoint": f"{Path(__file__).parents[2] / 'flows' / 'retrain.py'}:retrain",
        "description": "d",
        "parameters": {"config": config},
        "work_pool": {"name": "p"},
    }
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [one]}))
    with pytest.raises(ConfigError, match="quarterly") as refused:
        list(deploy(tmp_path / "prefect.yaml", "local", 1))
    assert CANARY not in str(refused.value)
    assert ("seed" if faulty else "45,000") in str(refused.value)


def test_a_flow_s_own_check_shows_no_value() -> None:
    parameters = {"config": document_with("training.sft.seed", [CANARY])}
    with pytest.raises(Exception, match=r"config\.training\.sft\.seed") as refused:
        retrain.validate_parameters(parameters)
    assert CANARY not in str(refused.value)


def test_a_list_in_a_file_may_stand_in_a_deployment(tmp_path: Path) -> None:
    config = RetrainConfig.model_validate(document_with(LISTS[0], {"file": "terms.txt"}))
    assert listings_in(config)[LISTS[0]] == ListFile(file="terms.txt")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_whole_retrain_leaves_no_term_outside_the_store_s_own_copy(tmp_path: Path, tiny_model_dir: Path) -> None:
    place = make_workplace(tmp_path, tiny_model_dir)
    prepare = {"confidential": {"denied_terms": many_terms()}, "pii": {"allowed_terms": many_terms(200)}}
    place.write_config(prepare=prepare, redteam={"toxic_terms": many_terms(200)})
    told = place.run("retrain", "--config", "config.yaml") + place.run("show", "latest", "--store", "store")
    assert "write_dossier" in told
    assert CANARY not in told
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    found = {path for path in files if CANARY.encode() in (tmp_path / path).read_bytes()}
    kept = {path for path in found if path.is_relative_to("store/files")}
    assert found - kept == {Path("config.yaml")}
    assert len(kept) == 2  # the two short lists are the same
