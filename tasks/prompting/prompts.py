"""The frozen examples with other prompts: the same ids, labels and reference replies.

A baseline is therefore a data set like any other. The benchmark scores it like the frozen set, keeps its answers under its
hash, and knows nothing about prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from tasks.core.rows import Row, last_question, prompt_messages, question_of, reply_messages
from tasks.core.tool_calls import TOOLS_ROLE, message_text
from tasks.prompting.config import FitConfig
from tasks.prompting.retrieval import Bm25

Messages = list[dict[str, Any]]

_PASSAGES = "Use these passages where they help:\n\n{passages}\n\n{question}"


def with_prompt(rows: Sequence[Row], prompt: str) -> list[dict[str, Any]]:
    """The rows with another system prompt."""
    return [_replace_prompt(row, _set_system_prompt(prompt_messages(row), prompt)) for row in rows]


def with_shots(rows: Sequence[Row], train: Sequence[Row], config: FitConfig) -> list[dict[str, Any]]:
    """The rows with training examples as earlier turns of the conversation; the most similar one comes last.

    Args:
        rows: The frozen rows.
        train: Rows to choose from, in any order.
        config: The number of examples, and how they are chosen.
    """
    train = sorted(train, key=lambda row: str(row["id"]))
    choose = _chooser(train, config)
    prompted = []
    for row in rows:
        system, turns = _split_system(_set_system_prompt(prompt_messages(row), config.prompt))
        shots: Messages = []
        for index in choose(question_of(row)):
            example = [*prompt_messages(train[index]), reply_messages(train[index])[0]]
            shot = _split_system(example)[1]
            if _num_chars(shots) + _num_chars(shot) <= config.max_added_chars:
                shots = [*shot, *shots]
        prompted.append(_replace_prompt(row, [*system, *shots, *turns]))
    return prompted


def with_passages(rows: Sequence[Row], passages: Sequence[str], config: FitConfig) -> list[dict[str, Any]]:
    """The rows with retrieved passages before the last question."""
    passages = list(dict.fromkeys(passages))
    index = Bm25(passages)
    prompted = []
    for row in rows:
        messages = _set_system_prompt(prompt_messages(row), config.prompt)
        retrieved: list[str] = []
        for number in index.best(question_of(row), config.num_passages):
            if sum(map(len, retrieved)) + len(passages[number]) <= config.max_added_chars:
                retrieved.append(passages[number])
        if retrieved:
            place = last_question(messages)
            question = _PASSAGES.format(passages="\n\n".join(retrieved), question=messages[place]["content"])
            messages = [*messages[:place], {**messages[place], "content": question}, *messages[place + 1 :]]
        prompted.append(_replace_prompt(row, messages))
    return prompted


def _chooser(train: Sequence[Row], config: FitConfig) -> Callable[[str], list[int]]:
    """A function from a question to the indices of its examples, the best first."""
    if config.shots == "seeded":
        chosen = random.Random(config.seed).sample(range(len(train)), min(config.num_shots, len(train)))
        return lambda question: chosen
    questions = Bm25([question_of(row) for row in train])
    return lambda question: questions.best(question, config.num_shots)


def _set_system_prompt(messages: Messages, prompt: str | None) -> Messages:
    """The conversation with another system prompt; unchanged when that is None."""
    if prompt is None:
        return messages
    return [{"role": "system", "content": prompt}, *_split_system(messages)[1]]


def _split_system(messages: Messages) -> tuple[Messages, Messages]:
    """The system messages, and the other turns."""
    system = [message for message in messages if message["role"] == "system"]
    return system, [message for message in messages if message["role"] != "system"]


def _num_chars(messages: Messages) -> int:
    return sum(len(message_text(message)) for message in messages)


def _replace_prompt(row: Row, prompt: Messages) -> dict[str, Any]:
    """The row with another prompt, without the messages that state tools: the row keeps its own."""
    prompt = [message for message in prompt if message["role"] != TOOLS_ROLE]
    if "messages" in row:
        return {**row, "messages": [*prompt, row["messages"][-1]]}
    return {**row, "prompt": prompt}
