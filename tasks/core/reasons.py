"""What to do about each reason for which a row is taken out; for errors and for `perennial quarantine`."""

from __future__ import annotations

from collections.abc import Mapping

REMEDIES: Mapping[str, str] = {
    "malformed_json": "Correct the line: each must be one JSON object. A JSON array or document has the suffix .json.",
    "nested_too_deeply": "Flatten the record: JSON this deep is not read.",
    "not_an_object": "Write each row as an object with named columns, not as a list or a bare value.",
    "malformed_csv": "Correct the quotes of that line; a quote inside a quoted value is written twice.",
    "wrong_number_of_fields": "Quote values that hold the delimiter or a line end: each line has one value a column.",
    "missing_field": "Fill the column, or name another one in `columns` (and `label_column`).",
    "not_text": "Export the column as text; of a list or an object, a path such as `answer.0` in `columns` names the value.",
    "not_a_conversation": "Write `messages` as a list of objects with `role` and `content`.",
    "nul_character": "Remove NUL characters from the export; the encoding may be wrong.",
    "lone_surrogate": "Write the text anew as UTF-8: it holds half of a character.",
    "unknown_feedback": "Write the verdict as up or down, 1 or -1, true or false, or leave it empty.",
    "negative_feedback": "Nothing, unless a better reply exists: name its column in `correction_column`.",
    "not_confirmed": "Decide the pair: write `keep` as its `decision` in the file.",
    "duplicate_id": "Give each row an id of its own, or drop the column `id`: which content an id means is not guessed.",
    "repeated_row": "Nothing: the same row stands in the source several times.",
    "outside_window": "Look at `created_after` and `created_before`: they leave the row out.",
    "missing_created_at": "Fill `created_at`, or take `created_after` and `created_before` out.",
    "unreadable_created_at": "Write times as ISO 8601, or set `created_at_format`.",
    "not_sampled": "Nothing: raise `max_rows` to read more rows.",
    "empty_prompt": "Fill the prompt, or lower `prepare.validation.min_prompt_chars`.",
    "empty_reply": "Fill the reply, or lower `prepare.validation.min_reply_chars`.",
    "too_few_messages": "Each row needs a question and a reply.",
    "empty_message": "Fill or remove the empty message.",
    "prompt_too_long": "Shorten the prompt, or raise `prepare.validation.max_prompt_chars`.",
    "reply_too_long": "Shorten the reply, or raise `prepare.validation.max_reply_chars`.",
    "foreign_role": "Use the roles system, user, assistant and tool.",
    "image_content": "Leave out the row, or the part of it that is no text: only text is learned.",
    "malformed_call": "Write each call with a name, and with arguments that are a JSON object or the JSON of one.",
    "malformed_tools": "Write each tool with a name, and with parameters that are a JSON schema.",
    "tools_of_one_name": "Give each tool of a row a name of its own.",
    "result_without_call": "Put the assistant's call before the tool's result; `tool_call_id` joins them.",
    "call_outside_a_reply": "Give the turn with the call the role assistant.",
    "unknown_weight": "Set `weight` to 0 or 1.",
    "nothing_to_learn": "Leave out the row, or give a reply the weight 1: every reply has weight 0.",
    "sides_are_talks": "End both sides after the first reply that differs: a pair compares single replies.",
    "invalid_call": "Correct the call or the tool's schema: the tool is not stated, or its schema forbids the arguments.",
    "no_reply_at_end": "Let each conversation end with the assistant's reply.",
    "control_characters": "Remove control characters from the export; the encoding may be wrong.",
    "other_script": "Nothing, unless `prepare.validation.min_latin_share` is not as meant.",
    "other_language": "Nothing, unless `prepare.validation.languages` is not as meant.",
    "missing_label": "Fill the label, or turn `prepare.validation.require_label` off.",
    "unknown_label": "Correct the label, or add it to `prepare.validation.allowed_labels`.",
    "exact_duplicate": "Nothing: an equal row stays.",
    "near_duplicate": "Nothing: a row that says the same stays. Set `prepare.deduplication.near: group` to keep both.",
    "awaiting_review": "Decide it: `perennial review export`, fill in `decision`, `perennial review import`.",
    "reviewed": "Nothing: a person decided to drop it.",
    "fix_needs_new_reply": "Write the reply in the source: a corrected label cannot change it.",
}
"""By reason code."""
STAGE_REMEDIES: Mapping[str, str] = {
    "confidential": "Remove the secret or the term in the source, or look at `prepare.confidential`.",
    "scrub": "Look at `prepare.pii`: what is detected and what replaces it.",
    "verify": "Look at the field in the source: personal data were left that the scrubber did not replace.",
    "decontaminate": "Nothing: the row is near one of the test set, on which the model is measured.",
    "labels": "Correct the row in the source, or decide it in the review queue (`perennial review export`).",
}
"""By stage, where the reason has none of its own."""


def remedy_for(stage: str, reason: str) -> str:
    """What to do about a row that a stage took out for a reason."""
    if reason.endswith("_content"):
        reason = "image_content"  # Audio, files and whatever else stands beside text have the same remedy.
    return REMEDIES.get(reason) or STAGE_REMEDIES.get(stage) or "Look at the row in the source and at the stage's settings."
