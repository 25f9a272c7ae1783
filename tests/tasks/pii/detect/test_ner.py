"""The name model: one answer for one line, known labels, long lines, and what its answers are worth."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import ConfigError, ModelNotFoundError
from tasks.pii.config import NerConfig, PiiConfig
from tasks.pii.detect.ner import TokenClassifier, entities_of, load_names, read_onnx
from tasks.pii.detect.onnx_graph import with_integer_products
from tasks.pii.detect.reading import MAX_LINE, _lines
from tasks.pii.entities import ENTITIES
from tasks.pii.lexicon import entities_by_label
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch

LINES = [
    "Frau Annegret Möllenkamp wohnt in der Lindenallee 12, 48143 Münster.",
    "Bonjour, je m'appelle Solène Kerbrat et j'habite à Quimper.",
    "Hola, soy Iñaki Zubizarreta; mi correo ya no funciona.",
    "Buongiorno, sono Ludovica Serpentini di Bari.",
    "Olá, aqui fala o Gonçalo Figueiredo, de Braga.",
    "Mijn naam is Sietske Hoekstra uit Leeuwarden.",
    "the courier left it with kwabena next door",
    "It is raining.",
]


@pytest.fixture(scope="module")
def model() -> TokenClassifier:
    return read_onnx(NerConfig())


def test_names_in_the_models_seven_languages_are_found(strict: Policy) -> None:
    result = scrub_batch(LINES, strict)
    left = " ".join(text or "" for text in result.texts)
    for name in ("Annegret", "Möllenkamp", "Solène", "Kerbrat", "Iñaki", "Zubizarreta", "Ludovica", "Serpentini"):
        assert name not in left
    for name in ("Gonçalo", "Figueiredo", "Sietske", "Hoekstra", "kwabena"):
        assert name not in left
    assert result.texts[-1] == LINES[-1]


def test_what_it_says_of_a_line_depends_on_that_line_alone(model: TokenClassifier) -> None:
    alone = {line: model.find([line])[0] for line in LINES}
    assert any(alone.values())
    for seed in range(3):
        order = random.Random(seed).sample(LINES * 2, len(LINES) * 2)
        assert dict(zip(order, model.find(order), strict=True)) == alone


def test_a_line_longer_than_its_window_is_read_to_the_end(model: TokenClassifier) -> None:
    text = "nothing to see here and there " * 300 + "ask Siobhan Kerrigan"
    start = text.index("Siobhan")
    assert {(start, start + 7), (start + 8, len(text))} <= {(first, last) for first, last, *_ in model.find([text])[0]}


def test_long_lines_are_cut_between_words_and_lose_nothing() -> None:
    for text in ("word " * 500, "x" * 2_000, "One sentence. " * 100, "a\n\nb|c"):
        spans = list(_lines(text))
        assert "".join(text[start:end] for start, end in spans) == text.replace("\n", "").replace("|", "")
        assert all(end - start <= MAX_LINE for start, end in spans)


def test_eight_bit_products_agree_with_the_models_own(model: TokenClassifier) -> None:
    import importlib.metadata

    import onnxruntime

    files = importlib.metadata.distribution(NerConfig().model).files or []
    content = next(Path(str(file.locate())) for file in files if file.name.endswith(".onnx")).read_bytes()
    assert len(with_integer_products(content)) != len(content)
    ids = np.array([[2, *range(1000, 1040), 3]], dtype=np.int64)
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    sessions = [onnxruntime.InferenceSession(data) for data in (content, with_integer_products(content))]
    exact, quick = (
        session.run(None, {entry.name: given[entry.name] for entry in session.get_inputs()})[0] for session in sessions
    )
    assert np.corrcoef(exact.ravel(), quick.ravel())[0, 1] > 0.98
    assert with_integer_products(with_integer_products(content)) == with_integer_products(content)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["O", "B-PER", "I-PER", "B-MISC"], [None, "PERSON", "PERSON", None]),
        (["O", "B-private_person", "E-private_email", "S-secret"], [None, "PERSON", "EMAIL_ADDRESS", "ID_NUMBER"]),
        (["O", "I-TELEPHONENUM", "I-SOCIALNUM", "I-GIVENNAME"], [None, "PHONE_NUMBER", "US_SSN", "PERSON"]),
        (["street address", "date of birth"], ["STREET_ADDRESS", "DATE_OF_BIRTH"]),
    ],
)
def test_labels_of_usual_models_have_their_entities(labels: list[str], expected: list[str | None]) -> None:
    assert entities_of(labels, NerConfig()) == expected


def test_an_unknown_label_is_refused_until_the_settings_say_what_it_is() -> None:
    with pytest.raises(ConfigError, match=r"shoe_size, zodiac.*pii\.ner\.labels"):
        entities_of(["O", "B-ZODIAC", "I-shoe size", "B-PER"], NerConfig())
    config = NerConfig(labels={"ZODIAC": "none", "shoe size": "ID_NUMBER"})
    assert entities_of(["B-ZODIAC", "I-SHOE_SIZE"], config) == [None, "ID_NUMBER"]
    with pytest.raises(ValueError, match="no entity has the name"):
        NerConfig(labels={"ZODIAC": "STARS"})


def test_every_known_label_names_an_entity() -> None:
    assert set(entities_by_label().values()) <= ENTITIES | {"none"}


def test_a_folder_without_one_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "O"}}))
    (tmp_path / "tokenizer.json").write_text("{}")
    for files in ((), ("a.onnx", "b.onnx")):
        for name in files:
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(ModelNotFoundError, match=r"one \.onnx file"):
            load_names(NerConfig(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Crohn's disease causes inflammation of your digestive system.", "Crohn's disease"),
        ("The Doppler effect shifts the light of far galaxies.", "Doppler effect"),
        ("Charcot-Marie-Tooth disease damages the nerves of the feet.", "Charcot-Marie-Tooth disease"),
        ("Bitte geben Sie den Namen der Datei ein, die Sie öffnen wollen.", "Bitte geben Sie den Namen der Datei"),
        ("Impossible d'ouvrir le fichier : il n'existe pas.", "Impossible d'ouvrir le fichier"),
    ],
)
def test_the_subject_matter_is_kept(strict: Policy, text: str, kept: str) -> None:
    assert kept in (scrub_batch([text], strict).texts[0] or "")


@pytest.mark.parametrize(
    "text", ["Mr Crohn's disease got worse.", "Please ask Dr. Doppler about it.", "Ask Jan van der Meulen about it."]
)
def test_a_person_with_such_a_name_is_masked(strict: Policy, text: str) -> None:
    output = scrub_batch([text], strict).texts[0] or ""
    assert not any(name in output for name in ("Crohn", "Doppler", "van der", "Meulen"))


def test_a_word_that_the_configuration_allows_is_never_asked_about() -> None:
    settings: dict[str, Any] = {"allowed_terms": ["Solène Kerbrat"]}
    text = "Bonjour, je m'appelle Solène Kerbrat."
    assert scrub_batch([text], Policy(PiiConfig.model_validate(settings))).texts[0] == text
