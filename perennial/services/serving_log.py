"""The log of `perennial serve`: a line for each request, which the check of production and a retrain read.

Texts are scrubbed before anything touches the disk. What may not be kept leaves its figures alone, and a disk that is full
costs lines, never a reply.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import ConfigError

if TYPE_CHECKING:
    from tasks.guard.filtering import Guard

logger = logging.getLogger(__name__)

Verdict = Literal["up", "down"]


class RequestLog:
    """Appends a line for each request and for each verdict of a user to the file of the day (UTC).

    Args:
        folder: Where the files are; made if it is not there.
        scrubber: Masks personal data; a text that it blocks is not kept.
        share: Share of the requests whose texts are kept, chosen by their ids. Figures are kept of all.
        days: Files of earlier days are removed.

    Raises:
        ConfigError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, scrubber: Guard, *, share: float = 1.0, days: int = 30) -> None:
        self._folder, self._scrubber, self._share, self._days = folder, scrubber, share, days
        self._lock = threading.Lock()
        self._lost = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except OSError as error:
            raise ConfigError("--log", type(error).__name__, "a folder that can be written", "Name another.") from error
        if not writable:
            raise ConfigError("--log", "a folder that may not be written", "one that may", "Correct its permissions.")

    def add(
        self,
        request: str,
        version: str,
        messages: Sequence[Mapping[str, str]],
        reply: str | None,
        *,
        at: dt.datetime,
        milliseconds: float,
    ) -> None:
        """Writes the line of a request; ``reply`` is None where it failed."""
        line: dict[str, Any] = {
            "id": request,
            "trace_id": request,
            "created_at": at.isoformat(),
            "latency_ms": round(milliseconds, 1),
            "error": reply is None,
            "model_version": version,
        }
        if self._is_kept(request):
            talk = [*messages, *([{"role": "assistant", "content": reply}] if reply is not None else [])]
            texts = [self._scrubber.check(message["content"], "output").text for message in talk]
            if None not in texts:
                line["messages"] = [{"role": one["role"], "content": text} for one, text in zip(talk, texts, strict=True)]
        self._write(line, at)

    def add_verdict(self, request: str, verdict: Verdict, *, at: dt.datetime) -> None:
        """Writes what a user thinks of a reply."""
        self._write({"trace_id": request, "feedback": verdict, "created_at": at.isoformat()}, at)

    def _is_kept(self, request: str) -> bool:
        return int.from_bytes(hashlib.blake2b(request.encode(), digest_size=4).digest()) < self._share * 2**32

    def _write(self, line: Mapping[str, Any], at: dt.datetime) -> None:
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        path = self._folder / f"requests-{at:%Y-%m-%d}.jsonl"
        with self._lock:
            try:
                is_new = not path.exists()
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    size = os.fstat(descriptor).st_size
                    if os.write(descriptor, data) < len(data):
                        os.ftruncate(descriptor, size)  # half a line would spoil the next one
                        raise OSError("a write that was cut")
                finally:
                    os.close(descriptor)
                if is_new:
                    self._remove_old(at)
                if self._lost:
                    logger.warning("serving: the log is written again; %d lines are lost", self._lost)
                    self._lost = 0
            except OSError as error:
                if not self._lost:
                    logger.error("serving: the log cannot be written: %s", type(error).__name__)
                self._lost += 1

    def _remove_old(self, now: dt.datetime) -> None:
        oldest = f"requests-{now - dt.timedelta(days=self._days):%Y-%m-%d}.jsonl"
        for path in self._folder.glob("requests-????-??-??.jsonl"):
            if path.name < oldest:
                path.unlink(missing_ok=True)


def log_scrubber(settings: Any) -> Guard:
    """What scrubs the log: personal data and confidential content as in training rows, whatever the guard lets pass."""
    from perennial.services.guard import policy_of
    from tasks.guard.config import GuardRulesConfig
    from tasks.guard.filtering import Guard

    policy = policy_of(settings)
    return Guard(policy.model_copy(update={"rules": GuardRulesConfig(max_chars=100_000, injection="off")}))
