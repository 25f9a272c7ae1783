"""What is particular about a base model: its sizes, logits, attention and cache, read once from its folder, without weights.

transformers builds the model on PyTorch's meta device, which has shapes and no memory. Plan and trainer read the profile; no
other module looks at a model's type. A base that cannot be trained as a causal language model is refused here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tasks.contracts.base import Contract
from tasks.contracts.references import FolderRef
from tasks.core.addresses import first_line
from tasks.core.errors import ModelNotFoundError
from tasks.core.library_versions import version_of
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, sha256_of_json
from tasks.modeling.shape import ModelShape

SETTING = "training.base_model.source"
"""Where a base model that is refused is configured."""
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
_LOGITS_FACTORS = ("logit_scale", "logits_scaling", "output_multiplier", "lm_head_multiplier", "final_logit_softcapping")
_INNER_WIDTHS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_MESSAGE_LENGTH = 300


class BaseProfile(Contract):
    """The properties of a base model that decide how it is planned, trained and scored.

    Attributes:
        shape: Its sizes.
        architecture: The class that transformers loads.
        attention: The attention that transformers chooses for it.
        packing: How several rows may share a sequence: with the kernel for packed sequences, with a mask, or not at all.
        packing_note: Why the kernel for packed sequences does not apply; empty where it does.
        plain_logits: Whether the logits are the plain product of hidden states and output embeddings.
        recurrent: Whether a layer keeps a state (convolution, linear attention, state space) in place of keys and values.
    """

    shape: ModelShape
    architecture: str = ""
    attention: str = "sdpa"
    packing: Literal["kernel", "mask", "none"] = "kernel"
    packing_note: str = ""
    plain_logits: bool = True
    recurrent: bool = False

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """Titled lines for a person: what it is, and what is done about each particular property."""
        shape = self.shape
        context = "no stated context" if shape.max_positions is None else f"context of {shape.max_positions} tokens"
        experts = f", {shape.num_active_parameters / 1e6:.0f} M for each token" if shape.num_expert_parameters else ""
        packing = f"packed by a kernel on a GPU, {self.attention} elsewhere"
        if self.packing_note:
            packing = f"{self.attention}; not packed unless set, because {self.packing_note}"
        if self.packing == "none":
            packing = f"{self.attention}; never packed, because {self.packing_note}"
        particular = {
            "logits": "scaled, capped or shifted; TRL's loss head" if not self.plain_logits else "",
            "cache": "a layer keeps a state; texts are ranked without a shared cache" if self.recurrent else "",
            "experts": "in one tensor a layer, which 4-bit weights leave as it is" if shape.num_expert_parameters else "",
        }
        return (
            ("architecture", f"{self.architecture or shape.model_type}, {context}{experts}"),
            ("attention", packing),
            *((name, text) for name, text in particular.items() if text),
        )


def profile_in_store(store: Store, folder: FolderRef) -> BaseProfile:
    """The profile of a base model in the store; made once for each model and version of this module.

    Raises:
        ModelNotFoundError: It cannot be trained as a causal language model.
    """
    maker = [code_sha256(file_of("tasks.modeling.profile")), version_of("transformers")]
    name = f"profiles/{sha256_of_json([folder.sha256, *maker])}"
    stored = store.read_record(name, BaseProfile)
    return stored or store.create_record(name, make_profile(store.fetch_folder(folder)))


def make_profile(folder: Path) -> BaseProfile:
    """The profile of the model in a folder of Hugging Face format; reads its configuration alone.

    Raises:
        ModelNotFoundError: It cannot be trained as a causal language model; says why.
    """
    model = model_without_weights(folder)
    text = model.config.get_text_config()
    recurrent = keeps_state(model)
    packing, note = _packing(model, text, recurrent)
    return BaseProfile(
        shape=_shape(model, text),
        architecture=type(model).__name__,
        attention=text._attn_implementation or "eager",
        packing=packing,
        packing_note=note,
        plain_logits=has_plain_logits(model),
        recurrent=recurrent,
    )


def model_without_weights(folder: Path) -> Any:
    """The model in a folder as transformers builds it, on the meta device.

    Raises:
        ModelNotFoundError: It cannot be trained as a causal language model; says why.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _refused(f"a configuration that transformers cannot read ({library_message(error)})") from error
    _check_configuration(config)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise _refused(f"a {config.model_type} model that transformers cannot build ({library_message(error)})") from error


def has_plain_logits(model: Any) -> bool:
    """Whether a model's logits are the plain product of hidden states and output embeddings, as its configuration says."""
    text, output = model.config.get_text_config(), model.get_output_embeddings()
    return getattr(output, "bias", None) is None and all(getattr(text, name, None) in (None, 1) for name in _LOGITS_FACTORS)


def keeps_state(model: Any) -> bool:
    """Whether a layer keeps a state (convolution, linear attention, state space) in place of keys and values."""
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return bool(model._is_stateful or not layers <= _ATTENTION_LAYERS)


def name_experts(text: Any) -> None:
    """Gives a text configuration its number of experts as ``num_experts`` too, by which libraries look for it."""
    if (count := _num_experts(text)) and not hasattr(text, "num_experts"):
        text.num_experts = count


def context_length(text: Any) -> int | None:
    """The context length that a text configuration states."""
    length: int | None = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return length


def library_message(error: BaseException) -> str:
    """A library's own message with its kind, short."""
    return f"{type(error).__name__}: {first_line(error, _MESSAGE_LENGTH)}"


def _check_configuration(config: Any) -> None:
    """Refuses what no method here trains: encoders, translators, weights that are already quantised."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise _refused(f"a {config.model_type} model, which has an encoder beside its decoder")
    if text.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(text, "is_decoder", False):
        raise _refused(f"a {text.model_type} model, an encoder, which reads every token before it predicts one")
    if quantization := getattr(config, "quantization_config", None):
        method = quantization.get("quant_method", "") if isinstance(quantization, dict) else quantization.quant_method
        raise _refused(
            f"weights that are already quantised ({method})",
            "Name the model that they were made from; with `quantization: nf4` it is quantised while it loads.",
        )


def _refused(
    found: str, todo: str = "Name a causal language model that this release of transformers knows."
) -> ModelNotFoundError:
    return ModelNotFoundError(SETTING, found, "a causal language model", todo)


def _packing(model: Any, text: Any, recurrent: bool) -> tuple[Literal["kernel", "mask", "none"], str]:
    """How rows may be packed, and why the kernel for packed sequences does not apply."""
    if recurrent:
        return "none", "a layer's state would pass from one row to the next"
    if not model._supports_attention_backend:
        return "none", "its attention does not know where a row begins"
    windowed = {"sliding_attention", "chunked_attention"} & set(getattr(text, "layer_types", None) or ())
    obstacles = {
        "a window": windowed or (getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)),
        "a soft cap": getattr(text, "attn_logit_softcapping", None),
        "sinks": any(name.endswith("sinks") for name, _ in model.named_parameters()),
        "dropout": any(getattr(text, name, None) for name in ("attention_dropout", "attn_pdrop")),
        "values of another size than keys": getattr(text, "v_head_dim", None),
        "images beside the text": model.config is not text,
    }
    found = [name for name, holds in obstacles.items() if holds]
    return ("mask", f"its attention has {' and '.join(found)}") if found else ("kernel", "")


def _shape(model: Any, text: Any) -> ModelShape:
    hidden = int(text.hidden_size)
    heads = _largest(getattr(text, "num_attention_heads", None)) or 1
    experts = _num_experts(text)
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    inner = next((size for name in _INNER_WIDTHS if (size := _largest(getattr(text, name, None)))), 4 * hidden)
    if experts:
        inner = chosen * (getattr(text, "moe_intermediate_size", None) or inner)
    together = sum(weight.numel() for weight in model.parameters() if weight.ndim == 3) if experts else 0
    output = model.get_output_embeddings()
    return ModelShape(
        num_parameters=model.num_parameters(),
        num_layers=int(text.num_hidden_layers),
        hidden_size=hidden,
        intermediate_size=inner,
        vocab_size=int(text.vocab_size),
        num_attention_heads=heads,
        num_key_value_heads=_largest(getattr(text, "num_key_value_heads", None)) or heads,
        head_dim=getattr(text, "head_dim", None) or hidden // heads,
        model_type=text.model_type,
        tied_embeddings=output is not None and output.weight is model.get_input_embeddings().weight,
        max_positions=context_length(text),
        num_expert_parameters=together,
        share_of_experts=min(1.0, chosen / experts) if experts else 1.0,
    )


def _num_experts(text: Any) -> int:
    return next((int(getattr(text, name)) for name in _EXPERT_COUNTS if getattr(text, name, None)), 0)


def _largest(size: Any) -> int:
    """A size that may differ between layers."""
    return int(max(size) if isinstance(size, list | tuple) else size or 0)
