"""A file is read as what its bytes say, or refused by what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.feather
import pytest

from tasks.core.errors import InputError, MissingDependencyError, PerennialError
from tasks.ingest import SourceConfig
from tasks.ingest.config import InputFormat
from tasks.ingest.reading import read_source
from tasks.ingest.snapshot import make_snapshot

ROWS = [{"id": f"r{n}", "prompt": f"Grüße {n}", "completion": "Ja."} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, LINES)
    return data.getvalue()


def feather(compression: str) -> bytes:
    data = io.BytesIO()
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), data, compression=compression)
    return data.getvalue()


def arrow_stream() -> bytes:
    data, table = io.BytesIO(), pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(data, table.schema) as writer:
        writer.write_table(table)
    return data.getvalue()


READ: dict[str, bytes] = {
    "array.jsonl": json.dumps(ROWS).encode(),
    "array.txt": json.dumps(ROWS, indent=2).encode(),
    "trailing.json": f"[{json.dumps(ROWS[0])}, {json.dumps(ROWS[1])}, {json.dumps(ROWS[2])},]".encode(),
    "commas.jsonl": LINES.replace("\n", ",\n").encode(),
    "old_mac.jsonl": LINES.replace("\n", "\r").encode(),
    "windows.jsonl": LINES.replace("\n", "\r\n").encode(),
    "pretty.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "pretty.jsonl": ",\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16.csv": "id,prompt,completion\nr0,Grüße 0,Ja.\nr1,Grüße 1,Ja.\nr2,Grüße 2,Ja.\n".encode("utf-16"),
    "utf32.jsonl": LINES.encode("utf-32"),
    "bom.csv": "\ufeffid,prompt,completion\nr0,Grüße 0,Ja.\nr1,Grüße 1,Ja.\nr2,Grüße 2,Ja.\n".encode(),
    "d.jsonl.bz2": bz2.compress(LINES.encode()),
    "d.jsonl.xz": lzma.compress(LINES.encode()),
    "d.jsonl.zst": zstd(LINES.encode()),
    "d.data": gzip.compress(LINES.encode()),
    "d.zip": archive("__MACOSX/._d.jsonl", "folder/d.jsonl"),
    "d.feather": feather("lz4"),
    "plain.feather": feather("uncompressed"),
    "d.arrow": arrow_stream(),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_what_its_bytes_say(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(READ[name])
    assert [dict(record.fields) for record in read_source(str(tmp_path / name)).records] == ROWS


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (a text)")
    return connection.serialize()


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        file.addfile(tarfile.TarInfo("d.jsonl"))
    return data.getvalue()


REFUSED: dict[str, tuple[bytes, str]] = {
    "d.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), r"\.xls.*Save the sheet"),
    "d.db": (database(), "SQLite database.*sqlite:///FILE"),
    "d.tar": (tar(), "tar archive.*Unpack"),
    "d.tar.gz": (gzip.compress(tar()), "tar archive"),
    "d.pkl": (pickle.dumps(ROWS), "pickle.*Parquet"),
    "d.json": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "XML or HTML"),
    "d.xml": (b"<?xml version='1.0'?><rows/>", "XML or HTML"),
    "lfs.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "d.pdf": (b"%PDF-1.7\n\x00\x01", "PDF"),
    "d.jsonl": (LINES.encode("utf-16-le"), "Set `encoding: utf-16-le`"),
    "d.csv": (bytes(range(256)) * 9, "no text"),
    "two.zip": (archive("a.jsonl", "b.jsonl"), "zip archive of 2 files.*Unpack"),
    "d.docx": (archive("[Content_Types].xml", "word/document.xml"), "Word document"),
    "cut.zst": (zstd(LINES.encode() * 999)[:60], "not readable as zstd"),
    "cut.bz2": (bz2.compress(LINES.encode())[:60], "not readable as bzip2"),
    "cut.xz": (lzma.compress(LINES.encode())[:60], "not readable as xz"),
    "cut.zip": (archive("a.jsonl")[:60], "not readable as zip"),
    "cut.feather": (feather("lz4")[:300], "not readable as Arrow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_another_kind_is_refused_by_what_it_is(tmp_path: Path, name: str) -> None:
    data, message = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(read_source(str(tmp_path / name)).records)


@pytest.mark.parametrize("url", ["gs://bucket/d.jsonl", "nothing://bucket/d.jsonl", "abfs://c@a.example/part-*.jsonl"])
def test_an_address_without_its_package_names_it(url: str) -> None:
    with pytest.raises(PerennialError):
        read_source(url)


def test_a_workbook_needs_its_package_or_is_read(tmp_path: Path) -> None:
    (tmp_path / "d.xlsx").write_bytes(_workbook([["Id", "prompt", "completion"], ["a", "Hi", "Ho"], ["b", "Hi", 7]]))
    try:
        import python_calamine  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"perennial-llm\[excel\]"):
            list(read_source(str(tmp_path / "d.xlsx")).records)
        return
    rows = [dict(record.fields) for record in read_source(str(tmp_path / "d.xlsx")).records]
    assert rows == [{"Id": "a", "prompt": "Hi", "completion": "Ho"}, {"Id": "b", "prompt": "Hi", "completion": 7.0}]
    with pytest.raises(InputError, match="none named `Rows`"):
        list(read_source(str(tmp_path / "d.xlsx"), sheet="Rows").records)


def _workbook(rows: list[list[Any]]) -> bytes:
    def cell(value: Any) -> str:
        text = f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        return text if isinstance(value, str) else f"<c><v>{value}</v></c>"

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{kinds}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{kinds}"><sheets>'
        '<sheet name="One" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{kinds}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>',
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return data.getvalue()


# ------------------------------------------------------------------------------------------------------------------- parts


def parts(folder: Path, *names: str, write: Callable[[Path, str], Any] = Path.write_text) -> Path:
    for row, name in zip(ROWS, names, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, json.dumps(row))
    return folder


def test_a_folder_of_parts_is_one_source(tmp_path: Path) -> None:
    folder = parts(tmp_path / "d", "part-00000-af.json", "part-00001-af.json", "part-00002-af.json")
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-00000-af.json.crc").write_bytes(b"\0")
    source = read_source(str(folder))
    assert [dict(record.fields) for record in source.records] == ROWS
    assert next(record.place for record in source.records) == "part-00000-af.json:line-1"
    assert read_source(str(folder)).sha256 == source.sha256
    assert len(read_source(str(folder / "part-0000[01]*.json")).records) == 2


def test_the_names_of_partitions_are_columns(tmp_path: Path) -> None:
    folder = parts(tmp_path / "d", "country=de/part-0.jsonl", "country=fr/part-0.jsonl")
    assert [record.fields["country"] for record in read_source(str(folder)).records] == ["de", "fr"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train.jsonl", "test.jsonl"), r"splits \(test, train\)"),
        (("a.jsonl", "b.csv"), r"several formats \(\.csv, \.jsonl\)"),
        (("a.md", "b.md"), "none of them data"),
        (("validation-00000-of-00001.parquet",), r"splits \(validation\)"),
    ],
)
def test_a_folder_that_is_no_set_of_parts_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(str(parts(tmp_path / "d", *names)))


def test_a_pattern_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file that the pattern names"):
        read_source(str(tmp_path / "part-*.jsonl"))


# --------------------------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize(
    ("document", "records"),
    [
        ({"count": 3, "tickets": ROWS, "next": None}, "tickets"),
        ({"meta": {"a": [1, {"tickets": 2}]}, "data": {"page": 1, "items": ROWS}}, "data.items"),
        ([{"messages": [], "rows": ROWS[:2]}, {"rows": ROWS[2:]}], "rows"),
        ({"hits": [{"source": row} for row in ROWS]}, "hits.source"),
    ],
)
def test_rows_under_a_path_are_read(tmp_path: Path, document: Any, records: str) -> None:
    for indent in (None, 1):
        (tmp_path / "d.json").write_text(json.dumps(document, indent=indent))
        found = [dict(record.fields) for record in read_source(str(tmp_path / "d.json"), records=records).records]
        assert found == ROWS
    assert not len(read_source(str(tmp_path / "d.json"), records="others").records)


def test_an_array_of_other_things_is_told_by_item(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('["a", 1, {"prompt": "x"}]')
    assert [record.fault for record in read_source(str(tmp_path / "d.json")).records] == ["not_an_object"] * 2 + [None]


_DOCUMENTED = re.findall(
    r"^\| `(\w+)` \| `(\{.*?\})`(?: \||;)", (Path(__file__).parents[3] / "docs" / "own-data.md").read_text(), re.MULTILINE
)


def test_every_format_has_an_example_row_in_the_documentation() -> None:
    assert {name for name, _ in _DOCUMENTED} == set(get_args(InputFormat))


@pytest.mark.parametrize(("input_format", "row"), _DOCUMENTED)
def test_an_example_row_of_the_documentation_is_read_as_its_format(tmp_path: Path, input_format: str, row: str) -> None:
    (tmp_path / "d.jsonl").write_text(row)
    config = SourceConfig(path=str(tmp_path / "d.jsonl"))
    assert make_snapshot(read_source(config.path), config).input_format == input_format
