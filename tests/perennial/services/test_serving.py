"""The embedded server: who may ask, which version answers, what is counted, and that a new champion drops no request."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from scipy.stats import binom

from perennial.services import serving
from perennial.services.serving import create_app
from perennial.services.serving_counts import LiveCounts
from perennial.services.serving_versions import Engine, Messages, Versions
from tasks.core.errors import RegistryError
from tasks.registry.config import RolloutConfig
from tasks.registry.live import Traffic
from tasks.registry.live_signals import pair_windows, read_windows, tables_of
from tasks.registry.rollout import start
from tasks.registry.rollout_verdict import weigh
from tasks.stats.sequences import Table

TOKEN = "0123456789abcdef"
NOW = "2026-11-02T00:00:00+00:00"


class Registry:
    """A stand-in registry whose versions reply with their number."""

    def __init__(self) -> None:
        self.champion, self.beside, self.share = "1", "1", 0
        self.loaded: list[str] = []
        self.away = False
        self.broken: set[str] = set()
        self.gate: threading.Event | None = None

    def read(self) -> Traffic:
        if self.away:
            raise RegistryError("registered model desk", "no response", "an answer", "Start it.")
        if self.share == 0:
            return Traffic(self.champion, self.champion, None)
        rollout = start(RolloutConfig(), self.champion, NOW).model_copy(update={"share": self.share})
        return Traffic(self.champion, self.beside, rollout)

    def load(self, alias: str) -> tuple[str, Engine]:
        version = self.champion if alias == "champion" else self.beside
        self.loaded.append(version)

        def reply(messages: Messages, max_new_tokens: int) -> tuple[str, bool]:
            if self.gate is not None:
                self.gate.wait(10)
            if version in self.broken:
                raise RuntimeError("out of memory: " + messages[-1]["content"])
            text = f"{version}: {messages[-1]['content']}"
            return text[: 4 * max_new_tokens], len(text) > 4 * max_new_tokens

        return version, reply


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def versions(registry: Registry) -> Versions:
    versions = Versions(registry.read, registry.load)
    versions.follow()
    return versions


@pytest.fixture
def client(versions: Versions, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app("desk", versions, LiveCounts(tmp_path / "live.jsonl"), TOKEN)) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client


def ask(client: TestClient, text: str = "Hello", **more: Any) -> Any:
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}], **more})


def said(answer: Any) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_reply_names_its_version(client: TestClient) -> None:
    answer = ask(client, temperature=0.7)
    assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
    body = answer.json()
    assert (body["model"], body["object"]) == ("desk@1", "chat.completion")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "1: Hello"}
    assert body["choices"][0]["finish_reason"] == "stop"
    cut = ask(client, "x" * 100, max_tokens=2)
    assert (said(cut), cut.json()["choices"][0]["finish_reason"]) == ("1: xxxxx", "length")
    assert client.get("/v1/models").json()["data"][0]["id"] == "desk@1"


def test_a_streamed_reply_is_an_event_stream(client: TestClient) -> None:
    answer = ask(client, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "1: Hello"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert {chunk["model"] for chunk in chunks} == {"desk@1"}


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer 0123456789abcdeg", f"bearer {TOKEN}x", "Basic é"])
def test_nobody_without_the_token_is_answered(client: TestClient, given: str | None) -> None:
    client.headers.pop("Authorization")
    headers = {} if given is None else {"Authorization": given.encode()}
    assert client.get("/v1/models", headers=headers).status_code == 401  # type: ignore[arg-type]
    assert client.post("/v1/chat/completions", headers=headers, content=b"{}").status_code == 401  # type: ignore[arg-type]
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (b"My name is Ann Lee", 422, "body"),
        (b'{"messages": []}', 422, "messages"),
        (b'{"messages": [{"role": "tool", "content": "Ann Lee"}]}', 422, "role"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 422, "content"),
        (b'{"messages": [{"role": "user", "content": "a"}], "n": 2}', 422, "n"),
        (b'{"messages": [{"role": "user", "content": "a"}], "tools": [{}]}', 422, "tools"),
        (b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 0}', 422, "max_tokens"),
        (b" " * (serving.MAX_BODY_BYTES + 1), 413, "bytes"),
    ],
)
def test_what_cannot_be_answered_is_named_and_not_quoted(client: TestClient, body: bytes, status: int, found: str) -> None:
    answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == status
    assert found in answer.json()["error"]["message"]
    assert "Ann Lee" not in answer.text


def test_the_split_is_that_of_the_registry_and_a_user_stays(registry: Registry, versions: Versions) -> None:
    registry.beside = "2"
    before: set[str] = set()
    for share in (5, 25, 60, 95):
        registry.share = share
        table = versions.follow()
        at_random = Counter(table.choose(None) for _ in range(4_000))
        low, high = binom.interval(0.9999, 4_000, share / 100)
        assert low <= at_random["2"] <= high
        users = {user for user in map(str, range(4_000)) if table.choose(user) == "2"}
        assert low <= len(users) <= high
        assert before <= users, "whoever had the new version keeps it as its share grows"
        before = users
    assert registry.loaded == ["1", "2"], "each version is loaded once"
    registry.champion, registry.share = "2", 0  # complete
    assert dict(versions.follow().shares) == {"2": 100}
    assert registry.loaded == ["1", "2"]


def test_a_new_champion_drops_no_request(registry: Registry, versions: Versions, client: TestClient) -> None:
    registry.gate = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        early = [pool.submit(ask, client) for _ in range(8)]
        threading.Event().wait(0.3)
        registry.champion = "2"
        versions.follow()
        registry.gate.set()
        answers = [one.result() for one in early]
    assert {answer.status_code for answer in answers} == {200}
    assert all(
        answer.json()["choices"][0]["message"]["content"][0] == answer.headers["x-model-version"] for answer in answers
    )
    assert ask(client).headers["x-model-version"] == "2"


def test_without_the_registry_the_former_version_serves_on(
    registry: Registry, versions: Versions, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    registry.away = True
    registry.champion = "2"
    versions.try_to_follow()
    assert ask(client).headers["x-model-version"] == "1"
    assert "no response" in caplog.text
    versions.followed_at -= 1_000
    assert client.get("/healthz").status_code == 503


def test_a_long_load_is_not_a_fault_and_a_failed_one_is(registry: Registry, client: TestClient, versions: Versions) -> None:
    registry.champion, seen = "2", []
    whole = registry.load

    def load(alias: str) -> tuple[str, Engine]:
        versions.followed_at -= 1_000
        seen.append(client.get("/healthz").status_code)
        if len(seen) < 3:
            raise RegistryError("registered model desk", "other bytes", "the registered ones", "Restore them.")
        return whole(alias)

    versions._load = load
    after = []
    for _ in range(3):
        versions.try_to_follow()
        after.append(client.get("/healthz").status_code)
    assert (seen, after) == ([200, 503, 503], [503, 503, 200])


def test_a_reply_that_fails_is_counted_and_not_quoted(
    registry: Registry, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    registry.broken.add("1")
    answer = ask(client, "My name is Ann Lee")
    assert (answer.status_code, answer.headers["x-model-version"]) == (500, "1")
    assert "Ann Lee" not in answer.text + caplog.text


def test_a_crowd_is_turned_away(
    registry: Registry, versions: Versions, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.gate = threading.Event()
    with ThreadPoolExecutor(serving.MAX_WAITING + 8) as pool:
        crowd = [pool.submit(ask, client) for _ in range(serving.MAX_WAITING + 8)]
        threading.Event().wait(1.0)
        registry.gate.set()
        statuses = Counter(one.result().status_code for one in crowd)
    assert statuses == {200: serving.MAX_WAITING, 429: 8}


def test_the_counts_are_what_a_rollout_reads(tmp_path: Path) -> None:
    file, begin = tmp_path / "live.jsonl", dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
    counts = LiveCounts(file, guarded=True)
    counts.turn(("1", "2"), begin)
    for place in range(20):
        counts.add("1", 30 * (place + 1), failed=place == 0, guarded=False)
    counts.add("2", 60_000, failed=True, guarded=True)
    counts.turn(("1", "2"), begin + dt.timedelta(minutes=4))
    assert not file.exists(), "the window is not over"
    counts.turn(("1", "2"), begin + dt.timedelta(minutes=5))
    counts.turn(("1", "2"), begin + dt.timedelta(minutes=10))  # nobody asked, and both say so
    counts.turn(("1",), begin + dt.timedelta(minutes=11), last=True)
    pairs = pair_windows(read_windows(file), "2", "1")
    assert [(pair.new.requests, pair.champion.requests) for pair in pairs] == [(1, 20), (0, 0)]
    assert tables_of(pairs, "error_rate") == [Table(1, 1, 1, 20), Table(0, 0, 0, 0)]
    assert tables_of(pairs, "guard_hit_rate")[0] == Table(1, 1, 0, 20)
    assert pairs[0].champion.latency_ms[100] == 3
    assert pairs[0].new.latency_ms[51_200] == 0


def test_counts_that_cannot_be_written_stop_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = LiveCounts(tmp_path / "missing" / "live.jsonl", dt.timedelta(0))
    begin = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
    counts.turn(("1",), begin)
    counts.turn(("1",), begin + dt.timedelta(minutes=1))
    assert "the live signals of a window are lost" in caplog.text


def test_the_guard_filters_requests_and_replies(versions: Versions, tmp_path: Path) -> None:
    from tasks.confidential import ConfidentialConfig
    from tasks.guard.config import GuardRulesConfig
    from tasks.guard.filtering import Guard, GuardPolicy
    from tasks.pii import PiiConfig

    confidential = ConfidentialConfig(denied_terms=("Project Falcon",))
    rules = GuardRulesConfig(personal_data="off", blocked_reply="I cannot help with that.")
    guard = Guard(GuardPolicy.of(rules, PiiConfig(), confidential))
    with TestClient(create_app("desk", versions, LiveCounts(None), TOKEN, guard)) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        replies = [
            ask(client, text).json()["choices"][0]["message"]["content"] for text in ("Hello", "What is Project Falcon?")
        ]
        earlier = [{"role": role, "content": "What is Project Falcon?"} for role in ("system", "user", "assistant")]
        last = {"role": "user", "content": "Say that again."}
        replies += [said(client.post("/v1/chat/completions", json={"messages": [message, last]})) for message in earlier]
    assert replies == ["1: Hello"] + ["I cannot help with that."] * 4


def test_what_nothing_measures_is_not_counted(tmp_path: Path) -> None:
    counts, begin = LiveCounts(tmp_path / "live.jsonl"), dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
    counts.turn(("1",), begin)
    counts.turn(("1",), begin + dt.timedelta(minutes=5))
    assert read_windows(tmp_path / "live.jsonl")[0].signals.keys() == {"error_rate"}


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_served_decides_the_rollout(registry: Registry, versions: Versions, tmp_path: Path, broken: bool) -> None:
    plan = RolloutConfig.model_validate(
        {
            "steps": [{"share": 50}, {"share": 100}],
            "watch": {"signals": [{"name": "error_rate"}], "min_requests": 50},
        }
    )
    registry.beside, registry.share = "2", 50
    registry.broken = {"2"} if broken else set()
    versions.follow()
    counts, begin = LiveCounts(tmp_path / "live.jsonl"), dt.datetime.now(dt.UTC)
    with TestClient(create_app("desk", versions, counts, TOKEN)) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        for _ in range(200):
            ask(client)
        end = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
        counts.turn(("1", "2"), end)
    verdict = weigh(start(plan, "1", begin.isoformat()), "2", read_windows(tmp_path / "live.jsonl"), end.isoformat())
    assert verdict.action == ("abort" if broken else "advance"), verdict.reason
