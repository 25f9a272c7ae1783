"""The words of the project: documentation, docstrings, comments and messages keep to the field's terms (`docs/words.toml`).

``python tests/test_words.py`` prints the places that do not, as `make check` does; ``--all`` looks at what is not yet clean
too, and counts by package.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
WORDS = tomllib.loads((ROOT / "docs" / "words.toml").read_text())
ALLOWED: dict[str, list[str]] = WORDS["allow"]
NAMES = frozenset(WORDS["names"]["words"])
# A hyphen, dot or slash beside a word makes it part of an identifier, unless the dot ends a sentence.
REJECTED = [
    # A line may break where a pattern has a space.
    (re.compile(rf"(?<![\w\-./`])(?:{pattern})(?![\w\-/`]|\.\w)".replace(" ", r"\s+"), re.IGNORECASE), instead)
    for pattern, instead in WORDS["prose"].items()
]
ANY = re.compile("|".join(f"(?:{pattern})" for pattern in WORDS["prose"]).replace(" ", r"\s+"), re.IGNORECASE)
CODE_SPAN = re.compile(r"``.+?``|`[^`\n]+`")
IDENTIFIER = re.compile(r"\s*(?:[\w\-./:%]*\w)?\s*")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

# Folders and files that still have such words. It ends empty.
NOT_YET_CLEAN: list[str] = WORDS["not_yet_clean"]
GENERATED = ("docs/configuration.md",)  # from the descriptions in the code
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".sh"}
SCANNED = ("flows", "tasks", "perennial", "docs", "deployments", "docker", "examples", ".github")


class Place(NamedTuple):
    """A word that should not stand where it stands."""

    path: str
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}; write: {self.instead}"


def files() -> list[Path]:
    """Every file with prose: Python, Markdown, YAML, shell; data files of the packages are no prose."""
    found = [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    for folder in SCANNED:
        found += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    return [path for path in found if "data" not in path.parts[len(ROOT.parts) :]]


def prose_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, comments and the texts of messages with their lines; identifiers, paths and keys are left out."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not IDENTIFIER.fullmatch(node.value):
            yield node.lineno, node.value


def names_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Names that the module gives: functions, classes, arguments and variables."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def check_prose(path: str, text: str, first_line: int = 1) -> Iterator[Place]:
    """The rejected words of a text; what stands in backticks is not looked at."""
    if not ANY.search(text):
        return
    text = FENCE.sub(lambda fence: "\n" * fence.group().count("\n"), text)
    text = CODE_SPAN.sub(lambda span: "`" + "x" * (len(span.group()) - 2) + "`", text)
    for phrase in ALLOWED.get(path, ()):
        text = text.replace(phrase, "x" * len(phrase))
    for pattern, instead in REJECTED:
        for match in pattern.finditer(text):
            yield Place(path, first_line + text.count("\n", 0, match.start()), match.group(), instead)


def check_file(path: Path) -> list[Place]:
    """Every place of a file that `docs/words.toml` rejects."""
    name, source = path.relative_to(ROOT).as_posix(), path.read_text()
    if path.suffix != ".py":
        return list(check_prose(name, source))
    found = [place for line, text in prose_of_python(source) for place in check_prose(name, text, line)]
    for line, given in names_of_python(source):
        parts = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", given).lower())
        if given not in ALLOWED.get(name, ()):
            found += [Place(name, line, given, f"a name without {part!r}") for part in parts if part in NAMES]
    return found


def is_exempt(path: Path) -> bool:
    """Whether a file is generated, or lies where the words are not yet gone."""
    name = path.relative_to(ROOT)
    return name.as_posix() in GENERATED or any(name.is_relative_to(folder) for folder in NOT_YET_CLEAN)


def test_no_rejected_word_stands_in_a_clean_file() -> None:
    places = [place for path in files() if not is_exempt(path) for place in check_file(path)]
    assert not places, "\n".join(map(str, places))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The run is told the store.", ["told"]),
        ("Version 1 reigns.\nIt is mended.", ["reigns", "mended"]),
        ("`asked` is a name, and so is judge-fit.", []),
        ("```\nasked\n```\nThe judge model compares replies.", []),
        ("A deployment asks\nfor a form.", ["asks\nfor"]),
    ],
)
def test_words_are_found_in_prose_alone(text: str, expected: list[str]) -> None:
    assert [place.found for place in check_prose("a.md", text)] == expected


def test_names_comments_and_messages_of_code_are_prose_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text('"""Judged."""\n\nasked = 1  # told\nraise ValueError(f"{asked} settles nothing")\n')
    assert [(place.line, place.found) for place in check_file(module)] == [
        (3, "told"),
        (1, "Judged"),
        (4, "settles"),
        (3, "asked"),
    ]


if __name__ == "__main__":
    with_exempt = sys.argv[1:] == ["--all"]
    every = [place for path in files() if with_exempt or not is_exempt(path) for place in check_file(path)]
    print(*every, sep="\n", end="\n" if every else "")
    if with_exempt:
        by_package = Counter(
            "/".join(place.path.split("/")[: 2 if place.path.startswith("tasks/") else 1]) for place in every
        )
        print(
            *(f"{number:6} {package}" for package, number in sorted(by_package.items())), f"{len(every):6} in all", sep="\n"
        )
    else:
        sys.exit(bool(every))
