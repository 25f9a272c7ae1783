"""The frozen examples asked in other ways: the same ids, labels and reference replies under another prompt.

A way of asking is therefore a data set like any other: the benchmark scores it as it scores the frozen set itself, keeps
the answers under its hash, and needs to know nothing about prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from tasks.core.rows import Row, prompt_messages, reply
from tasks.fit.config import FitConfig
from tasks.fit.retrieval import Bm25

Messages = list[dict[str, str]]

_PASSAGES = "Use these passages where they help:\n\n{passages}\n\n{question}"


def asked_with_prompt(rows: Sequence[Row], prompt: str) -> list[dict[str, Any]]:
    """The rows under another system prompt."""
    return [_with_prompt(row, _under(prompt_messages(row), prompt)) for row in rows]


def asked_with_shots(rows: Sequence[Row], train: Sequence[Row], config: FitConfig) -> list[dict[str, Any]]:
    """The rows with training examples before the question, as turns that went before; the nearest stands last.

    Args:
        rows: The frozen rows.
        train: Rows to choose from, in any order.
        config: How many, and how they are chosen.
    """
    train = sorted(train, key=lambda row: str(row["id"]))
    choose = _chooser(train, config)
    asked = []
    for row in rows:
        system, turns = _apart(_under(prompt_messages(row), config.prompt))
        shots: Messages = []
        for index in choose(question_of(row)):
            shot = [*_apart(prompt_messages(train[index]))[1], {"role": "assistant", "content": reply(train[index])}]
            if _num_chars(shots) + _num_chars(shot) <= config.max_added_chars:
                shots = [*shot, *shots]
        asked.append(_with_prompt(row, [*system, *shots, *turns]))
    return asked


def asked_with_passages(rows: Sequence[Row], passages: Sequence[str], config: FitConfig) -> list[dict[str, Any]]:
    """The rows with retrieved passages before the last question."""
    passages = list(dict.fromkeys(passages))
    index = Bm25(passages)
    asked = []
    for row in rows:
        messages = _under(prompt_messages(row), config.prompt)
        found: list[str] = []
        for number in index.best(question_of(row), config.num_passages):
            if sum(map(len, found)) + len(passages[number]) <= config.max_added_chars:
                found.append(passages[number])
        if found:
            question = _PASSAGES.format(passages="\n\n".join(found), question=messages[-1]["content"])
            messages = [*messages[:-1], {**messages[-1], "content": question}]
        asked.append(_with_prompt(row, messages))
    return asked


def question_of(row: Row) -> str:
    """What the row asks last, which is what is searched for."""
    messages = prompt_messages(row)
    return messages[-1]["content"] if messages else ""


def _chooser(train: Sequence[Row], config: FitConfig) -> Callable[[str], list[int]]:
    """For a question the indices of its shots, the best first."""
    if config.shots == "seeded":
        chosen = random.Random(config.seed).sample(range(len(train)), min(config.num_shots, len(train)))
        return lambda question: chosen
    questions = Bm25([question_of(row) for row in train])
    return lambda question: questions.best(question, config.num_shots)


def _under(messages: Messages, prompt: str | None) -> Messages:
    """A conversation under a system prompt instead of its own; unchanged without one."""
    if prompt is None:
        return messages
    return [{"role": "system", "content": prompt}, *_apart(messages)[1]]


def _apart(messages: Messages) -> tuple[Messages, Messages]:
    """The system messages, and the turns."""
    system = [message for message in messages if message["role"] == "system"]
    return system, [message for message in messages if message["role"] != "system"]


def _num_chars(messages: Messages) -> int:
    return sum(len(message["content"]) for message in messages)


def _with_prompt(row: Row, prompt: Messages) -> dict[str, Any]:
    if "messages" in row:
        return {**row, "messages": [*prompt, row["messages"][-1]]}
    return {**row, "prompt": prompt}
