"""How fast held-out prompts are answered: one by one, in batches as this project does, and with continuous batching.

    python benchmarks/generation_throughput.py                        # the 135M base model; a tiny one with --model FOLDER
    python benchmarks/generation_throughput.py --model FOLDER --prompts 256 --batch-size 64     # on a GPU

The four ways answer the same prompts greedily and to the same limits: transformers' `generate` for one prompt at a time;
`generate` for prompts sorted by length and padded on the left, each batch to its last reply; this project's
`generate_replies`, which goes on without the rows that have ended; and, on a GPU, transformers' continuous batching
(`generate_batch`), which fills a place as soon as it is free. On a CPU it is left out: it sizes its tensors by the memory it
finds, and was still filling them after a minute and a half. Instruction-tuned models end replies at very different lengths,
which is where the last two gain. The share of equal replies against one by one is told: in bfloat16 a tie in the last bit
may turn a word; `--float32` shows that nothing else does. Ratios of one run are worth more than its seconds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1")

import torch

from tasks.core.storage import Store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.conversations import prompt_token_ids
from tasks.modeling.generation import LoadedModel, generate_replies, greedy_settings, load_model
from tasks.modeling.resolution import resolve

QUESTIONS = (
    "Name one colour.",
    "Is ice colder than steam? Answer yes or no.",
    "Reply with the single word OK.",
    "My router drops the connection every evening. What should I check first?",
    "Write a short, friendly reply to a customer whose parcel arrived two days late and who asks for the postage back.",
    "Explain in two sentences why a password should not be used twice.",
    "Translate into French: The invoice is attached.",
    "List five things to do before a long holiday.",
)


def prompts_of(count: int) -> list[list[dict[str, str]]]:
    """Prompts of different lengths, all different."""
    return [
        [{"role": "user", "content": f"{QUESTIONS[number % len(QUESTIONS)]} (Case {number}.)"}] for number in range(count)
    ]


def until_end(tokens: list[int], ends: set[int]) -> tuple[int, ...]:
    """A reply's tokens up to its end token."""
    end = next((position for position, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:end])


def generate_whole(loaded: LoadedModel, rows: list[list[int]], settings: Any) -> Iterator[tuple[int, ...]]:
    """`generate` as it comes, one left-padded batch to its last reply."""
    width, pad = max(map(len, rows)), loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=loaded.model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=loaded.model.device)
    with torch.inference_mode():
        output = loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    ends = set(settings.eos_token_id)
    return (until_end(tokens, ends) for tokens in output[:, width:].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", help="A model's folder; without it the 135M base model.")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--float32", action="store_true", help="Weights in float32, whatever the model's own.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.model or BaseModelConfig().source
        base = resolve(BaseModelConfig(source=source), Store(folder))
        loaded = load_model(Store(folder).fetch_folder(base.folder), None)
        if options.float32:
            loaded.model.float()
        compare(loaded, options)


def compare(loaded: LoadedModel, options: argparse.Namespace) -> None:
    """Prints one line for each way."""
    prompts = prompts_of(options.prompts)
    rows = [prompt_token_ids(loaded.tokenizer, prompt) for prompt in prompts]
    settings = greedy_settings(loaded, options.max_new_tokens)
    loaded.model.generation_config = settings
    ends, order = set(settings.eos_token_id), sorted(range(len(rows)), key=lambda index: -len(rows[index]))

    def one_by_one() -> list[Any]:
        return [next(generate_whole(loaded, [row], settings)) for row in rows]

    def batched() -> list[Any]:
        replies: dict[int, Any] = {}
        for start in range(0, len(order), options.batch_size):
            batch = order[start : start + options.batch_size]
            replies.update(zip(batch, generate_whole(loaded, [rows[index] for index in batch], settings), strict=True))
        return [replies[index] for index in range(len(rows))]

    def project() -> list[Any]:
        limits = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
        return [reply.text for reply in generate_replies(loaded, prompts, **limits)]

    def continuous() -> list[Any]:
        outputs = loaded.model.generate_batch(inputs=rows, generation_config=settings, progress_bar=False)
        kept = sorted(outputs.values(), key=lambda output: int(output.request_id.rsplit("_", 1)[-1]))
        if len(kept) != len(rows):
            raise RuntimeError(f"{len(kept)} of {len(rows)} prompts answered")
        return [until_end(list(output.generated_tokens), ends) for output in kept]

    generate_whole(loaded, [rows[0]], settings)  # the first call holds one-time costs
    print(f"{loaded.model.device}, {loaded.model.dtype}, {len(rows)} prompts, batches of {options.batch_size}")
    print(f"{'way':<44}{'seconds':>9}{'ratio':>8}{'equal':>8}")
    truth, reference = timed(one_by_one)
    texts = [text_of(loaded, reply) for reply in truth]
    print_line("one by one, generate", reference, reference, texts, texts)
    ways = [("sorted, left-padded batches, generate", batched), ("this project", project)]
    if loaded.device == "cuda":
        ways.append(("continuous batching, generate_batch", continuous))
    for title, way in ways:
        try:
            replies, seconds = timed(way)
        except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:  # printed: what does not run here
            print(f"{title:<44}  does not run here: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
            continue
        print_line(title, seconds, reference, [text_of(loaded, reply) for reply in replies], texts)


def timed(way: Callable[[], list[Any]]) -> tuple[list[Any], float]:
    """A way's replies, and the seconds that they took."""
    started = time.perf_counter()
    replies = way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return replies, time.perf_counter() - started


def text_of(loaded: LoadedModel, reply: Any) -> str:
    """A reply as text, whether it came as tokens or as text."""
    return reply if isinstance(reply, str) else str(loaded.tokenizer.decode(reply, skip_special_tokens=True)).strip()


def print_line(title: str, seconds: float, reference: float, replies: list[str], truth: list[str]) -> None:
    """One line of the table."""
    equal = sum(one == other for one, other in zip(replies, truth, strict=True)) / len(truth)
    print(f"{title:<44}{seconds:>9.2f}{reference / seconds:>7.2f}x{equal:>8.0%}")


if __name__ == "__main__":
    main()
