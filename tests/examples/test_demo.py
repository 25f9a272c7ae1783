"""The demo's story: which commands it runs, what it says of every outcome, and what a second start repeats.

Nothing is trained. A desk of its own stands behind the commands: it leaves real dossiers in a real store, with whatever
outcome a test wants, and keeps the registry's two aliases.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.registry import Approval, PromotionRecord
from tasks.contracts.run import RunEvidence
from tasks.core.storage import open_store
from tasks.dossier.summary import folder_of, latest_of
from tests.support.evidence import make_evidence

ROOT = Path(__file__).parents[2]
OUTCOMES = ("PROMOTE", "HOLD", "NEEDS_HUMAN")
ASKED_AT = "2026-07-01T02:00:00+00:00"


@pytest.fixture(scope="module")
def demo(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("demo")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunEvidence]:
    folder = tmp_path_factory.mktemp("template") / "store"
    return folder, make_evidence(folder, "PROMOTE", champion=True)


class Desk:
    """What stands behind the commands: runs with the wanted outcomes, the registry's aliases, the list of commands.

    Args:
        store: A store that holds what ``evidence`` refers to.
        evidence: The evidence that every run leaves, but for its outcome.
        outcomes: Of each retrain: a decision, or an exit code with which the retrain fails.
        answer_fails: The exit code with which answering fails; 0 where it works.
    """

    def __init__(self, store: Path, evidence: RunEvidence, outcomes: Sequence[str | int], answer_fails: int = 0) -> None:
        self.store, self.outcomes, self.answer_fails = open_store(store), list(outcomes), answer_fails
        self.commands: list[tuple[str, ...]] = []
        self._evidence = evidence
        self._champion: str | None = None
        self._previous: str | None = None
        self._num_runs = 0
        self.asks = True

    def champion(self) -> str | None:
        return self._champion

    def previous(self) -> str | None:
        return self._previous

    def __call__(self, *arguments: str) -> None:
        self.commands.append(arguments)
        match arguments[0]:
            case "retrain":
                self._retrain()
            case "approve" | "reject":
                self._answer(*arguments[:2])
            case "rollback":
                if self._previous is None:
                    raise SystemExit(1)
                self._champion, self._previous = self._previous, self._champion

    def _retrain(self) -> None:
        outcome = self.outcomes[self._num_runs]
        self._num_runs += 1
        if isinstance(outcome, int):
            raise SystemExit(outcome)
        candidate = self._evidence.candidate.model_copy(update={"version": str(self._num_runs)})
        decision = PromotionDecision(
            **{**self._evidence.decision.model_dump(), "outcome": outcome, "champion_version": self._champion}
        )
        asks = outcome == "NEEDS_HUMAN" and self.asks
        asked = Approval(outcome="NEEDS_HUMAN", champion_version=self._champion, requested_at=ASKED_AT) if asks else None
        if outcome == "PROMOTE":
            self._crown(candidate.version)
        promotion = PromotionRecord(
            candidate=candidate,
            promoted=outcome == "PROMOTE",
            champion_version=self._champion,
            previous_version=self._previous,
            reason="As the gate says.",
            approval=asked,
        )
        self._write(f"run-{self._num_runs}", {"candidate": candidate, "decision": decision, "promotion": promotion})

    def _answer(self, verdict: str, run: str) -> None:
        if self.answer_fails:
            raise SystemExit(self.answer_fails)
        record = json.loads(self.store.read_named(f"{folder_of(run)}/dossier.json") or b"")
        evidence = RunEvidence.model_validate(record)
        assert evidence.promotion.approval is not None
        assert evidence.promotion.approval.verdict is None
        approved = verdict == "approve"
        if approved:
            self._crown(evidence.candidate.version)
        answered = {"verdict": verdict, "by": "demo", "reason": "demo", "answered_at": ASKED_AT}
        approval = evidence.promotion.approval.model_copy(update=answered)
        changed = {"approval": approval, "promoted": approved, "champion_version": self._champion}
        update = {
            "candidate": evidence.candidate,
            "decision": evidence.decision,
            "promotion": evidence.promotion.model_copy(update=changed),
        }
        self._write(run, update)

    def _crown(self, version: str) -> None:
        self._champion, self._previous = version, self._champion

    def _write(self, run: str, update: dict[str, Any]) -> None:
        evidence = self._evidence.model_copy(update={"run_name": run, **update})
        self.store.write_named(f"{folder_of(run)}/dossier.json", evidence.model_dump_json().encode())
        self.store.write_named(latest_of(evidence.model_name), run.encode())

    def told(self) -> list[str]:
        return [command[0] for command in self.commands]


@pytest.fixture
def desk_of(
    demo: ModuleType, template: tuple[Path, RunEvidence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Desk]:
    """Makes a desk with the given outcomes, and puts it behind the demo's commands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "support_desk.yaml", "examples")
    shutil.copytree(template[0], tmp_path / "store")
    monkeypatch.setattr(demo.generate, "generate", lambda folder, **options: folder.mkdir(parents=True, exist_ok=True))

    def make(*outcomes: str | int, answer_fails: int = 0) -> Desk:
        desk = Desk(tmp_path / "store", template[1], outcomes, answer_fails)
        monkeypatch.setattr(demo, "perennial", desk)
        return desk

    return make


def sizes(demo: ModuleType) -> argparse.Namespace:
    return argparse.Namespace(config=demo.CONFIG, rows=40, pairs=10)


def diary(demo: ModuleType) -> Any:
    return demo.Diary(demo.DESK / "demo.json")


def tell(demo: ModuleType, desk: Desk) -> str:
    """The whole story, as it is printed."""
    with demo.console.capture() as printed:
        demo.tell_story(sizes(demo), desk.store.uri, diary(demo), desk)
    return " ".join(printed.get().split())


@pytest.mark.parametrize("outcomes", list(itertools.product(OUTCOMES, repeat=3)))
def test_whatever_the_outcomes_the_demo_explains_them_and_goes_on(
    demo: ModuleType, desk_of: Callable[..., Desk], outcomes: tuple[str, str, str]
) -> None:
    desk = desk_of(*outcomes)
    text = tell(demo, desk)
    assert desk.told().count("retrain") == 3
    answers = ("approve", "approve", "reject")
    expected = [answer for outcome, answer in zip(outcomes, answers, strict=True) if outcome == "NEEDS_HUMAN"]
    assert [name for name in desk.told() if name in ("approve", "reject")] == expected
    num_champions = sum(
        outcome == "PROMOTE" or (outcome == "NEEDS_HUMAN" and answer == "approve")
        for outcome, answer in zip(outcomes, answers, strict=True)
    )
    assert text.count("> Promoted:") == num_champions
    assert text.count("> Held:") == outcomes.count("HOLD")
    assert text.count("> Rejected by demo") == (outcomes[2] == "NEEDS_HUMAN")
    assert ("rollback" in desk.told()) == (num_champions > 1)
    assert ("There is nothing to go back to" in text) == (num_champions < 2)
    assert "One answer, before and after" in text
    assert "dossier.html" in text


def test_the_last_screen_shows_the_best_model_beside_the_base_on_one_prompt(
    demo: ModuleType, desk_of: Callable[..., Desk]
) -> None:
    text = tell(demo, desk_of("PROMOTE", "PROMOTE", "HOLD"))
    assert "Version 2, the last one promoted" in text, "each promotion was proven better than the champion before"
    assert "I'm sorry to hear that." in text
    assert "Press Support." in text
    assert "run-2/dossier.html" in text


def test_without_a_champion_the_last_screen_shows_a_candidate(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    assert "Version 1, not promoted" in tell(demo, desk_of("HOLD", "HOLD", "HOLD"))


@pytest.mark.parametrize("stopped", [(3, "PROMOTE", "HOLD"), ("PROMOTE", 3, "HOLD"), ("PROMOTE", "PROMOTE", 3), (3, 3, 3)])
def test_a_gate_that_stops_a_run_before_it_has_a_candidate_is_an_outcome(
    demo: ModuleType, desk_of: Callable[..., Desk], stopped: tuple[str | int, ...]
) -> None:
    desk = desk_of(*stopped)
    text = tell(demo, desk)
    assert text.count("A gate stopped the run") == stopped.count(3)
    assert text.count("Stopped by a gate") == stopped.count(3)
    assert desk.told().count("retrain") == 3


@pytest.mark.parametrize("code", [1, 2, 130])
def test_a_broken_retrain_ends_the_demo_and_is_not_noted(demo: ModuleType, desk_of: Callable[..., Desk], code: int) -> None:
    desk = desk_of("PROMOTE", code, "HOLD")
    with pytest.raises(SystemExit) as ending:
        tell(demo, desk)
    assert ending.value.code == code
    assert diary(demo).outcome(demo.QUARTERS[0].title) == "run-1"
    assert diary(demo).outcome(demo.QUARTERS[1].title) is None


def test_a_question_that_somebody_answered_first_is_no_fault(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    text = tell(demo, desk_of("PROMOTE", "NEEDS_HUMAN", "HOLD", answer_fails=2))
    assert "The question is closed" in text
    assert "Open: a person still has to answer" in text, "the dossier says what it knows"


def test_a_question_that_another_champion_outdated_is_no_fault(
    demo: ModuleType, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of("NEEDS_HUMAN", "HOLD", "HOLD", answer_fails=1)
    monkeypatch.setattr(desk, "champion", lambda: "9")
    assert "The question is closed" in tell(demo, desk)


def test_an_answer_that_fails_while_nothing_moved_ends_the_demo(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    with pytest.raises(SystemExit) as ending:
        tell(demo, desk_of("PROMOTE", "NEEDS_HUMAN", "HOLD", answer_fails=1))
    assert ending.value.code == 1


def test_a_candidate_that_nobody_is_asked_about_is_explained(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of("PROMOTE", "NEEDS_HUMAN", "HOLD")
    desk.asks = False
    text = tell(demo, desk)
    assert "Not promoted (As the gate says): version 1 stays champion." in text
    assert "approve" not in desk.told()


def test_a_second_start_shows_what_was_done(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of("PROMOTE", "NEEDS_HUMAN", "NEEDS_HUMAN")
    first = tell(demo, desk)
    desk.commands.clear()
    second = tell(demo, desk)
    assert desk.told() == ["show", "show", "show", "history"]
    for line in ("the gate proved it better", "demo approved it", "Rejected by demo"):
        assert line in first
        assert line in second


def test_an_interrupted_story_goes_on_with_the_rest(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of("PROMOTE", 130, "PROMOTE", "HOLD")
    with pytest.raises(SystemExit):
        tell(demo, desk)
    desk.commands.clear()
    tell(demo, desk)
    assert desk.told() == ["show", "retrain", "retrain", "rollback", "history"]


def test_a_changed_setting_trains_anew(demo: ModuleType, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of("PROMOTE", "HOLD", "HOLD", "PROMOTE", "HOLD", "HOLD")
    tell(demo, desk)
    with demo.CONFIG.open("a") as config:
        config.write("\n# another comment\n")
    tell(demo, desk)
    assert desk.told().count("retrain") == 6


def test_the_first_screen_is_three_lines_with_the_time_it_takes(demo: ModuleType) -> None:
    assert len(demo.OPENING) == 3
    assert any("minutes" in line for line in demo.OPENING)
    assert all(len(line) <= 125 for line in demo.OPENING)


def test_the_quarters_differ_in_their_data_alone(
    demo: ModuleType, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, load_script: Callable[[str], ModuleType]
) -> None:
    desk = desk_of("PROMOTE", "PROMOTE", "HOLD")
    monkeypatch.setattr(demo.generate, "generate", load_script("generate").generate)
    tell(demo, desk)
    configs = [yaml.safe_load(Path(command[2]).read_text()) for command in desk.commands if command[0] == "retrain"]
    sources = [Path(settings["examples"]["path"]) for settings in configs]
    assert len(set(sources)) == 3
    assert [len(path.read_text().splitlines()) for path in sources] == [40, 80, 40]
    for settings in configs:
        settings["examples"].pop("path")
        settings["preferences"].pop("path")
        settings["truth"].pop("path")
        settings["prepare"]["confidential"].pop("denied_terms_file")
    assert configs[0] == configs[1] == configs[2]
