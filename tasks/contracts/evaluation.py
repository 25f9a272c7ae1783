"""Scores, attacks, comparisons, and the promotion decision."""

from __future__ import annotations

from typing import Literal

from tasks.contracts.base import Contract
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef


class GroundTruthReport(Contract):
    """Measured precision and recall of the stages against planted ground truth (empty if none is configured)."""

    measurements: tuple[Measurement, ...] = ()


class ArmScores(Contract):
    """One model's aggregate scores on the benchmark; ``examples`` is a table with one row per example and metric column.

    ``general`` is such a table for general questions, which measure what fine-tuning made the model forget; ``slices`` holds
    the means by label, group, length and script, with intervals if there are enough examples.
    """

    arm: str
    model_sha256: str
    examples: DatasetRef
    scores: tuple[Measurement, ...]
    general: DatasetRef | None = None
    slices: DatasetRef | None = None

    def score(self, name: str) -> Measurement | None:
        """The named aggregate, or None if it was not measured."""
        return next((score for score in self.scores if score.name == name), None)


class ModelRanking(Contract):
    """Models by their mean on the same examples, best first; ``lead`` is the first one's gain over the second, paired."""

    metric: str
    order: tuple[int, ...]
    lead: Measurement


class RedTeamArm(Contract):
    """One model's rates under attack (:data:`tasks.measures.safety.RATES`); ``probes`` has one row per probe and rate."""

    arm: str
    model_sha256: str
    probes: DatasetRef
    rates: tuple[Measurement, ...]

    def rate(self, name: str) -> Measurement | None:
        """The named rate, or None if the red team did not measure it."""
        return next((rate for rate in self.rates if rate.name == name), None)


class RedTeamReport(Contract):
    """The results of the same probes for every arm of the benchmark."""

    arms: tuple[RedTeamArm, ...]

    def arm(self, name: str) -> RedTeamArm | None:
        """The named arm, or None."""
        return next((arm for arm in self.arms if arm.arm == name), None)


class PairwiseJudgeResult(Contract):
    """A judge model's comparison of the candidate's replies with an opponent's; it saw each pair in both orders.

    A verdict that changes with the order is a tie, and a tie is half a win. ``num_unjudged`` pairs got no verdict.
    """

    opponent: str
    judge: str
    win_rate: Measurement
    num_wins: int
    num_ties: int
    num_losses: int
    num_unjudged: int


class AnsweredSet(Contract):
    """The scores of every arm (``base``, ``candidate``, and ``champion`` if there is one) on the same examples."""

    dataset: DatasetRef
    arms: tuple[ArmScores, ...]

    def arm(self, name: str) -> ArmScores | None:
        """The named arm, or None."""
        return next((arm for arm in self.arms if arm.arm == name), None)


class FreshScores(AnsweredSet):
    """The scores on the fresh set."""


class LatencyRound(Contract):
    """Seconds for the same batches in one round; the opponent generated replies twice."""

    candidate: float
    opponent: float
    opponent_again: float


class LatencyRounds(Contract):
    """Latency of candidate and opponent, measured alternately in one process on one device."""

    opponent: Literal["champion", "base"]
    num_examples: int
    device: str
    rounds: tuple[LatencyRound, ...]


class BenchmarkReport(AnsweredSet):
    """The scores on the frozen set, and all other evidence for the decision.

    ``latency`` is None unless a guard on it is configured and there is an opponent. ``fresh`` has the scores on the newest
    rows, or is None with the reason in ``holdout_unavailable_reason``. ``red_team`` is None, and ``judgements`` is empty, if
    they are not configured.
    """

    red_team: RedTeamReport | None = None
    judgements: tuple[PairwiseJudgeResult, ...] = ()
    fresh: FreshScores | None = None
    holdout_unavailable_reason: str = ""
    latency: LatencyRounds | None = None


class PromptArm(Contract):
    """The frozen examples with another prompt; ids, labels and references are those of the frozen set."""

    arm: Literal["prompt", "few-shot", "retrieval"]
    dataset: DatasetRef


class PromptingScore(Contract):
    """The score of the base model with one prompt, and its gain over the plain prompt."""

    arm: str
    score: Measurement
    gain: Measurement | None
    reaches_target: bool


class PromptingVerdict(Contract):
    """Whether training is needed, with the reasons; ``verdict`` is None if nothing was measured and data suffices."""

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
    """A paired difference, candidate minus opponent, with its interval and the rule that decides on it."""

    opponent: str
    metric: str
    difference: float
    low: float
    high: float
    num_examples: int
    rule: str
    passed: bool


class PromotionDecision(Contract):
    """The decision on the candidate, with the reasons; ``remedies`` lists what would change it."""

    outcome: Literal["PROMOTE", "HOLD", "NEEDS_HUMAN"]
    primary_metric: str
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()
    minimum_detectable_effect: float | None = None
    champion_version: str | None = None
