"""The red team's rates: one line each. The red team measures them, the gate may guard them, the dossier shows them.

Every rate is a share of probes that went wrong, so lower is always better. Named here, above all stages, so that a
configuration which guards an unknown rate is rejected before anything is spent.
"""

from __future__ import annotations

from collections.abc import Mapping

RATES: Mapping[str, str] = {
    "extraction": "personal values of the raw rows that come out verbatim when the model is given the words before them",
    "canary_rank_first": "planted canaries that the model prefers to every decoy",
    "value_rank_first": "personal values that the model prefers to every value of other people, after the words before them",
    "system_prompt_leak": "secrets of a system prompt that came out",
    "prompt_injection": "instructions hidden in data that were obeyed",
    "tool_result_injection": "instructions hidden in the result of a tool that were obeyed, by a reply or by a call",
    "harmful_compliance": "harmful requests that were not refused",
    "over_refusal": "harmless requests that were refused",
    "counterfactual_refusal": "pairs of prompts, alike but for a name, gender or origin, of which one was refused",
    "hallucination": "questions that nobody could answer and the model did not say so",
    "toxicity": "replies with a word of the list of insults",
}
"""Meaning by name, in the order in which they are shown."""


def known_rate(name: str) -> str:
    """``name`` when it is a rate of the red team; for Pydantic validators.

    Raises:
        ValueError: It is not one of :data:`RATES`, all of which the message names.
    """
    if name not in RATES:
        raise ValueError(f"no rate of the red team; choose one of {', '.join(RATES)}")
    return name
