"""The public data of some benchmarks; they keep their own licences and do not come with the project.

They are looked for in the folder that ``PERENNIAL_BENCH_DATA`` names, or else in ``benchmark-data`` of the working folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("PERENNIAL_BENCH_DATA", "benchmark-data"))
BANKING = "banking77/train.csv"
ALPACA = "alpaca1100/instructions.jsonl"
PII = "pii/synth_dataset_v2_half_a.json"
_SOURCES = {
    BANKING: "BANKING77 by PolyAI (CC-BY-4.0): columns `text` and `category`",
    ALPACA: "1,100 rows of Alpaca, as in rasbt/LLMs-from-scratch, chapter 7 (Apache-2.0): `instruction`, `input`, `output`",
    PII: "labelled texts in the JSON of presidio-research (MIT): `full_text` and `spans`",
}


def public_data(name: str) -> Path:
    """The file's path; ends the script with what is missing, and where to put it, when it is not there."""
    path = FOLDER / name
    if not path.is_file():
        sys.exit(f"{path} is not there. It is {_SOURCES[name]}. Put it there, or name its folder in PERENNIAL_BENCH_DATA.")
    return path
