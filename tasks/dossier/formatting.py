"""How figures and names are written: the same on every line of the page and in the terminal."""

from __future__ import annotations

import math
import re
from datetime import datetime

from tasks.contracts.measurement import Measurement
from tasks.contracts.training import TrainingResult
from tasks.measures.metrics import METRICS

NOT_MEASURED = "not measured"
PERCENT = "\u202f%"
ARM_NAMES = {"base": "Base", "champion": "Champion", "candidate": "Candidate"}
STAGE_NAMES = ("Read", "Validate", "Deduplicate", "Confidential", "Scrub", "Audit labels", "Hold out test set")
"""In the order of :attr:`tasks.contracts.preparation.PreparedDataset.stages`."""
BIAS_VERDICTS = {
    "no_difference_found": "No difference beyond its allowance was found between the groups that could be compared.",
    "differences_found": "Outcomes differ between groups by more than allowed.",
    "not_assessable": "The groups are too small, or not declared: nothing could be assessed.",
}
_NAMES = {
    "chrf": "chrF",
    "corpus_chrf": "chrF, corpus",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU, sentence",
    "corpus_bleu": "BLEU, corpus",
    "exact_match": "Exact match",
    "label_accuracy": "Label accuracy",
    "label_macro_f1": "Label F1, macro",
    "meteor_exact_stem": "METEOR (exact and stem)",
    "json_valid": "Valid JSON",
    "cost_per_1000": "Device time of 1\u202f000 requests, price",
    "token_cost_per_1000": "Tokens of 1\u202f000 requests, price",
    "format_valid": "Valid format",
    "completed": "Completed replies",
    "placeholder_rate": "Replies with placeholders",
    "prompt_cut": "Prompts cut to the context",
    "nll": "Loss on references",
    "perplexity": "Perplexity",
    "latency_seconds": "Latency, mean",
    "latency_p50_seconds": "Latency, median",
    "latency_p95_seconds": "Latency, 95th percentile",
    "tokens_per_second": "Tokens per second",
    "tokens_in": "Prompt tokens",
    "tokens_out": "Reply tokens",
    "length_ratio": "Length against reference",
    "length_error": "Length error",
    "retention": "Retention",
    "retention_nll": "Loss on general answers",
}
_CODES = re.compile("|".join(rf"\b{name}\b" for name in sorted(_NAMES, key=len, reverse=True) if name != "completed"))
_ACRONYMS = frozenset(
    ("aws", "api", "dob", "iban", "id", "ids", "ip", "jwt", "json", "nhs", "ssn", "uk", "url", "us", "usa", "vat", "vin")
)


def metric_name(name: str) -> str:
    """A metric's name for people; ``chrf[fresh]`` is the metric on a part of the examples."""
    if name.startswith("lm_eval."):
        return f"{words(name.removeprefix('lm_eval.'))} (lm-eval)"
    metric, _, part = name.partition("[")
    shown = _NAMES.get(metric, words(metric))
    return f"{shown}, {part.removesuffix(']')}" if part else shown


def metric_unit(name: str) -> str:
    """The unit of a metric, ``share`` when it is not known."""
    return METRICS[name].unit if name in METRICS else "share"


def words(code: str) -> str:
    """A code such as ``near_duplicate`` or ``US_SSN`` in words, capitalised like a sentence."""
    parts = code.replace("_", " ").replace(".", ", ").replace(":", ": ").split()
    plain = [part.upper() if part.lower().strip(",:") in _ACRONYMS else part.lower() for part in parts]
    text = " ".join(plain)
    return text[:1].upper() + text[1:]


def with_names(sentence: str) -> str:
    """A sentence in which the codes of metrics, such as ``rouge_l``, are replaced by their names."""
    return _CODES.sub(lambda match: _NAMES[match[0]], sentence)


def count(number: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def day(moment: datetime) -> str:
    """``1 July 2026``."""
    return f"{moment.day} {moment:%B %Y}"


def decimal(value: float, unit: str = "share") -> str:
    """A figure with as many places as its unit deserves."""
    if not math.isfinite(value):
        return "not finite"
    if unit == "share":
        text = f"{value:.3f}"
    elif unit == "seconds":
        text = f"{value:.2f}\u202fs"
    else:
        text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return minus(text)


def percent(share: float) -> str:
    """A share as a percentage, with one place unless it is whole."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return minus(f"{text}{PERCENT}")


def signed(value: float) -> str:
    """A difference with its sign."""
    return minus(f"{value:+.3f}")


def interval(low: float | None, high: float | None, unit: str = "share") -> str:
    """``0.681–0.742``, or nothing when there is no interval; ``to`` where a sign could be mistaken for the dash."""
    if low is None or high is None:
        return ""
    return f"{decimal(low, unit)}{' to ' if low < 0 else '–'}{decimal(high, unit)}"


def measured(figure: Measurement | None, unit: str = "share") -> str:
    """A measurement's value, or that it was not measured."""
    return NOT_MEASURED if figure is None or figure.value is None else decimal(figure.value, unit)


def duration(seconds: float) -> str:
    """``8.4 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs"
    return f"{minutes // 60}\u202fh {minutes % 60}\u202fmin"


def amount(number: float) -> str:
    """``2.35`` for device-hours and money; what is less than a hundredth keeps two digits."""
    return f"{number:.2f}" if number >= 0.01 else f"{number:.2g}"


def size(num_bytes: int) -> str:
    """``19 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g}\u202f{unit}"
    return f"{num_bytes}\u202fB"


def magnitude(number: int) -> str:
    """``135 M``."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}\u202f{unit}"
    return str(number)


def short(sha256: str) -> str:
    """The first twelve digits of a digest."""
    return sha256[:12]


def minus(text: str) -> str:
    """The text with a true minus sign in place of a hyphen."""
    return text.replace("-", "\u2212")


def method_name(result: TrainingResult) -> str:
    """``SFT``, ``DPO`` or ``KTO``."""
    return result.method.upper()
