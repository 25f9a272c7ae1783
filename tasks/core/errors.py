"""Every error that Perennial raises on purpose, in one tree.

::

    PerennialError                  exit code 1: something failed that the user did not cause
    ├── UserError                   exit code 2: the user can mend it
    │   ├── ConfigError             a configuration file or value
    │   ├── InputError              a data file: missing, empty, unreadable, not what its format says
    │   │   └── ClosedQuestionError an answer that cannot be taken: the question is not open
    │   ├── ModelNotFoundError      a base or embedding model that cannot be read
    │   ├── MissingDependencyError  an optional package that a configured feature needs
    │   └── StoreError              the artifact store: unwritable, full, unreachable
    ├── GateError                   exit code 3: the data or the model did not pass a gate, on purpose
    │   ├── QualityLimitError       a stage removed or flagged more than its limit allows
    │   ├── ScrubVerificationError  personal data survived, or the canaries were not all caught
    │   ├── FitVerdictError         the fit verdict advises against training, and the configuration says to stop then
    │   ├── LineageError            a data set does not descend from what it must descend from
    │   ├── BudgetError             training would take more device-hours or money than its ceiling allows
    │   ├── RolloutError            a rollout may not go on: its bake time, or a live metric
    │   └── ReviewPendingError      rows await a person's answer, and the configuration says to stop for it
    ├── IntegrityError              stored bytes are gone or are not the bytes that were written
    ├── TrainingError               the trainer process failed after all its attempts
    │   └── OutOfMemoryError        every rung of the memory ladder was tried
    ├── HandOverError               a run on another pool did not complete
    └── RegistryError               the model registry refused, or its state is not what was judged
        ├── RegistryOutageError     it does not answer
        └── NothingToGoBackToError  a rollback without a previous champion

A message has four parts: where (configuration path, file, row id), what was found, what was expected, and what to do.
Never a record's text, nor what an address has of a password.
"""

from __future__ import annotations

from tasks.core.addresses import without_secrets


class PerennialError(Exception):
    """Base of the tree; carries the four parts of its message.

    Args:
        where: Configuration path, file, dataset or row id.
        found: What was there.
        expected: What should have been there.
        todo: What the reader can do about it.
    """

    exit_code = 1

    def __init__(self, where: str, found: str, expected: str, todo: str) -> None:
        parts = tuple(map(without_secrets, (where, found, expected, todo)))
        super().__init__(*parts)
        self.where, self.found, self.expected, self.todo = parts

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected}. {self.todo}"


class UserError(PerennialError):
    """A mistake that the user can mend."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration file or value is wrong; lists every fault found, not the first."""


class InputError(UserError):
    """A data file is missing, empty, unreadable or not what its format says."""


class ClosedQuestionError(InputError):
    """An answer that cannot be taken: the question was answered, expired, was withdrawn, or was never asked."""


class ModelNotFoundError(UserError):
    """A configured model cannot be read."""


class MissingDependencyError(UserError):
    """A configured feature needs a package that is not installed."""


class StoreError(UserError):
    """The artifact store cannot be written, is full or cannot be reached."""


class GateError(PerennialError):
    """A gate said no; the pipeline works as designed."""

    exit_code = 3


class QualityLimitError(GateError):
    """A stage removed or flagged a larger share of rows than its limit allows."""


class ScrubVerificationError(GateError):
    """Personal data survived scrubbing, or canary recall fell below its gate."""


class LineageError(GateError):
    """A data set does not descend from the snapshot, or did not pass the gates, that it must have."""


class BudgetError(GateError):
    """Training would take more device-hours, or cost more, than the configuration allows; nothing was spent on it."""


class FitVerdictError(GateError):
    """The fit verdict advises against training, and the configuration says to stop then."""


class RolloutError(GateError):
    """A rollout may not go on: it has not baked long enough, or a live metric says stop."""


class ReviewPendingError(GateError):
    """Rows await a person's answer; the run goes on from here once they are answered."""


class IntegrityError(PerennialError):
    """Stored bytes are gone, or differ from what was written."""


class TrainingError(PerennialError):
    """The trainer process failed after every attempt it was allowed."""


class OutOfMemoryError(TrainingError):
    """The trainer ran out of memory on every rung of its ladder."""


class HandOverError(PerennialError):
    """A stage that was handed over to another pool did not complete there."""


class RegistryError(PerennialError):
    """The model registry refused, or changed under a decision."""


class RegistryOutageError(RegistryError):
    """The model registry does not answer; what was asked of it may be asked again."""


class NothingToGoBackToError(RegistryError):
    """A rollback of a model whose champion replaced no other."""
