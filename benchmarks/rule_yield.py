"""What each rule of the scrubber brings on labelled texts: hits, precision, and what would be lost without it.

    python benchmarks/rule_yield.py synth_dataset_v2.json fresh.jsonl

Files are presidio-research's JSON (``full_text``, ``spans`` with ``start_position``, ``end_position``) or JSONL with
``text`` and ``spans`` as ``[start, end, type]``. Precision is the share of masked letters and digits that a label covers, of
any kind. ``alone`` counts labelled letters and digits that no other rule masks. A rule with no hits, or none alone, has to
show in its examples what it is for, or go.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tasks.pii.config import PiiConfig
from tasks.pii.detect.detector import Detector
from tasks.pii.detect.tokens import TokenizedText, make_view
from tasks.pii.policy import Policy


def read_texts(path: Path) -> Iterator[tuple[str, set[int]]]:
    """Each text with the places that a label covers."""
    content = path.read_text(encoding="utf-8")
    records = [json.loads(line) for line in content.splitlines()] if path.suffix == ".jsonl" else json.loads(content)
    for record in records:
        spans = [
            span if isinstance(span, list) else (span["start_position"], span["end_position"]) for span in record["spans"]
        ]
        yield record.get("full_text") or record["text"], {place for span in spans for place in range(span[0], span[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    options = parser.parse_args()
    detector = Detector(Policy(PiiConfig(mode="turbo")))
    recognizers = (*detector.presidio_rules, *detector.recognizers, *detector.digit_recognizers)
    rules = [rule.id for rule in detector.presidio_rules]
    rules += [rule.id for recognizer in (*detector.recognizers, *detector.digit_recognizers) for rule in recognizer.rules]
    hits, masked, right, alone = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    num_texts = 0
    for path in options.data:
        for text, labelled in read_texts(path):
            num_texts += 1
            view = make_view(text)
            tokenized = TokenizedText(view.text)
            rules_at: defaultdict[int, set[str]] = defaultdict(set)
            for recognizer in recognizers:
                for span in recognizer.find(tokenized):
                    hits[span.detector] += 1
                    for place in range(*view.to_original(span.start, span.end)):
                        if text[place].isalnum():
                            rules_at[place].add(span.detector)
            for place, found_by in rules_at.items():
                masked.update(found_by)
                right.update(found_by if place in labelled else ())
                alone.update(found_by if place in labelled and len(found_by) == 1 else ())
    print(f"{num_texts} texts of {', '.join(path.name for path in options.data)}")
    print(f"{'rule':38}{'hits':>7}{'precision':>11}{'alone':>7}")
    for rule in sorted(rules, key=lambda rule: (-alone[rule], -hits[rule])):
        precision = f"{right[rule] / masked[rule]:.3f}" if masked[rule] else "-"
        print(f"{rule:38}{hits[rule]:7}{precision:>11}{alone[rule]:7}")


if __name__ == "__main__":
    main()
