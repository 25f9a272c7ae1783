"""How fast a LoRA step is: this project's training stage, TRL's trainer with its defaults, and the bare PyTorch step.

    python benchmarks/training_throughput.py                                     # CPU: the 135M base model, mixed lengths
    python benchmarks/training_throughput.py --method dpo --median 40
    python benchmarks/training_throughput.py --shape qwen3-small --steps 2       # and moe-small
    python benchmarks/training_throughput.py --shape llama-8b --length 2048 --median 600 --steps 20     # CUDA
    python benchmarks/training_throughput.py --shape llama-8b --length 512 --median 200 --quantization nf4 --steps 20
    python benchmarks/training_throughput.py --shape llama-8b --length 512 --median 200 --method dpo --steps 8

Speed does not depend on the weights' values, so Llama 3 8B's shape gets random ones and needs no download. Rows are random
tokens whose lengths are log-normal; the second half of each is the reply. The arms:

- this project: the trainer that the plan sets up, with its callbacks, checkpoints and (DPO) precomputed reference;
- TRL, defaults: `SFTTrainer` or `DPOTrainer` given the model's path, the same LoRA, the same rows and their longest length,
  all else as it comes. Its default of bfloat16 is switched off where the CPU would emulate it, because no step would finish;
- bare step: forward, backward, clipping, AdamW in a loop of a dozen lines, on batches like the first arm's, with the same
  kernels, and scoring learned positions only. It is the limit, not a straw man.

Every arm sees each row once. Each round runs every arm in a process of its own, in turn, in another order from round to
round; the clock runs from the first step's begin to the last one's end, after a warm-up pass. Real tokens are counted,
padding is not. A share of peak counts 4N FLOPs a token (6N for DPO, whose reference is a forward pass more), recomputing
apart; on a CPU the peak is a large matrix product's measured speed. Ratios of one run are worth more than its seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", TQDM_DISABLE="1")

import torch
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.contracts.training import TrainingPlan
from tasks.core.storage import Store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.loading import load_tokenizer
from tasks.modeling.profile import make_profile
from tasks.modeling.resolution import resolve
from tasks.training.config import DpoConfig, LoraSettings, SftConfig, known_tflops
from tasks.training.examples import Example, Pair
from tasks.training.launch import process
from tasks.training.plan import planning
from tasks.training.plan.adapters import count_trainable, lora_config
from tasks.training.plan.forecasting import measure_flops
from tasks.training.plan.hardware import available_cores, find_hardware, peak_memory_bytes
from tests.support.random_model import SHAPES, make_random_model


@dataclass(frozen=True)
class Job:
    """What every arm is given."""

    base: Path
    adapter: Path
    plan: TrainingPlan
    config: SftConfig | DpoConfig
    rows: list[Any]
    folder: Path

    @property
    def lora(self) -> LoraSettings:
        """The adapter: SFT's own, and for DPO the same one."""
        return self.config.lora if isinstance(self.config, SftConfig) and self.config.lora else LoraSettings()


# ---------------------------------------------------------------------------------------------------------------- the arms


class Clock(TrainerCallback):  # type: ignore[misc]
    """The seconds from the first step's begin to the last one's end."""

    began = ended = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts at the first step."""
        self.began = self.began or now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends at the present one."""
        self.ended = now()


def train_in_stage(job: Job) -> float:
    """Seconds of this project's trainer, as the worker process sets it up."""
    from tasks.training.trainer import trainers, weights
    from tasks.training.trainer.callbacks import BestKeeper, ProgressFile, StepCallback
    from tasks.training.trainer.ledger import RowLedger

    tokenizer, checkpoints = load_tokenizer(job.base), job.folder / "checkpoints"
    reference_seconds = time_reference()
    if isinstance(job.config, SftConfig):
        trainer = trainers.sft_trainer(job.base, None, tokenizer, job.plan, job.config, job.rows, [], checkpoints)
    else:
        trainer = trainers.dpo_trainer(job.base, job.adapter, tokenizer, job.plan, job.config, job.rows, [], checkpoints)
    best = BestKeeper(job.folder / "best", lambda folder: weights.save_weights(trainer, folder))
    progress = ProgressFile(job.folder / "progress.jsonl")
    # The ledger begins after the warm-up.
    callback = StepCallback(job.plan, job.config, progress, best, RowLedger(job.folder / "rows.jsonl"), evaluates=False)
    trainer.add_callback(callback)
    return run(trainer) + sum(reference_seconds)


def train_with_trl(job: Job) -> float:
    """TRL's trainer with its defaults, which compute DPO's reference at every step."""
    import trl

    from tasks.training.trainer import weights
    from tasks.training.trainer.batches import dataset_of

    settings: dict[str, Any] = {
        "output_dir": str(job.folder),
        "use_cpu": job.plan.device == "cpu",
        "bf16": job.plan.precision == "bfloat16",
        "max_length": job.plan.max_length_tokens,
        "num_train_epochs": 1,
        "report_to": "none",
        "save_strategy": "no",
    }
    plain = job.plan.model_copy(update={"attn_implementation": "sdpa", "liger_kernel": False})
    arguments: dict[str, Any] = {
        "model": str(job.base) if plain.quantization == "none" else weights.load_model(job.base, plain),
        "processing_class": load_tokenizer(job.base),
        "train_dataset": dataset_of(job.rows).remove_columns("length"),
        "peft_config": lora_config(job.lora, job.base),
    }
    if isinstance(job.config, SftConfig):
        return run(trl.SFTTrainer(args=trl.SFTConfig(**settings), **arguments))

    class Tokenised(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return run(Tokenised(args=trl.DPOConfig(**settings), **arguments))


def train_bare(job: Job) -> float:
    """The limit: a loop around forward, backward and AdamW."""
    from peft import get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    from tasks.training.trainer import kernels, weights
    from tasks.training.trainer.head import score_labels_only

    plan = job.plan
    model = get_peft_model(weights.load_model(job.base, plan), lora_config(job.lora, job.base))
    add_fused_lm_head(model.get_base_model())
    kernels.fuse_adapters(model)
    if plan.device == "cpu":
        score_labels_only(model.get_base_model())
    if plan.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=job.config.learning_rate, fused=plan.device == "cuda")
    preferences = isinstance(job.config, DpoConfig)
    batches = [tensors(rows, plan) for rows in micro_batches(job)]

    def score(batch: dict[str, Any]) -> Any:
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            return model(**batch, fused_lm_head=True, use_cache=False)

    def loss_of(batch: dict[str, Any], reference: torch.Tensor | None) -> torch.Tensor:
        output = score(batch)
        if reference is None:
            return output.loss
        chosen, rejected = (output.log_probs.sum(dim=1) - reference).chunk(2)
        return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()

    longest = max(batches, key=lambda batch: batch["input_ids"].numel())
    loss_of(longest, torch.zeros(len(longest["input_ids"]), device=plan.device) if preferences else None).backward()
    optimizer.zero_grad()
    began = now()
    with torch.no_grad():
        references = [score(batch).log_probs.sum(dim=1) if preferences else None for batch in batches]
    for start in range(0, len(batches), plan.accumulation_steps):
        step = slice(start, start + plan.accumulation_steps)
        for batch, reference in zip(batches[step], references[step], strict=True):
            loss_of(batch, reference).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return now() - began


ARMS: dict[str, Callable[[Job], float]] = {
    "this project": train_in_stage,
    "TRL, defaults": train_with_trl,
    "bare step": train_bare,
}


def run(trainer: Any) -> float:
    """Seconds of all steps, after a pass that loads libraries and kernels and changes no weight."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    if trainer.args.gradient_checkpointing:  # which the trainer itself turns on when it begins
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    with trainer.accelerator.autocast():
        trainer.compute_loss(trainer.model, batch).backward()
    trainer.model.zero_grad(set_to_none=True)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.ended - clock.began


def time_reference() -> list[float]:
    """Lets TRL tell how long it takes to compute DPO's reference before training."""
    import trl

    seconds: list[float] = []
    compute = trl.DPOTrainer._precompute_ref_logps

    def timed(*args: Any, **kwargs: Any) -> Any:
        compute(*args, **kwargs)  # the first time loads libraries and kernels
        began = now()
        result = compute(*args, **kwargs)
        seconds.append(now() - began)
        return result

    trl.DPOTrainer._precompute_ref_logps = timed
    return seconds


def now() -> float:
    """The time once the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ----------------------------------------------------------------------------------------------------------------- batches


def micro_batches(job: Job) -> list[list[Any]]:
    """The rows in the stage's order, in its micro-batches; packed, each is the rows of some full sequences."""
    from tasks.training.trainer.sampler import epoch_order

    plan, size = job.plan, job.plan.micro_batch_size
    if plan.packing:
        sequences = pack(job.rows, plan.max_length_tokens)
        groups = [sequences[start : start + size] for start in range(0, len(sequences), size)]
        return [[row for sequence in group for row in sequence] for group in groups]
    order = epoch_order([len(row) for row in job.rows], size * plan.accumulation_steps, seed=job.config.seed, epoch=0)
    ordered = [job.rows[index] for index in order]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def pack(rows: Sequence[Example], length: int) -> list[list[Example]]:
    """Sequences of at most ``length`` tokens: each row into the first that has room, the longest rows first."""
    sequences: list[list[Example]] = []
    room: list[int] = []
    for row in sorted(rows, key=len, reverse=True):
        place = next((index for index, left in enumerate(room) if left >= len(row)), None)
        if place is None:
            sequences.append([])
            room.append(length)
            place = -1
        sequences[place].append(row)
        room[place] -= len(row)
    return sequences


def tensors(rows: Sequence[Example | Pair], plan: TrainingPlan) -> dict[str, Any]:
    """A micro-batch on the device: padded, or one flat sequence with positions that start anew with every row."""
    if plan.packing:
        columns = {
            "input_ids": [[token for row in rows for token in row.input_ids]],
            "labels": [[label for row in rows for label in row.labels]],
            "position_ids": [[position for row in rows for position in range(len(row))]],
        }
        batch: dict[str, Any] = {name: torch.tensor(value, device=plan.device) for name, value in columns.items()}
        if plan.attn_implementation == planning.PACKED_ATTENTION:
            ends = torch.tensor([0, *map(len, rows)], device=plan.device, dtype=torch.int32).cumsum(0, dtype=torch.int32)
            longest = max(map(len, rows))
            batch |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
        return batch
    sequences = [row for row in rows if isinstance(row, Example)]
    pairs = [row for row in rows if isinstance(row, Pair)]
    sequences += [Example(pair.prompt_ids, pair.chosen_ids) for pair in pairs]
    sequences += [Example(pair.prompt_ids, pair.rejected_ids) for pair in pairs]
    longest = max(map(len, sequences))
    fill = [longest - len(row) for row in sequences]
    columns = {
        "input_ids": [row.input_ids + [0] * gap for row, gap in zip(sequences, fill, strict=True)],
        "labels": [row.labels + [-100] * gap for row, gap in zip(sequences, fill, strict=True)],
        "attention_mask": [[1] * len(row) + [0] * gap for row, gap in zip(sequences, fill, strict=True)],
    }
    return {name: torch.tensor(value, device=plan.device) for name, value in columns.items()}


def make_rows(options: argparse.Namespace, num_rows: int, vocabulary: int) -> list[Any]:
    """Rows of random tokens, log-normal in length; of a pair, both replies are as long as the prompt."""
    chance = random.Random(7)

    def draw(count: int) -> list[int]:
        return [chance.randrange(100, vocabulary - 100) for _ in range(count)]

    rows: list[Any] = []
    for _ in range(num_rows):
        length = min(options.length, max(16, int(options.median * chance.lognormvariate(0, options.spread))))
        prompt, reply = draw(length // 2), draw(length - length // 2)
        rows.append(Example(prompt, reply) if options.method == "sft" else Pair(prompt, reply, draw(len(reply))))
    return rows


# --------------------------------------------------------------------------------------------------------------- processes


def find_base(shape: str, folder: Path, kept: Path | None) -> Path:
    """The 135M base model, or a folder with random weights of the large shape, found in ``kept`` or made there."""
    if shape not in SHAPES:
        store = Store(folder / "store")
        return store.fetch_folder(resolve(BaseModelConfig(), store).folder)
    return make_random_model(shape, kept or folder / shape)


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Writes what the arms share: base, plan, settings, rows, and an untrained adapter for preference training."""
    from peft import get_peft_model

    from tasks.training.trainer import weights

    base = find_base(options.shape, folder, options.base)
    settings: dict[str, Any] = {
        "max_length": options.length,
        "num_train_epochs": 1,
        "quantization": options.quantization,
        "packing": {"auto": "auto", "yes": True, "no": False}[options.packed],
        "use_liger_kernel": {"auto": "auto", "yes": True, "no": False}[options.liger],
    }
    config = SftConfig(**settings) if options.method == "sft" else DpoConfig(**settings)
    rows = make_rows(options, options.steps * config.effective_batch_size, len(load_tokenizer(base)))
    profile = make_profile(base)
    shape = profile.shape
    workload = planning.Workload([len(row) for row in rows], 0, 0)
    lora = LoraSettings()
    num_trainable = count_trainable(base, lora)
    plan = planning.make_plan(
        profile, workload, find_hardware("auto"), config, method=options.method, num_trainable=num_trainable
    )
    if options.method == "dpo":
        get_peft_model(weights.load_model(base, plan), lora_config(lora, base)).save_pretrained(folder / "adapter")
    job = {
        "base": str(base),
        "plan": plan.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "rows": [vars(row) for row in rows],
        "num_tokens": workload.num_tokens,
        "weights_multiplied": shape.num_parameters - (0 if shape.tied_embeddings else shape.vocab_size * shape.hidden_size),
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def run_arm(name: str, folder: Path) -> None:
    """One arm, once, in this process; its figures go to ``result.json``."""
    torch.set_num_threads(available_cores())
    stored = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    plan = TrainingPlan.model_validate(stored["plan"])
    row = Example if plan.method == "sft" else Pair
    with tempfile.TemporaryDirectory(dir=folder) as place:
        job = Job(
            base=Path(stored["base"]),
            adapter=folder / "adapter",
            plan=plan,
            config=(SftConfig if plan.method == "sft" else DpoConfig).model_validate(stored["config"]),
            rows=[row(**fields) for fields in stored["rows"]],
            folder=Path(place),
        )
        seconds = ARMS[name](job)
    result = {"seconds": seconds, "memory": peak_memory_bytes()}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def start(arguments: list[str], what: str, folder: Path) -> dict[str, Any]:
    """Runs this script in a process of its own, with the allocator and thread settings of the trainer where it is ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MALLOC_"))}
    if what != "TRL, defaults":
        environment |= process.ENVIRONMENT
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--arm", what, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{what} failed:\n{done.stdout[-4000:]}")
    result = folder / "result.json"
    return json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["smollm2-135m", *SHAPES], default="smollm2-135m")
    parser.add_argument("--method", choices=["sft", "dpo"], default="sft")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument(
        "--packed", choices=["auto", "yes", "no"], default="auto", help="packing; auto leaves it to the plan"
    )
    parser.add_argument("--liger", choices=["auto", "yes", "no"], default="auto", help="Liger's kernels; auto: by plan")
    parser.add_argument("--length", type=int, default=512, help="longest row in tokens")
    parser.add_argument("--median", type=int, default=80, help="median row in tokens")
    parser.add_argument("--spread", type=float, default=0.6, help="standard deviation of the lengths' logarithm")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of 16 rows")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default=",".join(ARMS), help=f"arms, of: {', '.join(ARMS)}")
    parser.add_argument("--base", type=Path, help="folder to keep the large shape's random weights in")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm == "prepare":
        return prepare(options, options.folder)
    if options.arm:
        return run_arm(options.arm, options.folder)
    if options.packed == "yes" and options.method == "dpo":
        parser.error("TRL packs no preference pairs")
    torch.set_num_threads(available_cores())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start(sys.argv[1:], "prepare", folder)
        names = [name for name in ARMS if name in options.only]
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found[name].append(start([], name, folder))
                print(f"round {number + 1}: {name}: {found[name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
        tell(options, json.loads((folder / "job.json").read_text(encoding="utf-8")), found)


def tell(options: argparse.Namespace, job: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the table: the median of the rounds, and every ratio's range over them."""
    plan = TrainingPlan.model_validate(job["plan"])
    tokens, flops_per_token = job["num_tokens"], (4 if options.method == "sft" else 6) * job["weights_multiplied"]
    device = find_hardware("auto")
    sheet = known_tflops(device.name) if device.device == "cuda" else None
    peak_name = "of data sheet" if sheet else "of matmul"
    peak = 1e12 * sheet if sheet else measure_flops("auto", seconds=2.0)
    lengths = f"{plan.num_rows} rows, {tokens} tokens, median {options.median}, longest {options.length}"
    print(f"{options.shape}, {options.method}, {device.name}, {plan.precision}, quantisation {plan.quantization}, {lengths}")
    print(
        f"plan: micro-batch {plan.micro_batch_size} x {plan.accumulation_steps}, attention {plan.attn_implementation}, "
        f"packing {plan.packing} ({plan.num_sequences} sequences), Liger {plan.liger_kernel}, checkpointing "
        f"{plan.gradient_checkpointing}, memory {sum(plan.memory_bytes.values()) / 1e9:.2f} GB; {options.rounds} rounds"
    )
    print(f"{'arm':<15}{'tokens/s':>10}{'rows/s':>8}{'of bare':>18}{'of TRL':>18}{'peak GB':>9}{peak_name:>15}")
    for name, rounds in found.items():
        seconds = statistics.median(one["seconds"] for one in rounds)
        columns = []
        for peer in ("bare step", "TRL, defaults"):
            ratio = [other["seconds"] / one["seconds"] for one, other in zip(rounds, found.get(peer, []), strict=False)]
            columns.append(f"{statistics.median(ratio):.2f} ({min(ratio):.2f}-{max(ratio):.2f})" if ratio else "-")
        memory = max(one["memory"] for one in rounds) / 1e9
        share = tokens / seconds * flops_per_token / peak
        print(
            f"{name:<15}{tokens / seconds:>10.0f}{plan.num_rows / seconds:>8.2f}{columns[0]:>18}{columns[1]:>18}"
            f"{memory:>9.2f}{share:>15.1%}"
        )


if __name__ == "__main__":
    main()
