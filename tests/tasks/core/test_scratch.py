"""Nothing raw is left behind by a killed process, and no folder that somebody else could have filled is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import StoreError
from tasks.core.scratch import own_folder, private_folder, scratch_folder, sweep_scratch, unnamed_file
from tasks.tracking.outbox import Outbox
from tasks.training.config import SftConfig
from tasks.training.launch.protocol import SftMethod, TrainerSpec
from tasks.training.launch.supervisor import make_plan, supervise

_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's temporary folder for this test and what it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def start(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that runs ``code`` and says ``ready`` when it is time to kill it."""
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert process.stdout is not None
    process.stdout.close()


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


_HOLD = """
import time
from tasks.core.scratch import scratch_folder
with scratch_folder("garak") as folder:
    (folder / "report.jsonl").write_text("a reply")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_goes_with_the_next_start_and_a_living_ones_stays(temporary: Path) -> None:
    killed, living = start(_HOLD, temporary), start(_HOLD, temporary)
    assert len(files_below(temporary)) == 2
    kill(killed)
    sweep_scratch()
    (left,) = files_below(temporary)
    assert left.read_text() == "a reply"
    with scratch_folder("other") as folder:
        assert left.exists()
        assert folder.stat().st_mode & 0o777 == 0o700
    kill(living)
    with scratch_folder("other"):
        assert not files_below(temporary)


_SCRUB = """
import sys, threading, time
from tasks.pii import sharding
from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.core.rows import MESSAGES_SCHEMA
rows = [{"id": f"r{n}", "messages": [{"role": "user", "content": f"I am Quentin Vandermeer {n}."}]} for n in range(200)]
wait = sharding._run_workers
def run(*arguments):
    threading.Timer(2.0, lambda: print("ready", flush=True)).start()
    wait(*arguments)
sharding._run_workers = run
sharding.scrub_in_processes(rows, MESSAGES_SCHEMA, Policy(PiiConfig()), 2)
time.sleep(600)
"""


def test_a_killed_scrubber_leaves_no_file_with_rows_or_values(temporary: Path) -> None:
    process = start(_SCRUB, temporary)
    assert not files_below(temporary), "nothing has a name while it runs"
    kill(process)
    assert not files_below(temporary)


def test_an_unnamed_file_is_nowhere(temporary: Path) -> None:
    with unnamed_file() as file:
        file.write(b"Quentin Vandermeer")
        file.flush()
        assert not files_below(temporary)


def make_link(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)


def make_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def make_anothers(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of another user")
    folder.mkdir()
    os.chown(folder, 12_345, 12_345)


TRAPS: list[tuple[Callable[[Path], None], str]] = [
    (make_link, "a link"),
    (make_open, "mode 777"),
    (make_anothers, "user 12345"),
]


@pytest.mark.parametrize(("trap", "found"), TRAPS)
def test_a_folder_that_somebody_else_could_have_filled_is_refused_by_name(
    tmp_path: Path, trap: Callable[[Path], None], found: str
) -> None:
    trap(tmp_path / "sft-0123456789abcdef")
    with pytest.raises(StoreError, match=f"sft-0123456789abcdef: found .*{found}"):
        own_folder(tmp_path / "sft-0123456789abcdef")


@pytest.mark.parametrize(("trap", "found"), TRAPS)
def test_the_temporary_folder_of_this_user_is_not_taken_over(
    temporary: Path, trap: Callable[[Path], None], found: str
) -> None:
    trap(temporary / f"perennial-{os.geteuid()}")
    for use in (sweep_scratch, lambda: private_folder("work"), lambda: scratch_folder("x").__enter__()):
        with pytest.raises(StoreError, match=found):
            use()


@pytest.mark.parametrize(("trap", "found"), TRAPS)
def test_a_training_that_somebody_else_finished_is_not_adopted(
    tmp_path: Path, trap: Callable[[Path], None], found: str
) -> None:
    work = tmp_path / "sft-0123456789abcdef"
    trap(work)
    (work / "adapter").mkdir()
    (work / "report.json").write_text('{"outcome": "done"}')
    digest = "0" * 64
    rows = DatasetRef(sha256=digest, num_rows=1, kind="messages")
    base = BaseLanguageModel(
        name="base",
        folder=FolderRef(sha256=digest, num_files=1, size_bytes=1),
        license="mit",
        num_parameters=1,
    )
    spec = TrainerSpec(
        base=base,
        train=rows,
        validation=None,
        method=SftMethod(config=SftConfig()),
        work_dir=str(work),
        store_uri=str(tmp_path),
    )
    for use in (supervise, make_plan):
        with pytest.raises(StoreError, match=found):
            use(spec, lambda event: None)


def test_an_ordinary_folder_is_used(tmp_path: Path) -> None:
    made = own_folder(tmp_path / "deep" / "work")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert own_folder(made) == made
    with pytest.raises(StoreError, match="others may use"):
        own_folder(made, private=True)


def test_a_file_in_its_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    with pytest.raises(StoreError, match="found a file"):
        own_folder(tmp_path / "work")


def test_records_that_wait_for_a_server_are_their_owners_alone(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "mlflow-unsent", "run", {"run_id": "run"})
    outbox.keep([{"kind": "artifact", "data": "a dossier"}])
    assert outbox.path.stat().st_mode & 0o077 == 0
    assert outbox.path.parent.stat().st_mode & 0o077 == 0
    outbox.discard()


def test_the_next_start_of_a_command_is_a_start(temporary: Path, tmp_path: Path) -> None:
    kill(start(_HOLD, temporary))
    assert files_below(temporary)
    code = f"import os; os.environ['PERENNIAL_HOME'] = {str(tmp_path / 'home')!r}\n"
    code += (
        "from perennial.operations.embedded import prepare_environment; prepare_environment(); print('ready', flush=True)"
    )
    process = start(code, temporary)
    process.communicate()
    assert not files_below(temporary)
