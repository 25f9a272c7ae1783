"""Rows as TRL's trainers read them: data sets, columns, and collators that add to the batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from tasks.training.examples import Example, RatedReply, Rendered

ROW_NUMBERS = "row_numbers"
"""The column that tells the row of every token in a packed sequence."""


def dataset_of(rows: Sequence[Rendered]) -> Any:
    """The rows as a data set, with their lengths and ids."""
    return datasets.Dataset.from_list(
        [{**columns_of(row), "length": row.uncut_length or len(row), "row_id": row.row_id} for row in rows]
    )


def columns_of(row: Rendered) -> dict[str, Any]:
    """The columns that TRL's collators read of a row."""
    if isinstance(row, RatedReply):
        return {"prompt_ids": row.prompt_ids, "completion_ids": row.reply_ids, "label": row.desirable}
    if isinstance(row, Example):
        return {"input_ids": row.input_ids, "labels": row.labels}
    return {"prompt_ids": row.prompt_ids, "chosen_ids": row.chosen_ids, "rejected_ids": row.rejected_ids}


def mismatched_pairs(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each row of a batch, the next row around it that has another prompt; the row itself where all have the same.

    KTO estimates how far the model is from its reference with replies to prompts that they do not belong to.

    Args:
        prompts: The prompt of each row, as tokens.
    """
    size = len(prompts)
    return [
        next(
            (other % size for other in range(row + 1, row + size) if list(prompts[other % size]) != list(prompts[row])), row
        )
        for row in range(size)
    ]


class RowIdCollator:
    """A data collator that keeps the ids of each sequence's rows beside the tensors.

    Args:
        collate: TRL's own collator.
        row_ids: The ids of all rows in the order of their numbers; used when rows are packed.
    """

    def __init__(self, collate: Any, row_ids: Sequence[str]) -> None:
        self._collate = collate
        self._row_ids = row_ids

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of some rows, with ``row_ids``."""
        batch: dict[str, Any] = self._collate(features)
        if all("row_id" in feature for feature in features):
            batch["row_ids"] = [[feature["row_id"]] for feature in features]
        elif all(ROW_NUMBERS in feature for feature in features):
            batch["row_ids"] = [[self._row_ids[row] for row in dict.fromkeys(feature[ROW_NUMBERS])] for feature in features]
        return batch


class MismatchedReplyCollator:
    """A data collator that gives every prompt another row's reply too, from which TRL estimates KTO's KL term.

    TRL pairs them once, for batches in a fixed order. Here the order of rows differs in every epoch, and a batch depends on
    its rows alone.

    Args:
        collate: TRL's own collator.
    """

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of some rows, with other rows' replies."""
        replies = [features[other]["completion_ids"] for other in mismatched_pairs([row["prompt_ids"] for row in features])]
        batch: dict[str, Any] = self._collate(
            [{**feature, "KL_completion_ids": reply} for feature, reply in zip(features, replies, strict=True)]
        )
        return batch
