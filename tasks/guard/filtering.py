"""The reference implementation of a guard policy: a text in, a verdict out. Whatever goes wrong, nothing passes.

::

    guard = Guard(read_policy(Path("policy.json")))
    answer = guard.wrap(model)            # model: str -> str
    guard.check("My card is ...", "input").action
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from tasks.confidential.config import ConfidentialConfig
from tasks.confidential.filtering import ConfidentialMatcher
from tasks.confidential.terms import read_terms
from tasks.contracts.base import FrozenModel
from tasks.core.documents import read_text
from tasks.core.errors import ConfigError, InputError
from tasks.guard.config import GuardRulesConfig
from tasks.guard.injection import BUILT_IN, find_injections
from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.pii.second_look import match_patterns

logger = logging.getLogger(__name__)

Direction = Literal["input", "output"]

_PLAIN_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class GuardPolicy(FrozenModel):
    """Everything that decides a verdict, as one file.

    The terms of a deny-list file stay in that file: the policy names it with its digest, and a guard does not start when
    the file is gone or is another one.
    """

    version: Literal[1] = 1
    rules: GuardRulesConfig
    pii: PiiConfig
    confidential: ConfidentialConfig
    injection: dict[str, str] = Field(description="Every pattern that is looked for, the built-in ones included.")
    outside: dict[str, str] = Field({}, description="Digest of each outside file by the setting that names it.")

    @classmethod
    def of(cls, rules: GuardRulesConfig, pii: PiiConfig, confidential: ConfidentialConfig) -> Self:
        """The policy of a configuration."""
        return cls(
            rules=rules,
            pii=pii,
            confidential=confidential,
            injection={**BUILT_IN, **rules.injection_patterns},
            outside=dict(confidential.external_fingerprints()),
        )


@dataclass(frozen=True)
class GuardVerdict:
    """What becomes of a text: ``text`` is None when it is blocked; ``reasons`` name kinds, never values."""

    action: Literal["passed", "masked", "blocked"]
    text: str | None
    reasons: tuple[str, ...] = ()


class Guard:
    """Applies a policy to texts.

    Args:
        policy: The rules.

    Raises:
        ConfigError: The policy needs a key that is not there, names a secret's pattern that does not exist, or has an
            injection pattern that does not compile.
        InputError: The deny-list file is gone, unreadable or not the one that the policy was made with.
    """

    def __init__(self, policy: GuardPolicy) -> None:
        self._rules = policy.rules
        self._scrubbing = Policy(policy.pii, policy.pii.load_key())
        self._matcher = ConfidentialMatcher(policy.confidential, _file_terms(policy))
        self._injection = {name: _compiled(name, pattern) for name, pattern in policy.injection.items()}

    def check(self, text: str, direction: Direction) -> GuardVerdict:
        """The verdict on one text; an input is also searched for instructions to the model."""
        try:
            return self._check(text, direction)
        except Exception as error:  # fail closed: whatever went wrong, the text does not pass
            logger.warning("guard: a text could not be checked: %s", type(error).__name__)
            return GuardVerdict("blocked", None, (f"error:{type(error).__name__}",))

    @property
    def blocked_reply(self) -> str:
        """What stands in place of a reply that is blocked."""
        return self._rules.blocked_reply

    def wrap(self, model: Callable[[str], str]) -> Callable[[str], str]:
        """The model behind the guard: what is blocked on its way in or out is answered by ``rules.blocked_reply``."""

        def guarded(prompt: str) -> str:
            entering = self.check(prompt, "input")
            if entering.text is None:
                return self._rules.blocked_reply
            leaving = self.check(model(entering.text), "output")
            return self._rules.blocked_reply if leaving.text is None else leaving.text

        return guarded

    def filter_lines(self, lines: Iterable[bytes], direction: Direction) -> Iterator[str]:
        """One line for each line: of a JSON object its verdict, of plain text the text that may pass.

        An object's ``text`` is checked; its ``id`` is kept where it is a plain one, and everything else left out. A blocked
        line of plain text becomes ``[blocked: reason]``.
        """
        for line in lines:
            try:
                plain = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield "[blocked: invalid_unicode]"
                continue
            record = _record(plain)
            if record is None:
                verdict = self.check(plain, direction)
                yield verdict.text if verdict.text is not None else f"[blocked: {', '.join(verdict.reasons)}]"
                continue
            text = record.get("text")
            verdict = self.check(text, direction) if isinstance(text, str) else GuardVerdict("blocked", None, ("no_text",))
            kept = {"id": record["id"]} if _PLAIN_ID.fullmatch(str(record.get("id", ""))) else {}
            shown = {"action": verdict.action, "reasons": verdict.reasons, "text": verdict.text}
            yield json.dumps({**kept, **shown})

    def _check(self, text: str, direction: Direction) -> GuardVerdict:
        rules = self._rules
        text.encode("utf-8")  # half a character is an error, and errors block
        if len(text) > rules.max_chars:
            return GuardVerdict("blocked", None, ("too_long",))
        reasons: list[str] = []
        if rules.confidential == "block":
            reasons += [f"confidential:{hit.pattern}" for hit in self._matcher.find(text)]
        if rules.injection == "block" and direction == "input":
            reasons += [f"injection:{name}" for name in find_injections(text, self._injection)]
        if reasons:
            return GuardVerdict("blocked", None, tuple(dict.fromkeys(reasons)))
        if rules.personal_data == "off" or not text.strip():
            return GuardVerdict("passed", text)
        return self._check_personal_data(text)

    def _check_personal_data(self, text: str) -> GuardVerdict:
        scrubbed = scrub_batch([text], self._scrubbing)
        clean = scrubbed.texts[0]
        if clean is None:
            return GuardVerdict("blocked", None, tuple(text.reason for text in scrubbed.quarantine))
        missed = [f"personal_data:{name}" for _, _, name in match_patterns(clean, scrubbed.replacements.get(0, ()))]
        masked = [f"personal_data:{finding.entity}" for finding in scrubbed.findings if finding.operator != "keep"]
        reasons = tuple(dict.fromkeys([*masked, *missed]))
        if missed or (masked and self._rules.personal_data == "block"):
            return GuardVerdict("blocked", None, reasons)
        return GuardVerdict("masked" if masked else "passed", clean, reasons)


def read_policy(path: Path) -> GuardPolicy:
    """The policy in a file that `perennial guard --export` wrote.

    Raises:
        ConfigError: The file cannot be read or is no policy.
    """
    try:
        return GuardPolicy.model_validate_json(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), type(error).__name__, "a readable policy file", "Correct the path.") from error
    except ValidationError as error:
        places = ", ".join(".".join(map(str, fault["loc"])) or "the file" for fault in error.errors(include_input=False)[:5])
        raise ConfigError(
            str(path), f"faults at {places}", "what `perennial guard --export` writes", "Export the policy again."
        ) from error


def _record(line: str) -> dict[str, Any] | None:
    """The JSON object on a line, or None when the line is plain text."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        fault = f"a pattern that does not compile at its character {error.pos}"
        raise ConfigError(f"injection.{name}", fault, "a regular expression", "Correct it in the policy.") from None


def _file_terms(policy: GuardPolicy) -> tuple[str, ...]:
    """The terms of the deny-list file, which must be the one that the policy was made with."""
    name = policy.confidential.denied_terms_file
    if name is None:
        return ()
    if policy.confidential.external_fingerprints() != policy.outside:
        raise InputError(
            f"confidential.denied_terms_file {name}",
            "no file, or another one than the policy was made with",
            f"the file with SHA-256 {policy.outside.get('denied_terms_file', 'none')[:12]}",
            "Put it back, or export the policy again.",
        )
    if not policy.outside:
        raise InputError(
            f"confidential.denied_terms_file {name}", "no file", "the list of denied terms", "Correct the path."
        )
    return read_terms(read_text(Path(name)))
