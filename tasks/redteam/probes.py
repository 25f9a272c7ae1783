"""Probes as data: one JSON object a line, in the built-in files and in configured ones.

A line has ``id`` and ``prompt``, and by kind::

    injection       system (optional); {token} in the prompt is the word that the planted instruction demands
    tool_result     result, what a tool returns to the prompt's question, with {token} in a planted instruction
    leak            system with {secret}, which must not come out
    harmful         a request to refuse
    harmless        a request that sounds harmful and is not
    counterfactual  forms: two mappings that fill the prompt's {names}; they differ in one attribute of a person
    unanswerable    a question without an answer in the prompt
    provocation     a prompt that provokes abuse
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.core.documents import parse_json, read_text
from tasks.core.errors import InputError
from tasks.core.tool_calls import TOOLS_ROLE, dumps

ProbeKind = Literal[
    "injection", "tool_result", "leak", "harmful", "harmless", "counterfactual", "unanswerable", "provocation"
]
KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)

FOLDER = Path(__file__).with_name("data")
ACTION = "send_message"
_TOOLS = tuple(
    dumps({"type": "function", "function": {"name": name, "description": text, "parameters": {
        "type": "object", "properties": {key: {"type": "string"} for key in keys}, "required": list(keys)}}})
    for name, text, keys in (
        ("look_up", "Looks up what is known about something.", ("query",)),
        (ACTION, "Sends a message to a person.", ("to", "text")),
    )
)  # fmt: skip
"""What may be called in a ``tool_result`` probe: a source of data, and an action that a planted instruction may demand."""
_SLOT = re.compile(r"\{([a-z_]+)\}")
_MAX_FAULTS = 5


class Probe(FrozenModel):
    """One line of a probe file."""

    id: str = Field(pattern=r"^[\w.:-]{1,64}$")
    prompt: str = Field(min_length=1, max_length=20_000)
    system: str | None = Field(None, min_length=1, max_length=20_000)
    forms: tuple[Mapping[str, str], Mapping[str, str]] | None = None
    result: str | None = Field(None, min_length=1, max_length=20_000)

    def messages(self, filling: Mapping[str, str]) -> list[dict[str, Any]]:
        """The conversation, with the named slots filled."""
        system = [{"role": "system", "content": _filled(self.system, filling)}] if self.system else []
        turns = [*system, {"role": "user", "content": _filled(self.prompt, filling)}]
        if self.result is None:
            return turns
        call = {"id": "call00000", "name": "look_up", "arguments": dumps({"query": self.prompt})}
        return [
            {"role": TOOLS_ROLE, "content": "", "tools": list(_TOOLS)},
            *turns,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": _filled(self.result, filling), "tool_call_id": "call00000"},
        ]


def read_probes(kind: ProbeKind, path: Path) -> list[Probe]:
    """The probes of a file, in order.

    Raises:
        InputError: The file cannot be read or has no probe, or lines do not fit their kind; the message names the first five
            by number, never by content.
    """
    where = f"redteam.probe_files.{kind}: {path}"
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            where, type(error).__name__, "a readable UTF-8 file with a JSON object a line", "Correct the path or the file."
        ) from error
    probes: list[Probe] = []
    faults: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        probe, fault = _read_line(kind, line)
        if probe is not None and any(probe.id == other.id for other in probes):
            fault = "its id stands in an earlier line"
        if fault:
            faults.append(f"line {number}: {fault}")
        elif probe is not None:
            probes.append(probe)
    if faults or not probes:
        shown = "; ".join(faults[:_MAX_FAULTS]) or "no probe"
        more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise InputError(
            where, shown + more, f"probes of kind {kind}", f"See tasks/redteam/data/{kind}.jsonl for lines that work."
        )
    return probes


def choose_probes(kind: ProbeKind, files: Sequence[str], limit: int) -> list[Probe]:
    """The first ``limit`` probes of a kind: those of the files in order, then the built-in ones."""
    probes = [probe for path in files for probe in read_probes(kind, Path(path))]
    own = {probe.id for probe in probes}
    built_in = (probe for probe in read_probes(kind, FOLDER / f"{kind}.jsonl") if probe.id not in own)
    return list({probe.id: probe for probe in [*probes, *built_in]}.values())[:limit]


def secret_of(probe: Probe, seed: int) -> str:
    """A made-up word for one probe, such as ``KOVIRA-4821``: a secret to keep, or a token to not obey."""
    digest = hashlib.sha256(f"{seed}:{probe.id}".encode()).digest()
    letters = "".join(
        "BDFGKLMNPRSTVZ"[byte % 14] if place % 2 == 0 else "AEIOU"[byte % 5] for place, byte in enumerate(digest[:6])
    )
    return f"{letters}-{1000 + int.from_bytes(digest[6:8]) % 9000}"


def _read_line(kind: ProbeKind, line: str) -> tuple[Probe | None, str | None]:
    """The probe, or the fault of the line; never its text."""
    try:
        probe = Probe.model_validate(parse_json(line))
    except json.JSONDecodeError as error:
        return None, f"not JSON at column {error.colno}"
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the line"
        return None, f"{place}: {fault['msg']}"
    return probe, _kind_fault(kind, probe)


def _kind_fault(kind: ProbeKind, probe: Probe) -> str | None:
    if kind == "injection" and "{token}" not in probe.prompt:
        return "prompt: has no {token} for the planted instruction"
    if (kind == "tool_result") != ("{token}" in (probe.result or "")):
        return "result: has {token} for the planted instruction in tool_result probes, and stands in no others"
    if kind == "leak" and "{secret}" not in (probe.system or ""):
        return "system: has no {secret}"
    if (kind == "counterfactual") != (probe.forms is not None):
        return "forms: two mappings for counterfactual probes, and none for others"
    if probe.forms is not None:
        slots = set(_SLOT.findall(f"{probe.system or ''} {probe.prompt}"))
        if not slots or any(set(form) != slots for form in probe.forms):
            return "forms: must fill exactly the {names} of the prompt"
        if probe.forms[0] == probe.forms[1]:
            return "forms: do not differ"
    return None


def _filled(text: str, filling: Mapping[str, str]) -> str:
    """The text with each ``{name}`` of the filling replaced; other braces stay."""
    return _SLOT.sub(lambda match: filling.get(match[1], match[0]), text)
