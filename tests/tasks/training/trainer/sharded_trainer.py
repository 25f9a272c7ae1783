"""The real trainer process, which also records the shape of every weight, and of the part that it holds."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from tasks.contracts.training import TrainingPlan
from tasks.training.trainer import weights, worker


def main(path: str) -> int:
    work = Path(json.loads(Path(path).read_text())["work_dir"])
    load_model = weights.load_model

    def load_and_record(base: Path, plan: TrainingPlan) -> Any:
        model = load_model(base, plan)
        held = {
            name: (list(weight.shape), list(weight.to_local().shape) if isinstance(weight, DTensor) else None)
            for name, weight in model.named_parameters()
        }
        (work / f"held-{os.environ['RANK']}.json").write_text(json.dumps(held))
        return model

    weights.load_model = load_and_record
    return worker.main([path])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
