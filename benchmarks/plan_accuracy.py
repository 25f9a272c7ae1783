"""How near the plan comes to what happens: memory and time, before training and after it, for several settings.

    python benchmarks/plan_accuracy.py               # the 135M base model on this machine; some 8 minutes on two cores
    python benchmarks/plan_accuracy.py --only short,dpo
    python tests/support/random_model.py llama-8b FOLDER   # a larger model, for a GPU: 60 times as many rows
    python benchmarks/plan_accuracy.py --model FOLDER --scale 60 --only long,nf4

Each setting is one supervised training, as `perennial retrain` does it, on rows of random words. Two plans are compared with
it: the forecast of `perennial plan`, made from the device's speed alone, and the trainer's own, which timed a step and
stopped the run where a budget says so. Time is the wall time from the start of the trainer process to its end. Wanted:
memory within 20 %, time within 30 %.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel, TrainingPlan
from tasks.core.rows import Row
from tasks.core.storage import Store, open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import resolve
from tasks.training.config import DpoConfig, LoraSettings, SftConfig
from tasks.training.launch.protocol import DpoMethod, SftMethod, TrainerSpec
from tasks.training.launch.supervisor import supervise
from tasks.training.plan.forecasting import forecast, measure_flops
from tasks.training.plan.hardware import find_hardware

WORDS = (
    "the a of to and in for with on by from printer router account invoice order refund screen app password network light "
    "please restart check open close send wait call reset update install remove clean hold press new old red blue first "
    "page number button cable email phone office desk floor door window table chair day week month morning evening last"
)
SETTINGS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "short": (96, 40, {}),
    "long": (32, 200, {}),
    "checkpointed": (32, 80, {"gradient_checkpointing": True, "per_device_train_batch_size": 4}),
    "nf4": (32, 80, {"quantization": "nf4"}),
    "upper layers": (48, 80, {"lora": LoraSettings(target_modules=("q_proj", "v_proj"), layers_to_transform=(28, 29))}),
    "dpo": (32, 40, {}),
}
"""Rows, their median length in words, and what is changed of the defaults."""


def make_rows(count: int, median: int, *, pairs: bool) -> list[dict[str, Any]]:
    """Rows whose lengths are log-normal, a half of each the question; always the same ones."""
    chance, words = random.Random(11), WORDS.split()

    def say(length: int) -> str:
        return " ".join(chance.choice(words) for _ in range(max(4, length)))

    rows = []
    for number in range(count):
        length = int(median * chance.lognormvariate(0, 0.5)) // 2
        prompt = [{"role": "user", "content": say(length)}]
        replies = [[{"role": "assistant", "content": say(length)}] for _ in range(2)]
        told = {"prompt": prompt, "chosen": replies[0], "rejected": replies[1]}
        rows.append({"id": f"row-{number}", **(told if pairs else {"messages": prompt + replies[0]})})
    return rows


def compare(name: str, base: BaseLanguageModel, store: Store, folder: Path, adapter: Any, scale: int) -> Path:
    """One training beside its plans; prints a line and returns the work folder."""
    count, median, changes = SETTINGS[name]
    rows = make_rows(scale * count + 8, median, pairs=name == "dpo")
    settings = {"num_train_epochs": 1, "evals_per_epoch": 1, **changes}
    config = DpoConfig(**settings) if name == "dpo" else SftConfig(**settings)
    method = DpoMethod(config=config, adapter=adapter) if isinstance(config, DpoConfig) else SftMethod(config=config)
    train, validation = (write(store, part, method.kind) for part in (rows[8:], rows[:8]))
    work = folder / name.replace(" ", "-")
    spec = TrainerSpec(base=base, train=train, validation=validation, method=method, work_dir=str(work), store_uri=store.uri)
    forecasted = forecast(
        store.fetch_folder(base.folder),
        rows[8:],
        config,
        lora=LoraSettings() if isinstance(config, DpoConfig) else config.lora,
        hardware=find_hardware("auto"),
        flops_per_second=measure_flops("auto", seconds=1.0),
        num_eval_rows=8,
    )
    began = time.perf_counter()
    report = supervise(spec, lambda event: None).report
    seconds = time.perf_counter() - began
    assert report.plan is not None
    tell(name, forecasted, report.plan, seconds, report.peak_memory_bytes)
    return work


def write(store: Store, rows: list[Row], kind: str) -> DatasetRef:
    """The rows in the store; the benchmark calls the trainer itself, so they need no lineage."""
    return store.write_rows(rows, kind="messages" if kind == "sft" else "preferences")


def tell(name: str, forecasted: TrainingPlan, plan: TrainingPlan, seconds: float, memory: int) -> None:
    planned = sum(plan.memory_bytes.values())
    batch = f"{plan.micro_batch_size} x {plan.accumulation_steps}"
    print(
        f"{name:<14}{plan.num_rows:>6}{plan.num_tokens:>8}{batch:>8}"
        f"{forecasted.estimated_seconds:>8.0f} ({forecasted.estimated_seconds / seconds - 1:+.0%})".ljust(54)
        + f"{plan.estimated_seconds:>6.0f} ({plan.estimated_seconds / seconds - 1:+.0%})".ljust(16)
        + f"{seconds:>6.0f}"
        + f"{planned / 1e9:>9.2f} ({planned / memory - 1:+.0%})".ljust(18)
        + f"{memory / 1e9:>6.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model's folder, of 30 layers for `upper layers`; without it the 135M base model")
    parser.add_argument("--only", default=",".join(SETTINGS), help=f"settings, of: {', '.join(SETTINGS)}")
    parser.add_argument("--scale", type=int, default=1, help="times the rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = open_store(folder / "store")
        base = resolve(BaseModelConfig(source=options.model or BaseModelConfig().source), store)
        print(f"{base.name}, {find_hardware('auto').name}; planned (off by) against what happened")
        print(
            f"{'setting':<14}{'rows':>6}{'tokens':>8}{'batch':>8}{'forecast, s':>18}{'plan, s':>15}{'took, s':>9}"
            f"{'plan, GB':>17}{'peak, GB':>9}"
        )
        adapter: Any = None
        for name in options.only.split(","):
            if name == "dpo" and adapter is None:
                work = folder / "start"
                config = SftConfig(max_steps=1, evals_per_epoch=1)
                spec = TrainerSpec(
                    base=base,
                    train=write(store, make_rows(16, 20, pairs=False), "sft"),
                    validation=None,
                    method=SftMethod(config=config),
                    work_dir=str(work),
                    store_uri=store.uri,
                )
                supervise(spec, lambda event: None)
                adapter = store.add_folder(work / "adapter")
            work = compare(name, base, store, folder, adapter, options.scale)
            if name not in ("dpo", "upper layers"):
                adapter = store.add_folder(work / "adapter")


if __name__ == "__main__":
    main()
