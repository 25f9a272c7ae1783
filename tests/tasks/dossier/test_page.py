"""The page shows the evidence, makes no network request, and shows no confidential text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.contracts.evaluation import ArmScores, GroundTruthReport, PromptingScore, PromptingVerdict
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.core.storage import open_store, run_store
from tasks.dossier.config import DossierConfig
from tasks.dossier.formatting import interval, metric_name, with_names, words
from tasks.dossier.page import compose_page
from tasks.dossier.provenance import installed_versions, public_settings
from tasks.dossier.rendering import render_page
from tasks.dossier.report_data import read_report_data
from tasks.dossier.summary import summary_lines
from tasks.dossier.verdict import verdict_of
from tests.support.evidence import make_evidence, with_every_section

VOID = {"meta", "link", "br", "img", "hr", "input"}


def render(evidence: RunEvidence, config: DossierConfig | None = None) -> str:
    config = config or DossierConfig()
    page = compose_page(evidence, read_report_data(evidence, config.num_answers), config, {"python": "3.11"}, "1 July 2026")
    return render_page(page).decode()


class Document(HTMLParser):
    """Collects tags, ids, links and text, and fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.anchors.append(str(given["href"]))
        self.sources += [str(value) for name, value in attrs if name in ("src", "srcset", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "store"


@pytest.fixture(scope="module")
def evidence(folder: Path) -> RunEvidence:
    return make_evidence(folder, champion=True)


@pytest.fixture(autouse=True)
def run_store_holds_the_evidence(folder: Path) -> None:
    open_store(folder)


@pytest.fixture(scope="module")
def html(evidence: RunEvidence) -> str:
    return render(evidence)


@pytest.fixture(scope="module")
def document(html: str) -> Document:
    return Document(html)


def test_the_page_is_one_file_without_requests(html: str, document: Document) -> None:
    assert not document.tags & {"script", "img", "iframe", "object", "embed", "video", "audio", "form"}
    assert all(source.startswith("#") for source in document.sources), "only references inside the page"
    assert not re.findall(r"url\((?!#)|@import|@font-face", html)
    assert re.findall(r'<link [^>]*href="([^"]*)"', html) == ["data:,"]
    assert "default-src 'none'" in html, "the browser enforces it"


def test_ids_are_unique_and_every_anchor_leads_somewhere(document: Document) -> None:
    assert len(document.ids) == len(set(document.ids))
    inside = [anchor[1:] for anchor in document.anchors if anchor.startswith("#")]
    assert inside
    assert set(inside) <= set(document.ids)
    assert [anchor for anchor in document.anchors if not anchor.startswith("#")] == [
        "http://localhost:4200/runs/flow-run/0a1b"
    ]


def test_the_page_has_every_section(document: Document) -> None:
    assert [name for name in document.ids if "-" not in name or name.endswith("-card")] == [
        "decision", "scores", "answers", "compliance", "data", "truth", "privacy", "labels", "bias", "training",
        "model-card", "data-card", "lineage", "record",
    ]  # fmt: skip


def test_figures_of_the_evidence_are_on_the_page(document: Document, evidence: RunEvidence) -> None:
    text = document.text
    assert "0.710 0.650–0.760" in text.replace(" , ", ", "), "the candidate's score with its interval"
    assert "+0.570 +0.531 to +0.604" in text
    assert "Malformed JSON 1" in text
    assert "In frozen set 12" in text
    assert "Email address 31" in text
    assert "0.942" in text, "measured recall of personal data"
    assert "240 made-up identities scrubbed with the data, 3 leaked" in text
    assert "Canary recall by type" in text
    assert "Wrong label 1 1" in text, "one removed, one for review"
    assert evidence.split.train.sha256[:12] in text
    assert "planned 2 min 31 s" in text
    assert "Memory 1.31 GB planned 748 MB" in text
    assert "Cost 0.05 EUR planned 0.04 EUR" in text
    assert "Rows dated 2026-01-11 to 2026-03-11" in text
    assert "rouge_l" not in text.split("For the record")[0], "metrics go by their names"


def test_plots_are_drawn_in_the_page_s_own_colours_with_text_as_text(html: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(plots) == 5  # scores, two funnels, two loss curves
    for plot in plots:
        assert "<text" in plot
        assert "var(--" in plot
        assert "var(--sans)" in plot
        assert not re.search(r"#0[1-8]0[1-8]0[1-8]", plot), "a stand-in colour was left"
        assert 'role="img" aria-label="' in plot
    assert ">ROUGE-L</text>" in plots[0].replace("\n", "")


def test_the_same_evidence_gives_the_same_bytes(evidence: RunEvidence, html: str) -> None:
    assert render(evidence) == html


def test_at_most_five_answers_and_none_where_none_are_configured(evidence: RunEvidence, html: str) -> None:
    assert html.count('<article class="answer">') == 5
    assert "<article" not in render(evidence, DossierConfig(num_answers=0))


def test_answers_run_from_the_largest_gain_to_the_largest_loss(evidence: RunEvidence) -> None:
    answers = read_report_data(evidence, 5).answers
    store = run_store()
    arms = {arm.arm: {row["id"]: row["rouge_l"] for row in store.read_rows(arm.examples)} for arm in evidence.benchmark.arms}
    gains = {name: arms["candidate"][name] - arms["base"][name] for name in arms["base"]}
    shown = [gains[answer.row_id] for answer in answers]
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (max(gains.values()), min(gains.values()))


def test_an_unscrubbed_benchmark_shows_no_answer(evidence: RunEvidence) -> None:
    store = run_store()
    raw = store.write_rows(store.read_rows(evidence.benchmark.dataset), kind="messages", passed=["ingested"])
    benchmark = evidence.benchmark.model_copy(update={"dataset": raw})
    assert read_report_data(evidence.model_copy(update={"benchmark": benchmark}), 5).answers == []


def test_text_from_the_data_cannot_become_markup(evidence: RunEvidence) -> None:
    hostile = '<script>alert(1)</script><b onclick="x">'
    decision = evidence.decision.model_copy(update={"reasons": (hostile,)})
    html = render(evidence.model_copy(update={"decision": decision, "model_name": hostile, "run_name": hostile}))
    assert "<script" not in html
    assert "<b onclick" not in html
    assert "&lt;script&gt;" in html


def test_no_training_text_is_on_the_page(evidence: RunEvidence, document: Document) -> None:
    store = run_store()
    for row in store.read_rows(evidence.split.train):
        assert row["messages"][0]["content"] not in document.text


def test_confidential_settings_are_not_shown(document: Document) -> None:
    assert "Bluefinch" not in document.text
    assert "denied_terms: (2 terms, not shown)" in document.text
    settings = {"a": [{"api_key": "k", "denied_terms": []}], "tokens": 5, "password": None}
    assert public_settings(settings) == {
        "a": [{"api_key": "(not shown)", "denied_terms": []}],
        "tokens": 5,
        "password": None,
    }


@pytest.mark.parametrize(
    ("outcome", "label", "tone"),
    [("PROMOTE", "Promoted", "good"), ("HOLD", "Held", "hold"), ("NEEDS_HUMAN", "Needs a person", "ask")],
)
def test_the_banner_names_the_outcome(tmp_path: Path, outcome: str, label: str, tone: str) -> None:
    evidence = make_evidence(tmp_path / "store", outcome, champion=True)  # type: ignore[arg-type]
    verdict = verdict_of(evidence)
    assert (verdict.label, verdict.tone) == (label, tone)
    assert "on 12 held-out examples it scores" in verdict.sentence
    assert "for the base model (difference" in verdict.sentence
    assert "for the champion (difference" in verdict.sentence
    assert f'<div class="verdict {tone}">' in render(evidence)


def test_a_passed_gate_without_promotion_is_not_called_promoted(evidence: RunEvidence) -> None:
    moved = evidence.promotion.model_copy(update={"promoted": False, "reason": "the champion changed meanwhile."})
    verdict = verdict_of(evidence.model_copy(update={"promotion": moved}))
    assert verdict.tone == "hold"
    assert verdict.sentence.endswith("but the champion changed meanwhile.")


def test_a_decision_without_comparisons_falls_back_on_its_reason(evidence: RunEvidence) -> None:
    decision = evidence.decision.model_copy(update={"outcome": "HOLD", "comparisons": (), "reasons": ("Only 3 examples.",)})
    assert "Only 3 examples." in verdict_of(evidence.model_copy(update={"decision": decision})).sentence


def test_a_broken_chain_fails_the_lineage_check(evidence: RunEvidence) -> None:
    other = run_store().write_rows([], kind="messages", passed=evidence.sft.dataset.passed)
    broken = evidence.model_copy(update={"sft": evidence.sft.model_copy(update={"dataset": other})})
    assert "a descendant of snapshot" in (read_report_data(broken, 0).lineage_fault or "")
    html = render(broken)
    assert re.search(r'<li class="fail">.{0,200}Lineage holds', html, flags=re.DOTALL)


def test_a_latency_is_marked_as_outside_of_the_decision(evidence: RunEvidence) -> None:
    html = render(evidence)
    assert html.count("not part of the decision") == html.count("Latency, 95th percentile") == 1


def test_a_test_row_among_the_training_rows_fails_the_check_whatever_the_gates_passed(evidence: RunEvidence) -> None:
    assert read_report_data(evidence, 0).num_leaked_rows == 0
    train, store = evidence.split.train, run_store()
    copied = {**store.read_rows(evidence.benchmark.dataset)[0], "id": "another-name"}
    leaking = store.write_rows(
        [*store.read_rows(train), copied],
        kind=train.kind,
        parents=[evidence.examples.decontamination.dataset],
        passed=train.passed,
    )
    broken = evidence.model_copy(update={"split": evidence.split.model_copy(update={"train": leaking})})
    assert read_report_data(broken, 0).num_leaked_rows == 1
    assert re.search(r'<li class="fail">.{0,200}Test set held out', render(broken), flags=re.DOTALL)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_leaks": 1},
        {"min_canary_recall": 0.99},
        {"dataset": None},
    ],
)
def test_the_personal_data_check_fails_where_its_evidence_does(evidence: RunEvidence, changes: dict[str, object]) -> None:
    assert re.search(r'<li class="pass">.{0,200}Personal data removed', render(evidence), flags=re.DOTALL)
    if "dataset" in changes:  # evidence about other rows
        changes = {"dataset": evidence.examples.frozen}
    verification = evidence.examples.verification.model_copy(update=changes)
    examples = evidence.examples.model_copy(update={"verification": verification})
    html = render(evidence.model_copy(update={"examples": examples}))
    assert re.search(r'<li class="fail">.{0,200}Personal data removed', html, flags=re.DOTALL)


def prompting_verdict() -> PromptingVerdict:
    def figure(value: float) -> Measurement:
        return Measurement(name="rouge_l", value=value, low=value - 0.05, high=value + 0.05, num_samples=40)

    return PromptingVerdict(
        verdict="FINE_TUNE",
        metric="rouge_l",
        target=0.6,
        arms=(
            PromptingScore(arm="base", score=figure(0.14), gain=None, reaches_target=False),
            PromptingScore(arm="few-shot", score=figure(0.31), gain=figure(0.17), reaches_target=False),
        ),
        num_train_rows=210,
        num_examples=40,
        minimum_detectable_effect=0.12,
        reasons=("The best baseline falls short of the target of 0.6 in rouge_l.",),
        remedies=("A target of 0.310 or less.",),
    )


def test_the_prompting_verdict_is_on_the_page_where_there_is_one(evidence: RunEvidence) -> None:
    fit = prompting_verdict()
    document = Document(render(evidence.model_copy(update={"fit": fit})))
    text = document.text
    assert "prompting" in document.ids
    assert "falls short of the target of 0.6 in ROUGE-L" in text
    assert "Examples in the prompt 0.310 0.260–0.360 +0.170 not reached" in text
    assert "Smallest gain found 4 times in 5 0.120 in ROUGE-L" in text
    silent = fit.model_copy(update={"verdict": None})
    assert "prompting" not in Document(render(evidence.model_copy(update={"fit": silent}))).ids


def test_the_newest_rows_are_on_the_page_or_why_there_are_none(evidence: RunEvidence) -> None:
    text = Document(render(with_every_section(evidence))).text
    assert "12 rows made after 1 April 2026, newer than every frozen example" in text
    assert "12 frozen examples and 12 fresh ones;" in text
    none = evidence.benchmark.model_copy(update={"holdout_unavailable_reason": "no row says when it was made (created_at)"})
    text = Document(render(evidence.model_copy(update={"benchmark": none}))).text
    assert "no row says when it was made (created_at)." in text


def test_slices_are_on_the_page_largest_first(evidence: RunEvidence) -> None:
    store = run_store()

    def sliced(arm: ArmScores) -> ArmScores:
        figures = [("X", 9, 0.2, 0.4), ("Y", 3, None, None), *((f"Z{number}", 2, None, None) for number in range(14))]
        rows = [
            {
                "dimension": "label",
                "value": value,
                "metric": metric,
                "num_examples": size,
                "mean": 0.3,
                "low": low,
                "high": high,
            }
            for value, size, low, high in figures
            for metric in ("rouge_l", "chrf")
        ]
        return arm.model_copy(update={"slices": store.write_table(pa.Table.from_pylist(rows), kind="table")})

    arms = tuple(sliced(arm) for arm in evidence.benchmark.arms)
    sliced_run = evidence.model_copy(update={"benchmark": evidence.benchmark.model_copy(update={"arms": arms})})
    text = Document(render(sliced_run)).text
    assert "Slice Examples Base Champion Candidate X Label 9 0.300 0.200–0.400" in text
    assert "Y Label 3 0.300 0.300 0.300 Z0" in text
    assert "4 smaller ones" in text


def test_the_terminal_shows_the_prompting_verdict(evidence: RunEvidence) -> None:
    verdict = prompting_verdict()
    lines = summary_lines(evidence.model_copy(update={"fit": verdict}).model_dump(mode="json"))
    assert [(verdict.reasons[0],)] in [block for _, block in lines]
    assert len(summary_lines(evidence.model_dump(mode="json"))) == len(lines) - 1


def test_optional_parts_may_be_absent(tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "store", truth=False)
    bare = evidence.model_copy(update={"preferences": None, "dpo": None, "flow_run_url": None, "truth": GroundTruthReport()})
    document = Document(render(bare))
    text = document.text
    assert "truth" not in document.ids
    assert "Preference pairs" not in text
    assert "DPO" not in text
    assert "LoRA adapter by SFT," in text


def test_a_run_with_kto_in_place_of_dpo_names_kto(evidence: RunEvidence) -> None:
    assert evidence.dpo is not None
    single = evidence.model_copy(update={"dpo": None, "kto": evidence.dpo.model_copy(update={"method": "kto"})})
    text = Document(render(single)).text
    assert "LoRA adapter by SFT and KTO," in text
    assert "Plan and actual SFT KTO" in text
    assert "KTO: loss by step." in text
    assert "DPO" not in text


def test_the_reason_of_a_run_is_on_the_page(evidence: RunEvidence) -> None:
    text = Document(render(evidence.model_copy(update={"reason": "New products since October."}))).text
    assert "New products since October." in text


def test_formatting() -> None:
    assert words("US_SSN") == "US SSN"
    assert words("near_duplicate") == "Near duplicate"
    assert words("verifier_hit:US_SSN") == "Verifier hit: US SSN"
    assert metric_name("rouge_l[BILLING]") == "ROUGE-L, BILLING"
    assert interval(0.1, 0.2) == "0.100–0.200"
    assert interval(-0.1, 0.2) == "\u22120.100 to 0.200"
    assert interval(None, 0.2) == ""
    assert (
        with_names("rouge_l 0.7, corpus_chrf 0.2, completed replies") == "ROUGE-L 0.7, chrF, corpus 0.2, completed replies"
    )


def test_versions_name_the_libraries_that_are_installed() -> None:
    versions = installed_versions()
    assert versions["prefect"].startswith("3.")
    assert "python" in versions


def test_every_figure_of_rows_trained_on_is_the_ledgers(tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "store")
    num_rows = evidence.split.train.num_rows
    sft = evidence.sft.model_copy(update={"num_trained_rows": 17})
    short = evidence.model_copy(update={"sft": sft})
    text = " ".join(Document(render(short)).words)
    assert f"Rows trained on 17 of {num_rows} rows" in text  # the data card
    assert f"Trained on 17 of {num_rows} rows" in text  # the model card
    assert re.search(rf"\b{num_rows} rows? trained on|trained on {num_rows}\b", text) is None
    page = compose_page(short, read_report_data(short, 0), DossierConfig(), {}, "1 July 2026")
    assert {tile.label: tile.value for tile in page.tiles}["Rows trained on"] == "17"
    whole = " ".join(Document(render(evidence)).words)  # a record of an older release has no ledger
    assert f"Trained on {num_rows} rows" in whole
