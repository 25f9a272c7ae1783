"""Scores, attacks, comparisons and the decision that follows from them."""

from __future__ import annotations

from typing import Literal

from tasks.contracts.base import Contract
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef


class GroundTruthReport(Contract):
    """Measured precision and recall of the stages against planted ground truth (None where no truth is configured)."""

    measurements: tuple[Measurement, ...] = ()


class ArmScores(Contract):
    """One model's aggregate scores on the benchmark; ``examples`` is a table with one row per example and metric column.

    ``general`` is the like for general questions, which show what fine-tuning made the model forget; ``slices`` holds the
    means by label, group, length and script, with intervals where there are enough examples.
    """

    arm: str
    model_sha256: str
    examples: DatasetRef
    scores: tuple[Measurement, ...]
    general: DatasetRef | None = None
    slices: DatasetRef | None = None

    def score(self, name: str) -> Measurement | None:
        """The named aggregate, or None when it was not measured."""
        return next((score for score in self.scores if score.name == name), None)


class RedTeamArm(Contract):
    """One model's rates under attack (:data:`tasks.measures.safety.RATES`); ``probes`` has one row per probe and rate."""

    arm: str
    model_sha256: str
    probes: DatasetRef
    rates: tuple[Measurement, ...]

    def rate(self, name: str) -> Measurement | None:
        """The named rate, or None when the red team does not know it."""
        return next((rate for rate in self.rates if rate.name == name), None)


class RedTeamReport(Contract):
    """The same probes put to every arm of the benchmark."""

    arms: tuple[RedTeamArm, ...]

    def arm(self, name: str) -> RedTeamArm | None:
        """The named arm, or None."""
        return next((arm for arm in self.arms if arm.arm == name), None)


class PairwiseJudgeResult(Contract):
    """What a language model found the candidate's replies worth beside an opponent's; each pair was shown in both orders.

    A verdict that changed with the order is a tie, and a tie is half a win. ``num_unjudged`` pairs got no verdict.
    """

    opponent: str
    judge: str
    win_rate: Measurement
    num_wins: int
    num_ties: int
    num_losses: int
    num_unjudged: int


class AnsweredSet(Contract):
    """The same examples answered by every arm (``base``, ``candidate``, ``champion`` when there is one)."""

    dataset: DatasetRef
    arms: tuple[ArmScores, ...]

    def arm(self, name: str) -> ArmScores | None:
        """The named arm, or None."""
        return next((arm for arm in self.arms if arm.arm == name), None)


class FreshScores(AnsweredSet):
    """The scores on the fresh set."""


class LatencyRound(Contract):
    """Seconds for the same batches in one round; the opponent answered them twice."""

    candidate: float
    opponent: float
    opponent_again: float


class LatencyRounds(Contract):
    """Candidate and opponent timed in turns, in one sitting on one device."""

    opponent: Literal["champion", "base"]
    num_examples: int
    device: str
    rounds: tuple[LatencyRound, ...]


class BenchmarkReport(AnsweredSet):
    """The scores on the frozen set, and all that they are judged with.

    ``latency`` is None unless a guard on it is configured and there is an opponent. ``fresh`` is the like for the newest
    rows, or None with the reason in ``holdout_unavailable_reason``. ``red_team`` is None, and
    ``judgements`` are none, when the configuration leaves them out.
    """

    red_team: RedTeamReport | None = None
    judgements: tuple[PairwiseJudgeResult, ...] = ()
    fresh: FreshScores | None = None
    holdout_unavailable_reason: str = ""
    latency: LatencyRounds | None = None


class PromptArm(Contract):
    """The frozen examples under another prompt: ids, labels and references are those of the frozen set."""

    arm: Literal["prompt", "few-shot", "retrieval"]
    dataset: DatasetRef


class PromptingScore(Contract):
    """What the base model scores when it is asked in one way, and what that gains over how it is asked today."""

    arm: str
    score: Measurement
    gain: Measurement | None
    reaches_target: bool


class PromptingVerdict(Contract):
    """Whether training is the right means, and why, in plain words; None when nothing was measured and nothing lacks."""

    verdict: Literal["FINE_TUNE", "PROMPT_IS_ENOUGH", "RAG_FIRST", "NOT_ENOUGH_DATA"] | None
    metric: str
    target: float | None
    arms: tuple[PromptingScore, ...]
    num_train_rows: int
    num_examples: int
    minimum_detectable_effect: float | None
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()


class Comparison(Contract):
    """A paired difference, candidate minus opponent, with its interval and the rule that judged it."""

    opponent: str
    metric: str
    difference: float
    low: float
    high: float
    num_examples: int
    rule: str
    passed: bool


class PromotionDecision(Contract):
    """What to do with the candidate, and why, in plain words; ``remedies`` says what would change the answer."""

    outcome: Literal["PROMOTE", "HOLD", "NEEDS_HUMAN"]
    primary_metric: str
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()
    minimum_detectable_effect: float | None = None
    champion_version: str | None = None
