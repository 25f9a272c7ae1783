"""Probe files: the built-in ones are sound, own ones go first, and a faulty one is explained without showing its text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.support.config import RetrainConfig
from tasks.core.errors import InputError
from tasks.modeling.templates import prepared
from tasks.redteam.config import RedTeamConfig
from tasks.redteam.detectors import gives_away
from tasks.redteam.probes import FOLDER, KINDS, Probe, ProbeKind, choose_probes, read_probes, secret_of
from tasks.redteam.probing import refused_probes


def written(folder: Path, *lines: object) -> Path:
    path = folder / "probes.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_built_in_probes_are_sound(kind: ProbeKind) -> None:
    probes = read_probes(kind, FOLDER / f"{kind}.jsonl")
    assert len(probes) >= 12
    for probe in probes:
        filled = probe.messages({"token": "X", "secret": "X", **(probe.forms[0] if probe.forms else {})})
        assert not any(re.search(r"\{[a-z_]+\}", message["content"]) for message in filled)


def test_own_probes_go_first_and_may_replace_a_built_in_one(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "mine", "prompt": "a"}, {"id": "harmful-01", "prompt": "b"})
    chosen = choose_probes("harmful", [str(path)], 5)
    assert [probe.id for probe in chosen] == ["mine", "harmful-01", "harmful-02", "harmful-03", "harmful-04"]
    assert chosen[1].prompt == "b"


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        ("harmful", "{", "line 1: not JSON"),
        ("harmful", {"id": "a"}, "line 1: prompt: Field required"),
        ("harmful", {"id": "a", "prompt": "TOPSECRET", "extra": "TOPSECRET"}, "line 1: extra"),
        ("harmful", {"id": "a", "prompt": "TOPSECRET", "forms": [{"n": "x"}, {"n": "y"}]}, "none for others"),
        ("injection", {"id": "a", "prompt": "TOPSECRET"}, "prompt: has no {token}"),
        ("tool_result", {"id": "a", "prompt": "TOPSECRET", "result": "TOPSECRET"}, "result: has {token}"),
        ("harmful", {"id": "a", "prompt": "TOPSECRET", "result": "{token}"}, "stands in no others"),
        ("leak", {"id": "a", "prompt": "TOPSECRET", "system": "TOPSECRET"}, "system: has no {secret}"),
        ("counterfactual", {"id": "a", "prompt": "TOPSECRET"}, "two mappings"),
        ("counterfactual", {"id": "a", "prompt": "{n}", "forms": [{"n": "x"}, {"m": "y"}]}, "must fill exactly"),
        ("counterfactual", {"id": "a", "prompt": "{n}", "forms": [{"n": "x"}, {"n": "x"}]}, "do not differ"),
    ],
)
def test_a_faulty_line_is_named_and_never_shown(tmp_path: Path, kind: ProbeKind, line: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_probes(kind, written(tmp_path, line))
    assert words in str(caught.value)
    assert "TOPSECRET" not in str(caught.value)


def test_a_repeated_id_an_empty_file_and_no_file_are_clear_errors(tmp_path: Path) -> None:
    twice = {"id": "a", "prompt": "b"}
    with pytest.raises(InputError, match="line 2: its id stands in an earlier line"):
        read_probes("harmful", written(tmp_path, twice, twice))
    with pytest.raises(InputError, match="no probe"):
        read_probes("harmful", written(tmp_path, ""))
    with pytest.raises(InputError, match="FileNotFoundError"):
        read_probes("harmful", tmp_path / "absent.jsonl")


def test_a_faulty_file_stops_the_run_before_anything_is_spent(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "a"})
    with pytest.raises(ValueError, match="line 1: prompt"):
        RetrainConfig.model_validate(
            {"name": "desk", "examples": {"path": "x.jsonl"}, "redteam": {"probe_files": {"harmful": [str(path)]}}}
        )


def test_probes_that_a_template_refuses_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "mine", "prompt": "a"}, {"id": "fine", "prompt": "b"})
    config = RedTeamConfig(probe_files={"harmful": (str(path),)}, max_probes_per_kind=2)
    write = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert refused_probes("{% if messages[0].content == 'a' %}{{ raise_exception('no') }}{% endif %}" + write, config) == [
        "harmful:mine"
    ]
    without_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + write
    assert refused_probes(without_system, config)
    assert refused_probes(prepared(without_system), config) == []


def test_a_changed_file_is_a_changed_setting(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "a", "prompt": "b"})
    config = RedTeamConfig(probe_files={"harmful": (str(path),)})
    before = config.external_fingerprints()
    written(tmp_path, {"id": "a", "prompt": "c"})
    assert config.external_fingerprints() != before


@given(number=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_a_secret_is_its_probes_own(number: int, seed: int) -> None:
    probe, other = Probe(id=f"mine-{number}", prompt="x"), Probe(id=f"mine-{number + 1}", prompt="x")
    secret = secret_of(probe, seed)
    assert secret == secret_of(probe, seed)
    assert not gives_away(secret, secret_of(other, seed))
