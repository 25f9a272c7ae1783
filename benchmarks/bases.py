"""Every architecture of `tests/support/tiny_bases.py`, tiny and with random weights, through planning, training and scoring.

    python benchmarks/bases.py [NAME ...]

Prints a table in Markdown. Each cell is run on this CPU: `yes`, `no`, or why it is refused. Random weights show that the
arithmetic, the counts and the shapes agree; they show nothing about quality.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false"
)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from safetensors.torch import load_file
from trl.trainer.utils import add_fused_lm_head

from tasks.contracts.references import DatasetRef
from tasks.core.errors import PerennialError
from tasks.core.storage import Store, open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.generation import continuation_likelihoods, generate_replies, load_model
from tasks.modeling.loading import load_base
from tasks.modeling.resolution import resolve
from tasks.training.config import LoraSettings, SftConfig
from tasks.training.launch.protocol import SftMethod, TrainerReport, TrainerSpec
from tasks.training.merging import merge
from tasks.training.trainer.head import choose_head
from tasks.training.trainer.worker import main as train
from tests.support.tiny_bases import CONFIGS, build_tiny_base
from tests.support.tiny_model import desk_row

COLUMNS = ("plan exact", "loss equal", "trains", "merge equal", "batched = single", "ranked")
# PEFT adapts these modules of an architecture that it does not adapt with `all-linear`.
MODULES: dict[str, tuple[str, ...]] = {"mamba": ("in_proj", "x_proj")}
PROMPTS = [[desk_row(number)["messages"][0]] for number in range(4)]  # type: ignore[index]


def rows_of(name: str, store: Store, train_rows: DatasetRef, held_out: DatasetRef, folder: Path) -> list[str]:
    """The cells of one architecture."""
    base = resolve(BaseModelConfig(source=str(build_tiny_base(name, folder / "base")), license="mit"), store)
    work = folder / "work"
    work.mkdir()
    lora = LoraSettings(r=8, target_modules=MODULES.get(name, "all-linear"))
    config = SftConfig(learning_rate=1e-2, max_steps=5, num_threads=1, device="cpu", lora=lora)
    method = SftMethod(config=config)
    spec = TrainerSpec(
        base=base, train=train_rows, validation=held_out, method=method, work_dir=str(work), store_uri=store.uri
    )
    (work / "spec.json").write_text(spec.model_dump_json())
    train([str(work / "spec.json")])
    report = TrainerReport.model_validate_json((work / "report.json").read_bytes())
    if report.fault is not None or report.plan is None:
        return [report.fault.found if report.fault else report.detail, *[""] * (len(COLUMNS) - 1)]
    losses = {item.name: item.value or 0.0 for item in report.measurements}
    adapter = load_file(work / "adapter" / "adapter_model.safetensors")
    (folder / "merged").mkdir()
    checks: list[Callable[[], bool]] = [
        lambda: (
            report.plan is not None
            and report.plan.num_trainable_parameters == sum(weight.numel() for weight in adapter.values())
        ),
        lambda: _loss_is_equal(folder / "base"),
        lambda: losses["eval_loss_after"] < losses["eval_loss_before"],
        lambda: merge(folder / "base", work / "adapter", folder / "merged", PROMPTS) > 0,
        lambda: _replies_are_equal(folder / "base"),
        lambda: _is_ranked(folder / "base"),
    ]
    return [_cell(check) for check in checks]


def _cell(check: Callable[[], bool]) -> str:
    try:
        return "yes" if check() else "no"
    except PerennialError as error:
        return f"refused: {error.found}"
    except Exception as error:
        return f"**crash**: {type(error).__name__}"


def _loss_is_equal(folder: Path) -> bool:
    model: Any = load_base(folder, device="cpu", dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        add_fused_lm_head(model)
        choose_head(model, frozen=True)
        ids = torch.arange(3, 33)[None]
        own = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])
        fused = -model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.mean()
    return bool(abs(fused - own) <= 0.01 * own)


def _replies_are_equal(folder: Path) -> bool:
    loaded = load_model(folder, None)
    loaded.model.float()
    together = generate_replies(loaded, PROMPTS, max_new_tokens=12, batch_size=4)
    alone = [generate_replies(loaded, [prompt], max_new_tokens=12, batch_size=1)[0] for prompt in PROMPTS]
    return [reply.text for reply in together] == [reply.text for reply in alone]


def _is_ranked(folder: Path) -> bool:
    loaded = load_model(folder, None)
    return len(continuation_likelihoods(loaded, PROMPTS[0], "Please ", ["a", "bcd", "ef"], batch_size=2)) == 3


def main(names: list[str]) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    print(f"| architecture | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    with tempfile.TemporaryDirectory() as temporary:
        store = open_store(f"{temporary}/store")
        train_rows, held_out = (
            store.write_rows([desk_row(number) for number in numbers], kind="messages")
            for numbers in (range(32), range(5000, 5008))
        )
        for place, name in enumerate(names):
            folder = Path(temporary) / str(place)
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                cells = rows_of(name, store, train_rows, held_out, folder)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(CONFIGS))
