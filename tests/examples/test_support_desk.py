"""The sample data is reproducible, carries every fault where its truth says, and is otherwise clean."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "support_desk" / "generate.py"
FILES = ("tickets.jsonl", "preferences.jsonl", "truth.jsonl", "deny_list.txt")
REPLY = re.compile(r"^\[([A-Z]+)\] .+(\n\d\. .+){2,3}\nYours, the Veltrix crew\.$")


@pytest.fixture(scope="module")
def generator(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("generate")


@pytest.fixture(scope="module")
def desk(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    generator.generate(folder)
    return folder


def records(path: Path) -> dict[str, dict[str, Any]]:
    """Lines that hold an object, by id."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows[row["id"]] = row
    return rows


def truth(folder: Path, file: str = "tickets.jsonl") -> list[dict[str, Any]]:
    lines = (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["file"] == file]


def shingles(text: str) -> set[str]:
    text = " ".join(text.casefold().split())
    return {text[index : index + 5] for index in range(len(text) - 4)}


def likeness(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def texts_of(row: dict[str, Any]) -> str:
    return f"{row['instruction']} {row['response']}"


def test_the_same_arguments_give_the_same_bytes_in_another_process(desk: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": "1"})
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (desk / name).read_bytes(), name


def test_another_seed_gives_another_desk(generator: ModuleType, desk: Path, tmp_path: Path) -> None:
    generator.generate(tmp_path, seed=8)
    assert (tmp_path / "tickets.jsonl").read_bytes() != (desk / "tickets.jsonl").read_bytes()


def test_faults_have_their_shares(desk: Path) -> None:
    rows_with: dict[str, set[str]] = {}
    for record in truth(desk):
        rows_with.setdefault(record["kind"], set()).add(record["row_id"])
    counts = {kind: len(ids) for kind, ids in rows_with.items()}
    assert counts == {
        "pii": 50,
        "secret": 8,
        "code_name": 4,
        "exact_duplicate": 8,
        "near_duplicate": 13,
        "wrong_label": 17,
        "swapped": 6,
        "truncated": 6,
        "garbled": 5,
        "malformed": 8,
    }
    assert sum(counts.values()) == len({record["row_id"] for record in truth(desk)}), "one kind of fault a row"


def test_every_entity_type_comes_up(desk: Path, generator: ModuleType) -> None:
    found = {record["entity"] for record in truth(desk) if record["kind"] == "pii"}
    assert found == set(generator.PERSONAL_VALUES)
    assert {record["entity"] for record in truth(desk) if record["kind"] == "secret"} == set(generator.SECRET_VALUES)


def test_planted_values_stand_where_truth_says(desk: Path) -> None:
    columns = {
        "tickets.jsonl": {"messages.0.content": "instruction", "messages.1.content": "response"},
        "preferences.jsonl": {"prompt.0.content": "prompt", "chosen.0.content": "chosen"},
    }
    for file, names in columns.items():
        rows = records(desk / file)
        for record in truth(desk, file):
            if record["value"] is not None:
                assert rows[record["row_id"]][names[record["field"]]].count(record["value"]) == 1, record["row_id"]


def test_card_numbers_and_ibans_check_out(desk: Path) -> None:
    for record in truth(desk):
        if record["entity"] == "CREDIT_CARD":
            digits = [int(digit) for digit in record["value"] if digit.isdigit()]
            doubled = [2 * digit - 9 * (digit > 4) if index % 2 == 0 else digit for index, digit in enumerate(digits)]
            assert sum(doubled) % 10 == 0
        if record["entity"] == "IBAN_CODE":
            plain = record["value"].replace(" ", "")
            assert int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def test_malformed_lines_are_what_truth_says(desk: Path) -> None:
    lines = (desk / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    malformed = {record["line"]: record["row_id"] for record in truth(desk) if record["kind"] == "malformed"}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        texts = [row.get("instruction"), row.get("response")] if isinstance(row, dict) else [None]
        good = all(isinstance(text, str) and text.strip() for text in texts)
        assert good == (number not in malformed), number
        if number in malformed:
            assert malformed[number] == (row["id"] if isinstance(row, dict) else f"line-{number}")


def test_clean_rows_follow_the_house_style_and_are_no_near_duplicates(desk: Path) -> None:
    faulty = {record["row_id"] for record in truth(desk)}
    clean = [row for name, row in records(desk / "tickets.jsonl").items() if name not in faulty]
    assert len(clean) > 0.68 * 420
    for row in clean:
        match = REPLY.match(row["response"])
        assert match is not None, row["id"]
        assert match[1] == row["category"], row["id"]
    prints = [shingles(texts_of(row)) for row in clean]
    assert max(likeness(one, other) for index, one in enumerate(prints) for other in prints[:index]) < 0.65


def test_duplicates_resemble_their_originals(desk: Path) -> None:
    rows = records(desk / "tickets.jsonl")
    for record in truth(desk):
        if record["duplicate_of"]:
            alike = likeness(*(shingles(texts_of(rows[name])) for name in (record["row_id"], record["duplicate_of"])))
            assert alike == 1.0 if record["kind"] == "exact_duplicate" else 0.85 < alike < 1.0, record["row_id"]


def test_wrong_labels_differ_from_the_right_one_which_the_reply_names(desk: Path) -> None:
    rows = records(desk / "tickets.jsonl")
    for record in truth(desk):
        if record["kind"] == "wrong_label":
            row = rows[record["row_id"]]
            assert row["category"] != record["correct_label"]
            assert row["response"].startswith(f"[{record['correct_label']}]")


def test_the_second_quarter_is_newer_and_asks_anew(generator: ModuleType, desk: Path, tmp_path: Path) -> None:
    generator.generate(tmp_path, quarter=2)
    first, second = records(desk / "tickets.jsonl"), records(tmp_path / "tickets.jsonl")
    assert not first.keys() & second.keys()
    assert max(row["created_at"] for row in first.values()) < min(row["created_at"] for row in second.values())
    assert {row["category"] for row in first.values()} == {row["category"] for row in second.values()}
    questions = {row.get("instruction", "").casefold() for row in first.values()}
    assert not questions & {row["instruction"].casefold() for row in second.values() if "instruction" in row}
    assert any("SolarPatch" in row.get("instruction", "") for row in second.values())


def test_an_export_of_everything_so_far_starts_with_the_first_quarter(generator: ModuleType, tmp_path: Path) -> None:
    sizes = {"num_rows": 100, "num_pairs": 20}
    generator.generate(tmp_path / "both", quarter=2, with_earlier=True, **sizes)
    for quarter, folder in enumerate(("first", "second"), start=1):
        generator.generate(tmp_path / folder, quarter=quarter, **sizes)
    for name in ("tickets.jsonl", "preferences.jsonl"):
        assert (tmp_path / "both" / name).read_bytes() == b"".join(
            (tmp_path / quarter / name).read_bytes() for quarter in ("first", "second")
        )
    lines = (tmp_path / "both" / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    for record in truth(tmp_path / "both"):
        if record["row_id"].startswith("sd-"):
            assert record["row_id"] in lines[record["line"] - 1]
        else:
            assert record["row_id"] == f"line-{record['line']}"


def test_a_garbled_set_has_no_reply_in_house_style(generator: ModuleType, tmp_path: Path) -> None:
    generator.generate(tmp_path, garbled=True)
    replies = [row.get("response") for row in records(tmp_path / "tickets.jsonl").values()]
    assert not any(REPLY.match(reply) for reply in replies if isinstance(reply, str))
    pairs = records(tmp_path / "preferences.jsonl").values()
    assert any(REPLY.match(pair["rejected"]) for pair in pairs if "rejected" in pair), "the good reply is the rejected one"
