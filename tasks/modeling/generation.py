"""Greedy replies in batches, and the likelihoods of given replies. The benchmark and the red team share them.

Prompts are sorted by length, so that a batch holds prompts of similar length with little padding, and padded on the left, so
that every reply starts at the same position. Once half of a batch has ended, only the other half continues, with its part of
the cache: one long reply does not compute thirty-one finished ones along. See ``benchmarks/generation_throughput.py``.
"""

from __future__ import annotations

import copy
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from tasks.modeling.conversations import Messages, prompt_token_ids, reply_token_ids, stop_token_ids
from tasks.modeling.loading import load_base, load_tokenizer, load_with_adapter
from tasks.modeling.profile import context_length, keeps_state

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]

_MIN_ROWS_TO_SPLIT = 4
"""Fewer rows than these are computed to the end together: another call costs about as much as it saves."""
_BATCH_TOLERANCE = 1e-3
"""The share of the logits' spread within which they are equal, at least; a few roundings of the weights' precision else."""
_batching: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory with its tokenizer; ``max_tokens`` is its context length."""

    model: Any
    tokenizer: Any
    max_tokens: int

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return str(self.model.device.type)

    @property
    def device_name(self) -> str:
        """The name of the GPU, empty for a CPU."""
        return torch.cuda.get_device_name(self.model.device) if self.device == "cuda" else ""


@dataclass(frozen=True)
class Reply:
    """One generated reply.

    Attributes:
        text: Without special tokens.
        num_prompt_tokens: After truncation to the model's context.
        num_new_tokens: Including the end token, if there is one.
        seconds: Wall time of the reply's batch over the batch's rows.
        completed: Whether it ended by itself, not by the limit.
        prompt_cut: Whether the prompt lost its start, so that the reply answers another question.
    """

    text: str
    num_prompt_tokens: int
    num_new_tokens: int
    seconds: float
    completed: bool
    prompt_cut: bool = False


@dataclass(frozen=True)
class Likelihood:
    """The summed negative log-likelihood of a reply in nats, its number of tokens, and whether prompt or reply was cut."""

    nll: float
    num_tokens: int
    cut: bool = False


def load_model(base: Path, adapter: Path | None) -> LoadedModel:
    """The model to score: the base, or the base with the adapter merged into it, as it would be served."""
    model = load_base(base) if adapter is None else load_with_adapter(base, adapter, merge=True)
    max_tokens = context_length(model.config.get_text_config()) or 1_000_000
    return LoadedModel(model, load_tokenizer(base), max_tokens)


def generate_replies(
    loaded: LoadedModel,
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    batch_size: int,
    prefixes: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
) -> list[Reply]:
    """Greedy replies, in the order of the prompts.

    Args:
        loaded: The model.
        prompts: Conversations up to the reply. A prompt that leaves no room for a reply in the context loses its beginning.
        max_new_tokens: Limit of each reply; :func:`reply_limit` holds in a short context.
        batch_size: Prompts per batch; does not change the replies beyond rounding.
        prefixes: The beginning of each reply, which the model continues; the reply's text is the continuation. None: empty.
        on_progress: Called with the number of finished replies.
    """
    whole = _prompt_ids(loaded, prompts, prefixes)
    token_ids, limit = _cut_to_context(loaded, whole, max_new_tokens), reply_limit(loaded, max_new_tokens)
    settings = greedy_settings(loaded, limit)
    # `generate` fills unset options from the model's own config, which may have a sampling temperature.
    loaded.model.generation_config = settings
    if token_ids:  # one token for one prompt, so that the first batch's time includes no one-time costs
        _generate_batch(loaded, [token_ids[0][-8:]], greedy_settings(loaded, 1))
    replies: dict[int, Reply] = {}
    for batch in _batches_by_length([len(ids) for ids in token_ids], batch_size):
        replies.update(zip(batch, _generate_batch(loaded, [token_ids[index] for index in batch], settings), strict=True))
        if on_progress:
            on_progress(len(replies), len(prompts))
    return [replace(replies[index], prompt_cut=len(token_ids[index]) < len(whole[index])) for index in range(len(prompts))]


def reply_limit(loaded: LoadedModel, max_new_tokens: int) -> int:
    """The most tokens of a reply: ``max_new_tokens``, but at most half the context, so that prompts keep the other half."""
    return min(max_new_tokens, max(1, loaded.max_tokens // 2))


def prompt_batches(
    loaded: LoadedModel, prompts: Sequence[Messages], *, max_new_tokens: int, batch_size: int
) -> list[list[list[int]]]:
    """The prompts' tokens in batches for :func:`answer_batch`, in the order given, so that two models' batches agree."""
    token_ids = _cut_to_context(loaded, _prompt_ids(loaded, prompts, None), max_new_tokens)
    return [token_ids[start : start + batch_size] for start in range(0, len(token_ids), batch_size)]


def answer_batch(loaded: LoadedModel, batch: list[list[int]], max_new_tokens: int) -> list[Reply]:
    """Greedy replies to one batch of prompts, given as tokens."""
    settings = greedy_settings(loaded, reply_limit(loaded, max_new_tokens))
    loaded.model.generation_config = settings
    return _generate_batch(loaded, batch, settings)


def reply_likelihoods(
    loaded: LoadedModel,
    prompts: Sequence[Messages],
    references: Sequence[str | Mapping[str, Any]],
    *,
    batch_size: int,
    on_progress: OnProgress | None = None,
) -> list[Likelihood]:
    """The likelihood of each reference reply, a text or a message, after its prompt, in order; an empty one has no tokens.

    Only the reply's own tokens count, not the prompt's and not the end of the turn. A pair longer than the context loses the
    start of its prompt, then the end of its reply.
    """
    pairs, is_cut = [], []
    for prompt, reference in zip(prompts, references, strict=True):
        whole, start = reply_token_ids(loaded.tokenizer, prompt, reference), prompt_token_ids(loaded.tokenizer, prompt)
        reply = whole[: loaded.max_tokens - 1]
        pairs.append((start[-(loaded.max_tokens - len(reply)) :], reply))
        is_cut.append(len(start) + len(whole) > loaded.max_tokens)
    likelihoods: dict[int, Likelihood] = {}
    for batch in _batches_by_length([len(prompt) + len(reply) for prompt, reply in pairs], batch_size):
        likelihoods.update(zip(batch, _likelihood_batch(loaded, [pairs[index] for index in batch]), strict=True))
        if on_progress:
            on_progress(len(likelihoods), len(pairs))
    return [replace(likelihoods[index], cut=is_cut[index]) for index in range(len(pairs))]


def continuation_likelihoods(
    loaded: LoadedModel, prompt: Messages, prefix: str, continuations: Sequence[str], *, batch_size: int
) -> list[Likelihood]:
    """The likelihood of each of several continuations of one prompt and one beginning of the reply, in order.

    Their shared tokens are computed once, so that many short continuations cost little more than one; for every continuation
    where a layer keeps a state that cannot be shared. A beginning that leaves no room for the longest continuation loses its
    start.
    """
    endings = [_plain_token_ids(loaded, continuation) for continuation in continuations]
    longest = max(map(len, endings), default=0)
    if longest == 0:
        return [Likelihood(0.0, 0) for _ in endings]
    start = prompt_token_ids(loaded.tokenizer, prompt) + _plain_token_ids(loaded, prefix)
    start = start[-max(1, loaded.max_tokens - longest) :]
    device, likelihoods = loaded.model.device, []
    with torch.inference_mode():
        shared = loaded.model(input_ids=torch.tensor([start], device=device), use_cache=True, logits_to_keep=1)
        cache: Any = getattr(shared, "past_key_values", None)
        for first in range(0, len(endings), batch_size):
            batch = endings[first : first + batch_size]
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch], device=device)
            if _can_split(cache):
                own = copy.deepcopy(cache)
                own.batch_repeat_interleave(len(batch))
                logits = loaded.model(input_ids=ids, past_key_values=own, use_cache=True).logits[:, :-1]
                logits = torch.cat([shared.logits.expand(len(batch), 1, -1), logits], dim=1)
            else:  # padded on the right, which no earlier position sees
                whole = torch.cat([torch.tensor([start], device=device).expand(len(batch), -1), ids], dim=1)
                logits = loaded.model(input_ids=whole, use_cache=False).logits[:, -longest - 1 : -1]
            losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), ids, reduction="none").cpu().double()
            likelihoods += [
                Likelihood(float(loss[: len(row)].sum()), len(row)) for loss, row in zip(losses, batch, strict=True)
            ]
    return likelihoods


def _can_split(cache: Any) -> bool:
    """Whether rows of a cache can be repeated and chosen: it holds keys and values alone, no state of a layer."""
    return hasattr(cache, "layers") and all(
        hasattr(layer, "batch_select_indices") and not isinstance(layer, LinearAttentionCacheLayerMixin)
        for layer in cache.layers
    )


def _prompt_ids(loaded: LoadedModel, prompts: Sequence[Messages], prefixes: Sequence[str] | None) -> list[list[int]]:
    """The tokens of each prompt and of the beginning of its reply."""
    starts = prefixes if prefixes is not None else [""] * len(prompts)
    return [
        prompt_token_ids(loaded.tokenizer, prompt) + _plain_token_ids(loaded, start)
        for prompt, start in zip(prompts, starts, strict=True)
    ]


def _cut_to_context(loaded: LoadedModel, token_ids: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """The prompts without what leaves no room for a reply in the context, cut at their start."""
    limit = reply_limit(loaded, max_new_tokens)
    room = loaded.max_tokens - limit
    if limit < max_new_tokens:
        logger.warning(
            "generation: replies end after %d tokens, half the context, not after %d, which would leave prompts too little",
            limit,
            max_new_tokens,
        )
    num_cut = sum(len(ids) > room for ids in token_ids)
    if num_cut:
        logger.warning(
            "generation: %d prompts exceed the %d tokens that replies leave them and lose their start", num_cut, room
        )
    return [ids[-max(1, room) :] for ids in token_ids]


def _plain_token_ids(loaded: LoadedModel, text: str) -> list[int]:
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids


def _batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that running out of memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def greedy_settings(loaded: LoadedModel, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding, without the options of the model's own generation_config.json."""
    ends = set(stop_token_ids(loaded.tokenizer, None))
    for source in (loaded.model.generation_config, loaded.model.config):
        ids = getattr(source, "eos_token_id", None)
        ends.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )


def _groups(loaded: LoadedModel, rows: Sequence[list[int]]) -> list[list[int]]:
    """The places of the rows that are computed together: all, or one at a time where a batch would change the results."""
    places = list(range(len(rows)))
    return [places] if len(rows) == 1 or _can_batch(loaded) else [[place] for place in places]


def _can_batch(loaded: LoadedModel) -> bool:
    """Whether a model continues a padded row of a batch as it does the row alone.

    A layer that keeps a state may take padding for text, or mix up the rows (RWKV does both), so it is tried, once.
    """
    model = loaded.model
    if not keeps_state(model):
        return True
    if model not in _batching:
        row = list(range(1, 7))
        settings = greedy_settings(loaded, 3)
        settings.min_new_tokens = 3
        logits = []
        for rows in ([row], [row, row * 2, [*reversed(row)]]):
            ids, mask = _left_padded(loaded, rows)
            options = {"generation_config": settings, "return_dict_in_generate": True, "output_logits": True}
            with torch.inference_mode():
                steps = model.generate(input_ids=ids, attention_mask=mask, **options).logits
            logits.append(torch.stack([step[0].float() for step in steps]))
        spread = float(logits[0].max() - logits[0].min())
        tolerance = max(_BATCH_TOLERANCE, 4 * torch.finfo(model.dtype).eps)
        _batching[model] = float((logits[0] - logits[1]).abs().max()) <= tolerance * spread
    return _batching[model]


def _left_padded(loaded: LoadedModel, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both of shape ``(batch_size, seq_len)``, on the model's device."""
    width = max(len(row) for row in rows)
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids.to(loaded.model.device), mask.to(loaded.model.device)


def _generate_batch(loaded: LoadedModel, rows: Sequence[list[int]], settings: GenerationConfig) -> list[Reply]:
    started = time.perf_counter()
    ends = set(settings.eos_token_id or ())
    replies = []
    generated: list[list[int]] = [[] for _ in rows]
    for group in _groups(loaded, rows):
        for place, tokens in zip(group, _continue_rows(loaded, [rows[place] for place in group], settings), strict=True):
            generated[place] = tokens
    seconds = (time.perf_counter() - started) / len(rows)
    for row, tokens in zip(rows, generated, strict=True):
        completed = bool(tokens) and tokens[-1] in ends
        replies.append(
            Reply(
                text=loaded.tokenizer.decode(tokens[:-1] if completed else tokens, skip_special_tokens=True).strip(),
                num_prompt_tokens=len(row),
                num_new_tokens=len(tokens),
                seconds=seconds,
                completed=completed,
            )
        )
    return replies


class _HalfEnded(StoppingCriteria):  # type: ignore[misc]
    """Stops a batch when at most half of its rows are unfinished, so that they can continue without the others."""

    def __init__(self, ends: Sequence[int], num_rows: int, device: Any) -> None:
        self._ends = torch.tensor(ends, device=device)
        self._ended = torch.zeros(num_rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._ended |= torch.isin(input_ids[:, -1], self._ends)
        return torch.full_like(self._ended, bool(self._ended.sum() * 2 >= len(self._ended)))


def _continue_rows(loaded: LoadedModel, rows: Sequence[list[int]], settings: GenerationConfig) -> list[list[int]]:
    """The tokens that follow each row, with the end token where there is one.

    ``generate`` computes every row until the last has ended. Here it stops whenever half of the rows have ended, and is
    called again for the rest with their part of the cache. With a cache that cannot be split, one call runs to the end.
    """
    ids, mask = _left_padded(loaded, rows)
    width, ends = ids.shape[1], settings.eos_token_id or []
    alive, cache = list(range(len(rows))), None
    finished: list[list[int]] = [[] for _ in rows]
    room = settings.max_new_tokens
    may_stop = bool(ends)
    while alive:
        options = {} if cache is None else {"past_key_values": cache}
        if may_stop and len(alive) >= _MIN_ROWS_TO_SPLIT:
            options["stopping_criteria"] = StoppingCriteriaList([_HalfEnded(ends, len(alive), ids.device)])
        part = copy.copy(settings)
        part.max_new_tokens = room - (ids.shape[1] - width)
        with torch.inference_mode():
            output = loaded.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=part, return_dict_in_generate=True, **options
            )
        unfinished = []
        for place, tokens in enumerate(output.sequences[:, width:].tolist()):
            end = next((position for position, token in enumerate(tokens) if token in ends), None)
            finished[alive[place]] = tokens if end is None else tokens[: end + 1]
            if end is None and len(tokens) < room:
                unfinished.append(place)
        if not unfinished:
            break
        cache = getattr(output, "past_key_values", None)
        chosen = torch.tensor(unfinished, device=ids.device)
        num_new = output.sequences.shape[1] - ids.shape[1]
        mask = torch.cat([mask, mask.new_ones(len(mask), num_new)], dim=1)[chosen]
        ids, alive = output.sequences[chosen], [alive[place] for place in unfinished]
        if cache is not None and _can_split(cache):
            cache.batch_select_indices(chosen)
        else:
            cache, may_stop = None, False
    return finished


def _likelihood_batch(loaded: LoadedModel, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood]:
    likelihoods = [Likelihood(0.0, 0)] * len(pairs)
    for group in _groups(loaded, [prompt + reply for prompt, reply in pairs]):
        for place, likelihood in zip(group, _likelihoods_together(loaded, [pairs[place] for place in group]), strict=True):
            likelihoods[place] = likelihood
    return likelihoods


def _likelihoods_together(loaded: LoadedModel, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood]:
    ids, mask = _left_padded(loaded, [prompt + reply for prompt, reply in pairs])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    longest = max(len(reply) for _, reply in pairs)
    if longest == 0:
        return [Likelihood(0.0, 0) for _ in pairs]
    # Left-padded replies end together, so only the last positions pass through the head.
    is_reply = torch.tensor(
        [[False] * (longest - len(reply)) + [True] * len(reply) for _, reply in pairs], device=ids.device
    )
    with torch.inference_mode():
        output = loaded.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=longest + 1
        )
        # (num_reply_tokens, vocabulary); some models compute every position.
        logits = output.logits[:, -longest - 1 : -1][is_reply]
        losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, -longest:][is_reply], reduction="none")
    sums = [float(part.double().sum()) for part in losses.cpu().split([len(reply) for _, reply in pairs])]
    return [Likelihood(nll, len(reply)) for nll, (_, reply) in zip(sums, pairs, strict=True)]
