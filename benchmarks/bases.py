"""Every architecture of `tests/support/tiny_bases.py`, tiny and with random weights, from the plan to a served version.

    python benchmarks/bases.py [NAME ...]
    python benchmarks/bases.py --markdown > docs/bases.md

Prints a table in Markdown, or the whole page with the chat templates of `tests/support/chat_templates.py` and the refusals.
Each cell is run on this CPU: `yes`, `no`, or why it is refused. Random weights show that the arithmetic, the counts and the
shapes agree; they show nothing about quality.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
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
from tasks.modeling.conversations import prompt_token_ids, reply_token_ids, split_replies, stop_token_ids
from tasks.modeling.generation import LoadedModel, generate_replies, reply_likelihoods
from tasks.modeling.loading import load_base, load_tokenizer, load_with_adapter
from tasks.modeling.profile import make_profile
from tasks.modeling.rendering import unusable_rows
from tasks.modeling.resolution import resolve
from tasks.modeling.templates import changes_of, prepared
from tasks.redteam.canaries import make_canaries
from tasks.redteam.config import RedTeamConfig
from tasks.redteam.memory import canary_probes
from tasks.redteam.probing import probe_behaviour, probe_memory
from tasks.registry.versions import register
from tasks.tracking import connect
from tasks.training.config import LoraSettings, SftConfig
from tasks.training.examples import render_example
from tasks.training.launch.protocol import SftMethod, TrainerReport, TrainerSpec
from tasks.training.merging import merge
from tasks.training.plan.hardware import available_cores
from tasks.training.trainer import weights
from tasks.training.trainer.head import choose_head
from tasks.training.trainer.worker import main as train
from tests.support.candidates import decide, make_from
from tests.support.chat_templates import FAMILIES, tokenizer_of
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
        model = _shaken(load_base(self.base_folder, device="cpu", dtype=torch.float32))
        loaded = LoadedModel(model, self.candidate.tokenizer, 256)
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
    "batched = single": Trial.batches,
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
        yield f"refused: {_plain(error.found)}"
        return
    if report.outcome != "done":
        yield f"refused: {_plain(report.fault.found)}" if report.fault else f"**crash**: {report.detail}"
        return
    for check in CELLS.values():
        try:
            yield _word(check(trial))
        except PerennialError as error:
            yield f"refused: {_plain(error.found)}"
        except Exception as error:
            yield f"**crash**: {type(error).__name__}"


# ------------------------------------------------------------------------------------------------------------ templates


def template_cells(family: str) -> Iterator[str]:
    """The cells of one chat template: the checks before training, and what was added to the published text."""
    tokenizer = tokenizer_of(family)
    template = prepared(tokenizer.chat_template)
    stops = stop_token_ids(tokenizer, None)
    user, reply = ({"role": role, "content": f"Text of the {role}."} for role in ("user", "assistant"))
    prompt_ids, [reply_ids] = split_replies(tokenizer, [user], [reply], stops)
    by_library = tokenizer.apply_chat_template([user], chat_template=template, add_generation_prompt=True, return_dict=False)
    yield _word(prompt_ids == by_library)
    yield _word(tokenizer.decode(reply_ids, skip_special_tokens=True).strip() == reply["content"])
    yield _word(reply_token_ids(tokenizer, [user], reply["content"]) == reply_ids[:-1])
    turns = {"id": "turns", "messages": [user, reply, user, reply]}
    unlearned = render_example(tokenizer, turns, stops=stops, max_length=10_000, learn="all").num_unlearned_replies
    yield "the last" if unlearned else "every"
    odd = {"id": "odd", "messages": [user, user, reply]}
    yield "quarantined" if unusable_rows(tokenizer, [odd]) else "written"
    forged = {**user, "content": f"{user['content']}{tokenizer.eos_token}"}
    control = set(tokenizer.all_special_ids)
    counts = [sum(token in control for token in prompt_token_ids(tokenizer, [turn])) for turn in (user, forged)]
    yield _word(counts[0] == counts[1])
    changes = changes_of(template)
    added = {
        "system text moves into the first user message": changes.moves_system,
        "one start of a reply": changes.sets_start,
        "fixed date": changes.fixes_date,
    }
    yield "; ".join(name for name, holds in added.items() if holds) or "nothing"


TEMPLATE_CELLS = (
    "learned prefix = prompt",
    "decoded reply = content",
    "weighed = trained",
    "turns learned",
    "two user turns",
    "control tokens in texts stay text",
    "added to the template",
)

# ------------------------------------------------------------------------------------------------------------- refusals


def refused_bases() -> dict[str, dict[str, Any]]:
    """Changes to a tiny Llama's files, each of which no training can start from: file, and settings or removals in it."""
    return {
        "an encoder": {"config.json": {"model_type": "bert"}},
        "an encoder and a decoder": {"config.json": {"model_type": "t5"}},
        "an architecture of another release": {"config.json": {"model_type": "unheard-of"}},
        "quantised weights": {"config.json": {"quantization_config": {"quant_method": "gptq", "bits": 4}}},
        "code of its own": {"config.json": {"auto_map": {"AutoModelForCausalLM": "model.Own"}}},
        "no end of sequence": {
            "config.json": {"eos_token_id": None},
            "tokenizer_config.json": {"eos_token": None},
            "special_tokens_map.json": {"eos_token": None},
        },
        "no chat template": {"chat_template.jinja": None, "tokenizer_config.json": {"chat_template": None}},
        "a template that refuses a question": {"chat_template.jinja": "{{ raise_exception('no') }}"},
        "a damaged tokenizer": {"tokenizer.json": "{}"},
    }


def refusal(changes: dict[str, Any], store: Store) -> str:
    """What :func:`resolve` says of a tiny Llama with changed files."""
    with tempfile.TemporaryDirectory() as name:
        folder = build_tiny_base("llama", Path(name))
        for file, change in changes.items():
            path = folder / file
            if isinstance(change, dict) and path.is_file():
                path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
            elif isinstance(change, str):
                path.write_text(change)
            elif change is None:
                path.unlink(missing_ok=True)
        try:
            resolve(BaseModelConfig(source=str(folder), license="mit"), store)
        except PerennialError as error:
            return f"`{error.where.replace(name, 'FOLDER')}`: {_plain(error.found)}"
        except Exception as error:
            return f"**crash**: {type(error).__name__}"
    return "**accepted**"


# ----------------------------------------------------------------------------------------------------------------- page


def _word(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(titles: Sequence[str]) -> str:
    return f"{_row(titles)}\n|{'---|' * len(titles)}"


def particulars(name: str) -> tuple[str, ...]:
    """The class of a base, and what the profile says of it beyond the context."""
    with tempfile.TemporaryDirectory() as folder:
        summary = dict(make_profile(build_tiny_base(name, Path(folder))).summary)
    architecture = summary.pop("architecture").partition(",")[0]
    return architecture, "; ".join(f"{title}: {text}" for title, text in summary.items())


def run_one(name: str) -> list[str]:
    """The cells of one architecture, in a store and a registry of this process."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    place = Path(os.environ["BASES_PLACE"]) / str(os.getpid())
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
    store = open_store(f"{place}/store")
    train_rows, held_out = (
        store.write_rows([desk_row(number) for number in numbers], kind="messages")
        for numbers in (range(32), range(5000, 5008))
    )
    folder = Path(tempfile.mkdtemp(dir=place))
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return list(cells_of(Trial(name, folder, store, train_rows, held_out)))


def tables(names: Sequence[str], pool: ProcessPoolExecutor) -> Iterator[str]:
    """The lines of the table of architectures, each as it is done."""
    yield _head(("architecture", *CELLS))
    for name, cells in zip(names, pool.map(run_one, names), strict=True):
        yield _row((name, *cells))


def page(names: Sequence[str], pool: ProcessPoolExecutor, store: Store) -> Iterator[str]:
    """The lines of docs/bases.md."""
    yield _INTRODUCTION
    yield from tables(names, pool)
    yield _PARTICULAR
    yield _head(("architecture", "class", "what is done"))
    for name in names:
        yield _row((name, *particulars(name)))
    yield _TEMPLATES
    yield _head(("template", *TEMPLATE_CELLS))
    for family in FAMILIES:
        yield _row((family, *template_cells(family)))
    yield _REFUSALS
    yield _head(("base", "what is said"))
    for title, changes in refused_bases().items():
        yield _row((title, refusal(changes, store)))


_INTRODUCTION = """# Base models

`benchmarks/bases.py --markdown` writes this page. Each architecture is built from its configuration class, tiny and with
random weights, and goes the way of a run on a CPU: it is resolved, planned, trained for five steps with LoRA, killed and
resumed, merged, scored, attacked, registered and served. That shows that counts, shapes and arithmetic agree; it shows
nothing about quality. The demo trains real weights of SmolLM2 (Llama's architecture); results on GPUs are in
[results](results.md). `perennial doctor` and `perennial plan` say the same of the configured base.

| cell | holds when |
|---|---|
| plan exact | the plan counts the parameters that the adapter has |
| loss equal | the trainer's loss is that of the model's own logits, within 1 % |
| trains | the loss of held-out rows falls |
| resumes | a training that is killed in its last step ends with the same bytes |
| merge equal | base with adapter, merged model and stored merged model reply alike |
| weighed = trained | the likelihood of a reply is that of its learned tokens under base and adapter |
| red team | every behavioural probe and a canary have an outcome |
| served | the registered version replies as the scored model does |
| batched = single | a reply in a batch is that of its prompt alone |

## Architectures
"""
_PARTICULAR = """
## What is particular, and what is done about it

The profile of a base is read from its configuration, without weights, and kept in the store. Plan, trainer, benchmark and
red team follow it; no other code looks at the type of a model.
"""
_TEMPLATES = """
## Chat templates

A template is prepared once, when the base enters the store ([0043](decisions/0043-one-prepared-chat-template.md)). "Two user
turns" is a row whose roles do not alternate; a template that refuses it leaves the row out, with the reason
`template_refuses`. "The last" means that the template writes earlier replies differently, so that they are not learned.
"""
_REFUSALS = """
## Refused

A base that cannot be trained ends the run before a row is read, with exit code 2. An adapter that the base cannot take
(`training.sft.lora.target_modules`: unknown modules, tied embeddings) ends it at the same place, in PEFT's words.
"""


def main(arguments: list[str]) -> None:
    """Prints the table of some or all architectures, or the page."""
    is_page, names = "--markdown" in arguments, [name for name in arguments if name != "--markdown"]
    names = names or sorted([*CONFIGS, *MORE_CONFIGS])
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        os.environ["BASES_PLACE"] = place
        with ProcessPoolExecutor(min(available_cores(), len(names)), mp_context=context) as pool:
            for line in page(names, pool, open_store(f"{place}/store")) if is_page else tables(names, pool):
                print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
