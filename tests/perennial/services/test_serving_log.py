"""The log of the embedded server: scrubbed before it is written, sampled, by day, and read by the check of production."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from perennial.services.serving import create_app
from perennial.services.serving_counts import LiveCounts
from perennial.services.serving_log import RequestLog
from perennial.services.serving_versions import Versions
from tasks.confidential import ConfidentialConfig
from tasks.core.errors import ConfigError
from tasks.guard import GuardRulesConfig
from tasks.guard.filtering import Guard, GuardPolicy
from tasks.ingest.config import LogConfig
from tasks.ingest.log import LogRows, read_log
from tasks.ingest.reading import read_configured
from tasks.ingest.window import Window
from tasks.pii import PiiConfig
from tasks.registry.live import Traffic

TOKEN = "0123456789abcdef"
SECRET = "ghp_" + "a1B2" * 9
DAY = dt.datetime(2026, 3, 2, 10, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def scrubber() -> Guard:
    pii = PiiConfig.model_validate({"mode": "turbo"})
    return Guard(GuardPolicy.of(GuardRulesConfig(injection="off"), pii, ConfidentialConfig()))


@pytest.fixture
def client(tmp_path: Path, scrubber: Guard) -> Iterator[TestClient]:
    def reply(messages: Any, limit: int) -> tuple[str, bool]:
        if "fail" in messages[-1]["content"]:
            raise RuntimeError("out of memory")
        return f"You wrote: {messages[-1]['content']}", False

    versions = Versions(lambda: Traffic("7", "7", None), lambda alias: ("7", reply))
    versions.follow()
    log = RequestLog(tmp_path / "log", scrubber)
    with TestClient(create_app("desk", versions, LiveCounts(None), TOKEN, None, log)) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client


def ask(client: TestClient, text: str) -> Any:
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]})


def read(folder: Path) -> LogRows:
    config = LogConfig(path=str(folder))
    year = dt.timedelta(days=365)
    window = Window(dt.datetime.now(dt.UTC) - year, dt.datetime.now(dt.UTC) + year)
    return read_log(read_configured(config), config, window)


def test_what_was_served_is_read_again_with_figures_and_verdicts_and_without_personal_data(
    client: TestClient, tmp_path: Path
) -> None:
    first = ask(client, "My mail is jo.smith@corp.example, is it open?").json()["id"]
    second = ask(client, "Is it open on Monday?").json()["id"]
    assert ask(client, f"My token is {SECRET}").status_code == 200
    assert ask(client, "please fail").status_code == 500
    assert client.post("/v1/feedback", json={"id": second, "feedback": "down"}).status_code == 200
    assert client.post("/v1/feedback", json={"id": first, "feedback": "up"}).status_code == 200
    everything = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert b"jo.smith" not in everything
    assert SECRET.encode() not in everything
    requests = read(tmp_path / "log")
    assert [line["feedback"] for line in requests.lines] == ["up", "down", None, None]
    assert [line["failed"] for line in requests.lines] == [False, False, False, True]
    assert {line["model_version"] for line in requests.lines} == {"7"}
    assert all(line["latency_ms"] >= 0 for line in requests.lines)
    texts = [[message["content"] for message in row["messages"]] for row in requests.ingested.rows]
    assert texts[1] == ["Is it open on Monday?", "You wrote: Is it open on Monday?"]
    assert texts[0][1].startswith("You wrote: My mail is <EMAIL_ADDRESS>")


@pytest.mark.parametrize(
    "body", [b"{}", b'{"id": "Ann Lee", "feedback": "up"}', b'{"id": "chatcmpl-0", "feedback": "0"}', b"[" * 99]
)
def test_a_verdict_of_another_form_is_refused_and_not_quoted(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/feedback", content=body)
    assert answer.status_code == 422
    assert "Ann Lee" not in answer.text
    assert client.post("/v1/feedback", content=body, headers={"Authorization": "Bearer no"}).status_code == 401


def test_figures_are_kept_of_all_and_texts_of_a_share(tmp_path: Path, scrubber: Guard) -> None:
    log = RequestLog(tmp_path, scrubber, share=0.25)
    for number in range(200):
        log.add(f"r{number}", "7", [{"role": "user", "content": "Hi"}], "Hello", at=DAY, milliseconds=1.0)
    lines = [json.loads(line) for line in (tmp_path / "requests-2026-03-02.jsonl").read_text().splitlines()]
    assert len(lines) == 200
    assert 25 <= sum("messages" in line for line in lines) <= 80


def test_each_day_has_a_file_and_old_ones_go(tmp_path: Path, scrubber: Guard) -> None:
    (tmp_path / "notes.jsonl").write_text("{}")
    log = RequestLog(tmp_path, scrubber, days=2)
    for day in range(5):
        log.add_verdict("r", "up", at=DAY + dt.timedelta(days=day))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["notes.jsonl", *(f"requests-2026-03-0{day}.jsonl" for day in (4, 5, 6))]
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("requests-*"))


def test_a_full_disk_costs_lines_and_no_reply_and_both_ends_are_said(
    tmp_path: Path, scrubber: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(tmp_path, scrubber)
    log.add_verdict("r1", "up", at=DAY)
    with monkeypatch.context() as patched:
        patched.setattr("perennial.services.serving_log.os.write", lambda descriptor, data: 3)
        log.add_verdict("r2", "up", at=DAY)
        log.add_verdict("r3", "up", at=DAY)
    log.add_verdict("r4", "up", at=DAY)
    lines = (tmp_path / "requests-2026-03-02.jsonl").read_text().splitlines()
    assert [json.loads(line)["trace_id"] for line in lines] == ["r1", "r4"]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["serving: the log cannot be written: OSError", "serving: the log is written again; 2 lines are lost"]


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path, scrubber: Guard) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="a folder that can be written"):
        RequestLog(tmp_path / "file" / "log", scrubber)
