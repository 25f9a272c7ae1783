"""What a base's chat template and special tokens are, read once from its folder; a base without a usable one is refused."""

from __future__ import annotations

from pathlib import Path

from tasks.contracts.base import Contract
from tasks.contracts.references import FolderRef
from tasks.core.library_versions import version_of
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, sha256_of_json
from tasks.modeling.templates import Changes, changes_of


class TemplateProfile(Contract):
    """How conversations are written for a base, and what was done to its template for that.

    Attributes:
        changes: What was added to the published template.
        reads_tools: Whether it writes the tools that a conversation may call.
        marks_replies: Whether it marks the replies for transformers.
        ends: The tokens that end a reply.
        padding: The token that fills shorter rows.
    """

    changes: Changes
    reads_tools: bool
    marks_replies: bool
    ends: tuple[str, ...]
    padding: str

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """Titled lines for a person: what it can, and what is done about what it cannot."""
        changes = self.changes
        able = ["system text" + (" (moved into the first user message)" if changes.moves_system else "")]
        able += ["tools"] if self.reads_tools else []
        able += ["marked replies"] if self.marks_replies else []
        added = {
            "tools": "" if self.reads_tools else "not written; rows with tools need `chat_template: hermes` or your own",
            "reply": "generation starts as replies do in conversations" if changes.sets_start else "",
            "date": "fixed, so that the same row is the same text on any day" if changes.fixes_date else "",
        }
        return (
            ("template", ", ".join(able)),
            *((name, text) for name, text in added.items() if text),
            ("special tokens", f"a reply ends with {' or '.join(self.ends)}; padding is {self.padding}"),
        )


def template_in_store(store: Store, folder: FolderRef) -> TemplateProfile:
    """The template's profile of a base model in the store; made once for each model and version of this code.

    Raises:
        ModelNotFoundError: Its tokenizer cannot be loaded, has no chat template, or the template refuses a question.
        ConfigError: The template starts a reply differently in a conversation and in generation.
    """
    maker = [code_sha256(file_of("tasks.modeling.template_profile")), version_of("transformers")]
    name = f"profiles/template-{sha256_of_json([folder.sha256, *maker])}"
    stored = store.read_record(name, TemplateProfile)
    return stored or store.create_record(name, describe_template(store.fetch_folder(folder)))


def describe_template(folder: Path, template: str | None = None) -> TemplateProfile:
    """The profile of the tokenizer in a folder.

    Args:
        folder: A model's folder.
        template: A chat template in place of the tokenizer's own.

    Raises:
        ModelNotFoundError: See :func:`template_in_store`.
        ConfigError: See :func:`template_in_store`.
    """
    from tasks.modeling.conversations import default_template_of, split_replies, stop_token_ids
    from tasks.modeling.loading import load_tokenizer
    from tasks.modeling.tool_templates import knows_tools

    tokenizer = load_tokenizer(folder)
    if template is not None:
        tokenizer.chat_template = template
    question, reply = {"role": "user", "content": "text"}, {"role": "assistant", "content": "text"}
    stops = stop_token_ids(tokenizer, None)
    split_replies(tokenizer, [question], [reply], stops)
    text = default_template_of(tokenizer)
    return TemplateProfile(
        changes=changes_of(text),
        reads_tools=knows_tools(text),
        marks_replies="{% generation" in text or "{%- generation" in text,
        ends=tuple(sorted(str(tokenizer.convert_ids_to_tokens(token)) for token in stops)),
        padding=str(tokenizer.pad_token),
    )
