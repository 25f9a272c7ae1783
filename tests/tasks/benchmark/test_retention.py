"""General questions are well formed, are weighed right by a real model, and show a model that forgot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.benchmark.config import BenchmarkConfig
from tasks.benchmark.retention import GeneralItem, general_items, score_retention, share_of_first
from tasks.benchmark.task import score_model
from tasks.contracts.training import BaseLanguageModel
from tasks.core.storage import open_store
from tasks.modeling.generation import LoadedModel, load_model, reply_likelihoods
from tasks.modeling.loading import load_base
from tests.support.tiny_model import desk_row

CONFIG = BenchmarkConfig(max_new_tokens=4, batch_size=32, num_resamples=100)


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> LoadedModel:
    """In float32 wherever the tests run: bfloat16, which some CPUs would choose, rounds too much to compare closely."""
    return replace(load_model(tiny_model_dir, None), model=load_base(tiny_model_dir, dtype=torch.float32))


def test_the_questions_that_come_with_the_package_are_well_formed() -> None:
    items = general_items()
    assert 60 <= len(items) <= 100
    assert len({item.id for item in items}) == len({item.question for item in items}) == len(items)
    assert {item.kind for item in items} == {"knowledge", "arithmetic", "language", "reasoning", "instruction", "format"}
    for item in items:
        assert len(set(item.choices)) == len(item.choices) >= 3, item.id
        assert all(choice.strip() == choice != "" for choice in item.choices), item.id


@given(st.lists(st.floats(0, 500), min_size=2, max_size=6), st.floats(-100, 100))
def test_a_share_is_a_share_and_ignores_what_all_choices_have_in_common(nlls: list[float], shift: float) -> None:
    share = share_of_first(nlls)
    assert 0.0 <= share <= 1.0
    assert share_of_first([nll + shift for nll in nlls]) == pytest.approx(share, abs=1e-9)
    turned = sum(share_of_first([nll, *nlls[:number], *nlls[number + 1 :]]) for number, nll in enumerate(nlls))
    assert turned == pytest.approx(1.0)


def test_a_question_is_weighed_against_its_own_choices_whatever_the_batch(tiny: LoadedModel) -> None:
    items = general_items()[:7]
    alone = score_retention(items, tiny, batch_size=1).to_pylist()
    together = score_retention(items, tiny, batch_size=16).to_pylist()
    prompt = [{"role": "user", "content": items[3].question}]
    weighed = reply_likelihoods(tiny, [prompt] * 3, items[3].choices, batch_size=1)
    assert together[3]["retention"] == pytest.approx(share_of_first([choice.nll for choice in weighed]), rel=1e-3)
    for first, second in zip(alone, together, strict=True):
        assert (first["id"], first["kind"]) == (second["id"], second["kind"])
        assert first["retention"] == pytest.approx(second["retention"], rel=1e-3)
        assert first["retention_nll"] == pytest.approx(second["retention_nll"], rel=1e-3)


def test_a_model_whose_weights_are_scrambled_has_forgotten(tiny: LoadedModel, tiny_model_dir: Path) -> None:
    known = []
    for number in range(30):
        question, reply = (turn["content"] for turn in desk_row(number)["messages"])  # type: ignore[attr-defined]
        known.append(GeneralItem(str(number), "desk", question, reply, (" ".join(reply.split()[:-4:-1]),)))
    torch.manual_seed(0)
    confused = load_base(tiny_model_dir)
    with torch.no_grad():  # every token as likely as any second, so that the shorter answer wins
        for weights in confused.parameters():
            weights.normal_(0.0, 0.02)
    forgetful = LoadedModel(confused, tiny.tokenizer, tiny.max_tokens)
    before, after = (
        score_retention(known, model, batch_size=32).column("retention").to_numpy().mean() for model in (tiny, forgetful)
    )
    assert before > 0.8
    assert after < before - 0.3


def test_scores_hold_retention_which_is_weighed_once_per_model(tmp_path: Path, tiny_model_dir: Path) -> None:
    store = open_store(tmp_path / "store")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    first, second = (
        store.write_rows([dict(desk_row(number)) for number in numbers], kind="messages") for numbers in ((1, 2), (3, 4))
    )
    scores = score_model.fn("base", base, None, first, CONFIG)
    assert scores.general is not None
    assert scores.general.num_rows == len(general_items())
    retention = scores.score("retention")
    assert retention is not None
    assert retention.low < retention.value < retention.high  # type: ignore[operator]
    assert scores.score("retention_nll").value > 0  # type: ignore[union-attr, operator]

    pointers = list((tmp_path / "store" / "pointers" / "retention").iterdir())
    assert score_model.fn("base", base, None, second, CONFIG).general == scores.general
    assert list((tmp_path / "store" / "pointers" / "retention").iterdir()) == pointers
    assert json.loads(pointers[0].read_text())["sha256"] == scores.general.sha256

    without = score_model.fn("base", base, None, first, CONFIG.model_copy(update={"retention": False}))
    assert without.general is None
    assert without.score("retention") is None
