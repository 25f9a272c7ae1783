"""A process that promotes and rolls back at random until it is killed or done; run by test_concurrency."""

from __future__ import annotations

import random
import sys

from tasks.contracts import RegisteredVersion
from tasks.errors import RegistryError
from tasks.registry import RegistryConfig, promote_champion, rollback_champion
from tasks.registry.versions import aliases_of
from tasks.tracking import connect
from tests.candidates import decide


def main(name: str, num_versions: int, num_attempts: int, seed: int) -> None:
    """Makes attempts; one that finds another champion than it was judged against is refused, which is right."""
    chance = random.Random(seed)
    config = RegistryConfig(model_name=name)
    for _ in range(num_attempts):
        try:
            if chance.random() < 0.3:
                rollback_champion.fn(config, "at random")
            else:
                champion = aliases_of(connect(), name).get("champion")
                version = str(chance.randint(1, num_versions))
                candidate = RegisteredVersion(name=name, version=version, run_id="", source_uri="somewhere")
                promote_champion.fn(config, candidate, decide(champion=champion))
            print("done", flush=True)
        except RegistryError:
            print("refused", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
