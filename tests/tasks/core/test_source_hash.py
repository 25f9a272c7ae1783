"""A stage's code is part of what its results are kept under."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core import source_hash as sources
from tasks.core.source_hash import sources_sha256
from tasks.core.storage import sha256_of_json

_REAL = Path(sources.__file__).parents[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package like ours: a stage that imports a helper lazily, which imports another; and one that nobody imports."""
    root = tmp_path / "tasks"
    files = {
        "__init__.py": "",
        "shared.py": "LIMIT = 1",
        "pii/__init__.py": "",
        "pii/task.py": "def run():\n    from tasks.pii import rows\n    return rows",
        "pii/rows.py": "import tasks.shared",
        "pii/words.txt": "one",
        "bias/__init__.py": "",
        "bias/task.py": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(sources, "_PACKAGE", root)
    return root


def _hash(package: Path) -> str:
    sources_sha256.cache_clear()
    sources._read.cache_clear()
    return sources_sha256(package / "pii" / "task.py")


@pytest.mark.parametrize("name", ["pii/task.py", "pii/rows.py", "shared.py", "pii/words.txt"])
def test_a_change_in_what_a_stage_uses_changes_its_hash(package: Path, name: str) -> None:
    before = _hash(package)
    (package / name).write_text((package / name).read_text() + "\nFIXED = True")
    assert _hash(package) != before


COMMENTED = '''
"""Another docstring."""
# A comment.

LIMIT    =    1

"""What stands below a constant."""
'''


def test_comments_docstrings_and_layout_change_no_hash(package: Path) -> None:
    before = _hash(package)
    (package / "shared.py").write_text(COMMENTED)
    assert _hash(package) == before


@pytest.mark.parametrize("text", ["LIMIT = 2", "LIMIT = 1.0", "limit = 1", "LIMIT = '1'", "LIMIT: int = 1"])
def test_what_a_module_says_changes_the_hash(package: Path, text: str) -> None:
    before = _hash(package)
    (package / "shared.py").write_text(text)
    assert _hash(package) != before


def test_a_module_that_carries_no_result_is_not_followed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _hash(package)
    monkeypatch.setattr(sources, "CARRIES_NO_RESULT", {"tasks.shared": "says nothing"})
    without = _hash(package)
    (package / "shared.py").write_text("LIMIT = 3")
    assert before != without == _hash(package)


@pytest.mark.parametrize("name", sources.CARRIES_NO_RESULT)
def test_what_carries_no_result_exists(name: str) -> None:
    path = _REAL.parent.joinpath(*name.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_digests_of_content_are_the_same_in_every_release() -> None:
    """No cache key includes their code, and ids of rows, answers of reviewers and names in the store are made with it."""
    content = {"b": [1, 0.1, None], "a": "Straße «é»"}
    assert sha256_of_json(content) == "e2dcfa15bf0f22e33a5e18fa471be0ad6698ace2b8c22f18b1eb97dbe31717f7"


def test_a_program_that_a_stage_starts_is_behind_it_too(package: Path) -> None:
    before = _hash(package)
    (package / "bias" / "task.py").write_text("FIXED = 1")
    assert _hash(package) == before
    (package / "pii" / "rows.py").write_text('PROGRAM = "tasks.bias.task"')
    before = _hash(package)
    (package / "bias" / "task.py").write_text("FIXED = 2")
    assert _hash(package) != before


def test_a_change_elsewhere_does_not(package: Path) -> None:
    before = _hash(package)
    (package / "bias" / "task.py").write_text("FIXED = 1")
    assert _hash(package) == before


def test_a_real_stage_is_followed_to_its_engine_and_not_into_other_stages() -> None:
    names = {str(path.relative_to(_REAL)) for path in sources.source_files(_REAL / "pii" / "task.py")}
    assert {"pii/task.py", "contracts/preparation.py", "core/rows.py"} <= names
    assert not {name for name in names if name.startswith(("training/", "registry/", "core/storage/", "tracking/"))}


def test_what_training_depends_on_is_this_and_no_more() -> None:
    """A field of an alert, a page of the dossier or a line of the store trains no model again."""
    closure = {str(path.relative_to(_REAL)) for path in sources.source_files(_REAL / "training" / "task.py")}
    rooms = {name.partition("/")[0] for name in closure}
    assert rooms == {"__init__.py", "contracts", "core", "measures", "modeling", "stats", "training"}
    contracts = {name for name in closure if name.startswith("contracts/")}
    assert contracts == {f"contracts/{part}.py" for part in ("base", "references", "measurement", "training")}
    core = {name for name in closure if name.startswith("core/")}
    assert core == {f"core/{part}.py" for part in ("__init__", "processes", "rows", "tool_calls")}
