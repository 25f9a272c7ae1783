"""A conversation is the same text on any day."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from tasks.modeling.conversations import conversation_token_ids, prompt_token_ids, render_prompt
from tasks.modeling.loading import load_tokenizer
from tasks.modeling.templates import on_a_fixed_date, prepare_files
from tests.support.tiny_model import CHATML

MESSAGES = [{"role": "user", "content": "What day is it?"}, {"role": "assistant", "content": "A good one."}]
DATED = "{{ '<|im_start|>system\n' + strftime_now(FORMAT) + '<|im_end|>\n' }}" + CHATML
LLAMA = (files("trl") / "chat_templates" / "llama3_2.jinja").read_text(encoding="utf-8")


def on(day: dt.datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today is ``day`` to whatever transformers renders."""

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> dt.datetime:
            return day

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


DAYS = [dt.datetime(2026, 2, 28, 23, 59), dt.datetime(2027, 12, 1, 8, 0)]


@pytest.mark.parametrize(
    "template",
    [
        DATED.replace("FORMAT", "'%d %b %Y'"),
        DATED.replace("FORMAT", "'Today is %A, %B %-d, %Y at %H:%M'"),
        DATED.replace("FORMAT", "'%Y-%m-%d'"),
        LLAMA,
    ],
    ids=["short", "long", "iso", "llama"],
)
def test_a_template_that_writes_the_date_writes_the_same_on_any_day(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = template
    shown, plain = [], []
    for day in DAYS:
        on(day, monkeypatch)
        shown.append(
            (
                render_prompt(tokenizer, MESSAGES[:1]),
                prompt_token_ids(tokenizer, MESSAGES[:1]),
                conversation_token_ids(tokenizer, MESSAGES),
            )
        )
        plain.append(tokenizer.apply_chat_template(MESSAGES, tokenize=False))
    assert plain[0] != plain[1], "the library alone writes today's date"
    assert shown[0] == shown[1]
    assert "2024" in shown[0][0]
    assert "%" not in shown[0][0]


def test_the_date_is_the_one_that_the_format_asks_for(tiny_model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    for wanted in ("%d %b %Y", "%A, %B %-d, %Y at %H:%M", "%F %T", "%y%m%d, day %j", "no date at all"):
        tokenizer.chat_template = DATED.replace("FORMAT", f"'{wanted}'")
        assert dt.datetime(2024, 7, 26).strftime(wanted) in render_prompt(tokenizer, MESSAGES)


def test_who_renders_a_loaded_tokenizer_gets_the_fixed_date_too(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = LLAMA
    tokenizer.save_pretrained(tmp_path)
    texts = []
    for day in DAYS:
        on(day, monkeypatch)
        texts.append(load_tokenizer(tmp_path).apply_chat_template(MESSAGES, tokenize=False))
    assert texts[0] == texts[1]
    assert "26 Jul 2024" in texts[0]


@pytest.mark.parametrize("template", [CHATML, "\n  {% if true %}x{% endif %}", " {{ messages[0]['content'] }}"])
def test_a_template_without_a_date_is_left_alone(template: str) -> None:
    assert on_a_fixed_date(template) == template


@pytest.mark.parametrize("start", ["", "\n", "  ", "\n  {% if true %}\n"])
def test_what_a_template_begins_with_is_kept(tiny_model_dir: Path, start: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    rest = "{{ 'on ' + strftime_now('%Y') }}" + ("{% endif %}" if "if" in start else "")
    tokenizer.chat_template = start + rest.replace("strftime_now('%Y')", "'2024'")
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    tokenizer.chat_template = start + rest
    assert render_prompt(tokenizer, MESSAGES) == expected
    assert on_a_fixed_date(on_a_fixed_date(start + rest)) == on_a_fixed_date(start + rest)


def dated(tokenizer: Any, templates: Any, folder: Path) -> Path:
    """A folder with the tokenizer and these templates, saved as transformers saves them."""
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["jinja", "named", "list", "json"])
def test_the_date_is_fixed_wherever_a_template_is_kept(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    folder = dated(tokenizer, {"default": LLAMA, "rag": CHATML} if form == "named" else LLAMA, tmp_path)
    if form in ("list", "json"):
        (folder / "chat_template.jinja").unlink()
        value: Any = [{"name": "default", "template": LLAMA}, {"name": "rag", "template": CHATML}]
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["chat_template"] = value if form == "list" else LLAMA
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    texts = []
    for day in DAYS:
        on(day, monkeypatch)
        loaded = load_tokenizer(folder)
        texts += [loaded.apply_chat_template(MESSAGES, tokenize=False), render_prompt(loaded, MESSAGES[:1])]
    prepare_files(folder)
    for day in DAYS:  # Who serves the folder without this project's code gets the same.
        on(day, monkeypatch)
        served = AutoTokenizer.from_pretrained(folder)
        texts += [
            served.apply_chat_template(MESSAGES, tokenize=False),
            served.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True),
        ]
    assert texts == texts[:2] * 4
    assert "26 Jul 2024" in texts[0]


def test_a_folder_whose_template_needs_nothing_keeps_its_bytes(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    prepare_files(tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == before
