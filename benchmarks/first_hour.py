"""The first hour with one's own data: inputs as people have them, each read as meant or refused by what is wrong with it.

    python benchmarks/first_hour.py [--all] [--kind KIND]

Each input is made here, read by the code that `retrain` and `plan` read with, and compared with what a person would expect:
so many rows, with what is said about them, or an error whose words name the cause. Nothing may be silent, a traceback, or
repeat a row's text. Prints a table by kind; with ``--all`` each input with its outcome; exits 1 when one is not as expected.
"""

# ruff: noqa: E501 - an input a line reads as a table
from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from flows.support.config import load_config
from tasks.core.errors import PerennialError
from tasks.core.rows import rows_to_table
from tasks.deduplication.duplicates import deduplicate_table
from tasks.ingest.reading import read_configured
from tasks.ingest.snapshot import make_snapshot, require_kind

SECRET = "Zxqvara Personne 4111 1111 1111 1111"
"""Stands in a row of each input, and in no error."""
ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{n}",
        "question": f"How do I pay bill {n}? {SECRET}",
        "answer": f"Pay bill {n} in the app.",
        "label": "billing",
    }
    for n in range(12)
]
Data = bytes | str | Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """An input: its kind, the name of its file, its data, settings, and what is expected.

    ``rows`` is the number of rows that are read, or None where the input is refused; ``says`` is a pattern that the notes, the
    reasons or the error match.
    """

    kind: str
    name: str
    data: Data
    rows: int | None
    says: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    config: str | None = None


# ------------------------------------------------------------------------------------------------------------------ writers


def lines(rows: list[Any] | None = None, end: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in (ROWS if rows is None else rows))


def table(delimiter: str = ",", rows: list[dict[str, Any]] | None = None, header: bool = True, end: str = "\n") -> str:
    rows = ROWS if rows is None else rows
    written = [list(rows[0])] if header else []
    written += [[f'"{str(value).replace(chr(34), chr(34) * 2)}"' for value in row.values()] for row in rows]
    return "".join(delimiter.join(row) + end for row in written)


def changed(**columns: Any) -> list[dict[str, Any]]:
    """The rows with further columns; a function is called with the row's number, None as a name's value takes it away."""
    made = []
    for number, row in enumerate(ROWS):
        more = {name: value(number) if callable(value) else value for name, value in columns.items()}
        made.append({name: value for name, value in {**row, **more}.items() if value is not ...})
    return made


def renamed(**names: str) -> list[dict[str, Any]]:
    return [{names.get(name, name): value for name, value in row.items()} for row in ROWS]


def arrow(write: Callable[[pa.Table, io.BytesIO], Any], rows: list[dict[str, Any]] | None = None) -> bytes:
    data = io.BytesIO()
    write(pa.Table.from_pylist(ROWS if rows is None else rows), data)
    return data.getvalue()


def parquet(rows: list[dict[str, Any]] | None = None, **options: Any) -> bytes:
    return arrow(lambda rows, data: pq.write_table(rows, data, **options), rows)


def dictionary_parquet() -> bytes:
    found, data = pa.Table.from_pylist(ROWS), io.BytesIO()
    pq.write_table(found.set_column(3, "label", found.column("label").dictionary_encode()), data)
    return data.getvalue()


def feather(compression: str) -> bytes:
    return arrow(lambda rows, data: pyarrow.feather.write_feather(rows, data, compression=compression))


def stream() -> bytes:
    found, data = pa.Table.from_pylist(ROWS), io.BytesIO()
    with pa.ipc.new_stream(data, found.schema) as writer:
        writer.write_table(found)
    return data.getvalue()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue())


def archive(**files: bytes | str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name.replace("_SLASH_", "/").replace("_DOT_", "."), text)
    return data.getvalue()


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        file.addfile(tarfile.TarInfo("d.jsonl"))
    return data.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (a text)")
    return connection.serialize()


def folder(**files: str | bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        for name, data in files.items():
            path = place / name.replace("_SLASH_", "/").replace("_DOT_", ".").replace("_DASH_", "-").replace("_IS_", "=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return place

    return make


def talk(*turns: tuple[str, Any], **more: Any) -> list[dict[str, Any]]:
    messages = [{"role": role, "content": content} for role, content in turns]
    return [{"id": f"r{n}", "messages": messages, **more} for n in range(3)]


# -------------------------------------------------------------------------------------------------------------------- inputs


def containers() -> Iterator[Case]:
    text, n = lines().encode(), len(ROWS)
    read = {
        "d.jsonl": text, "d.ndjson": text, "d.json": json.dumps(ROWS), "array.jsonl": json.dumps(ROWS), "no_suffix": text,
        "d.txt": text, "indented.json": json.dumps(ROWS, indent=2), "objects_as.json": text, "comma_last.json": lines()[:-1].join("[]")
        .replace("}\n{", "},\n{").replace("}]", "},]"),
        "commas.jsonl": lines(end=",\n"), "old_mac.jsonl": lines(end="\r"), "windows.jsonl": lines(end="\r\n"),
        "blank_lines.jsonl": lines(end="\n\n  \n"), "pretty.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "bom.jsonl": b"\xef\xbb\xbf" + text, "utf16.jsonl": lines().encode("utf-16"), "utf32.jsonl": lines().encode("utf-32"),
        "d.jsonl.gz": gzip.compress(text), "d.jsonl.bz2": bz2.compress(text), "d.jsonl.xz": lzma.compress(text),
        "d.jsonl.zst": zstd(text), "gzip_without_suffix.jsonl": gzip.compress(text), "d.zip": archive(d_DOT_jsonl=text),
        "mac.zip": archive(**{"__MACOSX/._d.jsonl": b"", "d.jsonl": text}), "csv.zip": archive(d_DOT_csv=table()),
        "d.csv": table(), "semicolon.csv": table(";"), "tab.csv": table("\t"), "pipe.csv": table("|"), "d.tsv": table("\t"),
        "bom.csv": b"\xef\xbb\xbf" + table().encode(), "utf16.csv": table().encode("utf-16"), "old_mac.csv": table(end="\r"),
        "windows.csv": table(end="\r\n"), "lines_in_values.csv": table(rows=changed(answer=lambda n: f"First {n}.\nSecond.")),
        "d.csv.gz": gzip.compress(table().encode()), "d.parquet": parquet(), "snappy.parquet": parquet(compression="snappy"),
        "zstd.parquet": parquet(compression="zstd"), "dictionary.parquet": dictionary_parquet(), "no_suffix_parquet": parquet(),
        "d.feather": feather("lz4"), "plain.feather": feather("uncompressed"), "d.arrow": stream(), "lz4.arrow": feather("lz4"),
    }  # fmt: skip
    yield from (Case("container", name, data, n) for name, data in read.items())
    yield Case("container", "cp1252.jsonl", lines(changed(answer="Grüße")).encode("cp1252"), None, "cp1252")
    yield Case(
        "container", "cp1252_said.jsonl", lines(changed(answer="Grüße")).encode("cp1252"), n, "", {"encoding": "cp1252"}
    )
    yield Case("container", "utf16_without_mark.jsonl", lines().encode("utf-16-le"), None, "utf-16-le")
    refused: dict[str, tuple[bytes | str, str]] = {
        "d.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), r"\.xls"), "d.ods": (archive(content_DOT_xml=b"x"), "OpenDocument"),
        "d.docx": (archive(word_SLASH_document_DOT_xml=b"x"), "Word"), "d.db": (database(), "SQLite"),
        "d.pkl": (pickle.dumps(ROWS), "pickle"), "d.html": ("<!doctype html><p>Sign in", "HTML"), "d.xml": ("<?xml version='1.0'?><a/>", "XML"),
        "error_page.jsonl": ("<html><body>502</body></html>", "XML or HTML"), "d.pdf": (b"%PDF-1.7 x", "PDF"),
        "pointer.parquet": ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), "d.avro": (b"Obj\x01abc", "Avro"),
        "d.orc": (b"ORC\x01", "ORC"), "d.h5": (b"\x89HDF\r\n\x1a\n", "HDF5"), "d.npy": (b"\x93NUMPY\x01", "NumPy"),
        "d.tar": (tar(), "tar"), "d.tar.gz": (gzip.compress(tar()), "tar"), "d.7z": (b"7z\xbc\xaf\x27\x1c\x00", "7z"),
        "d.rar": (b"Rar!\x1a\x07", "RAR"), "d.rtf": (b"{\\rtf1 x}", "RTF"), "image.jsonl": (b"\x89PNG\r\n", "image"),
        "noise.jsonl": (bytes(range(256)) * 20, "no text"), "two.zip": (archive(a_DOT_jsonl=text, b_DOT_jsonl=text), "2 files"),
        "empty.jsonl": (b"", "empty file"), "blank.jsonl": (b" \n\n", "empty file"), "header_only.csv": ("question,answer\n", "0 records"),
        "cut.gz": (gzip.compress(text)[:50], "gzip"), "cut.zst": (zstd(text)[:30], "zstd"), "cut.zip": (archive(a=text)[:40], "zip"),
        "cut.parquet": (parquet()[:200], "Parquet"), "cut.feather": (feather("lz4")[:200], "Arrow"),
        "open_quote.csv": ('question,answer\n"never closed,b\n', "never closed"), "twice.csv": ("a,a\n1,2\n", "repeated names"),
        "cut.json": (json.dumps(ROWS)[:300], "line 1"), "words.txt": ("just words\nand more\n", "text file of type"),
    }  # fmt: skip
    yield from (Case("container", name, data, None, says) for name, (data, says) in refused.items())


def places() -> Iterator[Case]:
    one, two = lines(ROWS[:6]), lines(ROWS[6:])
    yield Case("place", "spark", folder(part_DASH_0_DOT_json=one, part_DASH_1_DOT_json=two, _SUCCESS=""), 12)
    yield Case(
        "place",
        "packed_parts",
        folder(a_DOT_jsonl_DOT_gz=gzip.compress(one.encode()), b_DOT_jsonl_DOT_gz=gzip.compress(two.encode())),
        12,
    )
    yield Case(
        "place",
        "hive",
        folder(country_IS_de_SLASH_a_DOT_jsonl=one, country_IS_fr_SLASH_a_DOT_jsonl=two),
        12,
        "",
        {"group_columns": ["country"]},
    )
    yield Case("place", "parquet_parts", folder(a_DOT_parquet=parquet(ROWS[:6]), b_DOT_parquet=parquet(ROWS[6:])), 12)
    yield Case(
        "place", "pattern", lambda place: folder(a_DOT_jsonl=one, b_DOT_jsonl=two, c_DOT_csv="x")(place) / "*.jsonl", 12
    )
    yield Case("place", "splits", folder(train_DOT_jsonl=one, test_DOT_jsonl=two), None, "splits")
    yield Case("place", "formats", folder(a_DOT_jsonl=one, b_DOT_csv=table()), None, "several formats")
    yield Case("place", "no_data", folder(a_DOT_md="x"), None, "none of them data")
    yield Case("place", "no_match", lambda place: place / "nothing-*.jsonl", None, "no file that the pattern names")
    yield Case("place", "absent", lambda place: place / "absent.jsonl", None, "no such file")
    for url, says in (
        ("postgresql://me:hunter2@h/db", "DB_PASSWORD"), ("mysql+pymysql://h/db", "pymysql"), ("sqlite:///a.db", "no such file"),
        ("snowflake://h/db", "snowflake-sqlalchemy"), ("nothing://a/b.jsonl", "no known kind"), ("gs://bucket/a.jsonl", "gcsfs|bucket"),
    ):  # fmt: skip
        yield Case("place", url, lambda place, url=url: url, None, says)  # type: ignore[misc]


def columns() -> Iterator[Case]:
    rows = lines(
        changed(
            customer="Zxq",
            thumb=lambda n: "down" if n % 2 else "up",
            region="EU",
            Segment="B2B",
            created_at="2026-01-01",
            note="x",
        )
    )
    typos = {
        "known_value_columns": ["custmer"], "feedback_column": "thumbs", "group_columns": ["regoin"], "label_column": "lable",
        "created_at_column": "createdat", "context_column": "notes", "correction_column": "awnsers", "annotation_columns": ["labell"],
        "columns": {"id": "ID"},
    }  # fmt: skip
    for setting, value in typos.items():
        yield Case("column", f"misspelt_{setting}.jsonl", rows, None, f"{setting}.*did you mean", {setting: value})
    yield Case("column", "other_case.jsonl", rows, None, "did you mean `Segment`", {"group_columns": ["segment"]})
    yield Case("column", "unknown.jsonl", rows, None, "no record with the configured column", {"group_columns": ["zzz"]})
    yield Case("column", "feedback.jsonl", rows, 6, "negative_feedback", {"feedback_column": "thumb"})
    yield Case(
        "column",
        "sparse.jsonl",
        lines(changed(fix=lambda n: "Better." if n == 0 else ...)),
        12,
        "in 1 of 12",
        {"correction_column": "fix"},
    )
    for name in ("context", "system", "history", "documents", "weight"):
        yield Case("column", f"beside_{name}.jsonl", lines(changed(**{name: "1"})), 12, f"`{name}` .* is not read")
    yield Case("column", "context_read.jsonl", lines(changed(context="x")), 12, "", {"context_column": "context"})
    yield Case(
        "column", "capitals.csv", table(rows=renamed(question="Question", answer="Answer ")), None, 'prompt: "Question"'
    )
    yield Case(
        "column",
        "dashes.jsonl",
        lines(renamed(question="Customer-Message", answer="Agent Reply")),
        None,
        'reply: "Agent Reply"',
    )
    yield Case("column", "own_names.jsonl", lines(renamed(question="q", answer="a")), None, "Set `format`")
    yield Case(
        "column",
        "mapped.jsonl",
        lines(renamed(question="q", answer="a")),
        12,
        "",
        {"columns": {"prompt": "q", "completion": "a"}},
    )
    yield Case(
        "column", "half_mapped.jsonl", lines(renamed(question="q", answer="a")), None, "a", {"columns": {"prompt": "q"}}
    )
    yield Case(
        "column", "unused_role.jsonl", lines(), 12, "`columns.subject` is not read", {"columns": {"subject": "label"}}
    )
    yield Case("column", "no_header.csv", table(header=False), None, "line 1 may be a row")
    nested = [{"id": str(n), "t": {"q": "Why?", "a": [f"So {n}."]}} for n in range(5)]
    paths = {"columns": {"prompt": "t.q", "completion": "t.a.0"}}
    yield Case("column", "nested.jsonl", lines(nested), 5, "", paths)
    yield Case("column", "nested.parquet", parquet(nested), 5, "", paths)
    yield Case("column", "nested_unmapped.jsonl", lines(nested), None, "names a nested value")
    yield Case(
        "column", "wrong_path.jsonl", lines(nested), None, "t.b", {"columns": {"prompt": "t.b", "completion": "t.a.0"}}
    )


def documents() -> Iterator[Case]:
    yield Case("document", "tickets.json", json.dumps({"tickets": ROWS, "next": None}), 12, "", {"records": "tickets"})
    yield Case("document", "tickets_unsaid.json", json.dumps({"tickets": ROWS}), None, "records: tickets")
    yield Case("document", "indented.json", json.dumps({"count": 1, "tickets": ROWS}, indent=1), None, "records: tickets")
    yield Case("document", "deep.json", json.dumps({"data": {"items": ROWS}}), 12, "", {"records": "data.items"})
    yield Case("document", "deep_unsaid.json", json.dumps({"data": {"items": ROWS}}), None, r"records: data\.items")
    yield Case("document", "pages.jsonl", lines([{"rows": ROWS[:6]}, {"rows": ROWS[6:]}]), 12, "", {"records": "rows"})
    yield Case("document", "wrong_path.json", json.dumps({"tickets": ROWS}), None, "ticket", {"records": "ticket"})
    comments = [{"id": n, "comments": [{"body": f"Why {n}?"}, {"body": f"So {n}."}]} for n in range(4)]
    turns = {"prompt": "comments.0.body", "completion": "comments.-1.body"}
    yield Case(
        "document", "zendesk.json", json.dumps({"tickets": comments}), 4, "", {"records": "tickets", "columns": turns}
    )
    yield Case(
        "document",
        "zendesk_unmapped.json",
        json.dumps({"tickets": comments}),
        None,
        "names a nested value",
        {"records": "tickets"},
    )
    yield Case(
        "document",
        "squad.jsonl",
        lines([{"question": "Why?", "answers": {"text": ["So."]}}]),
        1,
        "",
        {"columns": {"completion": "answers.text.0"}},
    )


def times() -> Iterator[Case]:
    after = {"created_after": "2026-01-01T00:00:00Z"}
    forms: list[Any] = [
        1_772_000_000, 1_772_000_000_000, 1_772_000_000.5, 1_772_000_000_000_000, "1772000000", "1772000000000", "2026-03-01",
        "2026-03-01T10:00:00Z", "2026-03-01 10:00:00", "2026-03-01T10:00:00.123+01:00", "2026-03-01 10:00:00 UTC", "20260301",
        "20260301T100000Z", "2026/03/01", "2026/03/01 10:00", "01.03.2026", "01.03.2026 10:00", "Sun, 01 Mar 2026 10:00:00 GMT",
        "Mar 1, 2026 10:00 AM", "1 March 2026", "01-Mar-2026", "01/Mar/2026:10:00:00 +0000", "2026-03",
    ]  # fmt: skip
    for number, form in enumerate(forms):
        yield Case(
            "time", f"{number}_{form}"[:30].replace("/", "_") + ".jsonl", lines(changed(created_at=form)), 12, "", after
        )
    for form, says in (
        ("03/04/2026", "99/99/9999"),
        ("03/04/26 10:00", "99/99/99"),
        ("last week", "aaaa aaaa"),
        (46_023.5, "99999.9"),
        (7, "9"),
    ):
        yield Case(
            "time",
            f"{form}".replace("/", "_") + ".jsonl",
            lines(changed(created_at=form)),
            None,
            f"{says}.*created_at_format",
        )
    said = {**after, "created_at_format": "%d/%m/%Y"}
    yield Case("time", "said.jsonl", lines(changed(created_at="03/04/2026")), 12, "", said)
    yield Case(
        "time", "some.jsonl", lines(changed(created_at=lambda n: "soon" if n == 0 else "2026-03-01")), 12, "1 of 12 times"
    )
    yield Case("time", "before.jsonl", lines(changed(created_at="2025-03-01")), None, "outside_window", after)
    yield Case("time", "none.jsonl", lines(), None, "missing_created_at", after)


def values() -> Iterator[Case]:
    nan = float("nan")
    for name, column, rows, says in (
        ("nan_label", {"label": lambda n: nan if n < 2 else 1.0}, 12, ""), ("nan_reply", {"answer": lambda n: nan if n < 2 else "x"}, 10, "missing_field"),
        ("null_reply", {"answer": lambda n: None if n < 2 else "x"}, 10, "missing_field"), ("no_reply", {"answer": lambda n: ... if n < 2 else "x"}, 10, "missing_field"),
        ("number_reply", {"answer": lambda n: 7 if n < 2 else "x"}, 10, "not_text"), ("list_reply", {"answer": ["x"]}, None, r"`answer`, list\).*answer\.0"),
        ("object_reply", {"answer": {"text": "x"}}, None, r"`answer`, dict\)"), ("number_replies", {"answer": 7}, None, r"`answer`, int\)"),
        ("list_label", {"label": lambda n: ["a"] if n < 2 else "a"}, 10, "not_text in label"), ("bool_label", {"label": True}, 12, ""),
        ("nul", {"answer": lambda n: "a\x00b" if n < 2 else "x"}, 10, "nul_character"), ("half_character", {"answer": lambda n: "\ud83d" if n < 2 else "x"}, 10, "lone_surrogate"),
        ("same_id", {"id": "same"}, None, "duplicate_id"), ("e_mail_ids", {"id": lambda n: f"a{n}@b.example"}, 12, "named by content"),
        ("number_ids", {"id": lambda n: n}, 12, ""), ("list_of_persons", {"who": ["Ann", "Bo"]}, 12, ""),
    ):  # fmt: skip
        made = changed(**column)
        text = "".join(json.dumps(row) + "\n" for row in made)
        yield Case(
            "value", f"{name}.jsonl", text, rows, says, {"known_value_columns": ["who"]} if name == "list_of_persons" else {}
        )
    yield Case("value", "classes.csv", "text,label\nWhere?,a\nWhen?,\nWhy?,b\n", 2, "missing_field")
    yield Case(
        "value",
        "float_labels.parquet",
        parquet([{"text": f"t{n}", "label": nan if n == 1 else float(n)} for n in range(4)]),
        3,
        "missing_field",
    )
    yield Case("value", "cut_line.jsonl", lines()[:-40], 11, "malformed_json")
    yield Case("value", "bare_values.jsonl", lines() + '"a"\n3\n', 12, "not_an_object")
    yield Case("value", "short_row.csv", table() + "only one\n", 12, "wrong_number_of_fields")
    yield Case("value", "deep.jsonl", lines() + '{"a":' * 100_000 + "\n", 12, "nested_too_deeply|malformed_json")
    yield Case("value", "all_cut.jsonl", "{bad\n{bad\n", None, "malformed_json 2")


def kinds() -> Iterator[Case]:
    user, assistant = ("user", "Hi?"), ("assistant", "Ho.")
    pair = {"prompt": "Hi", "chosen": "Yes", "rejected": "No"}
    yield Case("kind", "openai.jsonl", lines(talk(("system", "Be kind."), user, assistant)), 3)
    yield Case(
        "kind",
        "sharegpt.jsonl",
        lines([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}] * 2),
        2,
    )
    yield Case(
        "kind",
        "chat_in_csv.csv",
        'id,messages\na,"[{""role"":""user"",""content"":""Hi""},{""role"":""assistant"",""content"":""Ho""}]"\n',
        1,
    )
    yield Case("kind", "alpaca.json", json.dumps([{"instruction": "Sort.", "input": "b a", "output": "a b"}]), 1)
    yield Case(
        "kind", "dolly.jsonl", lines([{"instruction": "Sort.", "context": "b a", "response": "a b", "category": "x"}]), 1
    )
    yield Case("kind", "tickets.csv", "subject,body,reply,customer_name\nA,B,C,Zxq\n", 1)
    yield Case("kind", "pairs.jsonl", lines([pair]), None, "preference pairs.*under `preferences`")
    yield Case("kind", "texts_without_labels.csv", "text\nWhere?\n", None, "text")
    yield Case("kind", "messages_as_words.jsonl", lines([{"messages": "Hi there"}] * 2), None, "not_a_conversation")
    yield Case("kind", "wrong_format.jsonl", lines(), None, "expected tickets", {"format": "tickets"})


def configurations() -> Iterator[Case]:
    for name, text, says in (
        ("twice", "name: a\nexamples: {path: P}\nexamples: {path: P}\n", "line 2"), ("twice_below", "name: a\nexamples:\n  path: P\n  path: P\n", "line 3"),
        ("empty", "", "an empty file"), ("null_section", "name: a\nexamples: {path: P}\ntraining:\n  sft:\n", r"training\.sft: is empty; leave it out"),
        ("unknown", "name: a\nexampels: {path: P}\n", "did you mean `examples`"), ("role", "name: a\nexamples: {path: P, columns: {promt: q}}\n", "did you mean `prompt`"),
        ("format", "name: a\nexamples: {path: P, format: chats}\n", "did you mean `chat`"), ("tabs", "name: a\nexamples:\n\tpath: P\n", "line 3"),
        ("no_path", "name: a\nexamples: {}\n", "examples.path: is required"), ("list", "- a\n", "a list of 1"), ("number", "name: a\nexamples: 3\n", "examples"),
        ("encoding", "name: a\nexamples: {path: P, encoding: utf-9}\n", "encoding"), ("window", "name: a\nexamples: {path: P, created_after: 2026-02-01, created_before: 2026-01-01}\n", "created_after"),
    ):  # fmt: skip
        yield Case("configuration", name, lines(), None, says, config=text)


def duplicates() -> Iterator[Case]:
    def turns(*pairs: tuple[str, str]) -> str:
        return lines([{"id": f"r{n:02}", "prompt": ask, "completion": reply} for n, (ask, reply) in enumerate(pairs)])

    kept: dict[str, list[tuple[str, str]]] = {
        "dates": [(f"Write 0{n}/03/2026 as ISO 8601, please.", f"2026-03-0{n}") for n in range(1, 10)],
        "sums": [(f"What is {n} plus {n + 7}? Just add them.", f"{2 * n + 7}") for n in range(12_345, 12_355)],
        "networks": [(f"Which /24 network has the address 10.0.{n}.9?", f"10.0.{n}.0") for n in range(20, 30)],
        "hexadecimal": [(f"Write {n} as a hexadecimal number.", f"{n:#x}") for n in range(70_000, 70_010)],
        "primes": [(f"Is the number {n} prime or not?", "Yes." if n in (10_007, 10_009) else "No.") for n in range(10_001, 10_011, 2)],
        "signs": [(f"Compute 812 {sign} 35 and tell me only the result.", "Done.") for sign in "+-*/"],
        "on_off": [(f"Please turn {word} the notifications of my phone today.", "Done.") for word in ("on", "off")],
        "reversed": [(f"How many {one} is a {other} in the market today?", "It depends.") for one, other in (("euros", "dollar"), ("dollars", "euro"))],
        "german": [(f"Wie kann ich mich bei diesem Dienst heute {word}?", "So.") for word in ("anmelden", "abmelden")],
        "japanese": [(f"このカードは海外でも{word}ので安心してください", "はい") for word in ("使えます", "使えません")],
        "chinese": [(f"这张卡{word}以在国外的商店和餐厅里使用吗", "好") for word in ("可", "不可")],
    }  # fmt: skip
    for name, pairs in kept.items():
        yield Case("duplicate", f"{name}.jsonl", turns(*pairs), len(pairs))
    orders = [(f"Where is my order {n}? It has not come yet.", f"Order {n} is on its way.") for n in range(12_345, 12_350)]
    yield Case("duplicate", "orders.jsonl", turns(*orders), 1)
    yield Case(
        "duplicate",
        "typing.jsonl",
        turns(("How do I block my lost card?", "In the app."), ("How do I blok my lost card?", "In the app.")),
        1,
    )


# -------------------------------------------------------------------------------------------------------------------- measure


def outcome(case: Case, place: Path) -> tuple[str, str]:
    """What happened, ``read`` or ``refused`` or ``traceback`` or ``leak``, and the words with it."""
    data = case.data
    if callable(data):
        path: Any = data(place)
    else:
        path = place / case.name
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    text = (
        case.config
        if case.config is not None
        else json.dumps({"name": "a", "examples": {"path": str(path), **case.settings}})
    )
    (place / "config.yaml").write_text(text.replace("P", str(path)) if case.config is not None else text)
    try:
        source = load_config(place / "config.yaml").examples
        result = make_snapshot(read_configured(source), source)
        require_kind(result.input_format, "messages", source.path)
    except PerennialError as error:
        return ("leak" if re.search(r"Zxq|4111", str(error)) else "refused"), str(error)
    except Exception:
        return "traceback", traceback.format_exc(limit=-1).replace("\n", " ")
    words = "; ".join(result.notes + [f"{row['reason']} in {row['field']}" for row in result.quarantined_rows])
    num_rows = len(result.rows)
    if case.kind == "duplicate":
        found = deduplicate_table(rows_to_table([dict(row) for row in result.rows], "messages"), threshold=0.7)
        num_rows = found.kept.num_rows
    return f"read {num_rows}", words


def main() -> None:
    parser = argparse.ArgumentParser(description="Inputs as people have them: read as meant, or refused by what is wrong.")
    parser.add_argument("--all", action="store_true", help="print every input")
    parser.add_argument("--kind", help="only inputs of this kind")
    options = parser.parse_args()
    cases = [
        case
        for made in (containers, places, columns, documents, times, values, kinds, configurations, duplicates)
        for case in made()
        if options.kind in (None, case.kind)
    ]
    console, counts, wrong = Console(soft_wrap=True), defaultdict[str, Counter[str]](Counter), []
    for case in cases:
        with tempfile.TemporaryDirectory() as place:
            found, words = outcome(case, Path(place))
        expected = "refused" if case.rows is None else f"read {case.rows}"
        is_right = found == expected and re.search(case.says, words, re.DOTALL) is not None
        counts[case.kind][
            ("read as meant" if case.rows is not None else "refused by its cause") if is_right else "wrong"
        ] += 1
        if not is_right:
            wrong.append(case)
        if options.all or not is_right:
            sign = "ok   " if is_right else "WRONG"
            console.print(f"{sign} {case.kind:<13} {case.name:<32} {found:<10} {words[:200]}", highlight=False, markup=False)
    table_of_kinds = Table(title=f"{len(cases)} inputs, {len(wrong)} not as expected")
    for name in ("kind", "inputs", "read as meant", "refused by its cause", "wrong"):
        table_of_kinds.add_column(name, justify="left" if name == "kind" else "right")
    for kind, found_of_kind in counts.items():
        figures = [found_of_kind[name] for name in ("read as meant", "refused by its cause", "wrong")]
        table_of_kinds.add_row(kind, str(found_of_kind.total()), *map(str, figures))
    console.print(table_of_kinds)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
