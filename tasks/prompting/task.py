"""The prompting baselines, and the verdict on them, as Prefect tasks."""

from __future__ import annotations

from typing import Any

from tasks.contracts.evaluation import ArmScores, PromptArm, PromptingVerdict
from tasks.contracts.references import DatasetRef
from tasks.core.errors import FitVerdictError
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.prompting.config import FitConfig


def _markdown(verdict: PromptingVerdict) -> str:
    lines = [f"## {verdict.verdict or 'Not measured'}", "", *(f"- {reason}" for reason in verdict.reasons)]
    lines += ["", "What would change this:", "", *(f"- {remedy}" for remedy in verdict.remedies)]
    lines += ["", f"| baseline | {verdict.metric} | low | high | examples |", "|---|---|---|---|---|"]
    lines += [
        f"| {arm.arm} | {arm.score.value:.3f} | {arm.score.low:.3f} | {arm.score.high:.3f} | {arm.score.num_samples} |"
        for arm in verdict.arms
    ]
    return "\n".join(lines)


@stage()
def prompt_arms(frozen: DatasetRef, train: DatasetRef, config: FitConfig) -> tuple[PromptArm, ...]:
    """The frozen examples with each other prompt that the configuration and the rows allow.

    Args:
        frozen: The frozen examples; ids, labels and reference replies stay the same.
        train: Rows from which examples in the prompt are chosen; passages come from the contexts of both.
        config: Which baselines, and how.

    Raises:
        InputError: The folder of documents is missing or holds no text.
    """
    from tasks.prompting.prompts import with_passages, with_prompt, with_shots
    from tasks.prompting.retrieval import read_passages

    store = run_store()
    rows, train_rows = store.read_rows(frozen), store.read_rows(train)
    documents = read_passages(config.documents) if config.documents else []
    contexts = sorted({row["context"] for row in (*train_rows, *rows) if row["context"]})
    baselines = {"prompt": with_prompt(rows, config.prompt)} if config.prompt else {}
    if config.num_shots and train_rows:
        baselines["few-shot"] = with_shots(rows, train_rows, config)
    if documents or contexts:
        baselines["retrieval"] = with_passages(rows, [*documents, *contexts], config)
    arms = tuple(
        PromptArm(
            arm=name,
            dataset=store.write_rows(
                prompted,
                kind=frozen.kind,
                parents=[frozen, train],
                # Documents passed no gate.
                passed=() if name == "retrieval" and documents else frozen.passed,
            ),
        )
        for name, prompted in baselines.items()
    )
    stage_progress().summarize(f"{len(arms)} baselines: {', '.join(baselines) or 'none'}")
    return arms


@stage(unit="baselines", page=_markdown, key="fit", title=lambda verdict: verdict.verdict or "not measured")
def measure_prompting_baselines(
    scores: tuple[ArmScores, ...], frozen: DatasetRef, train: DatasetRef, config: FitConfig, max_examples: int | None
) -> PromptingVerdict:
    """Whether to train at all, with reasons; the size of the data is checked even where nothing was measured.

    Args:
        scores: Every baseline, ``base`` among them; empty when the measurement is off.
        frozen: The frozen examples.
        train: The rows to train on.
        config: The target, and the confidence of the verdict.
        max_examples: The most examples that the benchmark compares models on.

    Raises:
        FitVerdictError: The verdict is not ``FINE_TUNE``, and ``fit.on_verdict`` is ``stop``.
    """
    from tasks.prompting.verdict import decide

    assert config.metric is not None, "the configuration fills it in"
    metric = config.metric
    verdict = decide(
        {arm.arm: _scores_by_id(arm, metric) for arm in scores},
        metric,
        config,
        num_train_rows=train.num_rows,
        num_examples=min(frozen.num_rows, max_examples or frozen.num_rows),
    )
    verdict = _with_cut_prompts(verdict, scores)
    stage_progress().summarize(f"{verdict.verdict or 'not measured'}: {verdict.reasons[0]}")
    if config.on_verdict == "stop" and verdict.verdict not in ("FINE_TUNE", None):
        raise FitVerdictError(
            "fit.on_verdict",
            f"{verdict.verdict} ({' '.join(verdict.reasons)})",
            "FINE_TUNE, because fit.on_verdict is `stop`",
            "Nothing was trained. `fit.on_verdict: advise` trains anyway and records the verdict. What would change it: "
            + " ".join(verdict.remedies),
        )
    return verdict


def _with_cut_prompts(verdict: PromptingVerdict, scores: tuple[ArmScores, ...]) -> PromptingVerdict:
    """The verdict, which says of each baseline whose prompts did not fit the context that it was measured on less."""
    shares = {arm.arm: cut.value for arm in scores if (cut := arm.score("prompt_cut")) and cut.value}
    if not shares:
        return verdict
    reasons = [f"Of the prompts of {arm}, {share:.1%} were cut to fit the model's context." for arm, share in shares.items()]
    remedy = "Shorter prompts (fewer fit.num_shots or passages), a lower benchmark.max_new_tokens, or a longer context."
    return verdict.model_copy(
        update={"reasons": (*verdict.reasons, *reasons), "remedies": tuple(dict.fromkeys((*verdict.remedies, remedy)))}
    )


def _scores_by_id(arm: ArmScores, metric: str) -> Any:
    frame = run_store().read_table(arm.examples, columns=["id", metric]).to_pandas()
    return frame.set_index("id")[metric]
