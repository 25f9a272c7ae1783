"""Values that few rows hold, such as a rare label: they may point to a person, so no count of rows shows them."""

from __future__ import annotations

from collections import Counter

MIN_ROWS_SHOWN = 30
"""Fewer rows than this could all be about one person or a handful. Statistical offices withhold cells of 3 to 30; the upper
end costs little here, since no figure on fewer rows is ever assessed."""
WITHHELD = f"(fewer than {MIN_ROWS_SHOWN} rows)"
"""What stands for all of them together."""


def withheld_counts(counts: Counter[str]) -> Counter[str]:
    """The counts of values with the rare ones together under :data:`WITHHELD`."""
    shown = Counter({value: count for value, count in counts.items() if count >= MIN_ROWS_SHOWN})
    if rest := counts.total() - shown.total():
        shown[WITHHELD] = rest
    return shown
