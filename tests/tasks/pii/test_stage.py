"""The stage accounts for every row, whatever the rows, and the same whatever the batch size and the number of processes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.references import DatasetRef
from tasks.core.cache_key import content_of
from tasks.core.errors import (
    IntegrityError,
    MissingDependencyError,
    ModelNotFoundError,
    QualityLimitError,
    ScrubVerificationError,
)
from tasks.core.rows import MESSAGES_SCHEMA, rows_of, rows_to_table
from tasks.core.storage import open_store, run_store
from tasks.pii import NerConfig, PiiConfig, VerificationConfig, scrub, verify_scrub
from tasks.pii.detect.ner import load_names, pieces
from tasks.pii.policy import Policy
from tasks.pii.rows import find_class_values, scrub_rows
from tasks.pii.sharding import num_useful_workers, scrub_in_processes
from tasks.pii.task import cut_shards, join_shards, scrub_shard
from tasks.pii.verify.canaries import make_canaries

TURBO = PiiConfig(mode="turbo")


def row(name: str, text: str, reply: str = "Done.", known: list[str] | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": reply}],
        "context": "from jo@corp.example",
        "known_values": known,
    }


def rows() -> list[dict[str, Any]]:
    made = [row(f"r{number:03}", canary.text, canary.text.upper()) for number, canary in enumerate(make_canaries(60, 2))]
    made += [row("long", "x" * 2_000_000), row("known", "zed paid", known=["Zed", ""]), row("empty", "")]
    return rows_of(rows_to_table(made, "messages"))


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    return open_store(tmp_path / "store").write_rows(rows(), kind="messages", passed=["ingested"])


def test_every_row_is_accounted_for(dataset: DatasetRef) -> None:
    report = scrub.fn(dataset, TURBO)
    store = run_store()
    kept = store.read_rows(report.dataset)
    assert report.num_rows_in == 63
    assert report.quarantined["too_long"] == 1
    assert report.quarantine is not None
    refused = store.read_rows(report.quarantine)
    assert {each["id"] for each in kept} | {each["id"] for each in refused} == {each["id"] for each in rows()}
    assert report.dataset.passed == ("ingested", "scrubbed")
    assert all(each["known_values"] is None for each in kept)
    assert {each["context"] for each in kept} == {"from <EMAIL_ADDRESS>"}
    assert next(each for each in kept if each["id"] == "known")["messages"][0]["content"] == "<KNOWN_VALUE> paid"
    assert sum(report.entities.values()) == report.findings.num_rows


def test_findings_lead_to_what_the_scrubber_wrote(dataset: DatasetRef) -> None:
    report = scrub.fn(dataset, TURBO)
    store = run_store()
    texts = {each["id"]: each for each in store.read_rows(report.dataset)}
    for finding in store.read_table(report.findings).to_pylist():
        each = texts[finding["id"]]
        part = finding["field"].split(".")
        text = each["context"] if part == ["context"] else each["messages"][int(part[1])]["content"]
        assert text[finding["output_start"] : finding["output_end"]] == f"<{finding['entity']}>"


def test_verification_passes_and_lays_out_a_sample(dataset: DatasetRef) -> None:
    report = scrub.fn(dataset, TURBO)
    verification = verify_scrub.fn(report, TURBO)
    assert verification.holds
    assert (verification.num_leaks, verification.num_rows_caught) == (0, 0)
    assert verification.canary_recall.low is not None
    assert verification.sample is not None
    sample = run_store().read_bytes(verification.sample).decode().splitlines()
    assert len(sample) == 25
    assert "example.org" not in json.dumps(sample)


def test_verification_fails_the_run_below_its_gates(dataset: DatasetRef) -> None:
    report = scrub.fn(dataset, TURBO)
    strictest = TURBO.model_copy(update={"verification": VerificationConfig(min_canary_recall=1.0)})
    with pytest.raises(ScrubVerificationError, match="canary recall"):
        verify_scrub.fn(report, strictest)
    store = run_store()
    leaking = [{**row("leak", "fine"), "messages": [{"role": "user", "content": "jo@corp.example"}]}]
    forged = store.write_rows(leaking, kind="messages", passed=["scrubbed"])
    with pytest.raises(ScrubVerificationError, match=r"row leak messages\.0\.content") as caught:
        verify_scrub.fn(report.model_copy(update={"dataset": forged, "num_rows_in": 1, "quarantined": {}}), TURBO)
    assert "corp" not in str(caught.value)


def test_what_the_second_look_catches_is_counted_and_is_no_gate(
    dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that misses e-mail addresses: the patterns take the rows out, which proves nothing of the others."""
    blind = TURBO.model_copy(update={"operators": {"EMAIL_ADDRESS": "keep"}, "max_quarantined_share": 1.0})
    report = scrub.fn(dataset, blind)
    caught = sum(count for reason, count in report.quarantined.items() if reason.startswith("verifier_hit:"))
    assert caught > 0
    lenient = blind.model_copy(update={"verification": VerificationConfig(min_canary_recall=0.5)})
    verification = verify_scrub.fn(report, lenient)
    assert verification.num_rows_caught == caught
    assert verification.holds


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("write to jo@corp.example!", "EMAIL_ADDRESS"),
        ("ring +44 7700 900123 soon", "PHONE_NUMBER"),
        ("it came from 81.169.145.70", "IP_ADDRESS"),
    ],
)
def test_a_value_that_both_looks_miss_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, entity: str
) -> None:
    """The gate can fail: with the detector and the patterns blind, the independent readers alone find it."""
    monkeypatch.setattr("tasks.pii.detect.detector.Detector._apply_rules", lambda self, text: [])
    monkeypatch.setattr("tasks.pii.rows.match_patterns", lambda text, written: [])
    only = {**row("r7", text), "context": None}
    ref = open_store(tmp_path / "store").write_rows([only], kind="messages")
    report = scrub.fn(ref, TURBO)
    assert report.dataset.num_rows == 1
    with pytest.raises(ScrubVerificationError, match=rf"1 values found open: row r7 messages\.0\.content .* {entity}"):
        verify_scrub.fn(report, TURBO.model_copy(update={"verification": VerificationConfig(min_canary_recall=0.0)}))


def test_too_many_unreadable_rows_fail_the_run(tmp_path: Path) -> None:
    many = [row(str(number), "x" * 2000) for number in range(4)]
    ref = open_store(tmp_path / "store").write_rows(many, kind="messages")
    with pytest.raises(QualityLimitError, match="max_quarantined_share"):
        scrub.fn(ref, TURBO.model_copy(update={"max_text_chars": 1000}))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    sample = rows()[:20]
    base = scrub_rows(sample, Policy(TURBO))
    other = scrub_rows(sample, Policy(TURBO.model_copy(update={"batch_size": batch_size})))
    assert vars(other) == vars(base)


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["placeholder", "surrogate"])
def test_the_number_of_processes_changes_nothing(operator: str) -> None:
    config = PiiConfig.model_validate({"operator": operator})
    policy = Policy(config, key=b"key", common_terms=frozenset({"zorbatron"}))
    progress: list[tuple[int, int]] = []
    several = scrub_in_processes(rows(), MESSAGES_SCHEMA, policy, 3, on_progress=lambda *done: progress.append(done))
    assert vars(several) == vars(scrub_rows(rows(), policy))
    assert progress[-1] == (63, 63)


def test_processes_are_used_only_where_they_pay() -> None:
    small = [row("a", "x")]
    assert num_useful_workers(small, 0) == 1
    assert num_useful_workers(small, 8) == 1
    assert num_useful_workers(small * 10, 8) == 8


def test_a_missing_model_or_package_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="no_such_model"):
        load_names(NerConfig(model="no_such_model"))
    with pytest.raises(ModelNotFoundError, match="no/such/folder"):
        load_names(NerConfig(engine="transformers", model="/no/such/folder"))
    try:
        import gliner  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match="pii-gliner"):
            load_names(NerConfig(engine="gliner", model="any"))


def test_shards_of_other_rules_are_not_joined(dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TURBO.model_copy(update={"operator": "hash", "rows_per_shard": 40})
    monkeypatch.setenv("PERENNIAL_PII_KEY", "one")
    cut = cut_shards.fn(dataset, config)
    parts = [scrub_shard.fn(cut.shards[0], cut.common, config, run_store().uri)]
    monkeypatch.setenv("PERENNIAL_PII_KEY", "another")
    parts.append(scrub_shard.fn(cut.shards[1], cut.common, config, run_store().uri))
    with pytest.raises(IntegrityError, match="shard 1 of"):
        join_shards.fn(dataset, cut, parts, config)


def test_another_model_in_the_same_folder_is_another_setting(tmp_path: Path) -> None:
    config = PiiConfig(ner=NerConfig(engine="transformers", model=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"one")
    key, policy = content_of(config), Policy(config).sha256
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert content_of(config) != key
    assert Policy(config).sha256 != policy


def test_a_transformers_model_plugs_in(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zorb", "is", "here"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=34,
        id2label={0: "O", 1: "B-PER"},
        label2id={"O": 0, "B-PER": 1},
    )
    model = BertForTokenClassification(config)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data.copy_(model.classifier.bias.data.new_tensor([0.0, 5.0]))
    model.save_pretrained(tmp_path)
    names = load_names(NerConfig(engine="transformers", model=str(tmp_path)))
    ((first, *_),) = names.find(["zorb is here"])
    assert first[0] == 0
    assert first[2] == "PERSON"
    assert first[3] > 0.9
    long = "zorb is here " * 100
    found = names.find([long])[0]
    assert max(end for _, end, _, _ in found) == len(long.strip())  # it reads 32 tokens at once


def test_a_long_segment_is_cut_into_overlapping_pieces() -> None:
    segment = " ".join(f"word{number}," for number in range(400)) + "x" * 5_000
    cut = pieces(segment)
    assert all(segment[start : start + len(piece)] == piece for start, piece in cut)
    assert cut[0][0] == 0
    assert cut[-1][0] + len(cut[-1][1]) == len(segment)
    assert all(start < before + len(piece) for (before, piece), (start, _) in pairwise(cut))
    assert pieces("short enough") == [(0, "short enough")]


def labelled(name: str, value: str, role: str = "user") -> dict[str, Any]:
    return {
        **row(name, "hello"),
        "messages": [{"role": role, "content": "hello"}, {"role": "assistant", "content": "Done."}],
        "label": value,
        "annotations": [{"annotator": "first", "label": value}],
        "groups": [{"name": "region", "value": value}],
        "created_at": "2026-01-11T08:00:00Z",
    }


@pytest.mark.parametrize("value", ["Harriet Blankenship", "219-09-9999", "jo@corp.example", "+49 30 901820"])
def test_a_value_beside_the_texts_is_scrubbed_as_they_are(tmp_path: Path, strict: Policy, value: str) -> None:
    """Also where many rows share it: a person may be called often."""
    shared = [labelled(f"r{number}", value if number < 40 else "BILLING") for number in range(80)]
    report = scrub.fn(open_store(tmp_path / "store").write_rows(shared, kind="messages"), strict.config)
    kept = run_store().read_rows(report.dataset)
    assert value not in json.dumps(kept)
    first, last = kept[0], kept[-1]
    assert first["label"] == first["annotations"][0]["label"] == first["groups"][0]["value"] != value
    assert (last["label"], last["groups"][0]) == ("BILLING", {"name": "region", "value": "BILLING"})
    assert first["created_at"] == "2026-01-11T08:00:00Z"


@pytest.mark.parametrize("value", ["Zorbatron", "Kuchenblech", "PLAN_B7"])
def test_the_name_of_a_class_is_left_where_thirty_rows_share_it(strict: Policy, value: str) -> None:
    shared = [labelled(f"r{number}", value if number % 2 else "BILLING") for number in range(60)]
    assert find_class_values(shared, strict) >= {value, "BILLING", "region", "user"}
    assert value not in find_class_values(shared[:18], strict)


@pytest.mark.parametrize(
    "values", [("EMEA", "west", "Nord"), ("Setosa", "virginica", "versicolor"), ("Süd", "Ouest", "Centro")]
)
def test_the_classes_of_a_small_data_set_are_left(tmp_path: Path, strict: Policy, values: tuple[str, ...]) -> None:
    """A class stands alone, without the sentence that tells a name; a customer's name in the same field is no class."""
    rows = [labelled(f"r{number}", values[number % 3]) for number in range(45)]
    rows += [labelled("last", "Harriet Blankenship")]
    report = scrub.fn(open_store(tmp_path / "store").write_rows(rows, kind="messages"), strict.config)
    kept = run_store().read_rows(report.dataset)
    assert {row["groups"][0]["value"] for row in kept[:-1]} == set(values)
    assert "Blankenship" not in json.dumps(kept[-1])


def test_a_role_that_nobody_knows_takes_the_row_out(strict: Policy) -> None:
    result = scrub_rows([labelled("a", "X", role="Harriet Blankenship"), labelled("b", "X", role="developer")], strict)
    assert [(each["id"], each["reason"], each["field"]) for each in result.quarantined] == [
        ("a", "unknown_role", "messages.0.role")
    ]


def test_the_cost_of_masking_is_counted_and_frequent_terms_are_named(tmp_path: Path, strict: Policy) -> None:
    """A brand in many rows is a candidate to be allowed; a person's name is none, however many rows hold it."""
    texts = [f"The Zorbatron {number} of Harriet Blankenship hums, jo{number}@corp.example." for number in range(40)]
    texts += [f"Blankenship asked again, {number}." for number in range(40)]
    many = [{**row(f"r{number}", text), "context": None} for number, text in enumerate(texts)]
    config = strict.config.model_copy(update={"common_term_share": 0.0})
    report = scrub.fn(open_store(tmp_path / "store").write_rows(many, kind="messages"), config)
    figures = {one.name: one.value for one in report.measurements}
    assert (figures["masked_row_share"] or 0) >= 0.5
    assert (figures["distinct_rows_before"], 0 < (figures["distinct_rows_after"] or 0) <= 80) == (80, True)
    assert (figures["masked_character_share EMAIL_ADDRESS"] or 0) > 0.1
    assert all(one.term not in ("harriet", "blankenship") and "@" not in one.term for one in report.frequent_terms)
    assert all(one.num_rows >= 30 for one in report.frequent_terms)


def test_a_text_that_is_mostly_masked_stops_the_run(tmp_path: Path) -> None:
    many = [row(f"r{number}", " ".join(f"jo{number}.{place}@corp.example" for place in range(60))) for number in range(40)]
    ref = open_store(tmp_path / "store").write_rows(many, kind="messages")
    with pytest.raises(QualityLimitError, match=r"characters masked \(EMAIL_ADDRESS"):
        scrub.fn(ref, TURBO)
