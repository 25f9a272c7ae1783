"""The trainer process: ``python -m tasks.training.trainer.worker spec.json``; it may die at any time.

It plans, trains and leaves a report. Its work folder holds ``plan.json``, ``progress.jsonl``, ``rows-*.jsonl``,
``checkpoints/``, ``best/``, ``adapter/`` and at last ``report.json``. Started again with the same specification, it resumes
from the newest complete checkpoint.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

# Before any of these libraries is imported: no hub, no telemetry, no progress bars in the log.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TQDM_DISABLE="1",
    TOKENIZERS_PARALLELISM="false",
)

from transformers.utils import logging as transformers_logging

from tasks.core.errors import PerennialError, StoreError
from tasks.core.processes import die_with_parent
from tasks.core.storage import open_store, write_file_atomically
from tasks.training.launch.protocol import EXIT_STOPPED, Fault, TrainerReport, TrainerSpec
from tasks.training.plan.hardware import peak_memory_bytes
from tasks.training.trainer.failures import is_out_of_memory
from tasks.training.trainer.ranks import is_first, world_size
from tasks.training.trainer.run import run


def main(arguments: Sequence[str]) -> int:
    """Carries out the specification at the given path; returns the exit code.

    0: done or planned; 75: stopped on request with a checkpoint; 1: failed (the report says why).
    """
    spec = TrainerSpec.model_validate_json(Path(arguments[0]).read_bytes())
    work = Path(spec.work_dir)
    open_store(spec.store_uri)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        report = run(spec, work)
    except Exception as error:
        if not isinstance(error, PerennialError):
            traceback.print_exc()
        report = report_of(error, work)
    write_report(report, work)
    return {"done": 0, "planned": 0, "stopped": EXIT_STOPPED}.get(report.outcome, 1)


def write_report(report: TrainerReport, work: Path) -> None:
    """Writes the report of one of several processes.

    The first process writes it, unless another one has reported why it ended: the first only notices that the other is gone.
    """
    path = work / "report.json"
    if not is_first() and report.outcome not in ("out_of_memory", "refused"):
        return
    if is_first() and world_size() > 1 and path.exists():
        return
    write_file_atomically(path, report.model_dump_json(indent=2).encode())


def report_of(error: Exception, work: Path) -> TrainerReport:
    """The report of a training that ended with an exception.

    The message of an unexpected exception may quote a record, so it stays in the log.
    """
    if isinstance(error, PerennialError):
        return _refusal(error)
    if is_out_of_memory(error):
        return TrainerReport(outcome="out_of_memory", detail="ran out of memory", peak_memory_bytes=peak_memory_bytes())
    if _is_disk_full(error, work):
        return _refusal(
            StoreError(
                str(work),
                f"no space left while writing ({shutil.disk_usage(work).free} bytes free)",
                "room for checkpoints",
                "Free disk space or set `scratch_dir`; the last good checkpoint is kept and training resumes from it.",
            )
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = "/".join(Path(frame.filename).parts[-3:])
    return TrainerReport(outcome="crashed", detail=f"failed with {type(error).__name__} in {place}:{frame.lineno}")


def _refusal(error: PerennialError) -> TrainerReport:
    fault = Fault(type=type(error).__name__, where=error.where, found=error.found, expected=error.expected, todo=error.todo)
    return TrainerReport(outcome="refused", fault=fault)


def _is_disk_full(error: Exception, work: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors and torch.save wrap the system's error in their own.
    return "No space left" in str(error) or ("PytorchStreamWriter" in str(error) and shutil.disk_usage(work).free < 2**20)


if __name__ == "__main__":
    if "RANK" in os.environ:
        # A launcher that is killed leaves its workers behind; they follow it by themselves.
        die_with_parent(os.getppid())
    sys.exit(main(sys.argv[1:]))
