"""What `perennial notify` tells, to whom, and that an outage or a kill loses nothing and repeats nothing."""

from __future__ import annotations

import datetime as dt
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Crashed, Failed
from typer.testing import CliRunner

from flows.support.operating import NotifyTarget
from perennial.cli.app import app
from perennial.operations.ended_runs import EndedRun
from perennial.operations.fleet import Decision, ModelStatus, Production, Question
from perennial.services.addresses import address_of, send_with_apprise
from perennial.services.news import Message, news_of, news_of_runs
from perennial.services.notifier import Notifier, Watched
from perennial.services.outbox import Outbox
from tasks.core.errors import ConfigError, PerennialError, StoreError
from tests.support.fleet import deploy_retrains

SECRET = "Ochre-Wagtail-5502"
NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
SINCE = "2026-12-01T00:00:00+00:00"
TOMORROW, DAY_BEFORE = "2026-12-02T10:00:00+00:00", "2026-11-28T00:00:00+00:00"
NOBODY = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}


class Sink(BaseHTTPRequestHandler):
    """Keeps what it receives, and answers with the status that the test sets."""

    received: list[dict[str, Any]]
    status = 200

    def do_POST(self) -> None:
        """One message."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).status == 200:
            self.received.append(body)
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Sink]]:
    class Own(Sink):
        received: list[dict[str, Any]] = []  # noqa: RUF012  # one for each server

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PERENNIAL_NOTIFY_URL", f"json://user:{SECRET}@127.0.0.1:{server.server_port}/told")
        yield Own
        server.shutdown()


@pytest.fixture
def told(fleet_files: Path, fleet_server: SyncPrefectClient) -> Path:
    """Both models deployed; the first names a target."""
    path = fleet_files / "support-desk.yaml"
    document = yaml.safe_load(path.read_text())
    document["operate"]["notify"] = [{"name": "ops"}, {"name": "failures", "events": ["failed"]}]
    path.write_text(yaml.safe_dump(document))
    deploy_retrains(fleet_files)
    return fleet_files


def status(**changes: Any) -> ModelStatus:
    return ModelStatus(name="desk", registered_model="desk", champion="1", **changes)


def ended(state: str, **changes: Any) -> EndedRun:
    facts: dict[str, Any] = {"id": "7", "name": "night", "flow": "retrain", "model": "desk", "ended_at": SINCE}
    return EndedRun(state=state, succeeded=state not in ("Failed", "Crashed"), **{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "events"),
    [
        ({"questions": (Question(version="2", requested_at=DAY_BEFORE, expires_at=None),)}, ["requested"]),
        ({"questions": (Question(version="2", requested_at=DAY_BEFORE, expires_at=TOMORROW),)}, ["requested", "expiring"]),
        # A request that is open for less than a day in all is asked once.
        ({"questions": (Question(version="2", requested_at=NOW.isoformat(), expires_at=TOMORROW),)}, ["requested"]),
        ({"expired": (Question(version="2", requested_at=DAY_BEFORE, expires_at=SINCE),)}, ["expired"]),
        ({"expired": (Question(version="2", requested_at=DAY_BEFORE, expires_at=DAY_BEFORE),)}, []),
        ({"production": Production(status="violated", violated=("p",), drift=(), window_end=SINCE)}, ["violated"]),
        ({"production": Production(status="ok", violated=(), drift=(), window_end=SINCE)}, []),
    ],
)
def test_a_status_tells(changes: dict[str, Any], events: list[str]) -> None:
    assert [one.event for one in news_of(status(**changes), NOW, SINCE, reported="ok")] == events


def test_production_is_told_when_it_changes() -> None:
    violated = Production(status="violated", violated=("refusal",), drift=("domain",), window_end=SINCE)
    (message,) = news_of(status(production=violated), NOW, SINCE, reported=None)
    assert (message.title, "Drift: domain." in message.body) == ("[desk] production violates refusal", True)
    assert list(news_of(status(production=violated), NOW, SINCE, reported="length,refusal")) == []
    assert len(list(news_of(status(production=violated), NOW, SINCE, reported="length"))) == 1


@pytest.mark.parametrize(
    ("run", "event", "title"),
    [
        (ended("Promoted", sentence="+0.136 ROUGE-L."), "promoted", "[desk] retrain promoted"),
        (ended("RollsOut"), "promoted", "[desk] retrain rolls out"),
        (ended("Rejected", flow="promote"), "held", "[desk] promote rejected"),
        (ended("Aborted", flow="watch-rollout"), "aborted", "[desk] watch-rollout aborted"),
        (ended("Crashed"), "failed", "[desk] retrain ended as Crashed"),
        (ended("Failed", error="InputError"), "failed", "[desk] retrain ended as Failed (InputError)"),
        (
            ended("Failed", error="BudgetError"),
            "requested",
            "[desk] retrain needs a budget: perennial budget approve, or reject",
        ),
        (ended("Failed", error="ScrubVerificationError"), "leaked", None),
    ],
)
def test_a_run_that_ended_tells(run: EndedRun, event: str, title: str | None) -> None:
    (message,) = news_of_runs([run])
    assert message.event == event
    assert title is None or message.title == title
    assert run.sentence in message.body


@pytest.mark.parametrize("state", ["Asked", "Passed", "Completed"])
def test_what_another_message_tells_is_not_told_twice(state: str) -> None:
    assert list(news_of_runs([ended(state)])) == []


def test_a_question_names_the_champion_and_the_last_decision() -> None:
    decision = Decision(label="Held", tone="hold", sentence="It was held.", reason="r", run="q3")
    question = Question(version="2", requested_at=DAY_BEFORE, expires_at=TOMORROW)
    asked, _ = news_of(status(questions=(question,), decision=decision), NOW, SINCE, None)
    for part in (f"open until {TOMORROW}", "Champion: version 1", "It was held. Run q3", f"Message: {asked.key}"):
        assert part in asked.body


def test_every_message_arrives_once_over_an_outage_and_a_kill(
    told: Path, fleet_server: SyncPrefectClient, sink: type[Sink], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = dt.datetime.now(dt.UTC)
    box = Outbox(tmp_path / "outbox.db")
    watched = Watched([])
    notifier = Notifier(box, watched)
    assert watched.check() == (["support-desk/ops", "support-desk/failures"], ["new-one"])
    notifier.look(now)
    desk = fleet_server.read_deployment_by_name("retrain/support-desk")
    for name, state in (
        ("promotes", Completed(name="Promoted", message="+0.136 ROUGE-L against the champion.")),
        ("fails", Failed(message=f"Flow run encountered an exception: ValueError: {SECRET} is no number")),
        ("crashes", Crashed()),
    ):
        run = fleet_server.create_flow_run_from_deployment(desk.id, name=name)
        fleet_server.set_flow_run_state(run.id, state, force=True)

    config = {"name": "support-desk"}

    @flow(name="retrain")
    def retrain_now(config: dict[str, str]) -> Any:
        return Completed(name="Held", message="The gate held it.")

    @flow(name="retrain-on-alert")
    def on_alert(config: dict[str, str]) -> None:
        retrain_now(config)

    on_alert(config)

    sink.status = 503  # the receiver is away
    notifier.look(now)
    assert notifier.deliver(now.timestamp() + 1) == 0
    num_waiting = box.num_waiting()
    box.close()  # and the sender is killed

    sink.status = 200
    box = Outbox(tmp_path / "outbox.db")
    notifier = Notifier(box, Watched([]))
    with temporary_settings(NOBODY), pytest.raises(PerennialError):
        notifier.look(now)
    later = now + dt.timedelta(hours=2)
    assert notifier.look(later)[0] == 0, "nothing is new"
    assert notifier.deliver(later.timestamp()) == num_waiting
    assert notifier.deliver(later.timestamp()) == 0
    titles = [one["title"] for one in sink.received if "fleet-support-desk 3" not in one["message"]]
    assert sorted(titles) == [
        "[support-desk] production violates refusal, drift",
        "[support-desk] retrain ended as Crashed",
        "[support-desk] retrain ended as Crashed",  # to both targets
        "[support-desk] retrain ended as Failed (ValueError)",
        "[support-desk] retrain ended as Failed (ValueError)",
        "[support-desk] retrain held",  # a child, started by an alert
        "[support-desk] retrain promoted",
    ]
    assert SECRET not in json.dumps(sink.received) + caplog.text
    box.close()


def test_the_command_looks_once_tests_and_says_who_has_no_target(
    told: Path, sink: type[Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.operations.embedded.prepare_environment", lambda: None)
    monkeypatch.setattr("perennial.operations.embedded.use_running_server", lambda: None)
    monkeypatch.setattr("perennial.services.json_lines.log_as_json", lambda: None)

    def perennial(*options: str, code: int) -> str:
        result = CliRunner().invoke(app, ["notify", str(told), "--outbox", str(tmp_path / "box.db"), *options])
        assert result.exit_code == code, result.output
        return result.output

    assert "Without one: new-one." in perennial("--test", code=0)
    assert [one["title"] for one in sink.received] == ["[support-desk] a test of notifications"] * 2
    sink.status = 500
    assert "Not received by support-desk/ops, support-desk/failures." in perennial("--test", code=3)
    perennial("--once", code=3)
    monkeypatch.setenv("PERENNIAL_NOTIFY_URL", SECRET)
    refused = perennial("--once", code=2)
    assert SECRET not in refused


def test_an_address_that_is_missing_or_none_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERENNIAL_NOTIFY_URL", raising=False)
    with pytest.raises(ConfigError, match="nothing in the environment variable PERENNIAL_NOTIFY_URL"):
        address_of("desk", NotifyTarget(name="ops"))
    monkeypatch.setenv("PERENNIAL_NOTIFY_URL", SECRET)
    with pytest.raises(ConfigError, match="no address") as error:
        address_of("desk", NotifyTarget(name="ops"))
    assert SECRET not in str(error.value)


def test_several_addresses_in_one_secret_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_NOTIFY_URL", "json://one.example, json://two.example")
    with pytest.raises(ConfigError, match="2 addresses"):
        address_of("desk", NotifyTarget(name="ops"))


MESSAGE = Message("held 7", "support-desk", "held", "[support-desk] retrain held", "Two figures.")


def test_a_fault_of_one_model_delays_no_message_of_another(
    fleet_files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = fleet_files / "support-desk.yaml", fleet_files / "new-one.yaml"
    document = yaml.safe_load(path.read_text())
    document["operate"]["notify"] = [{"name": "ops"}, {"name": "pager", "variable": "PERENNIAL_UNSET"}]
    path.write_text(yaml.safe_dump(document))
    other_text = other.read_text()
    other.write_text("name: [")
    watched, sent = Watched([fleet_files]), []
    with patch.dict(os.environ, {"PERENNIAL_NOTIFY_URL": "json://one.example"}):
        assert watched.check()[0] == ["support-desk/ops"]
        assert "support-desk/pager gets no message" in caplog.text
        assert str(other) in caplog.text
        box = Outbox(tmp_path / "outbox.db")
        box.put([(MESSAGE, "ops"), (MESSAGE, "pager"), (MESSAGE, "gone")], {}, 0)
        notifier = Notifier(box, watched, send=lambda address, message: not sent.append(message.key))  # type: ignore[func-returns-value]
        assert notifier.deliver(1) == 1
        assert box.num_waiting() == 2, "a file cannot be read: whose target is gone is not known"
        other.write_text(other_text)
        watched.read()
        notifier.deliver(3600)
    assert (sent, box.num_waiting()) == (["held 7"], 1)
    box.close()


def test_what_a_full_disk_cannot_record_is_not_sent(
    fleet_files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched, sent = Watched([fleet_files]), []
    box = Outbox(tmp_path / "outbox.db")
    box.put([(MESSAGE, "ops")], {}, 0)
    box._connection.execute("PRAGMA query_only = ON")  # as on a disk that is full: nothing can be written
    notifier = Notifier(box, watched, send=lambda address, message: not sent.append(message))  # type: ignore[func-returns-value]
    with temporary_settings(NOBODY):
        assert not notifier.step()
        assert not notifier.step()
    assert (sent, box.num_waiting()) == ([], 1)
    assert "not everything was sent" in caplog.text
    box.close()


def test_a_second_sender_is_refused(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox.db")
    with pytest.raises(StoreError, match="no other process has open"):
        Outbox(tmp_path / "outbox.db")
    box.close()
    (tmp_path / "outbox.db").write_bytes(b"no database at all, but long enough to be read as one" * 40)
    with pytest.raises(StoreError):
        Outbox(tmp_path / "outbox.db")


class Mail(socketserver.StreamRequestHandler):
    """As much SMTP as one message needs."""

    mails: list[str]

    def handle(self) -> None:
        """One conversation."""
        self.wfile.write(b"220 mail\r\n")
        while command := self.rfile.readline().decode().strip():
            if command.upper() == "DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.mails.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if command.upper() == "QUIT" else b"250 ok\r\n")
            if command.upper() == "QUIT":
                return


def test_a_mail_server_receives_a_message() -> None:
    class Own(Mail):
        mails: list[str] = []  # noqa: RUF012  # one for each server

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = (
            f"mailto://127.0.0.1:{server.server_address[1]}?from=perennial@desk.example&to=ops@desk.example&mode=insecure"
        )
        assert send_with_apprise(address, Message("k", "desk", "held", "[desk] retrain held", "Two figures."))
        server.shutdown()
    (mail,) = Own.mails
    assert "Subject: [desk] retrain held" in mail
    assert "ops@desk.example" in mail
