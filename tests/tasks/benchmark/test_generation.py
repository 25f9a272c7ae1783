"""A tiny real model answers: batches, truncation and adapters change what they should and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tasks.benchmark.config import BenchmarkConfig
from tasks.benchmark.scoring import aggregate, answer_rows, score_answers
from tasks.benchmark.task import score_model
from tasks.contracts.evaluation import BenchmarkReport
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.registry import Champion, RegisteredVersion
from tasks.contracts.training import BaseLanguageModel
from tasks.core.cache_key import content_of
from tasks.core.errors import InputError, TrainingError
from tasks.core.rows import prompt_messages, reply
from tasks.core.storage import Store, open_store, run_store
from tasks.modeling.conversations import prompt_token_ids
from tasks.modeling.generation import (
    LoadedModel,
    continuation_likelihoods,
    generate_replies,
    load_model,
    prompt_batches,
    reply_likelihoods,
    reply_limit,
)
from tasks.modeling.loading import load_base, load_with_adapter
from tasks.promotion import PromotionConfig, decide_promotion
from tests.support.tiny_model import desk_pair, desk_row

ROWS = [desk_row(number) for number in range(12)]
PROMPTS = [prompt_messages(row) for row in ROWS]
REFERENCES = [reply(row) for row in ROWS]


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> LoadedModel:
    """In float32 wherever the tests run: bfloat16, which some CPUs would choose, rounds too much to compare closely."""
    return replace(load_model(tiny_model_dir, None), model=load_base(tiny_model_dir, dtype=torch.float32))


def test_replies_do_not_depend_on_batch_size_or_order(tiny: LoadedModel) -> None:
    one_by_one = generate_replies(tiny, PROMPTS, max_new_tokens=24, batch_size=1)
    together = generate_replies(tiny, PROMPTS, max_new_tokens=24, batch_size=5)
    reversed_order = generate_replies(tiny, PROMPTS[::-1], max_new_tokens=24, batch_size=5)[::-1]
    assert [reply.text for reply in one_by_one] == [reply.text for reply in together] == [r.text for r in reversed_order]
    assert [reply.num_new_tokens for reply in one_by_one] == [reply.num_new_tokens for reply in together]
    assert len({reply.text for reply in one_by_one}) > 1


def test_a_reply_ends_by_itself_or_at_the_limit(tiny: LoadedModel) -> None:
    cut = generate_replies(tiny, PROMPTS, max_new_tokens=3, batch_size=4)
    assert {(reply.completed, reply.num_new_tokens) for reply in cut} == {(False, 3)}
    whole = generate_replies(tiny, PROMPTS, max_new_tokens=60, batch_size=4)
    assert any(reply.completed and reply.num_new_tokens < 60 for reply in whole)
    assert not any("<|im_end|>" in reply.text for reply in whole)


def test_rows_that_ended_are_not_computed_along(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_per_pass, forward = [], tiny.model.forward
    one_by_one = generate_replies(tiny, PROMPTS, max_new_tokens=60, batch_size=1)

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows_per_pass.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny.model, "forward", counted)
    together = generate_replies(tiny, PROMPTS, max_new_tokens=60, batch_size=12)
    assert [(reply.text, reply.num_new_tokens) for reply in together] == [
        (reply.text, reply.num_new_tokens) for reply in one_by_one
    ]
    assert len({reply.num_new_tokens for reply in together}) > 1
    longest = max(reply.num_new_tokens for reply in together)
    assert sum(rows_per_pass) < 12 * longest  # what a batch costs that is kept whole to its last reply
    assert len(rows_per_pass) <= longest + 1  # and nothing is read twice: one pass a token, one to warm up


def test_sampling_settings_of_the_model_do_not_leak_in(tiny: LoadedModel) -> None:
    tiny.model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0)
    replies = generate_replies(tiny, PROMPTS, max_new_tokens=16, batch_size=4)
    assert replies[0].text == generate_replies(tiny, PROMPTS[:1], max_new_tokens=16, batch_size=1)[0].text


def test_likelihoods_agree_with_a_plain_forward_pass(tiny: LoadedModel) -> None:
    batched = reply_likelihoods(tiny, PROMPTS, REFERENCES, batch_size=5)
    for prompt, reference, likelihood in zip(PROMPTS, REFERENCES, batched, strict=True):
        start = prompt_token_ids(tiny.tokenizer, prompt)
        end = tiny.tokenizer(reference, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = tiny.model(torch.tensor([start + end])).logits[0, len(start) - 1 : -1]
        expected = -logits.log_softmax(-1)[range(len(end)), end].sum().item()
        assert likelihood.nll == pytest.approx(expected, rel=1e-4)
        assert likelihood.num_tokens == len(end)


def test_an_empty_reference_has_no_likelihood(tiny: LoadedModel) -> None:
    for references in ([""], ["", REFERENCES[0]]):
        likelihood = reply_likelihoods(tiny, PROMPTS[: len(references)], references, batch_size=2)[0]
        assert (likelihood.nll, likelihood.num_tokens) == (0.0, 0)


def test_a_reply_goes_on_from_its_prefix(tiny: LoadedModel) -> None:
    whole = generate_replies(tiny, PROMPTS[:3], max_new_tokens=24, batch_size=3)
    prefixes = [answer.text.split()[0] for answer in whole]
    rest = generate_replies(tiny, PROMPTS[:3], max_new_tokens=24, batch_size=2, prefixes=prefixes)
    for answer, prefix, continued in zip(whole, prefixes, rest, strict=True):
        assert f"{prefix} {continued.text}"[:20] == answer.text[:20]


def test_continuations_weigh_what_they_weigh_alone(tiny: LoadedModel) -> None:
    continuations = ["restart it", "reset the password now", "", "the amount"]
    together = continuation_likelihoods(tiny, PROMPTS[0], "Please ", continuations, batch_size=3)
    start = prompt_token_ids(tiny.tokenizer, PROMPTS[0]) + tiny.tokenizer("Please ", add_special_tokens=False)["input_ids"]
    for continuation, likelihood in zip(continuations, together, strict=True):
        end = tiny.tokenizer(continuation, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = tiny.model(torch.tensor([start + end])).logits[0, len(start) - 1 : -1]
        expected = -logits.log_softmax(-1)[range(len(end)), end].sum().item()
        assert likelihood.nll == pytest.approx(expected, rel=1e-4)
        assert likelihood.num_tokens == len(end)


def test_a_prompt_longer_than_the_context_loses_its_start(tiny: LoadedModel) -> None:
    long = [{"role": "user", "content": "the printer is broken " * 400}]
    [answer] = generate_replies(tiny, [long], max_new_tokens=4, batch_size=1)
    assert answer.num_prompt_tokens == tiny.max_tokens - 4
    assert answer.prompt_cut
    [likelihood] = reply_likelihoods(tiny, [long], ["Please restart it"], batch_size=1)
    assert likelihood.cut
    assert math.isfinite(likelihood.nll)
    assert likelihood.num_tokens > 0


@pytest.mark.parametrize("excess", [0, 1, 1_000_000])
def test_a_limit_beyond_the_context_leaves_half_of_it_to_prompts(tiny: LoadedModel, excess: int) -> None:
    short = replace(tiny, max_tokens=64)
    limit = 64 + excess
    assert reply_limit(short, limit) == 32
    [answer] = generate_replies(short, PROMPTS[:1], max_new_tokens=limit, batch_size=1)
    [whole] = generate_replies(tiny, PROMPTS[:1], max_new_tokens=32, batch_size=1)
    assert (answer.text, answer.num_prompt_tokens, answer.prompt_cut) == (whole.text, whole.num_prompt_tokens, False)
    assert [
        len(row) for batch in prompt_batches(short, PROMPTS[:1], max_new_tokens=limit, batch_size=1) for row in batch
    ] == [whole.num_prompt_tokens]


def test_cut_prompts_and_a_lower_limit_are_counted_in_the_scores(tiny: LoadedModel) -> None:
    long = {**ROWS[0], "id": "row-long", "messages": [{"role": "user", "content": "broken " * 90}, ROWS[0]["messages"][1]]}
    rows = [*ROWS[:3], long]
    config = BenchmarkConfig(max_new_tokens=8192, batch_size=4, num_resamples=100)
    answers, timings = answer_rows(rows, replace(tiny, max_tokens=96), config)
    table = score_answers(rows, answers.to_pylist(), config)
    assert table["prompt_cut"].to_pylist() == [0.0, 0.0, 0.0, 1.0]
    scores = {score.name: score for score in aggregate(table, timings, [reply(row) for row in rows], config)}
    assert scores["prompt_cut"].value == 0.25
    assert "after 48 tokens" in scores["completed"].note


def test_an_adapter_is_merged_and_changes_the_model(tiny: LoadedModel, tiny_model_dir: Path, adapter_dir: Path) -> None:
    adapted = load_model(tiny_model_dir, adapter_dir)
    assert not hasattr(adapted.model, "peft_config")
    assert reply_likelihoods(adapted, PROMPTS[:2], REFERENCES[:2], batch_size=2) != reply_likelihoods(
        tiny, PROMPTS[:2], REFERENCES[:2], batch_size=2
    )


def test_a_merged_model_that_differs_from_the_trained_one_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Merging into an embedding moves the output head that is tied to it, which training did not."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=64, target_modules=["embed_tokens"], init_lora_weights=False)
    get_peft_model(load_base(tiny_model_dir), lora).save_pretrained(tmp_path)
    load_with_adapter(tiny_model_dir, tmp_path)
    with pytest.raises(TrainingError, match="next-token probabilities differ by"):
        load_with_adapter(tiny_model_dir, tmp_path, merge=True)


# -------------------------------------------------------------------------------------------------------------- the task


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def base(store: Store, tiny_model_dir: Path) -> BaseLanguageModel:
    return BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)


@pytest.fixture
def adapter(store: Store, adapter_dir: Path) -> FolderRef:
    return store.add_folder(adapter_dir)


@pytest.fixture
def frozen(store: Store) -> DatasetRef:
    return store.write_rows([dict(row) for row in ROWS], kind="messages", passed=["scrubbed"])


CONFIG = BenchmarkConfig(max_new_tokens=24, batch_size=4, num_resamples=100)


def test_a_model_is_scored_and_its_answers_are_kept(base: BaseLanguageModel, adapter: FolderRef, frozen: DatasetRef) -> None:
    scores = score_model.fn("base", base, None, frozen, CONFIG)
    tuned = score_model.fn("candidate", base, adapter, frozen, CONFIG)
    assert scores.model_sha256 != tuned.model_sha256
    assert scores.score("chrf").value > 0.2  # type: ignore[union-attr, operator]
    assert scores.score("nll").value < tuned.score("nll").value  # type: ignore[union-attr, operator]
    table = run_store().read_rows(scores.examples)
    assert [row["id"] for row in table] == sorted(str(row["id"]) for row in ROWS)

    crowned = score_model.fn("champion", base, adapter, frozen, CONFIG)  # the same model in another part
    assert crowned.model_copy(update={"arm": "candidate"}) == tuned  # times included: nothing was generated again
    patterned = score_model.fn("base", base, None, frozen, CONFIG.model_copy(update={"format_pattern": ".*"}))
    assert patterned.score("format_valid").value == 1.0  # type: ignore[union-attr]
    assert patterned.score("latency_seconds") == scores.score("latency_seconds")


def test_answers_of_another_device_are_not_compared(
    base: BaseLanguageModel, frozen: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"max_examples": 4, "retention": False})
    here = score_model.fn("champion", base, None, frozen, config)
    key = content_of(config)
    monkeypatch.setattr("tasks.benchmark.config.answering_device", lambda: "NVIDIA L4")
    assert content_of(config) != key, "the stage runs there"
    there = score_model.fn("champion", base, None, frozen, config)
    assert there.score("latency_seconds") != here.score("latency_seconds"), "and the model answers anew"
    assert there.examples == here.examples, "with the same table on the same processor, whatever its name and its clock"
    assert there.score("chrf") == here.score("chrf")


def test_general_questions_are_weighed_anew_on_another_device(
    base: BaseLanguageModel, frozen: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.benchmark import retention

    weighed: list[int] = []
    real = retention.score_retention
    monkeypatch.setattr(retention, "score_retention", lambda *args, **kwargs: weighed.append(1) or real(*args, **kwargs))
    config = CONFIG.model_copy(update={"max_examples": 4, "retention": True})
    for device in ("one", "one", "another"):
        monkeypatch.setattr("tasks.benchmark.config.answering_device", lambda device=device: device)
        score_model.fn("base", base, None, frozen, config)
    assert weighed == [1, 1]


def test_lost_answers_are_generated_again(base: BaseLanguageModel, frozen: DatasetRef, store: Store) -> None:
    config = CONFIG.model_copy(update={"max_examples": 4})
    scores = score_model.fn("base", base, None, frozen, config)
    answers = store.find_dataset(store.read_table(scores.examples, columns=[]) and scores.examples.parents[1])
    assert answers is not None
    Path(store.uri_of(answers).removeprefix("file://")).unlink()
    again = score_model.fn("base", base, None, frozen, config)
    assert again.score("chrf") == scores.score("chrf")


def test_preference_pairs_are_scored_on_their_chosen_reply(base: BaseLanguageModel, store: Store) -> None:
    pairs = store.write_rows([dict(desk_pair(number)) for number in range(4)], kind="preferences", passed=["scrubbed"])
    assert score_model.fn("base", base, None, pairs, CONFIG).score("chrf").num_samples == 4  # type: ignore[union-attr]


def test_no_examples_are_an_error_and_not_a_score(base: BaseLanguageModel, store: Store) -> None:
    with pytest.raises(InputError, match="no rows"):
        score_model.fn("base", base, None, store.write_rows([], kind="messages"), CONFIG)


def test_no_clock_has_a_part_in_scores_or_decision(
    tmp_path: Path, tiny_model_dir: Path, adapter_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same models and rows on machines of any speed: equal tables, and one decision."""
    config = CONFIG.model_copy(update={"price_per_device_hour": {"cpu": 1.0}, "max_examples": 10})
    gate = PromotionConfig(min_examples=10, num_resamples=1000)
    generator = np.random.default_rng(5)
    tables, decisions, latencies = set(), [], set()
    for number in range(3):
        now = [0.0]

        def tick(now: list[float] = now) -> float:
            now[0] += float(generator.lognormal(0, 3))
            return now[0]

        monkeypatch.setattr("tasks.modeling.generation.time.perf_counter", tick)
        store = open_store(tmp_path / f"store-{number}")
        base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="mit", num_parameters=1)
        adapter = store.add_folder(adapter_dir)
        frozen = store.write_rows([dict(row) for row in ROWS], kind="messages", passed=["scrubbed"])
        champion = Champion(
            version=RegisteredVersion(name="desk", version="4", run_id="r", source_uri="s"), base=base, adapter=adapter
        )
        arms = (("base", None), ("candidate", adapter), ("champion", None))
        scored = tuple(score_model.fn(name, base, one, frozen, config) for name, one in arms)
        tables.add(tuple(ref.sha256 for arm in scored for ref in (arm.examples, arm.slices, arm.general) if ref))
        latencies.add(scored[0].score("latency_p95_seconds").value)  # type: ignore[union-attr]
        decisions.append(decide_promotion.fn(BenchmarkReport(dataset=frozen, arms=scored), gate, champion))
    assert len(latencies) == 3, "the clocks did differ"
    assert len(tables) == 1
    assert decisions[1:] == decisions[:-1]
