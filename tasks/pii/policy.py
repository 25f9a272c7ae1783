"""The frozen rules of one scrubbing run, with the hash that names them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import cached_property

from tasks.core.errors import ConfigError
from tasks.core.secrets import id_of_key
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import sha256_of_json
from tasks.pii.config import OperatorName, PiiConfig
from tasks.pii.lexicon import lists_sha256

_EXECUTION_FIELDS = {
    "batch_size",
    "max_record_seconds",
    "num_workers",
    "key_env",
    "key_block",
    "key_id",
    "verification",
    "max_quarantined_share",
    "max_masked_share",
    "rows_per_shard",
    "runner",
    "ray_address",
}


@dataclass(frozen=True)
class Policy:
    """What to find and what to put in its place; equal policies give equal output for equal text.

    Args:
        config: The stage's settings.
        common_terms: Lower-case words so frequent in the data that they name its products rather than its people.
        class_values: Labels, groups and other values beside the texts that name classes of rows rather than a person; they
            are left as they are (see :func:`tasks.pii.rows.find_class_values`).
        key: Secret of the keyed operators and of the findings' fingerprints; never shown, stored or hashed into a name.

    Raises:
        ConfigError: A keyed operator is configured, but there is no key; or the key is not the expected one.
    """

    config: PiiConfig
    key: bytes | None = field(default=None, repr=False)
    common_terms: frozenset[str] = frozenset()
    class_values: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        keyed = self.config.keyed_operators
        if keyed and not self.key:
            raise ConfigError(
                "pii.operator",
                f"operator {', '.join(keyed)} without a key",
                f"a secret in the environment variable {self.config.key_env} or a Prefect Secret block in pii.key_block",
                "Make one with `openssl rand -hex 32`, keep it as long as pseudonyms must stay the same.",
            )
        if self.config.key_id is not None and self.key_id != self.config.key_id:
            raise ConfigError(
                "pii.key_id",
                f"a key with id {self.key_id}",
                self.config.key_id,
                "Supply the key that the id belongs to, or set pii.key_id to the new key's id to rotate it.",
            )

    @property
    def key_id(self) -> str | None:
        """A short name of the key, from which the key cannot be found."""
        return id_of_key(self.key) if self.key else None

    @cached_property
    def sha256(self) -> str:
        """The hash of everything that decides the output."""
        rules = self.config.model_dump(mode="json", exclude=_EXECUTION_FIELDS)
        return sha256_of_json(
            {
                "code": code_sha256(file_of("tasks.pii.rows")),
                "lists": lists_sha256(),
                "rules": rules,
                "outside": dict(self.config.ner.external_fingerprints()),
                "common_terms": sorted(self.common_terms),
                "class_values": sorted(self.class_values),
                "key_id": self.key_id,
            }
        )

    def operator_for(self, entity: str) -> OperatorName:
        """The operator of an entity."""
        return self.config.operators.get(entity, self.config.operator)

    def fingerprint(self, entity: str, value: str) -> str | None:
        """A keyed, one-way name of a value, equal for equal values of an entity; None without a key."""
        if self.key is None:
            return None
        folded = " ".join(value.casefold().split())
        return hmac.new(self.key, f"{entity}\0{folded}".encode(), hashlib.sha256).hexdigest()[:16]
