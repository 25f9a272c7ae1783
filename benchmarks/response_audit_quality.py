"""Quality of the reply audit on planted faults, next to the plain cosine of instruction and reply.

In a copy of the data about 2 % of the replies each are swapped, truncated, shuffled, replaced by text in another language,
or replaced by a refusal. The foreign sentences and refusals planted here are not those that the audit learns from, and the
languages are partly others. Printed as means over the seeds: average precision over all faults and per fault (its rows
against the untouched ones), and precision and recall of the tiers. The data's own faults count as false alarms.

Usage::

    python benchmarks/response_audit_quality.py [--data FILE.jsonl] [--vectors minilm tfidf] [--seeds 3]

Data: JSON lines with ``instruction``, ``output`` (or ``response``) and optionally ``input``; the default is the 1,100 Alpaca
rows beside the repository, where the target was set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.labels.config import LabelAuditConfig
from tasks.labels.replies import Thresholds, detect_reply_faults
from tasks.labels.vectors import Vectorizer, choose_vectorizer
from tests.support.public_data import ALPACA, public_data

TARGET = 0.90
FAULTS = ("swapped", "truncated", "shuffled", "language", "refusal")

REFUSALS = (
    "I'm really sorry, but I'm unable to help you with this one.",
    "I can not fulfill that request.",
    "Sorry, that is something I cannot do.",
    "I do not know the answer to this.",
    "As a large language model I cannot provide this information.",
    "I'm afraid I can't do that.",
    "Apologies, this question cannot be answered by me.",
    "I must decline to answer.",
    "We are unable to process your request at this time.",
    "I am just an AI and do not have an opinion.",
    "That's beyond what I can do, sorry.",
    "I'd rather not answer this question.",
    "Your request violates our usage policy.",
)
FOREIGN = (
    "Wir haben Ihre Anfrage erhalten und melden uns in den nächsten Tagen bei Ihnen.",
    "Die Katze sitzt auf dem Dach und schaut in den Garten.",
    "Le chat dort sur le canapé pendant que les enfants jouent dehors.",
    "Veuillez redémarrer votre appareil puis réessayer.",
    "La respuesta correcta es la segunda opción de la lista.",
    "Mañana por la tarde iremos al mercado a comprar fruta.",
    "La risposta giusta si trova nella seconda pagina.",
    "De kat slaapt op de bank terwijl de kinderen buiten spelen.",
    "Katten sover på soffan medan barnen leker ute.",
    "Vänligen starta om enheten och försök igen.",
    "Kissa nukkuu sohvalla, kun lapset leikkivät ulkona.",
    "Kedi koltukta uyuyor, çocuklar dışarıda oynuyor.",
    "Kot śpi na kanapie, a dzieci bawią się na dworze.",
    "Kočka spí na gauči a děti si hrají venku.",
    "O gato dorme no sofá enquanto as crianças brincam lá fora.",
    "Кошка спит на диване, пока дети играют на улице.",
    "猫はソファで寝ています。",
    "Pisica doarme pe canapea în timp ce copiii se joacă afară.",
)


def plant(replies: list[str], share: float, seed: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(1000 + seed)
    planted, kinds = list(replies), np.full(len(replies), "", dtype=object)
    order = rng.permutation(len(replies)).tolist()
    for fault in FAULTS:
        wanted = max(1, round(share * len(replies)))
        while wanted and order:
            index = order.pop()
            words = replies[index].split()
            if fault in ("truncated", "shuffled") and len(words) < 4:
                continue
            broken = replies[index]
            if fault == "swapped":
                broken = replies[int(rng.integers(len(replies)))]
            elif fault == "truncated":
                broken = " ".join(words[: max(1, int(len(words) * rng.uniform(0.3, 0.7)))]).rstrip(".,!?;:")
            elif fault == "shuffled":
                broken = " ".join(words[place] for place in rng.permutation(len(words)))
            else:
                broken = str(rng.choice(FOREIGN if fault == "language" else REFUSALS))
            if broken != replies[index]:
                planted[index], kinds[index] = broken, fault
                wanted -= 1
    return planted, kinds


def measure(prompts: list[str], replies: list[str], kinds: np.ndarray, vectorizer: Vectorizer, seed: int) -> list[float]:
    started = time.process_time()
    found = detect_reply_faults(prompts, replies, vectorizer.unit_vectors, num_folds=5, seed=seed)
    seconds = time.process_time() - started
    suspicion, bad, tiers = found.suspicion, kinds != "", Thresholds()
    vectors = vectorizer.unit_vectors([*prompts, *replies])
    cosine = np.einsum("ij,ij->i", vectors[: len(prompts)], vectors[len(prompts) :])
    result = [average_precision_score(bad, suspicion), average_precision_score(bad, -cosine)]
    for fault in FAULTS:
        either = (kinds == fault) | ~bad
        result.append(average_precision_score((kinds == fault)[either], suspicion[either]))
    for threshold in (tiers.automatic, tiers.review):
        flagged = suspicion >= threshold
        result += [float(bad[flagged].mean()) if flagged.any() else float("nan"), float(flagged[bad].mean())]
    return [float(value) for value in (*result, seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Rows of Alpaca. None: 1,100 of them.")
    parser.add_argument("--vectors", nargs="+", default=["minilm", "tfidf"], choices=["minilm", "tfidf"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.02, help="share of the rows per fault")
    arguments = parser.parse_args()
    lines = (arguments.data or public_data(ALPACA)).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    prompts = ["\n\n".join(part for part in (row["instruction"], row.get("input")) if part) for row in rows]
    replies = [row.get("output", row.get("response")) for row in rows]
    print(f"{len(rows)} rows, {arguments.share:.0%} of each fault, {arguments.seeds} seeds; target over all {TARGET}\n")
    print(f"vectors   all    cosine   {'  '.join(f'{fault:>9}' for fault in FAULTS)}   automatic P/R   review P/R     CPU-s")
    for vectors in arguments.vectors:
        results = []
        for seed in range(arguments.seeds):
            vectorizer = choose_vectorizer(LabelAuditConfig(embedding_model=vectors))
            planted, kinds = plant(replies, arguments.share, seed)
            results.append(measure(prompts, planted, kinds, vectorizer, seed))
        mean = np.mean(results, axis=0)
        per_fault = "  ".join(f"{value:9.3f}" for value in mean[2:7])
        print(
            f"{vectors:7}  {mean[0]:.3f}   {mean[1]:.3f}   {per_fault}   {mean[7]:.3f} {mean[8]:.3f}     "
            f"{mean[9]:.3f} {mean[10]:.3f}   {mean[11]:5.1f}   {'ok' if mean[0] >= TARGET else 'below target'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
