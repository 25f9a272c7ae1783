"""What a trainer survives on a GPU, and how far two of its runs are alike: real out-of-memory errors, a kill, a repetition.

    python benchmarks/gpu_survival.py          # a CUDA device with 40 GB or more; some 3 minutes on an H100
    python benchmarks/gpu_survival.py --shape tiny --rows 8 --words 20          # the same steps anywhere, nothing runs out

A model of Llama 3.2 1B's shape with random weights is trained on rows of random words, supervised as `perennial retrain`
does it: twice in the same way, once killed (SIGKILL) after half of its steps and resumed from its checkpoint, and once told
a micro-batch that cannot fit. Printed are the attempts, what the supervisor wrote, and how far each adapter is from the
first run's: the norm of the difference by the norm of the first's weights.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.core.storage import open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import resolve
from tasks.training.config import SftConfig
from tasks.training.launch.protocol import SftMethod, TrainerEvent, TrainerSpec
from tasks.training.launch.supervisor import supervise
from tasks.training.plan.hardware import find_hardware
from tests.support.random_model import SHAPES, make_random_model


def make_rows(count: int, words: int) -> list[dict[str, Any]]:
    """Rows of random words, a half of each the question."""
    chance = random.Random(5)

    def say() -> str:
        return " ".join(f"w{chance.randrange(2, 1000)}" for _ in range(words // 2))

    return [
        {"id": f"row-{n}", "messages": [{"role": "user", "content": say()}, {"role": "assistant", "content": say()}]}
        for n in range(count)
    ]


def kill_trainers(_: TrainerEvent) -> None:
    """SIGKILL for every process below this one."""
    for child in psutil.Process().children(recursive=True):
        child.kill()


def weights_of(adapter: Path) -> torch.Tensor:
    tensors = load_file(str(adapter / "adapter_model.safetensors"))
    return torch.cat([tensors[name].flatten().float() for name in sorted(tensors)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b")
    parser.add_argument("--rows", type=int, default=128, help="where memory is to run out, a step takes half of them")
    parser.add_argument("--words", type=int, default=1500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = open_store(folder / "store")
        base = resolve(BaseModelConfig(source=str(make_random_model(options.shape, folder / "model"))), store)
        train = store.write_rows(make_rows(options.rows, options.words), kind="messages")
        usual: dict[str, Any] = {"max_length": 2048, "num_train_epochs": 1, "save_interval_seconds": 0}
        half = options.rows // 2
        too_much = {"packing": False, "use_liger_kernel": False, "effective_batch_size": half, "max_attempts": 8}
        cases: dict[str, dict[str, Any]] = {
            "first": {},
            "again": {},
            "killed": {},
            "out of memory": {**too_much, "gradient_checkpointing": False, "per_device_train_batch_size": half},
        }
        print(f"{base.name}, {find_hardware('auto').name}, torch {torch.__version__}")
        first: torch.Tensor | None = None
        for name, changes in cases.items():
            work = folder / name.replace(" ", "-")
            spec = TrainerSpec(
                base=base,
                train=train,
                validation=None,
                method=SftMethod(config=SftConfig(**usual, **changes)),
                work_dir=str(work),
                store_uri=store.uri,
            )
            killed: list[int] = []

            def heed(event: TrainerEvent, name: str = name, killed: list[int] = killed) -> None:
                if name == "killed" and event.kind == "step" and 2 * event.step >= event.num_steps and not killed:
                    killed.append(event.step)
                    kill_trainers(event)

            done = supervise(spec, heed)
            plan, weights = done.report.plan, weights_of(work / "adapter")
            assert plan is not None
            first = weights if first is None else first
            apart = float((weights - first).norm() / first.norm())
            batch = f"micro-batch {plan.micro_batch_size} x {plan.accumulation_steps}"
            print(f"{name}: {done.num_attempts} attempts, {done.report.num_steps} steps, {batch}", end=", ")
            print(f"peak {done.report.peak_memory_bytes / 1e9:.1f} GB, apart from the first {apart:.1e}")
            for line in (*done.history, *done.report.notes):
                print(f"    {line}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
