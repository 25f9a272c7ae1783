"""Settings of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.library_versions import versions_behind
from tasks.core.storage import sha256_of_files
from tasks.measures.placeholders import PLACEHOLDER
from tasks.measures.prices import PriceTable
from tasks.measures.reply_checks import JsonSchema, Pattern
from tasks.modeling.devices import answering_device


class JudgeConfig(FrozenModel):
    """A language model that compares replies (LLM-as-a-judge); it informs people and decides nothing."""

    enabled: bool = Field(
        False, description="True sends scrubbed frozen examples, and the models' replies to them, to `base_url`."
    )
    base_url: str = Field(
        "http://localhost:8000/v1",
        pattern=r"^https?://[^\s@?#]+$",
        description="Endpoint with OpenAI's chat completions API, including its version; without credentials.",
    )
    model: str = Field("judge", min_length=1, max_length=200, description="The judge's name at the endpoint.")
    key_env: str = Field(
        "PERENNIAL_JUDGE_KEY", description="Environment variable with the endpoint's key; unset or empty sends none."
    )
    key_block: str | None = Field(
        None, description="Prefect Secret block with the key; it takes precedence over the environment variable."
    )
    criteria: str = Field(
        "Prefer the reply that is correct, answers the question and agrees with the reference.",
        min_length=1,
        max_length=2000,
        description="The criteria for the better reply, in a sentence or two.",
    )
    max_examples: int = Field(
        100, ge=1, le=100_000, description="Examples per opponent, chosen by the hash of their ids; two requests each."
    )
    max_tokens: int = Field(8, ge=1, le=32_768, description="Limit of the judge's answer; a thinking model needs thousands.")
    timeout_seconds: float = Field(60.0, gt=0, le=600, description="Of one request.")
    max_attempts: int = Field(
        4,
        ge=1,
        le=10,
        description="Attempts at one request, 1, 2, 4 and up to 30 seconds apart; after them the pair is unjudged.",
    )
    max_concurrent: int = Field(4, ge=1, le=64, description="Pairs that are compared at the same time.")


class LmEvalConfig(FrozenModel):
    """Tasks of EleutherAI's lm-evaluation-harness, measured beside the scores; they inform and decide nothing."""

    folder: str = Field(
        description="Folder of task definitions (YAML) and their data. The harness's own definitions are not available, "
        "because they download their data."
    )
    tasks: tuple[str, ...] = Field(min_length=1, description="Names of tasks defined there.")
    max_examples: int | None = Field(None, ge=1, description="Maximum of examples per task. None: all.")
    apply_chat_template: bool = Field(True, description="Render prompts with the chat template; False sends the bare text.")

    @model_validator(mode="after")
    def _folder_exists(self) -> Self:
        if not Path(self.folder).is_dir():
            raise ValueError(f"benchmark.lm_eval.folder: {self.folder} is not a folder")
        return self

    def external_fingerprints(self) -> Mapping[str, str]:
        """The digest of every file of the folder and the harness's version, so that a changed task is a changed setting."""
        return {**sha256_of_files(Path(self.folder)), **versions_behind(["lm_eval"])}


class TokenPrices(BaseModel):
    """Prices by the token; a cost that does not depend on time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(ge=0, allow_inf_nan=False, description="Price of a million prompt tokens.")
    reply: float = Field(ge=0, allow_inf_nan=False, description="Price of a million generated tokens.")


class LatencyConfig(BaseModel):
    """How candidate and opponent are timed in turns for a guard on latency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opponent: Literal["champion", "base"] = Field(
        "champion", description="The model to compare with; nothing is timed against the champion while there is none."
    )
    num_rounds: int = Field(
        9,
        ge=5,
        le=1_000,
        description="Rounds over the examples; one ratio each. 6 give a 95 % interval of the median; 9 tolerate an outlier.",
    )
    max_examples: int = Field(
        64, ge=1, le=100_000, description="Frozen examples answered in every round, chosen by the hash of their ids."
    )
    batch_size: int = Field(8, ge=1, le=1024, description="Prompts per batch; the models take turns batch by batch.")


class BenchmarkConfig(FrozenModel):
    """Generation on the frozen examples, and scoring of the replies."""

    max_new_tokens: int = Field(128, ge=1, le=8192, description="Maximum of new tokens in a reply.")
    batch_size: int = Field(32, ge=1, le=1024, description="Prompts per generation batch, sorted by length.")
    max_examples: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Score only this many examples, the same for every model (chosen by the hash of their ids). None: all.",
    )
    label_pattern: Pattern | None = Field(
        None,
        description="Regular expression that finds the label in a reply: its first group, or the whole match; "
        "`^\\[(\\w+)\\]` finds a category tag. "
        "None: the reply's first line is the label's name, give or take case and punctuation.",
    )
    format_pattern: Pattern | None = Field(
        None,
        description="Regular expression that a well-formed reply matches from start to end (`.` matches newlines too). "
        "None: format is not measured.",
    )
    json_schema: JsonSchema | None = Field(
        None,
        description="JSON schema that a reply must satisfy as a whole: nothing around the JSON, no code fence. "
        "None: not measured.",
    )
    placeholder_pattern: Pattern = Field(
        PLACEHOLDER,
        description="Regular expression of a placeholder that scrubbing leaves in place of personal data. A reply that "
        "holds one scores 0 in every comparison with its reference, and a reference that holds one has no likelihood. The "
        "default finds `<PERSON>`, `<PERSON_1>` and `<EMAIL_ADDRESS:...>`, but no tag that the text closes.",
    )
    price_per_device_hour: PriceTable | None = Field(
        None, description="Price table behind the cost of 1,000 requests. None: that of training.budget."
    )
    currency: str | None = Field(
        None, min_length=1, max_length=10, description="The currency of these prices. None: that of training.budget."
    )
    token_prices: TokenPrices | None = Field(
        None, description="Prices by the token behind `token_cost_per_1000`, in `currency`. None: not measured."
    )
    latency: LatencyConfig | None = Field(
        None,
        description="Time the candidate and its opponent in turns, anew in every run; both are in memory then. None: "
        "only when `promotion.max_latency_increase` is set.",
    )
    retention: bool = Field(
        True,
        description="Score general questions too, which show what the model forgot through fine-tuning: a few hundred short "
        "sequences per model, no generation.",
    )
    lm_eval: LmEvalConfig | None = Field(None, description="Tasks of lm-evaluation-harness (extra `lm-eval`). None: none.")
    judge: JudgeConfig = Field(
        JudgeConfig(), description="A language model that compares the candidate's replies with its opponents'."
    )
    min_slice_examples: int = Field(
        20, ge=2, le=1_000_000, description="Slices (by label, group, length, script) with fewer examples get no interval."
    )
    num_resamples: int = Field(1_000, ge=100, le=100_000, description="Bootstrap resamples behind each score's interval.")
    confidence: float = Field(0.95, ge=0.5, lt=1.0, description="Of the two-sided intervals.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap. Generation is greedy and has none.")

    def external_fingerprints(self) -> Mapping[str, str]:
        """The device that generates: results of a device with other rounding are not comparable."""
        return {"device": answering_device()}

    def of_examples_alone(self) -> Self:
        """The settings for a further set of examples, without what is measured once per model."""
        return self.model_copy(update={"retention": False, "lm_eval": None})
