"""Every deliberate error of Perennial, in one tree.

::

    PerennialError                  exit code 1: a failure that the user did not cause
    ├── UserError                   exit code 2: the user can correct it
    │   ├── ConfigError             a configuration file or value
    │   ├── InputError              a data file: missing, empty, unreadable, not what its format says
    │   │   └── ClosedQuestionError an answer to a request that is not open
    │   ├── ModelNotFoundError      a base or embedding model that cannot be read
    │   ├── MissingDependencyError  an optional package that a configured feature needs
    │   └── StoreError              the artifact store: unwritable, full, unreachable
    ├── GateError                   exit code 3: a gate rejected the data or the model
    │   ├── QualityLimitError       a stage removed or flagged more rows than its limit allows
    │   ├── ScrubVerificationError  personal data remains, or canaries were missed
    │   ├── FitVerdictError         the prompting baselines suffice, and the configuration stops the run then
    │   ├── LineageError            a data set does not descend from its snapshot
    │   ├── BudgetError             training would take more device-hours or money than its ceiling allows
    │   ├── RolloutError            a rollout cannot advance: its bake time, or a live metric
    │   └── ReviewPendingError      rows await a person's decision, and the configuration stops the run for it
    ├── IntegrityError              stored bytes are missing or altered
    ├── TrainingError               the trainer process failed after all its attempts
    │   └── OutOfMemoryError        all out-of-memory fallbacks failed too
    ├── HandOverError               a run on another pool did not complete
    └── RegistryError               the model registry rejected a call, or its state has changed
        ├── RegistryOutageError     it does not respond
        └── NothingToGoBackToError  a rollback without a previous champion

A message has four parts: where (configuration path, file, row id), what was found, what was expected, and what to do.
It never contains the text of a record or a password.
"""

from __future__ import annotations

from tasks.core.addresses import without_secrets


class PerennialError(Exception):
    """Base of the tree, with the four parts of its message.

    Args:
        where: Configuration path, file, dataset or row id.
        found: What was found.
        expected: What was expected.
        todo: What the user can do.
    """

    exit_code = 1

    def __init__(self, where: str, found: str, expected: str, todo: str) -> None:
        parts = tuple(map(without_secrets, (where, found, expected, todo)))
        super().__init__(*parts)
        self.where, self.found, self.expected, self.todo = parts

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected}. {self.todo}"


class UserError(PerennialError):
    """An error that the user can correct."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration file or value is wrong; lists every fault."""


class InputError(UserError):
    """A data file is missing, empty, unreadable or not what its format says."""


class ClosedQuestionError(InputError):
    """An answer to a request that was answered, expired, withdrawn, or never made."""


class NotAnApproverError(InputError):
    """An answer by somebody who may not give it, or whose identity is not known well enough; the request stays open."""


class ModelNotFoundError(UserError):
    """A configured model cannot be read."""


class MissingDependencyError(UserError):
    """A configured feature needs a package that is not installed."""


class StoreError(UserError):
    """The artifact store cannot be written, is full or cannot be reached."""


class GateError(PerennialError):
    """A gate rejected the data or the model; the pipeline works as designed."""

    exit_code = 3


class QualityLimitError(GateError):
    """A stage removed or flagged a larger share of rows than its limit allows."""


class ScrubVerificationError(GateError):
    """Personal data remains after scrubbing, or canary recall is below its gate."""


class LineageError(GateError):
    """A data set does not descend from the required snapshot, or did not pass a required gate."""


class BudgetError(GateError):
    """Training would take more device-hours, or cost more, than the configuration allows; it did not start."""


class FitVerdictError(GateError):
    """The prompting baselines suffice, and the configuration stops the run then."""


class RolloutError(GateError):
    """A rollout cannot advance: its bake time is not over, or a live metric is beyond its limit."""


class ReviewPendingError(GateError):
    """Rows await a person's decision; a repeated run continues from here."""


class IntegrityError(PerennialError):
    """Stored bytes are missing or altered."""


class TrainingError(PerennialError):
    """The trainer process failed in all its attempts."""


class OutOfMemoryError(TrainingError):
    """The trainer ran out of memory with every fallback."""


class HandOverError(PerennialError):
    """A stage did not complete on another pool."""


class RegistryError(PerennialError):
    """The model registry rejected a call, or changed after a decision."""


class RegistryOutageError(RegistryError):
    """The model registry does not respond; the call may be repeated."""


class NothingToGoBackToError(RegistryError):
    """A rollback of a model without a previous champion."""
