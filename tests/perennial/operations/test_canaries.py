"""Canaries fit the rows they are planted among: the same columns, read as the same format."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.support.config import RetrainConfig
from perennial.operations.canaries import write_canaries
from tasks.core.errors import InputError
from tasks.ingest import SourceConfig
from tasks.ingest.reading import read_source
from tasks.ingest.snapshot import make_snapshot


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("qid,question,answer,url", {"id": "qid"}),
        ("instruction,input,output", {}),
        ("subject,body,reply", {}),
        ("Frage,Antwort", {"prompt": "Frage", "completion": "Antwort"}),
    ],
)
@pytest.mark.parametrize("name", ["canaries.csv", "canaries.jsonl"])
def test_canaries_have_the_columns_of_the_source(tmp_path: Path, header: str, columns: dict[str, str], name: str) -> None:
    source = tmp_path / "d.csv"
    source.write_text(f"{header}\n{','.join('x' for _ in header.split(','))}\n")
    settings = RetrainConfig.model_validate({"name": "desk", "examples": {"path": str(source), "columns": columns}})
    assert write_canaries(settings, tmp_path / name) == settings.redteam.num_canaries
    planted = SourceConfig(path=str(tmp_path / name), columns=columns)
    result = make_snapshot(read_source(planted.path), planted)
    assert (len(result.rows), len(result.quarantined_rows)) == (settings.redteam.num_canaries, 0)
    if name.endswith(".csv"):
        assert (tmp_path / name).read_text().splitlines()[0] == header


def test_labels_can_hold_no_canary(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,b\n")
    settings = RetrainConfig.model_validate({"name": "desk", "examples": {"path": str(tmp_path / "d.csv")}})
    with pytest.raises(InputError, match="classification"):
        write_canaries(settings, tmp_path / "c.csv")
