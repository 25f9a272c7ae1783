"""TRL's trainers set up by plan: the model with its adapter, the rendered rows, the arguments. The only importer of TRL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import psutil
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer, pack_dataset
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tasks.contracts import TrainingPlan
from tasks.modeling.generation import LoadedModel, generate_replies
from tasks.modeling.loading import load_base
from tasks.training import kernels
from tasks.training.config import DpoConfig, GrpoConfig, KtoConfig, LoraSettings, SftConfig, TrainerConfig
from tasks.training.forecasting import measure_flops, training_speed
from tasks.training.hardware import find_hardware
from tasks.training.head import score_labels_only
from tasks.training.ledger import RowLedger
from tasks.training.ordering import order_rows, other_rows
from tasks.training.planning import with_time
from tasks.training.preflight import Rows
from tasks.training.rendering import Example, Pair, Prompt, RatedReply, Rendered
from tasks.training.rewards import Reward, mean_rewards
from tasks.training.sharding import check_sharded, loading_options, own_weights

_ROW_NUMBERS = "row_numbers"
_PROBE_TOKENS_ON_CPU = 256
# A plan of less than this share of the free memory is not tried out: the estimate has never been so far off.
_ROOMY_SHARE = 0.5
# Curves of a long run keep about this many points.
_MAX_LOGGED_STEPS = 1000


class _RowOrder(torch.utils.data.Sampler):  # type: ignore[misc]
    """Draws rows in :func:`~tasks.training.ordering.order_rows`'s order for the epoch that the trainer is in."""

    def __init__(self, trainer: Any, dataset: Any) -> None:
        self._trainer = trainer
        self._lengths = dataset["length"] if "length" in dataset.column_names else [1] * len(dataset)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        arguments = self._trainer.args
        batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        # Counted in steps: the trainer's own epoch is a fraction, and one short of its end would repeat the order.
        epoch = self._trainer.state.global_step // max(1, -(-len(self) // batch_size))
        return iter(order_rows(self._lengths, batch_size, seed=arguments.seed, epoch=epoch))


class _NamedRows:
    """A data collator that keeps the ids of each sequence's rows beside the tensors.

    Args:
        collate: TRL's own collator.
        names: The ids of all rows in order, by which tokens of packed rows are known.
    """

    def __init__(self, collate: Any, names: Sequence[str]) -> None:
        self._collate = collate
        self._names = names

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._collate(features)
        if all("row_id" in feature for feature in features):
            batch["row_ids"] = [[feature["row_id"]] for feature in features]
        elif all(_ROW_NUMBERS in feature for feature in features):
            batch["row_ids"] = [[self._names[row] for row in dict.fromkeys(feature[_ROW_NUMBERS])] for feature in features]
        return batch


class _WithOtherReplies:
    """A data collator that puts to every prompt another row's reply too, from which TRL estimates KTO's KL term.

    TRL does so once, for batches in a fixed order. Here the rows come in our order, which is another one in every epoch, and
    what a batch is made into depends on nothing but its rows.

    Args:
        collate: TRL's own collator.
    """

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        others = other_rows([feature["prompt_ids"] for feature in features])
        replies = [features[other]["completion_ids"] for other in others]
        batch: dict[str, Any] = self._collate(
            [{**feature, "KL_completion_ids": reply} for feature, reply in zip(features, replies, strict=True)]
        )
        return batch


class _Ordered:
    """What all trainers do differently from TRL's.

    They take rows that are tokens already, draw them in our order and tell the ledger which they learn from.

    Attributes:
        ledger: Where the rows of each training batch are noted; None notes nothing.
        row_names: The rows' ids in the order of their numbers; none unless rows are packed.
    """

    ledger: RowLedger | None = None
    row_names: Sequence[str] = ()

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        return _RowOrder(self, self.train_dataset if train_dataset is None else train_dataset)

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row_ids = inputs.pop("row_ids", None)
        if row_ids and self.ledger is not None and model.training:
            self.ledger.draw(row_ids)
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _save(self: Any, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is None and self.is_distributed_loading_by_transformers:
            state_dict = own_weights(self.model)
        super()._save(output_dir, state_dict)  # type: ignore[misc]


class _OrderedSftTrainer(_Ordered, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with our row order.

    Rows are packed by TRL, which keeps tokens and labels alone; here every token takes the number of its row along.
    """

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, arguments: Any, packing: bool, *args: Any) -> Any:
        if not packing:
            return dataset
        self.row_names = dataset["row_id"][:]
        numbered = dataset.map(lambda row, number: {_ROW_NUMBERS: [number] * len(row["input_ids"])}, with_indices=True)
        columns = numbered.select_columns(["input_ids", "labels", _ROW_NUMBERS])
        return pack_dataset(columns.shuffle(seed=arguments.seed), arguments.max_length, arguments.packing_strategy)


class _OrderedDpoTrainer(_Ordered, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer with our row order.

    Args:
        alive: Called after every batch of the reference, which is computed before training and may take hours.
        **kwargs: As for TRL's.
    """

    def __init__(self, *, alive: Callable[[], None], **kwargs: Any) -> None:
        self._alive = alive
        super().__init__(**kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        inputs.pop("row_ids", None)
        result = super().compute_ref_log_probs(model, inputs)
        self._alive()
        return result


class _OrderedKtoTrainer(_Ordered, KTOTrainer):  # type: ignore[misc]
    """TRL's trainer with our row order."""


def load_model(base: Path, plan: TrainingPlan) -> Any:
    """The base model in the plan's precision on its device, in training mode."""
    device = "cuda" if plan.device == "cuda" else "cpu"
    kernels.register_packed_attention()
    model = load_base(
        base,
        device=device,
        dtype=getattr(torch, plan.precision),
        quantization=plan.quantization,
        attn_implementation=plan.attn_implementation,
        **loading_options(plan),
    )
    check_sharded(model, plan)
    model.config.use_cache = False
    if plan.liger_kernel:
        kernels.fuse_layers(model)
    return model.train()


def sft_trainer(
    base: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: SftConfig,
    train: Sequence[Example],
    validation: Sequence[Example],
    output_dir: Path,
) -> Any:
    """A trainer for supervised fine-tuning of the base model with a new adapter."""
    arguments = SFTConfig(
        **_common_arguments(plan, config, output_dir),
        loss_type=config.loss_type,
        max_length=plan.max_length_tokens if plan.packing else None,
        packing=plan.packing,
        eval_packing=False,
    )
    trainer = _OrderedSftTrainer(
        model=load_model(base, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_dataset(train),
        eval_dataset=_dataset(validation) if validation else None,
        peft_config=None if config.lora is None else lora_config(config.lora),
    )
    return _finished(trainer, plan)


def dpo_trainer(
    base: Path,
    adapter: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: DpoConfig,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    output_dir: Path,
    alive: Callable[[], None] = lambda: None,
) -> Any:
    """A trainer that continues the supervised adapter on preference pairs, with that adapter frozen as the reference.

    ``alive`` is called while the reference's log-probabilities are computed.
    """
    losses = [config.loss_type] if isinstance(config.loss_type, str) else list(config.loss_type)
    arguments = DPOConfig(
        **_common_arguments(plan, config, output_dir),
        loss_type=losses,
        loss_weights=list(config.loss_weights) if config.loss_weights else None,
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        max_length=plan.max_length_tokens,
        # TRL hashes the weights for its cache of the reference, and cannot where a process holds a part of them.
        precompute_ref_log_probs=plan.sharding == "none",
    )
    model = PeftModel.from_pretrained(load_model(base, plan), str(adapter), is_trainable=True, use_safetensors=True)
    trainer = _OrderedDpoTrainer(
        alive=alive,
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_dataset(train),
        eval_dataset=_dataset(validation) if validation else None,
    )
    return _finished(trainer, plan)


def kto_trainer(
    base: Path,
    adapter: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: KtoConfig,
    train: Sequence[RatedReply],
    validation: Sequence[RatedReply],
    output_dir: Path,
) -> Any:
    """A trainer that continues the supervised adapter on rated replies, with that adapter frozen as the reference.

    The reference is computed in every step, because its share of the KL term is that of the micro-batch. Rows are not
    grouped by length, or the term would be estimated from replies of one length at a time.
    """
    arguments = KTOConfig(
        **{**_common_arguments(plan, config, output_dir), "train_sampling_strategy": "sequential"},
        loss_type=config.loss_type,
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        # A prompt with another's reply may be longer than any row; it is cut to what was planned for.
        max_length=max(len(row) for row in (*train, *validation)),
    )
    trainer = _OrderedKtoTrainer(
        model=PeftModel.from_pretrained(load_model(base, plan), str(adapter), is_trainable=True, use_safetensors=True),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_dataset(train).remove_columns("length"),
        eval_dataset=_dataset(validation) if validation else None,
    )
    if trainer.calculate_KL:
        trainer.data_collator = _WithOtherReplies(trainer.data_collator)
    return _finished(trainer, plan)


def grpo_trainer(
    base: Path,
    adapter: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: GrpoConfig,
    train: Sequence[Prompt],
    rewards: Sequence[Reward],
    output_dir: Path,
) -> Any:
    """A trainer that continues an adapter on replies drawn from it, in TRL's own order; its replies are never logged."""
    arguments = GRPOConfig(
        **{
            **_common_arguments(plan, config, output_dir),
            "per_device_eval_batch_size": config.num_generations,  # nothing is evaluated, and TRL wants whole groups
            "include_num_input_tokens_seen": "no",  # TRL counts them itself, the drawn ones too
        },
        num_generations=config.num_generations,
        max_completion_length=config.max_completion_length,
        temperature=config.temperature,
        beta=config.beta,
        reward_weights=[reward.weight for reward in rewards],
        generation_kwargs={"use_cache": True},
    )
    return GRPOTrainer(
        model=PeftModel.from_pretrained(load_model(base, plan), str(adapter), is_trainable=True, use_safetensors=True),
        reward_funcs=[_reward_function(reward) for reward in rewards],
        args=arguments,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": row.messages, "reference": row.reference, "label": row.label} for row in train]
        ),
    )


def _reward_function(reward: Reward) -> Callable[..., list[float]]:
    """The rule as TRL calls it: with columns of the drawn replies' rows."""

    def judge(
        completions: Sequence[Any], reference: Sequence[str], label: Sequence[str | None], **columns: Any
    ) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        return [reward.judge(*each) for each in zip(texts, reference, label, strict=True)]

    judge.__name__ = reward.name
    return judge


def held_out_rewards(
    trainer: Any, rewards: Sequence[Reward], prompts: Sequence[Prompt], alive: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The mean rewards of greedy replies to held-out prompts under the present weights, and their weighted sum ``total``.

    Args:
        trainer: A trainer from :func:`grpo_trainer`.
        rewards: The rules.
        prompts: Held-out prompts.
        alive: Called after every batch.
    """
    model = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
    settings, was_training = model.generation_config, model.training
    loaded = LoadedModel(model.eval(), trainer.processing_class, max(len(prompt) for prompt in prompts))
    replies = generate_replies(
        loaded,
        [prompt.messages for prompt in prompts],
        max_new_tokens=prompts[0].num_new_tokens,
        batch_size=trainer.args.per_device_train_batch_size,
        on_progress=lambda done, total: alive(),
    )
    model.generation_config = settings
    model.train(was_training)
    return mean_rewards(rewards, prompts, [reply.text for reply in replies])


def lora_config(settings: LoraSettings) -> LoraConfig:
    """The settings as PEFT's."""
    targets = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha if settings.lora_alpha is not None else 2 * settings.r,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=None if settings.layers_to_transform is None else list(settings.layers_to_transform),
        use_rslora=settings.use_rslora,
    )


def save_weights(trainer: Any, folder: Path) -> bool:
    """Writes the trained adapter (not the frozen reference beside it), or all weights after full fine-tuning.

    Called in every process; True in the one that wrote.
    """
    if not trainer.is_world_process_zero():
        return False
    model = trainer.accelerator.unwrap_model(trainer.model)
    options: dict[str, Any] = {}
    if isinstance(model, PeftModel):
        # Of its own accord PEFT would gather the base too, to leave it out.
        options = {"selected_adapters": ["default"], "state_dict": own_weights(model)}
    model.save_pretrained(str(folder), **options)
    return True


def load_weights(trainer: Any, folder: Path) -> None:
    """Puts the weights that :func:`save_weights` wrote back into the model."""
    trainer.accelerator.wait_for_everyone()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        weights = load_file(str(folder / "adapter_model.safetensors"))
        set_peft_model_state_dict(model, weights, adapter_name="default")
    else:
        for path in sorted(folder.glob("*.safetensors")):
            # Tied weights are stored once.
            model.load_state_dict(load_file(str(path)), strict=False)


def let_wrap(trainer: Any) -> None:
    """Lets training wrap the model for several processes, which it must, or each would train an adapter of its own.

    accelerate marks a model as prepared when it is evaluated, and takes one that was evaluated before training for wrapped.
    """
    trainer.model._is_accelerate_prepared = False


def with_measured_time(plan: TrainingPlan, trainer: Any, rows: Rows) -> TrainingPlan:
    """The plan with its duration, from one timed forward and backward pass; no weight and no random state changes.

    The longest rows go first, so that a micro-batch that does not fit is found now and not an hour later: always on CUDA,
    on a CPU, where that costs many seconds, when the plan's memory comes near to what is free.
    """
    if plan.method == "grpo":  # how long replies will be is not known before they are drawn
        speed = training_speed(plan.num_parameters, plan.device, measure_flops(plan.device), plan.method)
        return with_time(plan, speed, 0, _seconds_since_start())
    on_cpu = plan.device == "cpu"
    ordered = sorted(rows.train, key=len)
    middle = len(ordered) // 2
    count = plan.micro_batch_size
    if on_cpu:
        count = max(1, min(count, _PROBE_TOKENS_ON_CPU // len(ordered[middle])))
    typical = ordered[max(0, middle - count // 2) :][:count]
    roomy = on_cpu and sum(plan.memory_bytes.values()) < _ROOMY_SHARE * find_hardware("cpu").memory_bytes
    first = typical[:1] if roomy else ordered[-plan.micro_batch_size :]
    if plan.packing and not on_cpu:
        typical = _fill(ordered[middle:] + ordered[:middle], count * plan.max_length_tokens)
        first = _fill(ordered[::-1], count * plan.max_length_tokens)
    with torch.random.fork_rng():
        _forward_and_backward(trainer, first)
        seconds = _forward_and_backward(trainer, typical)
    trainer.model.zero_grad(set_to_none=True)
    speed = sum(len(row) for row in typical) / seconds * plan.num_processes
    return with_time(plan, speed, rows.num_eval_tokens, _seconds_since_start())


def _fill(rows: Sequence[Any], num_tokens: int) -> list[Any]:
    """The first rows that together have at most ``num_tokens`` tokens."""
    chosen = []
    for row in rows:
        if len(row) <= num_tokens:
            chosen.append(row)
            num_tokens -= len(row)
    return chosen


def _seconds_since_start() -> float:
    """How long this process has run: reading, loading and timing are part of what training takes."""
    return time.time() - float(psutil.Process().create_time())


def _forward_and_backward(trainer: Any, rows: Sequence[Rendered]) -> float:
    features = [_columns(row) for row in rows]
    if rows and isinstance(rows[0], Pair):
        features = [{**feature, "ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0} for feature in features]
    batch = {
        name: value.to(trainer.args.device) if isinstance(value, torch.Tensor) else value
        for name, value in trainer.data_collator(features).items()
    }
    began = time.perf_counter()
    with trainer.accelerator.autocast():
        trainer.compute_loss(trainer.model, batch).backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def preference_rates(
    trainer: Any, pairs: Sequence[Pair], *, with_base: bool, alive: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The share of pairs whose chosen reply is likelier than the rejected one, under the model and under its base.

    Args:
        trainer: A trainer from :func:`dpo_trainer` or :func:`kto_trainer`.
        pairs: Held-out pairs.
        with_base: Whether to measure the base model (adapter off) too.
        alive: Called after every batch.
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        rates = {"model": _preference_rate(trainer, model, pairs, alive)}
        if with_base:
            with model.disable_adapter():
                rates["base"] = _preference_rate(trainer, model, pairs, alive)
    model.train(was_training)
    return rates


def _preference_rate(trainer: Any, model: Any, pairs: Sequence[Pair], alive: Callable[[], None]) -> float:
    size = trainer.args.per_device_eval_batch_size
    collate = DataCollatorForPreference(pad_token_id=trainer.processing_class.pad_token_id)
    ordered = sorted(pairs, key=len, reverse=True)
    preferred = 0
    for start in range(0, len(ordered), size):
        rows = [_columns(pair) for pair in ordered[start : start + size]]
        batch = {name: value.to(trainer.args.device) for name, value in collate(rows).items()}
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        scores = model(**batch, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(dim=1)
        chosen, rejected = scores.chunk(2)
        preferred += int((chosen > rejected).sum())
        alive()
    return preferred / len(ordered)


def _finished(trainer: Any, plan: TrainingPlan) -> Any:
    # TRL's own loss head scores every position on a CPU, prompts and padding included.
    if plan.device == "cpu" and plan.num_trainable_parameters < plan.num_parameters:
        score_labels_only(trainer.model.get_base_model())
    kernels.fuse_adapters(trainer.model)
    trainer.data_collator = _NamedRows(trainer.data_collator, trainer.row_names)
    return trainer


def _common_arguments(plan: TrainingPlan, config: TrainerConfig, output_dir: Path) -> dict[str, Any]:
    on_cpu = plan.device == "cpu"
    optimizer = "adamw_torch_fused" if config.optim == "adamw_torch" and not on_cpu else config.optim
    return {
        "output_dir": str(output_dir),
        "use_cpu": on_cpu,
        "bf16": plan.precision == "bfloat16",
        "per_device_train_batch_size": plan.micro_batch_size,
        # Validation rows are not packed.
        "per_device_eval_batch_size": plan.micro_batch_size * max(1, plan.num_rows // (plan.num_sequences or plan.num_rows)),
        "gradient_accumulation_steps": plan.accumulation_steps,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if plan.gradient_checkpointing else None,
        "max_steps": plan.num_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        # transformers rounds a share up, so that a short run would spend its first step at a learning rate of zero.
        "warmup_steps": int(config.warmup_steps * plan.num_steps) if config.warmup_steps < 1 else int(config.warmup_steps),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": optimizer,
        "seed": config.seed,
        "data_seed": config.seed,
        # Evaluation only; training rows are drawn by _RowOrder.
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "remove_unused_columns": False,
        "logging_steps": max(1, plan.num_steps // _MAX_LOGGED_STEPS),
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        # Evaluation and saving are decided by StepCallback.
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": list(config.report_to) or "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "ddp_find_unused_parameters": False,
    }


def _dataset(rows: Sequence[Rendered]) -> Any:
    return datasets.Dataset.from_list(
        [{**_columns(row), "length": row.uncut_length or len(row), "row_id": row.row_id} for row in rows]
    )


def _columns(row: Rendered) -> dict[str, Any]:
    if isinstance(row, Example):
        return {"input_ids": row.input_ids, "labels": row.labels}
    if isinstance(row, RatedReply):
        return {"prompt_ids": row.prompt_ids, "completion_ids": row.reply_ids, "label": row.wanted}
    return {"prompt_ids": row.prompt_ids, "chosen_ids": row.chosen_ids, "rejected_ids": row.rejected_ids}
