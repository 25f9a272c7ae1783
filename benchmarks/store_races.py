"""Races and kills on a store, in a folder and on an S3-compatible server; the rounds are those of the tests, more of them.

python benchmarks/store_races.py                  # 200 rounds of each, some minutes
python benchmarks/store_races.py --rounds 20
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.store_races import NUM_PROCESSES, RACES, places, run_kills, run_race


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--places", nargs="+", default=["folder", "bucket"], choices=["folder", "bucket"])
    arguments = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="store-races-") as name, places(Path(name), tuple(arguments.places)) as kinds:
        print(f"{arguments.rounds} rounds of each; {NUM_PROCESSES} processes in a race\n")
        print(f"{'what':32}{'place':10}{'faults':>8}{'seconds':>10}")
        for what in (*RACES, "kill -9"):
            for place in kinds:
                began = time.monotonic()
                found = run_race(place, what, arguments.rounds) if what in RACES else run_kills(place, arguments.rounds)
                print(f"{what:32}{place.name:10}{len(found):>8}{time.monotonic() - began:>10.1f}", flush=True)
                faults += [f"{what}, {place.name}: {fault}" for fault in found]
    print(*faults[:20], sep="\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
