"""What each of the trainer's faster layers brings: one forward and backward pass of LoRA on packed rows, part after part.

    python benchmarks/training_kernels.py                             # Llama 3 8B's shape; a CUDA device with 80 GB
    python benchmarks/training_kernels.py --compile                   # and torch.compile in the place of Liger's kernels
    python benchmarks/training_kernels.py --quantization nf4 --tokens 8192,12288

Random weights, rows of log-normal length (median 600 tokens, at most 2048) end to end, the second half of each learned. A
line tells the time of a pass (mean of six after a warm-up), real tokens a second, their share of the card's data sheet at 4N
FLOPs a token, PyTorch's reserved peak, and how far the adapter's gradients are from the first variant's on the same rows.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from trl.trainer.utils import add_fused_lm_head

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.modeling.loading import load_base
from tasks.modeling.resolution import count_parameters
from tasks.training.config import LoraSettings, known_tflops
from tasks.training.plan.adapters import lora_config
from tasks.training.plan.planning import PACKED_ATTENTION
from tasks.training.trainer import kernels
from tests.support.random_model import SHAPES, make_random_model

PASSES = 6


def make_batch(tokens: int, vocabulary: int) -> dict[str, Any]:
    """A flat batch of whole rows on the GPU, always the same for the same number of tokens."""
    chance = random.Random(1)
    lengths: list[int] = []
    while (left := tokens - sum(lengths)) > 0:
        lengths.append(min(left, 2048, max(16, int(600 * chance.lognormvariate(0, 0.6)))))
    ids = torch.randint(2, vocabulary, (1, tokens), generator=torch.Generator().manual_seed(1))
    labels = torch.cat([torch.arange(length) >= length // 2 for length in lengths])[None]
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    batch = {
        "input_ids": ids,
        "labels": ids.masked_fill(~labels, -100),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
    }
    longest = {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    return {name: value.cuda() for name, value in batch.items()} | longest


class Bench:
    """One adapted model, and the gradients that its first variant had."""

    def __init__(self, base: Path, quantization: str) -> None:
        kernels.register_packed_attention()
        torch.manual_seed(0)
        model = load_base(base, device="cuda", dtype=torch.bfloat16, quantization=quantization, attn_implementation="sdpa")
        self.model = get_peft_model(model.train(), lora_config(LoraSettings(), base))
        add_fused_lm_head(self.base)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.002)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        config = self.base.config
        # Embeddings are looked up, not multiplied.
        looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        self.multiplied = count_parameters(base) - looked_up
        self.truth: dict[int, torch.Tensor] = {}

    @property
    def base(self) -> Any:
        """The model below the adapter."""
        return self.model.get_base_model()

    def run(self, batch: dict[str, Any]) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.model(**batch, fused_lm_head=True, use_cache=False).loss
        loss.backward()

    def measure(self, name: str, tokens: int) -> None:
        batch = make_batch(tokens, self.base.config.vocab_size)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        self.run(batch)
        torch.cuda.synchronize()
        first = time.perf_counter() - began
        gradients = torch.cat([parameter.grad.flatten().float().cpu() for parameter in self.parameters])
        truth = self.truth.setdefault(tokens, gradients)
        apart = float((gradients - truth).norm() / truth.norm())
        self.run(batch)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(PASSES):
            self.run(batch)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / PASSES
        self.model.zero_grad(set_to_none=True)
        sheet = known_tflops(torch.cuda.get_device_name())
        share = f"{tokens / seconds * 4 * self.multiplied / (1e12 * sheet):.1%}" if sheet else "-"
        peak = torch.cuda.max_memory_reserved() / 1e9
        speed = f"{first:>9.2f}{1e3 * seconds:>9.1f}{tokens / seconds:>10.0f}"
        print(f"{name:<32}{tokens:>7}{speed}{share:>8}{peak:>8.1f}{apart:>9.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--base", type=Path, help="folder to keep the random weights in")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument("--tokens", default="2048,4096,8192", help="tokens of a pass, several with commas")
    parser.add_argument("--compile", action="store_true", help="torch.compile each layer in the place of Liger's kernels")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device")
    sizes = [int(size) for size in options.tokens.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(make_random_model(options.shape, options.base or Path(temporary) / "base"), options.quantization)
    print(f"{options.shape}, {torch.cuda.get_device_name()}, torch {torch.__version__}, quantisation {options.quantization}")
    print(f"{'layers':<32}{'tokens':>7}{'first s':>9}{'ms':>9}{'tokens/s':>10}{'MFU':>8}{'peak GB':>8}{'apart':>9}")
    variants = {
        "PEFT, SDPA with a mask": lambda: None,
        "packed attention": lambda: setattr(bench.base.config, "_attn_implementation", PACKED_ATTENTION),
        "and fused adapters": lambda: kernels.fuse_adapters(bench.model),
    }
    if options.compile:
        variants["and torch.compile"] = lambda: [layer.compile(dynamic=True) for layer in bench.base.model.layers]
    else:
        variants["and Liger's kernels"] = lambda: kernels.fuse_layers(bench.base)
    for name, change in variants.items():
        change()
        for tokens in sizes:
            try:
                bench.measure(name, tokens)
            except torch.OutOfMemoryError:
                bench.model.zero_grad(set_to_none=True)
                print(f"{name:<32}{tokens:>7} out of memory")


if __name__ == "__main__":
    main()
