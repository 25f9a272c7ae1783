"""The trainer process, run in this one: it learns, keeps the best, resumes exactly, refuses and reports."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention

from tasks.contracts.training import StartingPoint
from tasks.core.storage import Store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import resolve
from tasks.training.config import BudgetConfig, DpoConfig, KtoConfig, LoraSettings
from tasks.training.launch.protocol import DpoMethod, KtoMethod, SftMethod, TrainerReport, TrainerSpec
from tasks.training.plan.planning import PACKED_ATTENTION
from tests.support.tiny_model import desk_row
from tests.tasks.training.conftest import by_rewards, quick_sft

RunWorker = Callable[[TrainerSpec], TrainerReport]


def figures(report: TrainerReport) -> dict[str, float | None]:
    return {item.name: item.value for item in report.measurements}


def adapter_sha(spec: TrainerSpec, store: Store) -> str:
    return store.add_folder(Path(spec.work_dir) / "adapter").sha256


def test_it_learns_the_style_and_leaves_a_clean_adapter(desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    spec = desk.spec(tmp_path)
    report = run_worker(spec)
    measured = figures(report)
    assert report.outcome == "done"
    assert measured["eval_loss_after"] < 0.7 * measured["eval_loss_before"]  # type: ignore[operator]
    assert report.plan is not None
    assert report.num_steps == report.plan.num_steps == 12
    assert report.num_tokens == 2 * report.plan.num_tokens
    assert report.plan.estimated_seconds > 0
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json", "training.json"}
    manifest = json.loads((tmp_path / "adapter" / "training.json").read_text())
    assert manifest["base_model"]["sha256"] == desk.base.folder.sha256
    assert manifest["train_sha256"] == desk.train.sha256
    assert manifest["license"] == "apache-2.0"
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "adapter").glob("*.json"))


def test_the_trained_tokens_are_counted_exactly(desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    from tasks.modeling.loading import load_tokenizer

    report = run_worker(desk.spec(tmp_path, plan_only=True))
    tokenizer = load_tokenizer(desk.store.fetch_folder(desk.base.folder))
    replies = [row["messages"][-1]["content"] for row in desk.store.read_rows(desk.train)]
    assert report.plan is not None
    assert report.plan.num_trained_tokens == sum(len(tokenizer(text)["input_ids"]) + 1 for text in replies)


def test_the_same_training_gives_the_same_adapter_and_another_seed_does_not(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    shas = []
    for number, seed in enumerate((1, 1, 2)):
        spec = desk.spec(tmp_path / str(number), quick(seed=seed, max_steps=3))
        run_worker(spec)
        shas.append(adapter_sha(spec, desk.store))
    assert shas[0] == shas[1] != shas[2]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resuming_a_torn_training_gives_the_bits_of_an_unbroken_one(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod], dropout: float
) -> None:
    method = quick(lora=LoraSettings(r=4, lora_dropout=dropout), save_interval_seconds=0)
    whole = desk.spec(tmp_path / "whole", method)
    expected = run_worker(whole)
    # What a kill in the middle leaves: an older complete checkpoint, a torn newer one, a best adapter of later than both.
    broken = desk.spec(tmp_path / "broken", method)
    run_worker(broken)
    checkpoints = tmp_path / "broken" / "checkpoints"
    assert {path.name for path in checkpoints.glob("checkpoint-*")} == {"checkpoint-11", "checkpoint-12"}
    (checkpoints / "checkpoint-12" / "optimizer.pt").write_bytes(b"torn")
    shutil.rmtree(tmp_path / "broken" / "adapter")
    report = run_worker(broken)
    assert adapter_sha(broken, desk.store) == adapter_sha(whole, desk.store)
    assert report.measurements == expected.measurements
    assert report.num_tokens == expected.num_tokens
    assert "96 rows, 2 epochs: no row was skipped or repeated in an epoch" in report.notes


def test_running_out_of_memory_on_the_longest_rows_leaves_a_plan_to_fall_back_from(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training.launch.work_folder import read_plan
    from tasks.training.plan.planning import next_oom_fallback

    compute_loss, tried = trl.SFTTrainer.compute_loss, []

    def run_out(trainer: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        tried.append(len(inputs["input_ids"]))
        if tried[-1] == 16:
            raise torch.OutOfMemoryError
        return compute_loss(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", run_out)
    # So little memory that the longest rows are tried.
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=16 * 10**9, available=1_200_000_000))
    spec = desk.spec(tmp_path, quick(max_steps=1))
    assert run_worker(spec).outcome == "out_of_memory"
    plan = read_plan(tmp_path)
    assert plan is not None
    lower = next_oom_fallback(plan, allow_shorter_length=False)
    assert lower is not None
    report = run_worker(spec.model_copy(update={"plan": lower[0]}))
    assert report.outcome == "done"
    assert report.plan is not None
    assert report.plan.estimated_seconds > 0
    assert tried[:2] == [16, 8], "the longest rows, a whole micro-batch of them"


def test_every_batch_of_the_reference_is_reported(
    desk: Any, run_worker: RunWorker, tmp_path: Path, sft_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.training.trainer.callbacks.ALIVE_INTERVAL_SECONDS", 0.0)
    config = DpoConfig(max_steps=1, num_threads=1, device="cpu", per_device_train_batch_size=4)
    run_worker(desk.spec(tmp_path, DpoMethod(config=config, adapter=sft_adapter)))
    events = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    kinds = [event["kind"] if event["kind"] == "alive" else event["phase"] for event in events]
    reference, before = kinds.index("compute the reference"), kinds.index("measure before")
    assert kinds[reference:before].count("alive") >= 4 + 6, "16 pairs to train on and 24 to validate on"
    assert kinds[before : kinds.index("train")].count("alive") >= 6


def test_a_version_is_trained_further_and_a_resume_ends_in_the_same_adapter(
    desk: Any, run_worker: RunWorker, tmp_path: Path, sft_adapter: Any
) -> None:
    start = StartingPoint(version="1", adapter=sft_adapter)
    method = SftMethod(config=quick_sft(max_steps=4, save_interval_seconds=0), start=start)
    spec = desk.spec(tmp_path / "further", method)
    measured = figures(run_worker(spec))
    first = figures(run_worker(desk.spec(tmp_path / "first", SftMethod(config=quick_sft(max_steps=4)))))
    assert measured["eval_loss_before"] == pytest.approx(first["eval_loss_after"], rel=1e-4)
    assert measured["eval_loss_after"] < measured["eval_loss_before"]  # type: ignore[operator]
    manifest = json.loads((tmp_path / "further" / "adapter" / "training.json").read_text())
    assert manifest["continues_adapter_sha256"] == sft_adapter.sha256

    shutil.copytree(tmp_path / "further", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "adapter")
    for checkpoint in sorted((tmp_path / "again" / "checkpoints").glob("checkpoint-*"))[2:]:
        shutil.rmtree(checkpoint)
    run_worker(desk.spec(tmp_path / "again", method))
    weights = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("further", "again")]
    assert weights[0] == weights[1]


def test_a_smaller_micro_batch_learns_the_same(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    losses = []
    for size in (16, 4):
        report = run_worker(desk.spec(tmp_path / str(size), quick(per_device_train_batch_size=size)))
        assert report.plan is not None
        assert report.plan.accumulation_steps == 16 // size
        losses.append(figures(report)["eval_loss_after"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(("max_steps", "num_rows"), [(2, 32), (6, 96), (9, 96)])
def test_the_report_counts_the_rows_of_the_ledger(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod], max_steps: int, num_rows: int
) -> None:
    report = run_worker(desk.spec(tmp_path, quick(max_steps=max_steps)))
    lines = [json.loads(line) for line in (tmp_path / "rows-0.jsonl").read_text().splitlines()]
    assert len({row for line in lines for rows in line["rows"] for row in rows}) == num_rows
    assert report.num_trained_rows == num_rows


def test_the_best_adapter_is_kept_and_patience_ends_training(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    # Rows without the closing formula: the better it is learned, the worse they fare.
    other = desk.rows([desk_row(number) for number in range(6000, 6024)])
    report = run_worker(desk.spec(tmp_path, quick(num_train_epochs=8, early_stopping_patience=2), validation=other))
    losses = [
        event["eval_loss"]
        for event in map(json.loads, (tmp_path / "progress.jsonl").read_text().splitlines())
        if event["kind"] == "evaluation" and event.get("step", 0) > 0
    ]
    assert report.plan is not None
    assert report.num_steps < report.plan.num_steps
    assert figures(report)["eval_loss_after"] == min(losses)
    assert losses.index(min(losses)) == len(losses) - 3


def test_preferences_are_learned_on_held_out_pairs(desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    sft = desk.spec(tmp_path / "sft")
    run_worker(sft)
    adapter = desk.store.add_folder(tmp_path / "sft" / "adapter")
    config = DpoConfig(learning_rate=1e-2, num_train_epochs=4, num_threads=1, device="cpu")
    spec = desk.spec(tmp_path / "dpo", DpoMethod(config=config, adapter=adapter))
    report = run_worker(spec)
    measured = figures(report)
    assert measured["preference_rate_before"] < 0.5  # type: ignore[operator]
    assert measured["preference_rate_after"] > 0.9  # type: ignore[operator]
    assert measured["reward_accuracy_after"] > 0.9  # type: ignore[operator]
    assert measured["eval_loss_before"] == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy is the reference
    files = {path.name for path in (tmp_path / "dpo" / "adapter").iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json", "training.json"}
    manifest = json.loads((tmp_path / "dpo" / "adapter" / "training.json").read_text())
    assert manifest["continues_adapter_sha256"] == adapter.sha256
    again = desk.spec(tmp_path / "again", spec.method)
    shutil.copytree(tmp_path / "dpo", tmp_path / "again", dirs_exist_ok=True)
    shutil.rmtree(max((tmp_path / "again" / "checkpoints").glob("checkpoint-*"), key=lambda path: path.name))
    run_worker(again)
    assert adapter_sha(again, desk.store) == adapter_sha(spec, desk.store)


@pytest.mark.parametrize("loss", ["ipo", "hinge", "apo_zero", ("sigmoid", "sft")])
def test_other_preference_losses_train(
    desk: Any, run_worker: RunWorker, tmp_path: Path, sft_adapter: Any, loss: Any
) -> None:
    config = DpoConfig(loss_type=loss, max_steps=2, num_threads=1, device="cpu")
    report = run_worker(desk.spec(tmp_path, DpoMethod(config=config, adapter=sft_adapter)))
    assert report.outcome == "done"


def test_single_replies_teach_a_preference_and_a_torn_training_ends_in_the_same_bits(
    desk: Any, run_worker: RunWorker, tmp_path: Path
) -> None:
    run_worker(desk.spec(tmp_path / "sft"))
    adapter = desk.store.add_folder(tmp_path / "sft" / "adapter")
    settings = {"learning_rate": 1e-2, "num_train_epochs": 4, "per_device_train_batch_size": 8, "num_threads": 1}
    config = KtoConfig(**settings, save_interval_seconds=0, early_stopping_patience=0, device="cpu")
    spec = desk.spec(tmp_path / "kto", KtoMethod(config=config, adapter=adapter))
    report = run_worker(spec)
    measured = figures(report)
    assert measured["preference_rate_before"] < 0.5  # type: ignore[operator]
    assert measured["preference_rate_after"] > 0.9  # type: ignore[operator]
    assert measured["eval_loss_before"] == pytest.approx(0.5, abs=1e-6)  # nothing gained, nothing lost: sigmoid(0)
    assert measured["eval_loss_after"] < 0.4  # type: ignore[operator]
    assert {item.name: item.num_samples for item in report.measurements} == {
        "eval_loss_before": 48,
        "eval_loss_after": 48,
        "preference_rate_base": 24,
        "preference_rate_before": 24,
        "preference_rate_after": 24,
        "preference_rate_gain": 24,
        "reward_accuracy_after": 24,
        "reward_margin_after": 24,
    }
    assert report.plan is not None
    assert (report.plan.num_rows, report.num_steps) == (96, 24)
    assert report.num_tokens == 4 * report.plan.num_tokens
    assert "96 rows, 4 epochs: no row was skipped or repeated in an epoch" in report.notes
    assert report.num_trained_rows == 96
    manifest = json.loads((tmp_path / "kto" / "adapter" / "training.json").read_text())
    assert (manifest["method"], manifest["continues_adapter_sha256"]) == ("kto", adapter.sha256)

    again = desk.spec(tmp_path / "again", spec.method)
    shutil.copytree(tmp_path / "kto", tmp_path / "again", dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "checkpoint-24")
    shutil.rmtree(tmp_path / "again" / "adapter")
    assert run_worker(again).measurements == report.measurements
    assert adapter_sha(again, desk.store) == adapter_sha(spec, desk.store)


def test_replies_are_put_to_other_prompts_of_their_micro_batch(
    desk: Any, run_worker: RunWorker, tmp_path: Path, sft_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[dict[str, Any]] = []
    compute_loss = trl.KTOTrainer.compute_loss

    def watch(trainer: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        batches.append(inputs)
        return compute_loss(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trl.KTOTrainer, "compute_loss", watch)
    settings = {"max_steps": 1, "per_device_train_batch_size": 8, "num_threads": 1, "device": "cpu"}
    for loss in ("kto", "apo_zero_unpaired"):
        config = KtoConfig(**settings, loss_type=loss)  # type: ignore[arg-type]
        run_worker(desk.spec(tmp_path / loss, KtoMethod(config=config, adapter=sft_adapter), validation=None))
    with_term, without = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    assert not any("KL_input_ids" in batch for batch in without)
    for batch in with_term[-2:]:  # before them, a step was timed
        prompts, replies, others = (
            [tuple(ids[mask.bool() & there.bool()].tolist()) for ids, mask, there in zip(*parts, strict=True)]
            for parts in (
                (batch["input_ids"], 1 - batch["completion_mask"], batch["attention_mask"]),
                (batch["input_ids"], batch["completion_mask"], batch["attention_mask"]),
                (batch["KL_input_ids"], batch["KL_completion_mask"], batch["KL_attention_mask"]),
            )
        )
        assert len(prompts) == 8
        for prompt, other in zip(prompts, others, strict=True):
            # Cut where prompt and reply would be longer than any row.
            assert any(reply[: len(other)] == other for reply, own in zip(replies, prompts, strict=True) if own != prompt)


def test_what_a_rule_rewards_becomes_likelier_and_a_torn_training_goes_on(
    desk: Any, run_worker: RunWorker, tmp_path: Path, sft_adapter: Any
) -> None:
    spec = desk.spec(tmp_path / "grpo", by_rewards(sft_adapter))
    report = run_worker(spec)
    assert report.outcome == "done"
    measured = figures(report)
    events = [json.loads(line) for line in (tmp_path / "grpo" / "progress.jsonl").read_text().splitlines()]
    rewards = [event["reward"] for event in events if event["kind"] == "step"]
    assert len(rewards) == report.num_steps == 24
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.25
    assert measured["reward_total_after"] > measured["reward_total_before"] + 0.25  # type: ignore[operator]
    assert measured["reward_format_after"] == measured["reward_total_after"]
    assert report.num_tokens > 0
    assert {path.name for path in (tmp_path / "grpo" / "adapter").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "training.json",
    }

    shutil.rmtree(tmp_path / "grpo" / "checkpoints" / "checkpoint-24")
    shutil.rmtree(tmp_path / "grpo" / "adapter")
    again = run_worker(spec)
    events = [json.loads(line) for line in (tmp_path / "grpo" / "progress.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in events if event["kind"] == "step"]
    assert steps == [*range(1, 25), 24], "it resumed from the last checkpoint"
    assert again.outcome == "done"
    assert (tmp_path / "grpo" / "adapter").is_dir()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"label": 1.0}, "training.grpo.label"),
        ({"calls": 1.0}, "training.grpo.calls"),
        ({"effective_batch_size": 1024}, "training.grpo.effective_batch_size"),
    ],
)
def test_rows_that_can_earn_nothing_are_refused(
    desk: Any, run_worker: RunWorker, tmp_path: Path, sft_adapter: Any, changes: dict[str, Any], where: str
) -> None:
    fault = run_worker(desk.spec(tmp_path, by_rewards(sft_adapter, **changes))).fault
    assert fault is not None
    assert (fault.type, fault.where) == ("InputError", where)


def test_full_fine_tuning_gives_a_model_that_loads(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    from tasks.modeling.loading import load_with_adapter

    report = run_worker(desk.spec(tmp_path, quick(lora=None, learning_rate=2e-3)))
    measured = figures(report)
    assert measured["eval_loss_after"] < measured["eval_loss_before"]  # type: ignore[operator]
    assert report.plan is not None
    assert report.plan.num_trainable_parameters == report.plan.num_parameters
    model = load_with_adapter(desk.store.fetch_folder(desk.base.folder), tmp_path / "adapter")
    assert model.num_parameters() == desk.base.num_parameters


def test_packed_rows_train_on_the_same_tokens(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    report = run_worker(desk.spec(tmp_path, quick(packing=True, max_length=256, num_train_epochs=2)))
    measured = figures(report)
    assert report.plan is not None
    assert report.plan.packing
    assert report.plan.micro_batch_size == 1
    assert measured["eval_loss_after"] < measured["eval_loss_before"]  # type: ignore[operator]
    (proof,) = [note for note in report.notes if "no row was skipped" in note]
    assert re.fullmatch(r"96 rows in \d\d sequences, [\d.]+ epochs: no row was skipped or repeated in an epoch", proof)
    steps = [json.loads(line)["rows"] for line in (tmp_path / "rows-0.jsonl").read_text().splitlines()]
    assert max(len(rows) for step in steps for rows in step) > 1


def test_a_shorter_length_half_way_leaves_the_order_of_the_rows(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    from tasks.training.launch.work_folder import read_plan

    rows = {number: desk_row(number, style=" Kind regards, the desk!" * (1 + number % 3)) for number in range(96)}
    train = desk.rows(list(rows.values()))
    method = quick(save_interval_seconds=0, max_length=96, max_truncated_share=1.0, early_stopping_patience=0)
    spec = desk.spec(tmp_path, method, train=train)
    run_worker(spec)
    # As if it had run out of memory in the second epoch: a complete checkpoint, and a plan with a shorter length.
    plan = read_plan(tmp_path)
    assert plan is not None
    assert plan.num_steps == 12
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-12")
    (tmp_path / "rows-0.jsonl").write_text("".join((tmp_path / "rows-0.jsonl").read_text().splitlines(True)[:11]))
    shorter = plan.model_copy(update={"max_length_tokens": 48})
    report = run_worker(spec.model_copy(update={"plan": shorter}))
    assert "96 rows, 2 epochs: no row was skipped or repeated in an epoch" in report.notes


def test_packed_attention_trains_several_sequences_in_one_micro_batch(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with PyTorch's kernel for packed sequences written out."""
    longest = []

    def attend(
        query: Any, key: Any, value: Any, ends: Any, same: Any, longest_query: int, longest_key: int, **how: Any
    ) -> Any:
        assert int(ends[-1]) == len(query)
        longest.append(len(query))
        outputs = []
        for start, end in zip(ends.tolist(), ends.tolist()[1:], strict=False):
            parts = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
            output = scaled_dot_product_attention(*parts, is_causal=True, scale=how["scale"], enable_gqa=True)
            outputs.append(output[0].transpose(0, 1))
        return torch.cat(outputs)

    monkeypatch.setattr(varlen, "varlen_attn", attend)
    settings = {"packing": True, "max_length": 256, "num_train_epochs": 1}
    plain = figures(run_worker(desk.spec(tmp_path / "plain", quick(**settings))))
    report = run_worker(desk.spec(tmp_path / "packed", quick(**settings, attn_implementation=PACKED_ATTENTION)))
    assert report.plan is not None
    assert report.plan.micro_batch_size > 1
    assert max(longest) > 256
    assert figures(report)["eval_loss_before"] == pytest.approx(plain["eval_loss_before"], rel=1e-3)
    assert figures(report)["eval_loss_after"] == pytest.approx(plain["eval_loss_after"], rel=0.1)


def test_rows_longer_than_the_limit_are_refused(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    report = run_worker(desk.spec(tmp_path, quick(max_length=32)))
    assert report.outcome == "refused"
    assert report.fault is not None
    assert report.fault.type == "QualityLimitError"
    assert report.fault.found.startswith("96 of 96 rows")


def test_rows_without_room_for_a_reply_are_one_clear_error(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    report = run_worker(desk.spec(tmp_path, quick(max_length=16, max_truncated_share=1.0)))
    assert report.fault is not None
    assert report.fault.type == "InputError"


STRICT = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_rows_that_the_template_refuses_are_named_and_the_rest_trains(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod], tiny_model_dir: Path
) -> None:
    strict = resolve(BaseModelConfig(source=str(tiny_model_dir), chat_template=STRICT), desk.store)
    user, reply = desk_row(1)["messages"]  # type: ignore[misc]
    rows = [*(desk_row(number) for number in range(40)), {"id": "odd", "messages": [user, user, reply]}]
    spec = desk.spec(tmp_path, quick(max_steps=1)).model_copy(update={"base": strict, "train": desk.rows(rows)})
    report = run_worker(spec)
    assert report.outcome == "done"
    assert "1 rows quarantined (template_refuses): odd" in report.notes
    refused = run_worker(
        spec.model_copy(update={"method": quick(max_refused_share=0.01), "work_dir": str(tmp_path / "other")})
    )
    assert refused.fault is not None
    assert "odd (template_refuses)" in refused.fault.found


def test_a_loss_that_is_not_a_number_is_one_clear_error(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_loss = trl.SFTTrainer.compute_loss

    def diverge(trainer: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(trainer, model, *args, **kwargs)
        return loss * float("nan") if model.training else loss

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", diverge)
    report = run_worker(desk.spec(tmp_path, quick()))
    assert report.fault is not None
    assert "learning_rate" in report.fault.where


def test_an_unexpected_exception_is_reported_without_its_message(
    desk: Any, run_worker: RunWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("the text of a record")

    monkeypatch.setattr(trl.SFTTrainer, "train", fail)
    report = run_worker(desk.spec(tmp_path))
    assert report.outcome == "crashed"
    assert "ValueError" in report.detail
    assert "record" not in report.model_dump_json()


def test_a_setting_that_a_library_refuses_is_refused_with_its_message(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    report = run_worker(desk.spec(tmp_path, quick(optim="no_such_optimizer")))
    assert report.fault is not None
    assert (report.outcome, report.fault.type) == ("refused", "ConfigError")
    assert "no_such_optimizer" in report.fault.found


def test_a_failed_allocation_is_not_a_crash() -> None:
    from tasks.training.trainer.failures import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46, dtype=torch.float32)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_validation_rows_are_optional(
    desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    report = run_worker(desk.spec(tmp_path, quick(max_steps=2), validation=None))
    assert report.outcome == "done"
    assert report.measurements == ()


def test_a_stored_text_never_reaches_progress_or_report(desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    run_worker(desk.spec(tmp_path))
    written = (tmp_path / "progress.jsonl").read_text() + (tmp_path / "report.json").read_text()
    assert desk_row(0)["messages"][1]["content"] not in written  # type: ignore[index]


@pytest.mark.slow
def test_qlora_trains_on_a_cpu(desk: Any, run_worker: RunWorker, tmp_path: Path, quick: Callable[..., SftMethod]) -> None:
    report = run_worker(desk.spec(tmp_path / "sft", quick(quantization="nf4")))
    measured = figures(report)
    assert report.plan is not None
    assert report.plan.quantization == "nf4"
    assert measured["eval_loss_after"] < 0.8 * measured["eval_loss_before"]  # type: ignore[operator]
    adapter = desk.store.add_folder(tmp_path / "sft" / "adapter")
    config = DpoConfig(learning_rate=1e-2, num_train_epochs=2, num_threads=1, device="cpu", quantization="nf4")
    preferred = figures(run_worker(desk.spec(tmp_path / "dpo", DpoMethod(config=config, adapter=adapter))))
    assert preferred["preference_rate_after"] > preferred["preference_rate_before"]  # type: ignore[operator]


def test_a_plan_over_budget_is_refused_before_a_step(desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    budget = BudgetConfig(price_per_device_hour={"cpu": 1000.0}, max_cost=1e-6)
    report = run_worker(desk.spec(tmp_path, budget=budget))
    assert report.outcome == "refused"
    assert report.fault is not None
    assert (report.fault.type, report.fault.where) == ("BudgetError", "training.budget.max_cost")
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "plan.json").exists(), "a later attempt plans anew"
    assert (tmp_path / "refused-plan.json").exists(), "what a person would approve"
