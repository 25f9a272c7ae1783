"""`perennial review`: exports the review queue of the store to a file, and imports the decisions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from flows.support.config import RetrainConfig
from tasks.core.documents import read_document
from tasks.core.errors import InputError, StoreError
from tasks.core.storage import Store


def export_questions(settings: RetrainConfig, out: Path, *, label_studio: bool = False) -> tuple[list[Path], int]:
    """Writes the rows that await a decision; returns the written files and the number of rows.

    Args:
        settings: The configuration with the store and the name of the review.
        out: The file to write, which must not exist: it could hold decisions that are not imported yet.
        label_studio: Write Label Studio tasks to ``out`` and the labelling interface to ``out`` with the ending ``.xml``.

    Raises:
        InputError: A file to write exists.
        StoreError: A file cannot be written.
    """
    from tasks.labels.review import export_label_studio, label_studio_config, open_questions

    questions = open_questions(Store(settings.store), _name(settings))
    lines = [json.loads(line) for line in questions.splitlines()]
    if not lines:
        return [], 0
    files = {out: questions}
    if label_studio:
        labels = {label for line in lines for label in (line["given"], line["suggested"]) if label}
        files = {out: export_label_studio(questions), out.with_suffix(".xml"): label_studio_config(labels).encode()}
    for path in files:
        if path.exists():
            raise InputError(
                str(path), "a file that exists", "a new file", "It may hold decisions: import it, or name another."
            )
    for path, data in files.items():
        try:
            with path.open("xb") as file:
                file.write(data)
        except OSError as error:
            raise StoreError(str(path), error.strerror or "an error", "a writable place", "Name another file.") from error
    return list(files), len(lines)


def import_answers(settings: RetrainConfig, answers: Path) -> tuple[dict[str, int], int]:
    """Imports the decisions of a completed file; returns their numbers by action, and that of rows that still await one.

    Raises:
        InputError: The file cannot be read, holds invalid decisions, or decisions on rows outside the review; then
            nothing is imported.
    """
    from tasks.labels.review import ACTIONS, import_decisions, keep_decisions, known_questions, open_questions

    try:
        data = read_document(answers)
    except OSError as error:
        raise InputError(
            str(answers), error.strerror or "an error", "a completed review queue", "Correct the path."
        ) from error
    store, name = Store(settings.store), _name(settings)
    decisions = import_decisions(data, str(answers))
    if strangers := decisions.keys() - known_questions(store, name):
        raise InputError(
            str(answers),
            f"{len(strangers)} of {len(decisions)} decisions on rows that are not in the review `{name}`",
            "decisions on rows of `perennial review export`",
            "Export the queue again and fill that file in. Pairs from feedback are not imported: name their file under "
            "`preferences`, where those with the decision `keep` are read.",
        )
    if decisions:
        keep_decisions(store, name, decisions)
    counts: Counter[str] = Counter(decision.action for decision in decisions.values())
    return {action: counts[action] for action in ACTIONS}, len(open_questions(store, name).splitlines())


def _name(settings: RetrainConfig) -> str:
    return settings.prepare.labels.review_name or settings.name
