"""The settings of training; hyper-parameters keep TRL's and PEFT's spelling, and every default names its source."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.measures.prices import PriceTable, price_of
from tasks.measures.reply_checks import JsonSchema, Pattern
from tasks.modeling.config import BaseModelConfig

__all__ = [
    "BaseModelConfig",
    "BudgetConfig",
    "DpoConfig",
    "GrpoConfig",
    "HardwareConfig",
    "KtoConfig",
    "LoraSettings",
    "SearchConfig",
    "SftConfig",
    "TrainerConfig",
    "TrainingConfig",
]

DpoLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]


class LoraSettings(FrozenModel):
    """The low-rank adapter (LoRA, arXiv 2106.09685)."""

    r: int = Field(default=16, ge=1, le=1024, description="Rank. 16 is the usual choice for 7-8B (PEFT's own default is 8).")
    lora_alpha: float | None = Field(
        default=None, gt=0, description="Scale of the update, divided by r. None: 2r, the common rule of thumb."
    )
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout before the adapter. 0: exact resume on any micro-batch, and faster."
    )
    target_modules: str | tuple[str, ...] = Field(
        default="all-linear",
        description="Module names, or `all-linear`, which QLoRA (arXiv 2305.14314) needed to match full fine-tuning.",
    )
    layers_to_transform: tuple[int, ...] | None = Field(
        default=None,
        description="Only these layers get an adapter. Upper layers alone are cheaper: no backward below the lowest one.",
    )
    use_rslora: bool = Field(default=False, description="Rank-stabilised scale, alpha/sqrt(r) (arXiv 2312.03732).")

    @model_validator(mode="after")
    def _layers_need_named_modules(self) -> Self:
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ValueError("layers_to_transform needs target_modules as a list; PEFT refuses it with `all-linear`")
        return self


class TrainerConfig(FrozenModel):
    """The settings that all methods share."""

    learning_rate: float = Field(gt=0, le=1, description="Peak learning rate of AdamW.")
    num_train_epochs: float = Field(gt=0, le=100, description="Passes over the training rows.")
    max_steps: int | None = Field(default=None, ge=1, description="Stop after this many optimizer steps; overrides epochs.")
    max_length: int = Field(
        default=1024, ge=16, le=1_000_000, description="Longest row in tokens; longer rows lose their end (TRL's default)."
    )
    max_truncated_share: float = Field(
        default=0.05, ge=0, le=1, description="Training is refused when a larger share of rows is truncated (our choice)."
    )
    max_refused_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Training is refused when the base's chat template or tokenizer cannot take a larger share of rows; "
        "fewer are left out and named (our choice).",
    )
    effective_batch_size: int = Field(
        default=16,
        ge=1,
        le=65_536,
        description="Rows per optimizer step, over micro-batches, accumulation and GPUs (16 in QLoRA, arXiv 2305.14314).",
    )
    per_device_train_batch_size: int | None = Field(
        default=None, ge=1, description="Rows per forward pass. None: as many as fit, by plan."
    )
    warmup_steps: float = Field(
        default=0.03, ge=0, description="Warm-up; below 1 it is a share of all steps (0.03 as in QLoRA, arXiv 2305.14314)."
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_min_lr"] = Field(
        default="cosine", description="Shape of the learning rate after warm-up (cosine as in the Alignment Handbook)."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's weight decay (0 is transformers' default).")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient clipping (1.0 is transformers' default).")
    early_stopping_patience: int = Field(
        default=2,
        ge=0,
        description="Stop after this many evaluations in a row without a better validation loss; 0: never. "
        "The best adapter is kept either way.",
    )
    evals_per_epoch: int = Field(default=2, ge=1, le=100, description="Evaluations on the validation rows in one epoch.")
    max_eval_rows: int = Field(
        default=500,
        ge=1,
        description="Validation rows used during training, the first ones in a fixed shuffle (our choice).",
    )
    packing: bool | Literal["auto"] = Field(
        default="auto",
        description="Several rows in one sequence, separated by position. auto: on CUDA when an attention kernel for "
        "packed sequences is available (from Ampere on); on a CPU rows of similar length are grouped instead, which "
        "measured faster.",
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        default="auto",
        description="Recompute activations instead of storing them. auto: only when it does not fit otherwise.",
    )
    quantization: Literal["none", "nf4", "auto"] = Field(
        default="auto",
        description="nf4: 4-bit base weights (QLoRA). auto: only when 16-bit weights do not fit, because it is slower.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 if the hardware computes in it, else float32."
    )
    attn_implementation: str | None = Field(
        default=None, description="transformers' name of an attention kernel, such as `flash_attention_2`. None: by plan."
    )
    use_liger_kernel: bool | Literal["auto"] = Field(
        default="auto",
        description="Liger's fused kernels for norms, rotary embedding and gated layers. auto: on CUDA, when the extra "
        "`gpu` is installed and the architecture supported; on an H100 a quarter faster, a quarter less for activations.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: CUDA when there is a device.")
    num_processes: int = Field(
        default=1,
        ge=0,
        le=64,
        description="GPUs (or, on CPU, processes) of this machine to train on together; 0: every GPU.",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none",
        description="fsdp2: each of `num_processes` devices holds a part of the base model and gathers one layer at a time, "
        "for a model that does not fit on one device; slower where it does. LoRA on unquantised weights only.",
    )
    num_threads: int = Field(
        default=0, ge=0, le=512, description="CPU threads of the trainer; 0: one per core that this process may use."
    )
    optim: str = Field(
        default="adamw_torch", description="Optimizer by transformers' name. `adamw_torch_fused` on CUDA by plan."
    )
    seed: int = Field(default=17, ge=0, description="Seeds adapter weights, row order and dropout.")
    allow_shorter_length: bool = Field(
        default=False, description="Whether the last fallback after running out of memory may halve max_length."
    )
    max_attempts: int = Field(
        default=5, ge=1, le=50, description="Most trainer processes in all, after crashes and out-of-memory fallbacks."
    )
    silence_timeout_seconds: float = Field(
        default=1800, ge=1, description="A trainer without progress for this long is stopped and resumed (our choice)."
    )
    save_interval_seconds: float = Field(
        default=300, ge=0, description="Shortest time between checkpoints, besides those at evaluations; 0: at every step."
    )
    memory_limit_bytes: int | None = Field(
        default=None, ge=1, description="Memory to plan with. None: a fixed share of the device's memory."
    )
    scratch_dir: str | None = Field(
        default=None,
        description="Folder for checkpoints; must outlive the process for training to resume. None: `work/` in a local "
        "store, else in the embedded folder.",
    )
    report_to: tuple[str, ...] = Field(
        default=(), description="Further trackers of transformers, such as `wandb`; the launcher always logs to MLflow."
    )

    @model_validator(mode="before")
    @classmethod
    def _names_the_setting_for_sharding(cls, settings: Any) -> Any:
        names = set(settings) if isinstance(settings, dict) else set()
        unsupported = sorted({"fsdp", "fsdp2", "fsdp_config", "deepspeed"} & names)
        if unsupported:
            raise ValueError(
                f"{', '.join(unsupported)}: set `sharding: fsdp2` and `num_processes` instead; DeepSpeed is left out: "
                "for an adapter it does the same as FSDP2, with one more library"
            )
        return settings

    @model_validator(mode="after")
    def _sharding_has_parts(self) -> Self:
        if self.sharding == "none":
            return self
        if self.num_processes < 2:
            raise ValueError("sharding needs an explicit num_processes of 2 or more: one process holds the whole model")
        if self.quantization == "nf4":
            raise ValueError(
                "sharding does not support 4-bit weights: in transformers 5.23 a bitsandbytes weight that is sharded while "
                "loading loses its shape, and the first forward pass fails; set quantization to none or auto"
            )
        return self


class SftConfig(TrainerConfig):
    """Supervised fine-tuning on the replies."""

    kind: ClassVar[str] = "sft"

    learning_rate: float = Field(
        default=2e-4,
        gt=0,
        le=1,
        description="Peak learning rate: 2e-4 as in QLoRA for 7-13B; a 135M model wants about 1e-3.",
    )
    num_train_epochs: float = Field(default=3.0, gt=0, le=100, description="Passes over the training rows (Alpaca used 3).")
    lora: LoraSettings | None = Field(default=LoraSettings(), description="The adapter. None: full fine-tuning.")
    loss_type: Literal["nll", "dft"] = Field(
        default="nll", description="TRL's SFT losses: log-likelihood, or dynamic fine-tuning (arXiv 2508.05629)."
    )

    learn: Literal["all", "last"] = Field(
        default="all",
        description="Which replies of a conversation are learned. all: every one that the chat template writes as it was "
        "generated; templates that cut earlier replies (Qwen3, gpt-oss) leave the last alone. last: the last one.",
    )

    @model_validator(mode="after")
    def _sharding_needs_an_adapter(self) -> Self:
        if self.sharding != "none" and self.lora is None:
            raise ValueError(
                "sharding needs an adapter: in full fine-tuning (lora: null) the Trainer saves only the first process's "
                "part of the optimizer, so that no checkpoint can resume; set lora"
            )
        return self


class DpoConfig(TrainerConfig):
    """Preference training of the SFT adapter (DPO, arXiv 2305.18290, and TRL's other losses)."""

    kind: ClassVar[str] = "dpo"

    learning_rate: float = Field(
        default=5e-6, gt=0, le=1, description="Peak learning rate: 5e-6 as in the Alignment Handbook's Zephyr QLoRA recipe."
    )
    num_train_epochs: float = Field(default=1.0, gt=0, le=100, description="Passes over the pairs (1 as in Zephyr).")
    loss_type: DpoLoss | tuple[DpoLoss, ...] = Field(
        default="sigmoid", description="TRL's preference loss, or several that are summed; `sigmoid` is DPO itself."
    )
    loss_weights: tuple[float, ...] | None = Field(default=None, description="Weights of several losses; None: equal.")
    beta: float = Field(default=0.1, gt=0, description="Strength of the pull towards the reference (TRL's default).")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="Assumed share of flipped preferences (robust DPO, arXiv 2403.00409)."
    )


class KtoConfig(TrainerConfig):
    """Preference training of the SFT adapter on single replies, each desirable or not (KTO, arXiv 2402.01306).

    Every pair becomes two replies. Rows are counted in replies, and a batch may hold one reply of a pair.
    """

    kind: ClassVar[str] = "kto"

    learning_rate: float = Field(
        default=5e-6,
        gt=0,
        le=1,
        description="Peak learning rate: the highest that TRL's guide to KTO advises (from 5e-7).",
    )
    num_train_epochs: float = Field(default=1.0, gt=0, le=100, description="Passes over the replies (1 as for DPO).")
    effective_batch_size: int = Field(
        default=16, ge=2, le=65_536, description="Replies per optimizer step (TRL's guide to KTO advises 16 to 128)."
    )
    per_device_train_batch_size: int | None = Field(
        default=None,
        ge=2,
        description="Replies per forward pass; the KL term is estimated from them, so at least 4 are advised. None: as many "
        "as fit, by plan.",
    )
    loss_type: Literal["kto", "apo_zero_unpaired"] = Field(
        default="kto", description="TRL's losses on single replies: KTO, or APO-zero without a KL term (arXiv 2408.06266)."
    )
    beta: float = Field(default=0.1, gt=0, description="Strength of the pull towards the reference (TRL's default).")
    desirable_weight: float = Field(default=1.0, gt=0, description="Weight of the loss of chosen replies (TRL's default).")
    undesirable_weight: float = Field(
        default=1.0,
        gt=0,
        description="Weight of the loss of rejected replies; a pair has one of each (TRL's default).",
    )


class GrpoConfig(TrainerConfig):
    """Experimental: training by verifiable rewards (GRPO, arXiv 2402.03300), after SFT and preferences, on the SFT rows.

    The model generates several replies to every prompt; those with a higher reward than the others become likelier. A
    resumed training continues from its last checkpoint, but not to the same bits, because replies are sampled.
    """

    kind: ClassVar[str] = "grpo"

    learning_rate: float = Field(default=1e-6, gt=0, le=1, description="Peak learning rate (TRL's default).")
    num_train_epochs: float = Field(default=1.0, gt=0, le=100, description="Passes over the prompts.")
    exact_match: float = Field(
        default=0.0, ge=0, description="Weight of the reward for the row's own reply, ignoring case and white space."
    )
    format: float = Field(
        default=0.0, ge=0, description="Weight of the reward for a reply that matches `format_pattern` or `json_schema`."
    )
    format_pattern: Pattern | None = Field(default=None, description="Regular expression that a whole reply has to match.")
    json_schema: JsonSchema | None = Field(default=None, description="JSON schema that a reply has to satisfy.")
    label: float = Field(default=0.0, ge=0, description="Weight of the reward for a reply that names the row's label.")
    calls: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the reward for tool calls: the mean of `call_decision`, `valid_call`, `call_name`, "
        "`argument_f1` and `call_sequence`, as the benchmark measures them.",
    )
    label_pattern: Pattern | None = Field(
        default=None,
        description="Finds the label in a reply (first group, or the whole match). None: its first line is the label.",
    )
    num_generations: int = Field(
        default=8, ge=2, le=1024, description="Replies to each prompt, compared with one another (TRL's default)."
    )
    max_completion_length: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Longest reply in tokens; with its prompt within `max_length` (our choice).",
    )
    temperature: float = Field(default=1.0, gt=0, le=10, description="Sampling temperature of replies (TRL's default).")
    beta: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the distance from the adapter that training continues (TRL's default: none).",
    )
    num_processes: Literal[1] = Field(default=1, description="One process; several are untested with generation.")

    @model_validator(mode="after")
    def _a_reward_has_a_weight(self) -> Self:
        if not (self.exact_match or self.format or self.label or self.calls):
            raise ValueError("no reward has a weight; set exact_match, format, label or calls")
        forms = (self.format_pattern is not None) + (self.json_schema is not None)
        if self.format and forms != 1:
            raise ValueError("format needs either format_pattern or json_schema")
        if forms and not self.format:
            raise ValueError("format_pattern and json_schema reward nothing without a weight; set format")
        return self

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> Self:
        if self.effective_batch_size % self.num_generations:
            raise ValueError(
                f"effective_batch_size {self.effective_batch_size} counts replies, and num_generations "
                f"{self.num_generations} does not divide it"
            )
        size = self.per_device_train_batch_size
        if size is not None and self.effective_batch_size % min(size, self.effective_batch_size):
            raise ValueError(
                f"per_device_train_batch_size {size} does not divide effective_batch_size {self.effective_batch_size}"
            )
        if self.max_completion_length >= self.max_length:
            raise ValueError(
                f"max_completion_length {self.max_completion_length} leaves no room for a prompt within max_length "
                f"{self.max_length}"
            )
        return self


class BudgetConfig(FrozenModel):
    """Prices and ceilings of training; not part of the cache key, so a new price does not train again."""

    excluded_from_cache_key: ClassVar[bool] = True

    currency: str = Field(default="EUR", min_length=1, max_length=10, description="The currency of all prices here.")
    price_per_device_hour: PriceTable = Field(
        default={},
        description="Price table: `cpu`, `cuda`, or a part of the device's name such as `H100` (case ignored; the longest "
        "match counts). A CPU machine is one device; every GPU is one.",
    )
    max_device_hours: float | None = Field(
        default=None, gt=0, description="Refuse to train when all methods together would take longer. None: no ceiling."
    )
    max_cost: float | None = Field(
        default=None, gt=0, description="Refuse to train when all methods together would cost more. None: no ceiling."
    )
    on_exceeded: Literal["stop", "ask"] = Field(
        default="stop",
        description="`ask`: the run ends with a request for approval, and continues when it is started again after "
        "`perennial budget approve`. A search always stops.",
    )

    @model_validator(mode="after")
    def _a_cost_needs_prices(self) -> Self:
        if self.max_cost is not None and not self.price_per_device_hour:
            raise ValueError("max_cost needs price_per_device_hour")
        return self

    @property
    def has_ceiling(self) -> bool:
        """Whether a training could be refused."""
        return self.max_device_hours is not None or self.max_cost is not None

    def price_of(self, device: str, name: str) -> float | None:
        """The price of one hour of a device, or None if the table has none.

        Args:
            device: ``cpu`` or ``cuda``.
            name: The device's own name, such as ``NVIDIA H100 80GB HBM3``.
        """
        return price_of(self.price_per_device_hour, device, name)


KNOWN_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10": 125.0,
    "A10G": 70.0,
    "L4": 121.0,
}
"""Dense bfloat16 TFLOP/s of one device by NVIDIA's data sheets, by a part of its name."""


def known_tflops(name: str) -> float | None:
    """The data sheet's figure for a device by the longest matching part of its name; None for an unknown device."""
    matches = [part for part in KNOWN_TFLOPS if part.lower() in name.lower()]
    return KNOWN_TFLOPS[max(matches, key=len)] if matches else None


class HardwareConfig(FrozenModel):
    """Devices to plan for instead of this machine's, so that a laptop can plan for a GPU; not part of the cache key."""

    excluded_from_cache_key: ClassVar[bool] = True

    name: str = Field(min_length=1, max_length=100, description="The device's name, such as `A100`; also finds its price.")
    device: Literal["cuda", "cpu"] = Field(default="cuda", description="The kind of device.")
    memory_gb: float = Field(gt=0, le=100_000, description="Memory of one device, in GB (1e9 bytes).")
    count: int = Field(
        default=1, ge=1, le=64, description="Devices of one machine; `num_processes` says how many train, 0: all."
    )
    tflops: float | None = Field(
        default=None,
        gt=0,
        description="TFLOP/s of a large matrix product on one device, in bfloat16 on a GPU. None: the data sheet's, known "
        f"for {', '.join(KNOWN_TFLOPS)}.",
    )
    packed_attention: bool = Field(
        default=True, description="Whether it has attention kernels for packed sequences: NVIDIA GPUs from Ampere on."
    )
    liger_kernel: bool = Field(default=True, description="Whether the extra `gpu` and a C compiler are installed on it.")

    @model_validator(mode="after")
    def _speed_is_known(self) -> Self:
        if self.tflops is None and self._known_tflops is None:
            raise ValueError("tflops: the speed of this device is unknown; set it from the device's data sheet")
        return self

    @property
    def _known_tflops(self) -> float | None:
        return known_tflops(self.name) if self.device == "cuda" else None

    @property
    def flops_per_second(self) -> float:
        """The speed of a large matrix product on one device."""
        return 1e12 * (self.tflops or self._known_tflops or 0.0)


class SearchConfig(FrozenModel):
    """The settings of `training.sft` that `perennial search` varies; the configured values are always tried first."""

    learning_rate: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        default=(5e-5, 2e-3), description="Lowest and highest learning rate, on a logarithmic scale (our choice)."
    )
    r: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        default=(8, 16, 32), min_length=1, description="Ranks. lora_alpha follows as 2r unless it is set."
    )
    num_train_epochs: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        default=(1.0, 2.0, 3.0), min_length=1, description="Passes over the rows; not varied where max_steps is set."
    )
    base_models: tuple[BaseModelConfig, ...] = Field(
        default=(),
        max_length=3,
        description="Further base models, in the form of `training.base_model`. Each gets its own trials under the one "
        "budget, and its best trial is scored on the validation rows by `promotion.primary_metric`.",
    )
    seed: int = Field(default=17, ge=0, description="Seeds the sampler (TPE); the trainings keep their own seed.")

    @model_validator(mode="after")
    def _low_before_high(self) -> Self:
        if self.learning_rate[0] >= self.learning_rate[1]:
            raise ValueError("learning_rate must be a lower and a higher value")
        return self


_UNSUPPORTED = {
    "orpo": "ORPO is in TRL's experimental part, which changes without notice",
    "ppo": "PPO needs a reward model, which nothing here trains",
    "gguf": "no package converts a model to GGUF; set `merge`, and give the merged folder to llama.cpp's own converter",
}
"""Methods and formats that are not supported, and why."""


class TrainingConfig(FrozenModel):
    """The base model and its training."""

    base_model: BaseModelConfig = Field(default=BaseModelConfig(), description="The base model.")
    start_from: Literal["base", "champion"] = Field(
        default="base",
        description="What supervised fine-tuning starts from. `champion`: its adapter is trained further, where its base "
        "model is this one; the run says so where it is not. What earlier versions learned, and was removed from the data "
        "since, stays learned.",
    )
    replay: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="With `start_from: champion`: rows that the champion knows and learns again, for each row that is new "
        "to it; they are drawn from today's rows, evenly over labels. Null: every row of today is learned.",
    )
    sft: SftConfig = Field(default=SftConfig(), description="Supervised fine-tuning.")
    dpo: DpoConfig | None = Field(default=None, description="Preference training afterwards, on pairs; None: none.")
    kto: KtoConfig | None = Field(
        default=None, description="Preference training afterwards, on the single replies of the pairs; in place of `dpo`."
    )
    grpo: GrpoConfig | None = Field(
        default=None, description="Experimental: training by verifiable rewards afterwards, on the SFT rows; None: none."
    )
    merge: bool = Field(
        default=False,
        description="Store the whole model too, with the adapter merged into the base in float32 (4 bytes a parameter). "
        "Greedy replies must be equal before merging, after it and after reading back; the registered version names it.",
    )
    budget: BudgetConfig = Field(
        default=BudgetConfig(), description="Prices, and ceilings that stop training before it starts."
    )
    hardware: HardwareConfig | None = Field(
        default=None, description="Devices that `perennial plan` plans for. None: those of this machine."
    )
    search: SearchConfig = Field(default=SearchConfig(), description="The settings that `perennial search` varies.")

    @model_validator(mode="before")
    @classmethod
    def _names_the_supported_methods(cls, settings: Any) -> Any:
        names = set(settings) if isinstance(settings, dict) else set()
        unsupported = [f"{name}: {reason}" for name, reason in _UNSUPPORTED.items() if name in names]
        if unsupported:
            supported = "`sft`, `dpo`, whose loss_type names TRL's other losses on pairs, `kto` and `grpo`"
            raise ValueError(f"{'; '.join(unsupported)}. Supported are {supported}")
        return settings

    @model_validator(mode="after")
    def _one_preference_method(self) -> Self:
        if self.dpo is not None and self.kto is not None:
            raise ValueError("dpo and kto learn from the same pairs; leave one of them out")
        return self

    @model_validator(mode="after")
    def _searched_bases_differ(self) -> Self:
        sources = [(base.source, base.revision) for base in (self.base_model, *self.search.base_models)]
        if len(set(sources)) < len(sources):
            raise ValueError("search.base_models: every base model is named once, and base_model is one of them already")
        return self

    @property
    def preference(self) -> DpoConfig | KtoConfig | None:
        """The settings of preference training by either method; None without one."""
        return self.dpo or self.kto

    @model_validator(mode="after")
    def _later_methods_need_an_adapter(self) -> Self:
        later = self.preference or self.grpo
        if self.sft.lora is None and later is not None:
            method = later.kind
            raise ValueError(
                f"{method} continues the adapter of sft, and full fine-tuning (sft.lora: null) has none; "
                f"set sft.lora, or leave {method} out"
            )
        if self.sft.lora is None and self.start_from == "champion":
            raise ValueError("start_from: champion continues an adapter, and full fine-tuning (sft.lora: null) has none")
        if self.sft.lora is None and self.merge:
            raise ValueError("merge needs an adapter; full fine-tuning (sft.lora: null) already stores a whole model")
        return self

    @model_validator(mode="after")
    def _replay_has_a_champion(self) -> Self:
        if self.replay is not None and self.start_from != "champion":
            raise ValueError("replay learns again what the champion learned; set start_from: champion, or leave replay out")
        return self

    @model_validator(mode="after")
    def _declared_devices_train(self) -> Self:
        for method, settings in (("sft", self.sft), ("dpo", self.dpo), ("kto", self.kto), ("grpo", self.grpo)):
            if self.hardware and settings and settings.device not in ("auto", self.hardware.device):
                raise ValueError(
                    f"hardware declares a {self.hardware.device} device, and {method}.device is {settings.device}; "
                    "make them the same, or leave one out"
                )
        return self
