"""A stage's code is part of what its results are kept under."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import sources
from tasks.sources import sources_sha256

_REAL = Path(sources.__file__).parent


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
    sources._names_in.cache_clear()
    return sources_sha256(package / "pii" / "task.py")


@pytest.mark.parametrize("name", ["pii/task.py", "pii/rows.py", "shared.py", "pii/words.txt"])
def test_a_change_in_what_a_stage_uses_changes_its_hash(package: Path, name: str) -> None:
    before = _hash(package)
    (package / name).write_text((package / name).read_text() + "\n# mended")
    assert _hash(package) != before


def test_a_program_that_a_stage_starts_is_behind_it_too(package: Path) -> None:
    before = _hash(package)
    (package / "bias" / "task.py").write_text("# mended")
    assert _hash(package) == before
    (package / "pii" / "rows.py").write_text('PROGRAM = "tasks.bias.task"')
    before = _hash(package)
    (package / "bias" / "task.py").write_text("# mended again")
    assert _hash(package) != before


def test_a_change_elsewhere_does_not(package: Path) -> None:
    before = _hash(package)
    (package / "bias" / "task.py").write_text("# mended")
    assert _hash(package) == before


def test_a_real_stage_is_followed_to_its_engine_and_not_into_other_stages() -> None:
    names = {str(path.relative_to(_REAL)) for path in sources._closure(_REAL / "pii" / "task.py")}
    assert {"pii/scrubbing.py", "contracts.py", "stage.py"} <= names
    assert not {name for name in names if name.startswith(("training/", "registry/"))}
