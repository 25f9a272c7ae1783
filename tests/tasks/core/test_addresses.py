"""What is left of an address says which place it is, and nothing of who opens it."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import tracking
from tasks.core.addresses import without_secrets
from tasks.core.errors import ConfigError, PerennialError, RegistryError
from tasks.dossier.provenance import public_settings


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg2://u:p@db:5432/mlflow", "postgresql+psycopg2://db:5432/mlflow"),
        ("https://u@host/path", "https://host/path"),
        ("https://u:p@ss@host/path", "https://host/path"),
        ("s3://AKIA:abc/d+f@bucket/store", "s3://bucket/store"),
        ("s3://bucket/store/x.json", "s3://bucket/store/x.json"),
        ("https://host:8080/models/x@champion", "https://host:8080/models/x@champion"),
        ("https://host/a?X-Amz-Signature=abc&b=c", "https://host/a?X-Amz-Signature=***&b=***"),
        ("redis://:word@host:6379/0", "redis://host:6379/0"),
        ("http://u:p@host:5000/#/experiments/1", "http://host:5000/#/experiments/1"),
        ("sqlite:////srv/perennial/mlflow.db", "sqlite:////srv/perennial/mlflow.db"),
        ("host=db password=word user=u", "host=db password=*** user=u"),
        ("models:/desk@champion", "models:/desk@champion"),
    ],
)
def test_an_address_keeps_its_place_alone(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert without_secrets(f"cannot open {address!r}, see there") == f"cannot open {shown!r}, see there"


@given(
    scheme=st.sampled_from(["http", "https", "s3", "postgresql", "mysql+pymysql", "amqp", "sftp", "redis"]),
    secret=st.text("abcXYZ0123456789+=@:!$*()-_.,~%|^", min_size=6, max_size=20).filter(
        lambda text: text.strip("0123456789")
    ),
    rest=st.sampled_from(["", "/", "/db", "/a/b?x=1", ":5432/db#top"]),
)
def test_no_password_survives(scheme: str, secret: str, rest: str) -> None:
    shown = without_secrets(f"{scheme}://user:{secret}@host.example{rest}")
    assert shown.startswith(f"{scheme}://host.example")
    assert without_secrets(shown) == shown


def test_every_error_of_the_project_shows_places_alone() -> None:
    address = "postgresql://u:word@db/mlflow"
    error = PerennialError(f"store {address}", address, f"not {address}", f"Correct {address}.")
    assert "word" not in str(error)
    assert "word" not in repr(error)
    assert "word" not in repr(error.args)


def test_a_tracking_address_with_a_password_shows_in_no_error_log_link_or_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:s3cr3tword@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.DEBUG, logger="tasks"):
        run = tracking.TrackingRun(tracking.connect(), "a-run")
        run.log_metrics({"loss": 1.0})
        run.close("FINISHED")
        with pytest.raises(RegistryError) as error, tracking.open_run("desk", "sft", {}):
            pass
    told = "".join(traceback.format_exception(error.value))
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert "127.0.0.1:9" in kept
    assert "s3cr3tword" not in told + caplog.text + kept

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://u:s3cr3tword@host")
    with pytest.raises(ConfigError) as refused:
        tracking.connect()
    assert "s3cr3tword" not in "".join(traceback.format_exception(refused.value))


def test_settings_of_a_dossier_show_places_alone() -> None:
    settings = {"store": "s3://key:word/x@bucket/store", "examples": {"path": "sftp://u:word@host/rows.jsonl"}}
    assert public_settings(settings) == {"store": "s3://bucket/store", "examples": {"path": "sftp://host/rows.jsonl"}}
