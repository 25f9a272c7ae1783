"""How fast a supervised LoRA step is: this project's trainer, TRL's trainer with its defaults, and the bare PyTorch step.

    python benchmarks/training_throughput.py                              # CPU: the 135M base model, mixed lengths
    python benchmarks/training_throughput.py --shape llama-8b --length 2048      # CUDA: Llama 3 8B's shape, random weights
    python benchmarks/training_throughput.py --shape llama-8b --quantization nf4

Speed does not depend on the weights' values, so the 8B shape needs no download. Rows are random tokens whose lengths are
log-normal; the second half of each is the reply. Real tokens are counted, padding is not. Ratios of one run are worth
more than its seconds: run it on an otherwise idle machine. The bare step scores the learned positions only and takes rows
in the same order; it is the limit, not a straw man. TRL's default of bfloat16 is switched off where the CPU lacks it,
because no step would finish.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1", OMP_WAIT_POLICY="PASSIVE")

import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from tasks.contracts import TrainingPlan
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.loading import load_tokenizer
from tasks.modeling.resolution import count_parameters, resolve
from tasks.storage import Store
from tasks.training import planning, trainers
from tasks.training.config import SftConfig
from tasks.training.hardware import find_hardware
from tasks.training.head import score_labels_only
from tasks.training.ordering import order_rows
from tasks.training.rendering import Example

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Tokens a second over all steps but the first, which warms up."""

    def __init__(self) -> None:
        self.seconds, self.tokens, self._seen = 0.0, 0, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the step's clock."""
        self._began, self._seen = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Adds the step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step > 1:
            self.seconds += time.perf_counter() - self._began
            self.tokens += state.num_input_tokens_seen - self._seen

    @property
    def speed(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds


def make_rows(count: int, median: int, longest: int, vocabulary: int) -> list[Example]:
    chance = random.Random(7)
    rows = []
    for _ in range(count):
        length = min(longest, max(16, int(median * chance.lognormvariate(0, 0.6))))
        ids = [chance.randrange(100, vocabulary - 100) for _ in range(length)]
        rows.append(Example(ids[: length // 2], ids[length // 2 :]))
    return rows


def ours(base: Path, tokenizer: Any, plan: TrainingPlan, config: SftConfig, rows: list[Example], folder: Path) -> float:
    trainer = trainers.sft_trainer(base, tokenizer, plan, config, rows, [], folder)
    return run_trainer(trainer)


def trl_defaults(
    base: Path, tokenizer: Any, plan: TrainingPlan, config: SftConfig, rows: list[Example], folder: Path
) -> float:
    arguments = TrlConfig(
        output_dir=str(folder),
        use_cpu=plan.device == "cpu",
        bf16=plan.precision == "bfloat16",
        max_steps=plan.num_steps,
        include_num_input_tokens_seen="non_padding",
        report_to="none",
        save_strategy="no",
    )
    trainer = SFTTrainer(
        model=trainers.load_model(base, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=trainers._dataset(rows).remove_columns("length"),
        peft_config=trainers.lora_config(config.lora) if config.lora else None,
    )
    return run_trainer(trainer)


def run_trainer(trainer: Any) -> float:
    clock = StepClock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.speed


def bare(base: Path, tokenizer: Any, plan: TrainingPlan, config: SftConfig, rows: list[Example], folder: Path) -> float:
    from trl.trainer.utils import add_fused_lm_head

    assert config.lora is not None
    model = get_peft_model(trainers.load_model(base, plan), trainers.lora_config(config.lora))
    add_fused_lm_head(model.get_base_model())
    if plan.device == "cpu":
        score_labels_only(model.get_base_model())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, fused=plan.device == "cuda")
    size = plan.micro_batch_size * plan.accumulation_steps
    order = order_rows([len(row) for row in rows], size, seed=config.seed, epoch=0)
    seconds, tokens = 0.0, 0
    for step in range(plan.num_steps):
        indices = [order[(step * size + offset) % len(order)] for offset in range(size)]
        began = time.perf_counter()
        for start in range(0, size, plan.micro_batch_size):
            batch = pad([rows[index] for index in indices[start : start + plan.micro_batch_size]], plan.device)
            with torch.autocast(plan.device, torch.bfloat16, enabled=plan.precision == "bfloat16"):
                output = model(**batch, fused_lm_head=True, use_cache=False)
            output.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if plan.device == "cuda":
            torch.cuda.synchronize()
        if step:
            seconds += time.perf_counter() - began
            tokens += sum(len(rows[index]) for index in indices)
    return tokens / seconds


def pad(rows: list[Example], device: str) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    fill = [longest - len(row) for row in rows]
    columns = {
        "input_ids": [row.input_ids + [0] * gap for row, gap in zip(rows, fill, strict=True)],
        "labels": [row.labels + [-100] * gap for row, gap in zip(rows, fill, strict=True)],
        "attention_mask": [[1] * len(row) + [0] * gap for row, gap in zip(rows, fill, strict=True)],
    }
    return {name: torch.tensor(value, device=device) for name, value in columns.items()}


def find_base(shape: str, folder: Path) -> tuple[Path, Any]:
    store = Store(folder / "store")
    small = store.fetch_folder(resolve(BaseModelConfig(), store).folder)
    tokenizer = load_tokenizer(small)
    if shape == "smollm2-135m":
        return small, tokenizer
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_8B)).to(torch.bfloat16)
    model.save_pretrained(folder / shape)
    return folder / shape, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["smollm2-135m", "llama-8b"], default="smollm2-135m")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument("--length", type=int, default=512, help="longest row in tokens")
    parser.add_argument("--median", type=int, default=80, help="median row in tokens")
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    device = find_hardware("auto").device
    if options.shape == "llama-8b" and device != "cuda":
        parser.error("the 8B shape needs a CUDA device")
    config = SftConfig(max_length=options.length, max_steps=options.steps, quantization=options.quantization)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, tokenizer = find_base(options.shape, folder)
        model_config = LlamaConfig.from_pretrained(base)
        rows = make_rows(options.steps * config.effective_batch_size, options.median, options.length, len(tokenizer))
        num_parameters = count_parameters(base)
        shape = planning.ModelShape.from_config(model_config.to_dict(), num_parameters)
        workload = planning.Workload([len(row) for row in rows], sum(len(row.reply_ids) for row in rows), 0)
        plan = planning.make_plan(shape, workload, find_hardware("auto"), config, method="sft", lora=config.lora)
        arms: dict[str, Callable[..., float]] = {
            "this project": ours,
            "TRL, defaults": trl_defaults,
            "bare PyTorch step": bare,
        }
        speeds = {name: run(base, tokenizer, plan, config, rows, folder / "out") for name, run in arms.items()}
    mean = workload.num_tokens / len(rows)
    print(f"{options.shape}, {plan.device}, {plan.precision}, {plan.quantization}, micro-batch {plan.micro_batch_size}")
    print(f"{'arm':<20}{'tokens/s':>10}{'rows/s':>10}{'of bare':>10}{'of TRL':>10}")
    for name, speed in speeds.items():
        ratios = f"{speed / speeds['bare PyTorch step']:>10.2f}{speed / speeds['TRL, defaults']:>10.2f}"
        print(f"{name:<20}{speed:>10.0f}{speed / mean:>10.2f}{ratios}")
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_reserved() / 1e9:.1f} GB")
        # 4N FLOPs a token: forward and backward through frozen weights.
        print(f"this project: {4 * num_parameters * speeds['this project'] / 1e12:.0f} TFLOP/s")


if __name__ == "__main__":
    main()
