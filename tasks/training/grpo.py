"""GRPO: TRL's trainer on replies that are drawn and judged by rules.

A module of its own, because TRL's imports MLflow, which takes seconds and which no other training needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
from trl import GRPOConfig, GRPOTrainer

from tasks.contracts.training import TrainingPlan
from tasks.modeling.generation import LoadedModel, generate_replies
from tasks.training.config import GrpoConfig
from tasks.training.rendering import Prompt
from tasks.training.rewards import Reward, mean_rewards
from tasks.training.trainers import common_arguments, load_model_with


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
            **common_arguments(plan, config, output_dir),
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
        model=load_model_with(base, adapter, plan),
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
