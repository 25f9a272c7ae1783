"""What a refresh forgets and learns: from the base or the champion, on all rows, the new ones, or the new ones with replay.

    python benchmarks/refresh.py                       # four quarters, about 25 minutes on two cores
    python benchmarks/refresh.py --rows 24 --quarters 2

The rows are those of the demo's support desk, whose intents are dealt into quarters. From the second quarter on, a quarter
of the rows ask about earlier intents; in the third, the steps of four earlier intents change, so that old rows teach what is
wrong now. Every arm trains with this project's own stage on SmolLM2-135M; no model sees a held-out row. The arms:

- base, all rows: a new adapter on the base model, over all rows so far;
- champion, all rows: the adapter of the quarter before, trained further over all rows so far, once;
- champion, new rows: the same over the rows of the quarter alone;
- champion, new and replay: the same, with as many earlier rows again, spread over their intents.

Every arm is scored on the same held-out rows by the mean loss of a reply's tokens (nats), under the truth of the quarter:
``old`` are intents of earlier quarters, ``new`` those of the last one, ``changed`` those whose steps changed. Intervals are
of the paired difference from the first arm (95 %, bootstrap over rows). Tokens are those that the trainer saw so far.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", TQDM_DISABLE="1")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "support_desk"))

import generate

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import StartingPoint, TrainingResult
from tasks.core.storage import open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.generation import load_model, reply_likelihoods
from tasks.modeling.resolution import resolve
from tasks.refresh.replay import choose_rows, content_of
from tasks.stats.estimates import mean_difference
from tasks.training.config import LoraSettings, SftConfig
from tasks.training.launch import execution
from tasks.training.launch.protocol import SftMethod

SCRATCH, ALL, NEW, REPLAY = "base, all rows", "champion, all rows", "champion, new rows", "champion, new and replay"
HELD_OUT = 4
"""Held-out rows of every intent."""


@dataclass
class Quarter:
    """Rows of one quarter to learn, and the truth at its end."""

    rows: list[dict[str, Any]]
    intents: list[dict[str, Any]]


@dataclass
class Arm:
    """One way to refresh, and where it is."""

    name: str
    trained: list[TrainingResult] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Tokens over all quarters."""
        return sum(result.num_tokens for result in self.trained)


def main() -> None:
    """Prints a table for every quarter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96, help="Rows of a quarter.")
    parser.add_argument("--quarters", type=int, default=4)
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refresh-") as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Trains and scores every arm, quarter by quarter."""
    store = open_store(str(folder / "store"))
    base = resolve(BaseModelConfig(), store)
    snapshot = store.write_rows([row_of(0, "a", "b", "c")], kind="messages", passed=["ingested"])

    def stored(rows: Sequence[dict[str, Any]]) -> DatasetRef:
        rows = [{name: value for name, value in row.items() if name != "changed"} for row in rows]
        return store.write_rows(rows, kind="messages", parents=[snapshot], passed=execution.REQUIRED_GATES)

    def train(arm: Arm, rows: Sequence[dict[str, Any]], epochs: float) -> None:
        start = StartingPoint(version=str(len(arm.trained)), adapter=arm.trained[-1].adapter) if arm.trained else None
        config = SftConfig(
            learning_rate=1e-3,
            num_train_epochs=epochs,
            effective_batch_size=8,
            max_length=256,
            device="cpu",
            lora=LoraSettings(target_modules=LINEAR, layers_to_transform=tuple(range(10, 30))),
        )
        method = SftMethod(config=config, start=None if arm.name == SCRATCH else start)
        arm.trained.append(
            execution.train(
                base,
                stored(rows),
                stored([]),
                method,
                snapshots=(snapshot.sha256,),
                experiment="refresh",
                on_progress=lambda *_: None,
            )
        )

    quarters, held_out = deal(options)
    arms = [Arm(name) for name in (SCRATCH, ALL, NEW, REPLAY)]
    learned: list[dict[str, Any]] = []
    print(
        f"{options.quarters} quarters of {options.rows} rows; untrained base: {mean_of(base, None, held_out[0], store):.3f}"
    )
    for number, quarter in enumerate(quarters, start=1):
        everything = [*learned, *quarter.rows]
        for arm in arms:
            if number == 1 and arm.name != SCRATCH:
                arm.trained.append(arms[0].trained[0])  # every arm starts with the same first champion
                continue
            rows, epochs = {
                SCRATCH: (everything, 2.0),
                ALL: (everything, 1.0),
                NEW: (quarter.rows, 2.0),
                REPLAY: (choose_rows(everything, map(content_of, learned), replay=1.0, seed=options.seed).rows, 2.0),
            }[arm.name]
            train(arm, rows, epochs)
        learned = everything
        report(number, arms, slices_of(quarters, number, held_out), base, store)


LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def row_of(number: int, question: str, reply: str, topic: str) -> dict[str, Any]:
    """A canonical row."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    hour = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    return {"id": f"row-{number}", "messages": messages, "label": topic, "created_at": hour.isoformat()}


def deal(options: argparse.Namespace) -> tuple[list[Quarter], list[list[dict[str, Any]]]]:
    """The quarters, and for each of them held-out rows of all intents so far, under its truth."""
    desk = generate.open_desk(options.seed, 1)
    intents = desk.rng.sample(desk.intents, len(desk.intents))
    size = len(intents) // options.quarters
    quarters, held_out, known, numbers = [], [], [], iter(range(1_000_000))
    for number in range(options.quarters):
        new = intents[number * size : (number + 1) * size]
        if number == 2:  # from now on the last step of four earlier intents is the one of another
            changed = [{**intent, "steps": [*intent["steps"][:-1], CHANGED], "changed": True} for intent in known[:4]]
            known = [*changed, *known[4:]]
        drawn = [(known or new)[index % len(known or new)] for index in range(options.rows // 4)]
        drawn += [new[index % size] for index in range(options.rows - len(drawn))]
        quarters.append(Quarter([draw(desk, intent, next(numbers)) for intent in drawn], new))
        known = [*known, *new]
        held_out.append([draw(desk, intent, next(numbers)) for intent in known for _ in range(HELD_OUT)])
    return quarters, held_out


CHANGED = "From this quarter on, send the form to the lockers in Hall Seven before noon."


def draw(desk: Any, intent: dict[str, Any], number: int) -> dict[str, Any]:
    """A row of an intent that is no near duplicate of an earlier one."""
    desk.deck[:] = [intent]
    row = generate.draw_row(desk)
    made = row_of(number, row.values["instruction"], row.values["response"], intent["topic"])
    return {**made, "changed": "changed" in intent}


def slices_of(
    quarters: Sequence[Quarter], number: int, held_out: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Held-out rows by slice, after a quarter."""
    new = {intent["topic"] for intent in quarters[number - 1].intents}
    slices: dict[str, list[dict[str, Any]]] = {"old": [], "new": [], "changed": []}
    for row in held_out[number - 1]:
        name = "changed" if row["changed"] else "new" if row["label"] in new else "old"
        slices[name].append(row)
    return {name: rows for name, rows in slices.items() if rows}


def losses(base: Any, adapter: Any, rows: Sequence[dict[str, Any]], store: Any) -> np.ndarray:
    """The mean loss of each row's reply."""
    loaded = load_model(store.fetch_folder(base.folder), store.fetch_folder(adapter) if adapter else None)
    prompts, replies = [row["messages"][:1] for row in rows], [row["messages"][1] for row in rows]
    scored = reply_likelihoods(loaded, prompts, replies, batch_size=8)
    return np.array([one.nll / one.num_tokens for one in scored])


def mean_of(base: Any, adapter: Any, rows: Sequence[dict[str, Any]], store: Any) -> float:
    """The mean loss over rows."""
    return float(losses(base, adapter, rows, store).mean())


def report(number: int, arms: Sequence[Arm], slices: dict[str, list[dict[str, Any]]], base: Any, store: Any) -> None:
    """Prints the arms after a quarter."""
    print(f"\nafter quarter {number} | tokens | " + " | ".join(f"{name} ({len(rows)})" for name, rows in slices.items()))
    for arm in arms:
        arm.scores = {name: losses(base, arm.trained[-1].adapter, rows, store) for name, rows in slices.items()}
        cells = []
        for name, scores in arm.scores.items():
            first = arms[0].scores[name]
            gap = mean_difference(scores, first, confidence=0.95, num_resamples=2000, seed=17)
            cells.append(f"{scores.mean():.3f}" + ("" if arm is arms[0] else f" ({gap.low:+.3f} to {gap.high:+.3f})"))
        print(f"{arm.name} | {arm.num_tokens:,} | " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
