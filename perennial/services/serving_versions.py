"""The versions that a server holds: it follows the aliases in the registry, and replaces what it serves in one step."""

from __future__ import annotations

import hashlib
import logging
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.operations.routes import shares_of
from tasks.core.errors import PerennialError
from tasks.registry.live import Traffic

logger = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, str]]
Engine = Callable[[Messages, int], tuple[str, bool]]
"""A loaded version: the reply to a conversation, of at most so many tokens, and whether that limit ended it."""


@dataclass(frozen=True)
class Table:
    """What is served at one moment; a request keeps the table that it began with."""

    engines: Mapping[str, Engine]
    shares: Mapping[str, int]

    def choose(self, user: str | None) -> str:
        """The version for a request: by its user, who stays at one, or at random."""
        if user is None:
            place = random.random() * 100  # no secret
        else:
            place = int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest()) % 10_000 / 100
        *others, champion = reversed(list(self.shares))  # the new version first, so that its users stay with it as it grows
        for version in others:
            if place < self.shares[version]:
                return version
        return champion


class Versions:
    """Follows the registry. Where it cannot, the former table stays.

    Args:
        read: Which versions serve now.
        load: The engine of the version under an alias, and its number.
    """

    def __init__(self, read: Callable[[], Traffic], load: Callable[[str], tuple[str, Engine]]) -> None:
        self._read, self._load, self._turn = read, load, threading.Lock()
        self.table: Table | None = None
        self.followed_at = 0.0
        self._loads, self._failed = False, False

    def follow(self) -> Table:
        """The table of this moment; a version that is new is loaded first, while the former table serves.

        Raises:
            PerennialError: There is no champion, MLflow does not answer, or a file is not the registered one.
        """
        with self._turn:
            traffic = self._read()
            shares = shares_of(traffic)
            engines = {v: engine for v, engine in (self.table.engines if self.table else {}).items() if v in shares}
            self._loads = bool(shares.keys() - engines.keys())
            for version in shares.keys() - engines.keys():
                found, engine = self._load("champion" if version == traffic.champion else "rollout")
                engines[found] = engine
            if shares.keys() - engines.keys():  # an alias moved meanwhile
                found = "an alias that moved while its version was loaded"
                raise PerennialError("the registry", found, "the same version", "Nothing: the next look loads it.")
            self.table = Table({version: engines[version] for version in shares}, shares)
            self.followed_at, self._loads, self._failed = time.monotonic(), False, False
            return self.table

    def is_behind(self, seconds: float) -> bool:
        """Whether the registry was not followed for so many seconds; a first load may last longer."""
        loads = self._loads and not self._failed
        return not loads and time.monotonic() - self.followed_at > seconds

    def try_to_follow(self) -> None:
        """The same; an error is logged, and the former table stays."""
        try:
            self.follow()
        except Exception as error:  # whatever happens, the former versions serve on
            self._loads, self._failed = False, True
            message = str(error) if isinstance(error, PerennialError) else type(error).__name__
            logger.error("serving: the registry is not followed: %s", message)


def load_from_registry(client: Any, name: str, alias: str) -> tuple[str, Engine]:
    """The version under an alias, its files compared with their registered digests before any of them runs."""
    import mlflow
    import pandas as pd

    from tasks.registry.fetching import fetch_version

    with tempfile.TemporaryDirectory(prefix="perennial-serve-") as scratch:
        version = fetch_version(client, name, Path(scratch) / "model", alias)
        paths = list(sys.path)
        try:
            model = mlflow.pyfunc.load_model(str(Path(scratch) / "model"))
        finally:
            sys.path[:] = paths  # MLflow leaves the version's folder in it, which is removed
    tokenizer = model.unwrap_python_model()._tokenizer

    def reply(messages: Messages, max_new_tokens: int) -> tuple[str, bool]:
        rows = pd.DataFrame({"messages": [[dict(message) for message in messages]]})
        text = str(model.predict(rows, params={"max_new_tokens": max_new_tokens})[0])
        return text, len(tokenizer(text, add_special_tokens=False)["input_ids"]) >= max_new_tokens

    return version, reply
