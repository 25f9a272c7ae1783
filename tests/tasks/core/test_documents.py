"""Files that people hand in: one that would fill the memory, or is nested without end, is one clear error at every door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.support.config import load_config
from perennial.operations.review import import_answers
from perennial.operations.rollout import read_metrics
from tasks.confidential.task import _file_terms
from tasks.core.documents import MAX_BYTES, parse_json, parse_yaml, read_document, read_text
from tasks.core.errors import ConfigError, InputError
from tasks.dossier.kpis import read_kpis
from tasks.groundtruth.planted import read_planted_faults
from tasks.guard.filtering import read_policy
from tasks.labels.review import import_decisions
from tasks.prompting.retrieval import read_passages
from tasks.redteam.probes import read_probes

LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
MERGES = "\n".join(["a0: &a0 {k: v}", *(f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
ITSELF = "a: &a [*a]"
DEEP = "[" * 100_000

DOORS: dict[str, Callable[[Path], Any]] = {
    "configuration": load_config,
    "figures": read_kpis,
    "probes": lambda path: read_probes("injection", path),
    "truth": lambda path: read_planted_faults(str(path)),
    "denied terms": lambda path: _file_terms(str(path)),
    "live metrics": lambda path: read_metrics(path, ()),
    "review": lambda path: import_answers(None, path),  # type: ignore[arg-type]
    "guard policy": read_policy,
    "documents": lambda path: read_passages(str(path.parent)),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path, door: str) -> None:
    path = tmp_path / "given.txt"
    with path.open("wb") as file:
        file.truncate(2 * MAX_BYTES)
    with pytest.raises(InputError, match="more than 67,108,864 bytes"):
        DOORS[door](path)


@pytest.mark.parametrize("text", [LAUGHS, MERGES, ITSELF, DEEP])
def test_a_small_text_that_unfolds_without_end_is_no_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"expand to more than|nested too deeply"):
        parse_yaml(text)


@pytest.mark.parametrize("text", [LAUGHS, ITSELF, DEEP])
def test_such_a_configuration_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "given.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "given.yaml")


@pytest.mark.parametrize("text", ["", "a: [1, 2]\nb: &b {c: d}\ne: {<<: *b, f: *b}\n", "- 2024-01-01\n", "just a word"])
def test_ordinary_yaml_is_read_as_ever(text: str) -> None:
    assert parse_yaml(text) == yaml.safe_load(text)


def test_a_long_list_is_no_bomb() -> None:
    terms = [f"term {number}" for number in range(45_000)]
    assert parse_yaml(json.dumps({"terms": terms})) == {"terms": terms}


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_kpis(path.rename(path.with_suffix(".json"))),
        lambda path: read_metrics(path, ()),
        lambda path: read_planted_faults(str(path)),
        lambda path: read_probes("injection", path),
        lambda path: import_decisions(path.read_bytes(), "answers"),
    ],
)
def test_json_that_is_nested_without_end_is_one_clear_error(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    (tmp_path / "given.txt").write_text(DEEP)
    with pytest.raises(InputError):
        read(tmp_path / "given.txt")
    with pytest.raises(json.JSONDecodeError):
        parse_json(DEEP)


def test_a_text_comes_without_its_mark_and_with_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert read_text(tmp_path / "given.txt") == "one\ntwo\nthree"
    assert read_document(tmp_path / "given.txt").endswith(b"three")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", ("line 1", "line 3")),
        ("training:\n  sft: {max_steps: 3}\n  sft:\n    epochs: 1\n", ("line 2", "line 3")),
        ("- {a: 1}\n- {b: 1,\n   b: 2}\n", ("line 2", "line 3")),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, lines: tuple[str, str]) -> None:
    with pytest.raises(yaml.YAMLError) as error:
        parse_yaml(text)
    assert all(line in str(error.value) for line in lines)


def test_a_merged_key_may_be_overridden() -> None:
    assert parse_yaml("base: &b {x: 1, y: 2}\nown: {<<: *b, x: 3}\n")["own"] == {"x": 3, "y": 2}
