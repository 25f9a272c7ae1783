"""The demo's story: which commands it runs, what a second start repeats, and where each quarter's configuration points."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("demo")


@pytest.fixture
def commands(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that the demo ran, instead of running them; every retrain leaves a record with a name of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "support_desk.yaml").write_bytes((ROOT / "examples" / "support_desk.yaml").read_bytes())
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(demo, "perennial", lambda *arguments: ran.append(arguments))
    decisions = iter(["PROMOTE", "NEEDS_HUMAN", "NEEDS_HUMAN"])
    monkeypatch.setattr(
        "tasks.dossier.summary.read_record",
        lambda store: {"run_name": f"run-{len(ran)}", "decision": {"outcome": next(decisions)}},
    )
    return ran


def sizes(demo: ModuleType) -> argparse.Namespace:
    return argparse.Namespace(config=demo.CONFIG, rows=40, pairs=10)


def steps(demo: ModuleType) -> list[Callable[[Any], None]]:
    def retrain(quarter: Any) -> Callable[[Any], None]:
        return lambda diary: demo._retrain(quarter, sizes(demo), "store", diary)

    return [*map(retrain, demo.QUARTERS), lambda diary: demo._roll_back(demo.CONFIG, diary)]


def test_three_retrains_on_three_exports_and_a_rollback(demo: ModuleType, commands: list[tuple[str, ...]]) -> None:
    diary = demo.Diary(demo.DESK / "demo.json")
    for step in steps(demo):
        step(diary)
    assert [command[0] for command in commands] == ["retrain", "retrain", "approve", "retrain", "rollback"]
    assert commands[2][1] == "run-2", "only the second candidate is approved, and only because the gate asked"
    configs = [Path(command[2]) for command in commands if command[0] == "retrain"]
    sources = [Path(yaml.safe_load(path.read_text())["examples"]["path"]) for path in configs]
    assert len(set(sources)) == 3
    assert [len(path.read_text().splitlines()) for path in sources] == [40, 80, 40]


def test_only_the_data_of_a_later_quarter_differs(demo: ModuleType, commands: list[tuple[str, ...]]) -> None:
    diary = demo.Diary(demo.DESK / "demo.json")
    for quarter in demo.QUARTERS[:2]:
        demo._retrain(quarter, sizes(demo), "store", diary)
    first, second = (yaml.safe_load(Path(command[2]).read_text()) for command in commands if command[0] == "retrain")
    for settings in (first, second):
        settings["examples"].pop("path")
        settings["preferences"].pop("path")
        settings["truth"].pop("path")
        settings["prepare"]["confidential"].pop("denied_terms_file")
    assert first == second


def test_a_second_start_shows_what_was_done_and_goes_on_with_the_rest(
    demo: ModuleType, commands: list[tuple[str, ...]]
) -> None:
    first, second, *_ = steps(demo)
    first(demo.Diary(demo.DESK / "demo.json"))
    commands.clear()
    diary = demo.Diary(demo.DESK / "demo.json")
    first(diary)
    second(diary)
    assert [command[:2] for command in commands] == [("show", "run-1"), ("retrain", "--config"), ("approve", "run-2")]


def test_a_failed_retrain_is_not_noted(
    demo: ModuleType, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: str) -> None:
        raise SystemExit(2)

    monkeypatch.setattr(demo, "perennial", fail)
    with pytest.raises(SystemExit):
        steps(demo)[0](demo.Diary(demo.DESK / "demo.json"))
    assert demo.Diary(demo.DESK / "demo.json").outcome(demo.QUARTERS[0].title) is None


def test_a_changed_setting_trains_anew(demo: ModuleType, commands: list[tuple[str, ...]]) -> None:
    first, *_ = steps(demo)
    first(demo.Diary(demo.DESK / "demo.json"))
    with demo.CONFIG.open("a") as config:
        config.write("\n# another comment\n")
    first(demo.Diary(demo.DESK / "demo.json"))
    assert [command[0] for command in commands].count("retrain") == 2
