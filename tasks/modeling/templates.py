"""Chat templates as training, generation and serving use them: one text for one conversation, on any day.

A template as published may refuse system text or lose it, may start the assistant's turn differently for generation than it
writes the turn in a conversation, and may write today's date. :func:`prepared` adds what is missing to the template itself,
so that every library that renders it gets the same text. A template that lacks nothing, such as ChatML, stays as it is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, str]

_FIXED_DATE: Mapping[str, str] = {
    **{"%F": "2024-07-26", "%D": "07/26/24", "%T": "00:00:00", "%R": "00:00", "%x": "07/26/24", "%X": "00:00:00"},
    **{"%c": "Fri Jul 26 00:00:00 2024", "%-d": "26", "%-m": "7", "%-H": "0", "%-I": "12", "%e": "26", "%j": "208"},
    **{"%d": "26", "%m": "07", "%b": "Jul", "%h": "Jul", "%B": "July", "%y": "24", "%Y": "2024", "%a": "Fri"},
    **{"%A": "Friday", "%u": "5", "%w": "5", "%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%f": "000000"},
    **{"%Z": "UTC", "%z": "+0000", "%s": "1721952000"},
}
"""26 July 2024 by ``strftime`` directive: the date that Llama's templates write when they receive none."""
_CLOCK = "strftime_now"
"""The function that gives a template the time (``transformers/utils/chat_template_utils.py``)."""
_STOPPED_CLOCK = (
    f"{{% macro {_CLOCK}(format) %}}{{{{ format"
    + "".join(f" | replace('{directive}', '{value}')" for directive, value in _FIXED_DATE.items())
    + " }}{% endmacro %}\n"
)
# Every addition ends in a line break after a block, which Jinja removes (`trim_blocks`).
_FOLDED_SYSTEM = (
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% if messages | length > 1 and messages[1]['role'] == 'user' %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] %}"
    "{% else %}{% set messages = [{'role': 'user', 'content': messages[0]['content']}] + messages[1:] %}{% endif %}"
    "{% endif %}\n"
)
_RENDERED = "perennial_rendered"
"""The variable that holds a conversation's text while its end is changed."""
PLACEHOLDER = "ReplyQx7"
"""A reply that no template writes by itself."""
_SYSTEM, _QUESTION = "SystemQx7", "QuestionQx7"
_NO_TOKENS = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}


class ReplyForm(NamedTuple):
    """What a template writes around the last reply: the ``start`` of its turn in a conversation, and the ``end``."""

    start: str
    end: str


class Changes(NamedTuple):
    """What :func:`prepared` added to a template."""

    moves_system: bool
    sets_start: bool
    fixes_date: bool


def changes_of(template: str) -> Changes:
    """What was added to a prepared template."""
    return Changes(_FOLDED_SYSTEM in template, _RENDERED in template, template.startswith(_STOPPED_CLOCK))


def on_a_fixed_date(template: str) -> str:
    """The chat template, changed to write the same date on any day; unchanged when it writes no date.

    A macro that shadows the clock is part of the template, so that a library that renders it gets the fixed date too.
    """
    return _STOPPED_CLOCK + template if _CLOCK in template and not template.startswith(_STOPPED_CLOCK) else template


@functools.lru_cache(maxsize=256)
def prepared(template: str) -> str:
    """The chat template with what training and serving need; the same text when it lacks nothing, and when prepared before.

    * System text becomes the start of the first user message where the template refuses or loses it.
    * Generation starts with exactly the text that the template writes before a reply in a conversation. Qwen3's empty think
      block is prefilled; R1's opening `<think>`, which its own conversations lack, is left out. A space before the reply
      belongs to the reply's first token.
    * The date is fixed (:func:`on_a_fixed_date`).

    A template that cannot be rendered is returned as it is: the rows show what it refuses.
    """
    try:
        changed = _with_one_start(template)
        changed = changed if _keeps_system(changed) else _FOLDED_SYSTEM + changed
        return on_a_fixed_date(changed if _keeps_system(changed) else template)
    except TemplateError:
        return on_a_fixed_date(template)


def all_prepared(templates: Any) -> Any:
    """:func:`prepared` for what a tokenizer holds: one template, named ones, or none."""
    if isinstance(templates, Mapping):
        return {name: prepared(template) for name, template in templates.items()}
    return prepared(templates) if isinstance(templates, str) else templates


def prepare_files(folder: Path) -> None:
    """Prepares the templates in a tokenizer's folder, so that any program that serves it writes the same text as training.

    Files that need no change stay as they are, bytes and all; a changed file replaces a link to the original.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if (changed := prepared(text)) != text:
            path.unlink()
            path.write_text(changed, encoding="utf-8")
    for path in (folder / "tokenizer_config.json", folder / "chat_template.json"):
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        templates = settings.get("chat_template")
        if isinstance(templates, list):  # The older form of named templates.
            new = [{**item, "template": prepared(item["template"])} for item in templates]
        else:
            new = all_prepared(templates)
        if new != templates:
            path.unlink()
            path.write_text(json.dumps({**settings, "chat_template": new}, indent=2, ensure_ascii=False), encoding="utf-8")


def default_template(read: Callable[[str], bytes | None]) -> str | None:
    """The prepared default template of a tokenizer's folder, given a function that reads a file of it; None without one."""
    if (text := read("chat_template.jinja")) is not None:
        return prepared(text.decode("utf-8"))
    for name in ("tokenizer_config.json", "chat_template.json"):
        templates = json.loads(read(name) or b"{}").get("chat_template")
        if isinstance(templates, list):
            templates = {item["name"]: item["template"] for item in templates}
        template = templates.get("default") if isinstance(templates, Mapping) else templates
        if template:
            return prepared(template)
    return None


def render_template(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """What a template writes, without a tokenizer; special tokens of the tokenizer are named, as in ``<bos_token>``.

    Raises:
        TemplateError: The template refuses the conversation.
    """
    options = {"add_generation_prompt": add_generation_prompt, "tools": tools, "documents": None}
    return _compiled(template).render(messages=messages, **options, **_NO_TOKENS)


@functools.lru_cache(maxsize=256)
def reply_form(template: str) -> ReplyForm | None:
    """What a template writes around the reply to one user message; None when it writes the reply's text not at all."""
    try:
        start, found, end = _render(template, [_user(), _assistant()]).rpartition(PLACEHOLDER)
    except TemplateError:
        return None
    return ReplyForm(start, end) if found else None


def _with_one_start(template: str) -> str:
    """The template whose generation prompt is what it writes before a reply; unchanged where they agree."""
    form = reply_form(template)
    prompted = _render(template, [_user()], add_generation_prompt=True)
    if form is None or (start := form.start.rstrip(" ")) == prompted:
        return template
    num_shared = next(
        (n for n, (a, b) in enumerate(zip(prompted, start, strict=False)) if a != b), min(len(prompted), len(start))
    )
    if _QUESTION not in prompted[:num_shared]:
        return template  # More than the start of the reply differs; the check of the rows says so.
    body = template.removesuffix("\n")
    cut = f"[:-{len(prompted) - num_shared}]" if len(prompted) > num_shared else ""
    return (
        f"{{% set {_RENDERED} %}}\n"
        + body
        # An expression between the text and the block keeps `lstrip_blocks` from removing the text's last spaces.
        + "{{ '' }}{% endset %}{% if add_generation_prompt %}"
        + f"{{{{ {_RENDERED}{cut} + {json.dumps(start[num_shared:])} }}}}"
        + f"{{% else %}}{{{{ {_RENDERED} }}}}{{% endif %}}"
    )


def _keeps_system(template: str) -> bool:
    """Whether system text stands in the prompt and in the conversation."""
    system = {"role": "system", "content": _SYSTEM}
    try:
        prompt = _render(template, [system, _user()], add_generation_prompt=True)
        return _SYSTEM in prompt and _SYSTEM in _render(template, [system, _user(), _assistant()])
    except TemplateError:
        return False


def _user() -> Message:
    return {"role": "user", "content": _QUESTION}


def _assistant() -> Message:
    return {"role": "assistant", "content": PLACEHOLDER}


def _render(template: str, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
    return render_template(template, [dict(m) for m in messages], add_generation_prompt=add_generation_prompt)


@functools.lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


class _GenerationBlock(Extension):
    """``{% generation %}``, which marks a reply for transformers, without effect on the text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Renders templates as transformers does, without importing it."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=lambda form: form)
    return environment
