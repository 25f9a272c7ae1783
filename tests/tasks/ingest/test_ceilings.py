"""What comes in at the door is bounded: in memory by a piece of it, in all by ceilings that say so."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import InputError
from tasks.ingest.config import Ceilings, LogConfig, SourceConfig
from tasks.ingest.containers import Container
from tasks.ingest.reading import read_source
from tasks.ingest.records import Source
from tasks.ingest.snapshot import make_snapshot
from tasks.ingest.task import count_new_rows, take_log, take_snapshot

_ROOT = Path(__file__).resolve().parents[3]
_ROW = b'{"prompt": "What is it?", "completion": "A row."}\n'
_MEGABYTE = 1 << 20


def pack(path: Path, piece: bytes, times: int, start: bytes = b"") -> Path:
    """A gzip file of a piece said many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(start))
        for _ in range(times):
            file.write(packer.compress(piece))
        file.write(packer.flush())
    return path


def one_line(folder: Path) -> Path:
    return pack(folder / "rows.jsonl.gz", b"x" * _MEGABYTE, 400)


def one_string(folder: Path) -> Path:
    return pack(folder / "rows.json.gz", b"x" * _MEGABYTE, 100, b'[{"prompt": "')


def open_quote(folder: Path) -> Path:
    return pack(folder / "rows.csv.gz", b"a,b\n" * (_MEGABYTE // 4), 100, b'prompt,completion\n"')


def blanks(folder: Path) -> Path:
    return pack(folder / "rows.jsonl.gz", b" " * _MEGABYTE, 100)


def garbage(folder: Path) -> Path:
    return pack(folder / "rows.jsonl.gz", b"x\n" * (_MEGABYTE // 2), 5)


def rows_said_often(folder: Path) -> Path:
    return pack(folder / "rows.jsonl.gz", _ROW * (_MEGABYTE // len(_ROW)), 100)


def wide_table(folder: Path) -> Path:
    path = folder / "rows.csv"
    names = ",".join(f"c{number}" for number in range(900_000))
    path.write_text(f"{names}\n{',' * 899_999}\n" * 1)
    return path


def one_value_often(folder: Path) -> Path:
    """A text of a megabyte, said a hundred thousand times: 100 GB in a few kilobytes of Parquet."""
    path = folder / "rows.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * _MEGABYTE]))
    pq.write_table(pa.table({"prompt": text, "completion": text}), path, compression="zstd")
    return path


def one_value_often_in_conversations(folder: Path) -> Path:
    path = folder / "rows.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 500_000]))
    roles = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["user"]))
    turns = pa.StructArray.from_arrays([roles, texts], ["role", "content"])
    lists = pa.ListArray.from_arrays(pa.array(range(0, 200_001, 2), pa.int32()), turns)
    pq.write_table(pa.table({"messages": lists}), path, compression="zstd")
    return path


def saved_data_set(folder: Path) -> Path:
    import datasets

    path = folder / "saved"
    data = datasets.Dataset.from_dict({"prompt": ["a"] * 3_000, "completion": ["b"] * 3_000})
    data.save_to_disk(str(path))
    return path


BOMBS: list[tuple[Callable[[Path], Path], str]] = [
    (one_line, "a record of more than 8,388,608 characters"),
    (one_string, "a record of more than 8,388,608 characters"),
    (open_quote, "a record of more than 8,388,608 characters"),
    (blanks, "bytes that become more than"),
    (garbage, "more than 200,000 records"),
    (rows_said_often, "more than 200,000 records"),
    (wide_table, "900,000 columns"),
    (one_value_often, "more than 4,294,967,296 bytes when unpacked"),
    (one_value_often_in_conversations, "more than 4,294,967,296 bytes when unpacked"),
]

_READ = """
import resource, sys
from tasks.core.errors import InputError
from tasks.ingest.config import Ceilings
from tasks.ingest.reading import read_source
def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
before = held()
resource.setrlimit(resource.RLIMIT_AS, (before * 3 + 3_000_000_000,) * 2)
try:
    read_source(sys.argv[1], ceilings=Ceilings(max_records=200_000))
except InputError as error:
    print(error)
print("grew", held() - before)
"""


@pytest.mark.parametrize(("make", "found"), BOMBS)
def test_a_small_file_that_would_fill_the_memory_is_one_clear_error(
    tmp_path: Path, make: Callable[[Path], Path], found: str
) -> None:
    path = make(tmp_path)
    assert path.stat().st_size < 20 * _MEGABYTE
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert found in done.stdout, done.stdout + done.stderr
    grown = int(done.stdout.rsplit("grew ", 1)[1])
    assert grown < 400 * _MEGABYTE


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.jsonl.gz", "saved"])
@pytest.mark.parametrize(
    ("ceilings", "setting"),
    [(Ceilings(max_records=2_999), "max_records"), (Ceilings(max_bytes=1_000), "max_bytes"), (Ceilings(), None)],
)
def test_every_container_keeps_to_the_ceilings(tmp_path: Path, name: str, ceilings: Ceilings, setting: str | None) -> None:
    rows = [{"prompt": f"question {number}", "completion": "b"} for number in range(3_000)]
    path = tmp_path / name
    if name == "saved":
        path = saved_data_set(tmp_path)
    elif name == "rows.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = "\n".join(json.dumps(row) for row in rows)
        if name == "rows.json":
            text = json.dumps(rows, indent=1)
        if name == "rows.csv":
            text = "prompt,completion\r\n" + "\r\n".join(f"{row['prompt']},b" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    if setting is None:
        assert len(read_source(str(path), ceilings=ceilings).records) == 3_000
        return
    with pytest.raises(InputError, match=f"`{setting}` of the source") as raised:
        read_source(str(path), ceilings=ceilings)
    assert all((raised.value.where, raised.value.found, raised.value.expected, raised.value.todo))


@pytest.mark.parametrize("task", ["snapshot", "log", "new rows"])
def test_every_reader_of_a_source_hands_its_ceilings_on(tmp_path: Path, task: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_ROW * 11)
    start, end, store = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC), str(tmp_path / "store")
    source, log = SourceConfig(path=str(path), max_records=10), LogConfig(path=str(path), max_records=10)
    readers: dict[str, Callable[[], object]] = {
        "log": lambda: take_log.fn(log, start, end, store),
        "snapshot": lambda: take_snapshot.fn(source, store),
        "new rows": lambda: count_new_rows.fn(source, None, end),
    }
    with pytest.raises(InputError, match="max_records"):
        readers[task]()


def test_refused_rows_are_kept_small(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_ROW + b"x\n" * 20_000)
    result = make_snapshot(read_source(str(path)), SourceConfig(path=str(path)))
    assert len(result.quarantined_rows) == 20_000
    assert result.quarantined_rows.table().nbytes < 20_000 * 100
    assert result.quarantined_rows[-1]["id"] == "line-20001"


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_ROW * 10)
    source: Source = read_source(str(path))
    with path.open("ab") as file:
        file.write(_ROW)
    with pytest.raises(InputError, match="changed while it was read"):
        list(source.records)


def test_a_remote_file_is_read_like_a_local_one_and_leaves_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_ROW * 10)
    local, remote = read_source(str(path)), read_source(path.as_uri())
    assert (remote.sha256, list(remote.records)) == (local.sha256, list(local.records))
    assert not list((tmp_path / "temporary").iterdir())
    with pytest.raises(InputError, match="max_bytes"):
        read_source(path.as_uri(), ceilings=Ceilings(max_bytes=100))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 65_536])
def test_where_the_pieces_end_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Lines, items, characters and line ends that straddle two pieces."""
    monkeypatch.setattr("tasks.ingest.containers._PIECE", size)
    rows = [
        {"prompt": 'caf\u00e9 \\" \u2028 \U0001f600', "completion": f"{number}\r\nx", "n": number} for number in range(9)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("\r\n".join(json.dumps(row) for row in rows), encoding="utf-16")
    (tmp_path / "rows.csv").write_text('\ufeffa,b\r"1\r\n2",\u00e9\r\n3,4\n5,6\r', encoding="utf-8")
    assert [record.fields for record in read_source(str(tmp_path / "rows.json")).records] == rows
    assert [record.fields for record in read_source(str(tmp_path / "rows.jsonl"), encoding="utf-16").records] == rows
    table = [dict(record.fields) for record in read_source(str(tmp_path / "rows.csv")).records]
    assert table == [{"a": "1\r\n2", "b": "\u00e9"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('[{"a": 1},\n {"a": 2},\n {"a" 3}]', 3, 7),
        ('[{"a": 1}\n {"a": 2}]', 2, 2),
        ('[{"a": 1}] x', 1, 12),
        ('[{"a": 1}, ' + '{"b": "' + "y" * 200_000 + '"},\n tru]', 2, 2),
        ('[{"a": "', 1, 8),
    ],
)
def test_a_fault_in_an_array_is_where_it_stands(tmp_path: Path, text: str, line: int, column: int) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(InputError, match=f"line {line}, column {column}"):
        read_source(str(tmp_path / "rows.json"))


def test_a_byte_that_is_no_text_is_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_ROW * 5_000 + b'{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match=rf"at byte {len(_ROW) * 5_000 + 12} \(line 5001\)"):
        read_source(str(tmp_path / "rows.jsonl"))


@pytest.fixture
def container(tmp_path: Path) -> Container:
    (tmp_path / "rows.jsonl").write_bytes(_ROW * 100)
    return Container(str(tmp_path / "rows.jsonl"), Ceilings())


def test_two_ways_through_do_not_disturb_each_other(container: Container) -> None:
    first, second = container.lines("utf-8"), container.lines("utf-8")
    assert [next(first), next(first), next(second)] == [_ROW.decode()] * 3
    assert len([*first, *second]) == 197
