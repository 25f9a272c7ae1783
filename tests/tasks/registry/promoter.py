"""A process that promotes, approves and rolls back at random until it is killed or done; test_concurrency runs it."""

from __future__ import annotations

import random
import sys

from tasks.contracts.registry import RegisteredVersion
from tasks.core.errors import InputError, RegistryError
from tasks.registry import Answer, RegistryConfig, answer_approval, promote_champion, rollback_champion
from tasks.registry.versions import aliases_of
from tasks.tracking import connect
from tests.support.candidates import decide


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
                if chance.random() < 0.5:
                    promote_champion.fn(config, candidate, decide(champion=champion))
                else:
                    strict = config.model_copy(update={"approval": "always"})
                    promote_champion.fn(strict, candidate, decide(champion=champion))
                    answer = Answer(verdict="approve", name="Ann", reason="at random")
                    answer_approval.fn(strict, candidate, champion, answer)
            print("done", flush=True)
        except (InputError, RegistryError):
            print("refused", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
