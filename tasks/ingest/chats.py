"""Reads conversations in the forms that people have, with their tools and calls, into canonical messages.

Known are OpenAI's messages (also with functions, developer text, content parts, weights), ShareGPT's turns, Hermes' tags in
texts, TRL's arguments as objects, and Anthropic's parts. What has no place in a canonical message is a fault, never left out
silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.core.tool_calls import dumps, loads
from tasks.ingest.faults import RowFaultError
from tasks.ingest.tool_schemas import read_tools, without_unset

Message = dict[str, Any]

_ROLES = {
    **dict.fromkeys(("human", "customer"), "user"),
    **dict.fromkeys(("gpt", "bot", "model", "ai", "chatgpt", "function_call", "tool_call", "tool_calls"), "assistant"),
    **dict.fromkeys(("function", "observation", "tool_response", "tool_result", "tool_results", "ipython"), "tool"),
    "developer": "system",
}
_CALL_ROLES = {"function_call", "tool_call", "tool_calls"}
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of content parts that hold text, and under which key."""
_PART_KIND = re.compile(r"[a-z][a-z_]{0,30}")
_CALL_TAG = re.compile(r"<(tool_call|functioncall)>(.*?)(?:</\1>|<\|endoftext\|>|$)", re.DOTALL)
_RESULT_TAG = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_TOOLS_TAG = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_TAG_EXAMPLE = re.compile(r"<tool_call>.*?</tool_call>(?=\s*(\n|$))", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)|(?<=\n)")
_FORM_WORDS = re.compile(r"</?(?:tools|tool_call|tool_response)>|pydantic model json schema|^# Tools\s*$", re.IGNORECASE)
_DIALOGUE_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_REASONING = ("reasoning_content", "reasoning", "thinking")
CUT_END = "end with another turn than the assistant's; that end is left out"
CUT_UNLEARNED = "end with replies of weight 0; that end is left out"
CALLS_UNSTATED = "call tools that they do not state; whether those calls are valid is not checked"
REASONING_OUT = "hold reasoning beside the content (such as `reasoning_content`); it is left out"
FORM_REMOVED = "state their tools as text; the chat template states them instead"


@dataclass
class Chat:
    """A conversation that was read.

    Attributes:
        messages: In canonical form.
        tools: What may be called, each as JSON.
        notes: What was changed, in words that follow "N conversations".
    """

    messages: list[Message]
    tools: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_row(self) -> dict[str, Any]:
        """The part of a row that it makes up."""
        return {"messages": self.messages, **({"tools": self.tools} if self.tools else {}), "notes": self.notes}


def read_chat(turns: Sequence[Message], tools: Any, tools_field: str) -> Chat:
    """A whole conversation to learn from: it ends with a reply, and its calls have results.

    Args:
        turns: From :func:`read_turns`.
        tools: What may be called, as the record holds it; None: nothing, or what a system text states.
        tools_field: Where that stands.

    Raises:
        RowFaultError: Tools, calls or results cannot be read, or no reply is to be learned.
    """
    if tools is None:  # GLM's and DeepSeek's rows state them beside a message's content
        tools = next((turn["tools"] for turn in turns if turn.get("tools")), None)
    chat = Chat(list(turns), read_tools(tools, tools_field))
    if any(turn.get("reasoning") for turn in turns):
        chat.notes.append(REASONING_OUT)
    _take_stated_tools(chat)
    chat.messages = linked(chat.messages, chat.tools)
    _cut_end(chat)
    if not chat.tools and any(message.get("tool_calls") for message in chat.messages):
        chat.notes.append(CALLS_UNSTATED)
    return chat


def read_turns(value: Any, field: str, role_of_text: str | None = None) -> list[Message]:
    """The turns of a conversation, calls not yet linked with results.

    Args:
        value: A list of turns, its JSON, an object with ``messages``, or a text.
        field: Its name, for faults.
        role_of_text: Whose turn a text is that is no dialogue; None: a text is no conversation.

    Raises:
        RowFaultError: It is no conversation, or holds something other than text and calls.
    """
    if isinstance(value, str):
        if is_dialogue(value):
            return _dialogue(value)
        if role_of_text is not None:
            return [{"role": role_of_text, "content": value}]
        try:  # a CSV cell can hold a conversation only as JSON
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowFaultError("not_a_conversation", field) from None
    if isinstance(value, Mapping) and "messages" in value:
        value, field = value["messages"], f"{field}.messages"
    is_list = isinstance(value, list | tuple)
    if not is_list or (role_of_text is not None and not all(isinstance(item, Mapping) for item in value)):
        raise RowFaultError("not_a_conversation" if role_of_text is None else "not_text", field)
    turns = [turn for index, item in enumerate(value) for turn in _turns(item, f"{field}.{index}")]
    return [turn for turn in turns if turn["role"] != "system" or turn["content"].strip() or turn.get("tools")]


def is_dialogue(value: Any) -> bool:
    """Whether a value is a dialogue as one text, as in HH-RLHF."""
    return isinstance(value, str) and _DIALOGUE_TURN.match(value) is not None


def linked(messages: Sequence[Message], tools: Sequence[str] = ()) -> list[Message]:
    """The messages with calls named anew, one after the other, and each result under the name of its call.

    The names that a record gives mean nothing beyond that, and some templates accept only names of nine characters.

    Raises:
        RowFaultError: A result answers no call, or two results answer the same one.
    """
    given: dict[str, str] = {}
    open_calls: dict[str, str] = {}
    number, result = 0, []
    for place, message in enumerate(messages):
        changed = {key: value for key, value in message.items() if key not in ("tools", "reasoning")}
        if changed["role"] == "system" and not changed["content"].strip():
            continue
        if message.get("tool_calls"):
            changed["tool_calls"] = []
            for call in message["tool_calls"]:
                own, number = f"call{number:05d}", number + 1
                given[call.get("id") or own] = own
                open_calls[own] = call["name"]
                changed["tool_calls"].append({**call, "id": own, "arguments": without_unset(call, tools)})
        if message["role"] == "tool":
            name, wanted = changed.pop("name", None), message.get("tool_call_id")
            fitting = [own for own, called in open_calls.items() if name in (None, called)] or list(open_calls)
            answered = given.get(wanted) if wanted else next(iter(fitting), None)
            if answered not in open_calls:
                raise RowFaultError("result_without_call", f"messages.{place}.tool_call_id")
            del open_calls[answered]
            changed["tool_call_id"] = answered
        result.append(changed)
    return result


# ------------------------------------------------------------------------------------------------------------- one turn


def _turns(item: Any, field: str) -> Iterator[Message]:
    """The canonical turns of one given turn: mostly one; results that stand together become turns of their own."""
    if not isinstance(item, Mapping):
        raise RowFaultError("not_a_conversation", field)
    given = item.get("role", item.get("from"))
    if not isinstance(given, str):
        raise RowFaultError("missing_field" if given is None else "not_text", f"{field}.role")
    role = given.strip().lower()
    role, is_call = _ROLES.get(role, role), role in _CALL_ROLES
    content = next((item[key] for key in ("content", "value", "refusal") if item.get(key) is not None), None)
    calls = [*_given_calls(item, field), *(_calls_in(content, f"{field}.content") if is_call else ())]
    stated = next((item[key] for key in ("tools", "functions") if item.get(key)), None)
    may_be_empty = bool(calls or stated)
    text, results = ("", []) if is_call else _text_of(content, f"{field}.content", calls, is_optional=may_be_empty)
    if role == "assistant" and "<" in text:
        text = _take_tagged_calls(text, calls, f"{field}.content")
    if role in ("tool", "user") and (tagged := _tagged_results(text)) is not None:
        text, results = "", [*results, *({"content": part} for part in tagged)]
    if calls and role != "assistant":
        raise RowFaultError("call_outside_a_reply", field)
    yield from ({"role": "tool", **result} for result in results)
    if results and not text and not calls:
        return
    message: Message = {"role": role, "content": text}
    if stated:
        message["tools"] = stated
    if any(item.get(key) for key in _REASONING):
        message["reasoning"] = True
    if calls:
        message["tool_calls"] = calls
    if role == "tool":
        message |= {key: item[key] for key in ("tool_call_id", "name") if isinstance(item.get(key), str)}
    if role == "assistant" and not _is_learned(item, field):
        message["learned"] = False
    yield message


def _text_of(content: Any, field: str, calls: list[Message], *, is_optional: bool) -> tuple[str, list[Message]]:
    """The text of a content, which may be a list of parts; calls among them are added, results returned."""
    if content is None and is_optional:
        return "", []
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list | tuple):
        raise RowFaultError("missing_field" if content is None else "not_text", field)
    texts, results = [], []
    for index, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "tool_use":
            calls.append(_call({"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")}, field))
        elif kind == "tool_result":
            inner, _ = _text_of(part.get("content"), f"{field}.{index}.content", [], is_optional=True)
            results.append({"content": inner, "tool_call_id": part.get("tool_use_id")})
        elif kind in _TEXT_KEYS and isinstance(part.get(_TEXT_KEYS[kind]), str):
            texts.append(part[_TEXT_KEYS[kind]])
        else:
            is_name = isinstance(kind, str) and _PART_KIND.fullmatch(kind) is not None and kind not in _TEXT_KEYS
            raise RowFaultError(f"{str(kind).removesuffix('_url')}_content" if is_name else "not_text", f"{field}.{index}")
    return "\n".join(texts), results


def _is_learned(item: Mapping[str, Any], field: str) -> bool:
    """Whether a reply is to be learned: by OpenAI's ``weight`` or Axolotl's ``train``."""
    weight = item.get("weight") if item.get("weight") is not None else item.get("train")
    if weight not in (None, 0, 1):
        raise RowFaultError("unknown_weight", f"{field}.weight")
    return weight != 0


# ---------------------------------------------------------------------------------------------------------------- calls


def _given_calls(item: Mapping[str, Any], field: str) -> list[Message]:
    """The calls beside a turn's content: ``tool_calls``, or the older ``function_call``."""
    calls = []
    for name in ("tool_calls", "function_call"):
        value = item.get(name)
        if value:
            calls += _calls_in(value, f"{field}.{name}")
    return calls


def _calls_in(value: Any, field: str) -> list[Message]:
    """Calls from a list of them, a single one, or the JSON of either."""
    if isinstance(value, str):
        value = _loaded(value, field)
    items = value if isinstance(value, list | tuple) else [value]
    return [_call(item, f"{field}.{index}") for index, item in enumerate(items)]


def _call(item: Any, field: str) -> Message:
    if isinstance(item, str):
        item = _loaded(item, field)
    if not isinstance(item, Mapping):
        raise RowFaultError("malformed_call", field)
    inner = item["function"] if isinstance(item.get("function"), Mapping) else item
    name = inner.get("name")
    arguments = inner.get("arguments", inner.get("parameters"))
    if isinstance(arguments, str):
        arguments = _loaded(arguments, f"{field}.arguments") if arguments.strip() else {}
    if not isinstance(name, str) or not name.strip() or not isinstance(arguments, Mapping | None):
        raise RowFaultError("malformed_call", field)
    try:
        written = dumps(arguments or {})
        loads(written)
    except (TypeError, ValueError):
        raise RowFaultError("malformed_call", f"{field}.arguments") from None
    call = {"id": item.get("id") or item.get("call_id"), "name": name.strip(), "arguments": written}
    return {key: value for key, value in call.items() if value is not None}


def _loaded(text: str, field: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        pass
    try:  # Glaive writes the arguments as JSON in single quotes inside JSON.
        outer = re.sub(r"'(\{.*\})'", lambda found: found[1], text.strip(), flags=re.DOTALL)
        return loads(outer)
    except ValueError:
        raise RowFaultError("malformed_call", field) from None


def _take_tagged_calls(text: str, calls: list[Message], field: str) -> str:
    """Adds the calls that stand in a reply's text in tags; returns the rest of the text."""
    found = list(_CALL_TAG.finditer(text))
    if not found:
        return text
    calls += [call for match in found for call in _calls_in(match[2].strip(), field)]
    return _CALL_TAG.sub("", text).strip()


def _tagged_results(text: str) -> list[str] | None:
    """The results in a turn that holds nothing else, without their tags."""
    if "<tool_response>" not in text or _RESULT_TAG.sub("", text).strip():
        return None
    return [match.strip() for match in _RESULT_TAG.findall(text)]


def _take_stated_tools(chat: Chat) -> None:
    """Turns tools that a system text states in `<tools>` tags into tools; sentences about that form are removed."""
    first = chat.messages[0] if chat.messages else None
    if first is None or first["role"] != "system" or not (stated := _TOOLS_TAG.findall(first["content"])):
        return
    tools = next((tools for text in stated if text.strip() and (tools := _stated_tools(text))), None)
    if tools is None:
        return
    chat.tools = chat.tools or tools
    text = _without_form(first["content"])
    chat.messages = [*([{**first, "content": text}] if text else []), *chat.messages[1:]]
    chat.notes.append(FORM_REMOVED)


def _stated_tools(text: str) -> list[str]:
    """Tools from a JSON array, or from one JSON object after the other."""
    decoder, place, items = json.JSONDecoder(), 0, []
    try:
        while place < len(text):
            if text[place] in " \t\r\n,":
                place += 1
                continue
            value, place = decoder.raw_decode(text, place)
            items += value if isinstance(value, list) else [value]
    except (ValueError, RecursionError):
        raise RowFaultError("malformed_tools", "messages.0.content") from None
    return read_tools(items, "messages.0.content")


def _without_form(text: str) -> str:
    """A system text without tools, examples of calls, and the sentences that speak of their tags."""
    decoder = json.JSONDecoder()
    start = text.find("pydantic model json schema")
    brace = text.find("{", start) if start >= 0 else -1
    if brace >= 0:
        try:
            _, end = decoder.raw_decode(text, brace)
            text = text[:brace] + "\n" + text[end:]
        except ValueError:
            pass
    # The empty pair of tags names the form in a sentence; a filled one is the form.
    text = re.sub(r"<tools>(?!\s*</tools>).*?</tools>", "<tools></tools>\n", text, flags=re.DOTALL)
    text = _TAG_EXAMPLE.sub("<tool_call></tool_call>", text)
    kept = [part for part in _SENTENCE_END.split(text) if not _FORM_WORDS.search(part.strip())]
    return re.sub(r"\n{3,}", "\n\n", "".join(kept)).strip()


# ------------------------------------------------------------------------------------------------------- whole talks


def _cut_end(chat: Chat) -> None:
    """Ends a conversation with the last reply that is to be learned."""
    replies = [place for place, message in enumerate(chat.messages) if message["role"] == "assistant"]
    if not replies:
        return
    learned = [place for place in replies if chat.messages[place].get("learned", True)]
    if not learned:
        raise RowFaultError("nothing_to_learn", f"messages.{replies[-1]}.weight")
    if replies[-1] < len(chat.messages) - 1:
        chat.notes.append(CUT_END)
    if learned[-1] < replies[-1]:
        chat.notes.append(CUT_UNLEARNED)
    chat.messages = chat.messages[: learned[-1] + 1]


def split_sides(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> dict[str, list[Message]]:
    """Prompt and two replies, where each side may repeat the prompt, and both may go on alike.

    Raises:
        RowFaultError: The sides differ in more than their last reply, or share no prompt.
    """
    sides = [_after(prompt, side) for side in (chosen, rejected)]
    pairs = zip(sides[0][:-1], sides[1][:-1], strict=False)
    shared = next((place for place, (one, other) in enumerate(pairs) if one != other), min(map(len, sides)) - 1)
    prompt = [*prompt, *sides[0][:shared]] if shared > 0 else prompt
    sides = [side[max(0, shared) :] for side in sides]
    if not prompt:
        raise RowFaultError("missing_field", "prompt")
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        if len(side) != 1:
            raise RowFaultError("sides_are_talks" if side else "missing_field", name)
    whole = [linked([*prompt, *side]) for side in sides]
    return {"prompt": whole[0][:-1], "chosen": whole[0][-1:], "rejected": whole[1][-1:]}


def _after(prompt: Sequence[Message], side: Sequence[Message]) -> list[Message]:
    repeated = len(side) > len(prompt) and list(side[: len(prompt)]) == list(prompt)
    return list(side[len(prompt) :] if repeated else side)


def _dialogue(text: str) -> list[Message]:
    """Turns of a dialogue as one text: ``Human:`` and ``Assistant:`` at the starts of paragraphs (HH-RLHF)."""
    parts = _DIALOGUE_TURN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [{"role": roles[name], "content": said.strip()} for name, said in zip(parts[::2], parts[1::2], strict=True)]
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns  # a prompt ends in `Assistant:`
