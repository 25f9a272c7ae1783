"""Every architecture of `tests/support/tiny_bases.py`, tiny and with random weights, from the plan to a served version.

    python benchmarks/bases.py [NAME ...]

Prints a table in Markdown. Each cell is run on this CPU: `yes`, `no`, or why it is refused. Random weights show that the
arithmetic, the counts and the shapes agree; they show nothing about quality.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false"
)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd
import pyarrow as pa
import torch
from safetensors.torch import load_file
from trl.trainer.utils import add_fused_lm_head

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import PerennialError
from tasks.core.storage import Store, open_store, sha256_of_files
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.conversations import split_replies, stop_token_ids
from tasks.modeling.generation import LoadedModel, generate_replies, reply_likelihoods
from tasks.modeling.loading import load_base, load_tokenizer, load_with_adapter
from tasks.modeling.resolution import resolve
from tasks.redteam.canaries import make_canaries
from tasks.redteam.config import RedTeamConfig
from tasks.redteam.memory import canary_probes
from tasks.redteam.probing import probe_behaviour, probe_memory
from tasks.registry.versions import register
from tasks.tracking import connect
from tasks.training.config import LoraSettings, SftConfig
from tasks.training.launch.protocol import SftMethod, TrainerReport, TrainerSpec
from tasks.training.merging import merge
from tasks.training.trainer import weights
from tasks.training.trainer.head import choose_head
from tasks.training.trainer.worker import main as train
from tests.support.candidates import decide, make_from
from tests.support.tiny_bases import CONFIGS, MORE_CONFIGS, build_tiny_base
from tests.support.tiny_model import desk_row

# PEFT adapts these modules of an architecture that it does not adapt with `all-linear`.
MODULES: dict[str, tuple[str, ...]] = {
    "mamba": ("in_proj", "x_proj"),
    "falcon_mamba": ("in_proj", "x_proj"),
    "mamba2": ("in_proj",),
}
PROMPTS = [[desk_row(number)["messages"][0]] for number in range(4)]  # type: ignore[index]
REPLIES = [str(desk_row(number)["messages"][1]["content"]) for number in range(4)]  # type: ignore[index]
_NUM_STEPS = 5


@dataclass(frozen=True)
class Trial:
    """One architecture's base model and its training, with the checks that are a cell each."""

    name: str
    folder: Path
    store: Store
    train_rows: DatasetRef
    held_out: DatasetRef

    @cached_property
    def base(self) -> BaseLanguageModel:
        """The base model in the store, as a run resolves it."""
        source = build_tiny_base(self.name, self.folder / "source")
        return resolve(BaseModelConfig(source=str(source), license="mit"), self.store)

    @cached_property
    def base_folder(self) -> Path:
        """Its folder."""
        return self.store.fetch_folder(self.base.folder)

    @cached_property
    def report(self) -> TrainerReport:
        """The trainer's report of five steps with a checkpoint at each."""
        return self._train(self.folder / "work")

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.folder / "work" / "adapter"

    @cached_property
    def candidate(self) -> LoadedModel:
        """The trained model as the benchmark loads it."""
        folders = self.base_folder, self.adapter
        model = load_with_adapter(*folders, merge=True, device="cpu", dtype=torch.float32)
        return LoadedModel(model, load_tokenizer(self.base_folder), 256)

    def _train(self, work: Path) -> TrainerReport:
        work.mkdir(exist_ok=True)
        lora = LoraSettings(r=8, target_modules=MODULES.get(self.name, "all-linear"))
        config = SftConfig(
            learning_rate=1e-2, max_steps=_NUM_STEPS, num_threads=1, device="cpu", lora=lora, save_interval_seconds=0
        )
        spec = TrainerSpec(
            base=self.base,
            train=self.train_rows,
            validation=self.held_out,
            method=SftMethod(config=config),
            work_dir=str(work),
            store_uri=self.store.uri,
        )
        (work / "spec.json").write_text(spec.model_dump_json())
        train([str(work / "spec.json")])
        return TrainerReport.model_validate_json((work / "report.json").read_bytes())

    # ---------------------------------------------------------------------------------------------------------- cells

    def is_planned_exactly(self) -> bool:
        """Whether the plan counts the parameters that are trained."""
        trained = load_file(self.adapter / "adapter_model.safetensors").values()
        plan = self.report.plan
        return plan is not None and plan.num_trainable_parameters == sum(weight.numel() for weight in trained)

    def loss_is_its_own(self) -> bool:
        """Whether the trainer's loss is that of the model's own logits, within 1 %."""
        model: Any = _shaken(load_base(self.base_folder, device="cpu", dtype=torch.float32))
        weights.name_parts(model)
        with torch.no_grad():
            add_fused_lm_head(model)
            choose_head(model, frozen=True)
            ids = torch.arange(3, 33)[None]
            own = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])
            fused = -model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.mean()
        return bool(abs(fused - own) <= 0.01 * own)

    def learns(self) -> bool:
        """Whether the loss of held-out rows falls."""
        losses = {item.name: item.value or 0.0 for item in self.report.measurements}
        return losses["eval_loss_after"] < losses["eval_loss_before"]

    def resumes(self) -> bool:
        """Whether a training that is killed in its last step continues to the same bytes."""
        work = self.folder / "killed"
        shutil.copytree(self.folder / "work", work, ignore=shutil.ignore_patterns("adapter", "report.json", "checkpoint-5"))
        self._train(work)
        return sha256_of_files(work / "adapter") == sha256_of_files(self.adapter)

    def merges(self) -> bool:
        """Whether base with adapter, merged model and stored merged model reply alike."""
        (self.folder / "merged").mkdir()
        return merge(self.base_folder, self.adapter, self.folder / "merged", PROMPTS) > 0

    def batches(self) -> bool:
        """Whether replies in a batch are those of each prompt alone."""
        loaded = LoadedModel(_shaken(self.candidate.model), self.candidate.tokenizer, 256)
        together = generate_replies(loaded, PROMPTS, max_new_tokens=12, batch_size=4)
        alone = [generate_replies(loaded, [prompt], max_new_tokens=12, batch_size=1)[0] for prompt in PROMPTS]
        return [reply.text for reply in together] == [reply.text for reply in alone]

    def weighs(self) -> bool:
        """Whether the likelihood of a reply is that of the learned tokens under base and adapter, computed whole."""
        model = load_with_adapter(self.base_folder, self.adapter, device="cpu", dtype=torch.float32)
        tokenizer = load_tokenizer(self.base_folder)
        measured = reply_likelihoods(self.candidate, PROMPTS, REPLIES, batch_size=4)
        for prompt, text, likelihood in zip(PROMPTS, REPLIES, measured, strict=True):
            message = {"role": "assistant", "content": text}
            prompt_ids, [reply_ids] = split_replies(tokenizer, prompt, [message], stop_token_ids(tokenizer, None))
            ids = torch.tensor([[*prompt_ids, *reply_ids[:-1]]])
            with torch.inference_mode():
                logits = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1].float()
            own = float(torch.nn.functional.cross_entropy(logits, ids[0, len(prompt_ids) :], reduction="sum"))
            if abs(own - likelihood.nll) > 1e-3 * own:
                return False
        return True

    def is_attacked(self) -> bool:
        """Whether every probe of the red team has an outcome."""
        config = RedTeamConfig(max_probes_per_kind=1, max_new_tokens=8, num_canaries=1, num_decoys=7)
        planted = [canary.row() for canary in make_canaries(1, config.seed)]
        values = canary_probes(planted, count=1, num_decoys=7, seed=config.seed)
        return len(probe_behaviour(self.candidate, config)) >= 7 and len(probe_memory(self.candidate, values, config)) > 0

    def is_served(self) -> bool:
        """Whether a registered version replies as the benchmark's model does."""
        import mlflow

        name = "".join(character if character.isalnum() else "-" for character in self.name)
        table = self.store.write_table(pa.table({"id": pa.array([], pa.string())}), kind="table")
        candidate = make_from(self.store.add_folder(self.adapter), self.base, self.held_out, table, decide())
        register(connect(), name, candidate)
        served = mlflow.pyfunc.load_model(f"models:/{name}@challenger")
        replies = served.predict(pd.DataFrame({"messages": PROMPTS}), params={"max_new_tokens": 12})
        expected = generate_replies(self.candidate, PROMPTS, max_new_tokens=12, batch_size=4)
        return list(replies) == [reply.text for reply in expected]


CELLS: dict[str, Callable[[Trial], bool]] = {
    "plan exact": Trial.is_planned_exactly,
    "loss equal": Trial.loss_is_its_own,
    "trains": Trial.learns,
    "resumes": Trial.resumes,
    "merge equal": Trial.merges,
    "weighed = trained": Trial.weighs,
    "red team": Trial.is_attacked,
    "served": Trial.is_served,
    "batched = single": Trial.batches,  # last, because it changes the weights
}


def _shaken(model: Any) -> Any:
    """The model with larger random weights in place: those of a new model are too small to show a difference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def cells_of(trial: Trial) -> Iterator[str]:
    """The cells of one architecture; a base that is refused has one, its reason."""
    try:
        report = trial.report
    except PerennialError as error:
        yield f"refused: {error.found}"
        return
    if report.outcome != "done":
        yield f"refused: {report.fault.found}" if report.fault else f"**crash**: {report.detail}"
        return
    for check in CELLS.values():
        try:
            yield "yes" if check(trial) else "**no**"
        except PerennialError as error:
            yield f"refused: {error.found}"
        except Exception as error:
            yield f"**crash**: {type(error).__name__}"


def main(names: list[str]) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    print(f"| architecture | {' | '.join(CELLS)} |\n|{'---|' * (1 + len(CELLS))}")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{temporary}/mlflow.db"
        store = open_store(f"{temporary}/store")
        train_rows, held_out = (
            store.write_rows([desk_row(number) for number in numbers], kind="messages")
            for numbers in (range(32), range(5000, 5008))
        )
        for place, name in enumerate(names):
            folder = Path(temporary) / str(place)
            folder.mkdir()
            with (
                contextlib.redirect_stderr(io.StringIO()),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                cells = list(cells_of(Trial(name, folder, store, train_rows, held_out)))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [*CONFIGS, *MORE_CONFIGS])
