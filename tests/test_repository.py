"""The files around the code agree with it and with each other: maps, lock, links, workflow files."""

from __future__ import annotations

import importlib
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.testing import CliRunner

from perennial.cli.app import app

ROOT = Path(__file__).parents[1]
MAP = re.compile(r"^```text\n(perennial/ .*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
)
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# ------------------------------------------------------------------------------------------------------------ the map


def map_of(page: str) -> str:
    """The map of the packages, as a page draws it."""
    found = MAP.findall((ROOT / page).read_text())
    assert len(found) == 1, f"{page} has {len(found)} maps (fenced blocks `text` that begin with perennial/)"
    return str(found[0])


def rows_of(drawn: str) -> dict[str, int]:
    """The line on which a map names each package; one that is indented lies in the last one that is not."""
    rows: dict[str, int] = {}
    parent = ""
    for number, line in enumerate(drawn.splitlines()):
        indented = line.startswith(" ")
        for name in re.findall(r"(\w+)/(?=\s|$)", line.split("  #")[0]):
            rows[f"{parent}.{name}" if indented else name] = number
        if not indented and (first := re.match(r"(\w+)/", line)):
            parent = first.group(1)
    return rows


def layers() -> list[list[set[str]]]:
    """The layers of each of import-linter's contracts of that type, from the top, with full names."""
    found = []
    for contract in project()["tool"]["importlinter"]["contracts"]:
        for container in contract.get("containers", [""]) if contract["type"] == "layers" else ():
            inside = container + "." if container else ""
            found.append([{inside + name for name in re.findall(r"[\w.]+", layer)} for layer in contract["layers"]])
    return found


def packages_on_disk() -> set[str]:
    tops = [name for name in ("perennial", "flows", "tasks") if (ROOT / name).is_dir()]
    below = {path.parent for top in tops for path in (ROOT / top).glob("*/*.py")}
    return {*tops, *(".".join(path.relative_to(ROOT).parts) for path in below)}


def test_readme_and_design_draw_the_same_map() -> None:
    assert map_of("README.md") == map_of("docs/design.md")


def test_the_map_names_every_package_and_no_other() -> None:
    assert set(rows_of(map_of("README.md"))) == packages_on_disk()


def test_the_map_has_the_packages_in_the_order_of_the_layers() -> None:
    rows = rows_of(map_of("README.md"))
    num_compared = 0
    for contract in layers():
        drawn = [found for layer in contract if (found := {name: rows[name] for name in layer if name in rows})]
        num_compared += sum(map(len, drawn))
        for upper, lower in itertools.pairwise(drawn):
            assert max(upper.values()) <= min(lower.values()), (
                f"{sorted(upper)} lies above {sorted(lower)} in pyproject.toml"
            )
    assert num_compared > 30


def test_every_package_is_on_a_layer() -> None:
    assert packages_on_disk() - {name for contract in layers() for layer in contract for name in layer} == set()


# ----------------------------------------------------------------------------------------------------------- the lock


LOCKS = {
    "requirements.lock": (["all", "dev"], "setup"),
    "docker/server.lock": (["servers", "bridge"], "build"),
    "docker/worker.lock": (["all", "servers", "s3", "gpu"], "worker"),
}


def locked(name: str) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in re.findall(r"^[A-Za-z].*", (ROOT / name).read_text(), re.MULTILINE):
        requirement = Requirement(line.rstrip(" \\"))
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_has_what_its_extras_require_at_the_versions_of_the_constraints(file: str) -> None:
    lock, options, groups = locked(file), project()["project"]["optional-dependencies"], project()["dependency-groups"]
    extras, group = LOCKS[file]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    waiting = [*project()["project"]["dependencies"], *(line for extra in extras for line in options[extra]), *groups[group]]
    while waiting:
        line = waiting.pop()
        if isinstance(line, dict):
            waiting += groups[line["include-group"]]
            continue
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name == project()["project"]["name"]:
            waiting += [line for extra in requirement.extras for line in options[extra]]
        elif name != "torch":
            assert name in lock, f"{name} is not in {file}: run `make lock`"
            versions = [next(iter(one.specifier)).version for one in lock[name]]
            assert all(map(requirement.specifier.contains, versions)), f"{name}: run `make lock`"
    different = {
        name: pinned[name] for name in lock.keys() & pinned.keys() if str(lock[name][0].specifier) != f"=={pinned[name]}"
    }
    assert not {name for name, version in different.items() if Version(version) not in lock[name][0].specifier}, (
        "run `make lock`"
    )


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_has_hashes_and_neither_torch_nor_an_index(file: str) -> None:
    text = (ROOT / file).read_text()
    blocks = re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) > 100
    assert all("--hash=sha256:" in block for block in blocks)
    assert not {"torch", "triton"} & locked(file).keys()
    assert "://" not in text


# ------------------------------------------------------------------------------------------------------ pages, workflow


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub and the site give a page's headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in LINK.findall((ROOT / page).read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors_of(path), f"{page}: no heading for {link}"


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/feature.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_the_files_of_github_follow_its_schemas(schema: str, name: str) -> None:
    tool = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    assert tool
    done = subprocess.run([tool, "--builtin-schema", schema, str(ROOT / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_calls_the_same_script_as_any_other_ci() -> None:
    assert "- run: bash .ci/run\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_every_package_says_that_it_is_typed() -> None:
    tops = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [top for top in tops if not (ROOT / top / "py.typed").is_file()] == []


PATH_IN_TEXT = re.compile(
    r"(?<![\w/.])((?:tasks|flows|perennial|tests|benchmarks|docs|deployments|docker|examples)/[a-z0-9_/.-]+"
    r"\.(?:py|md|yaml|toml|jsonl|json|sh))"
)


@pytest.mark.parametrize("page", [*PAGES, "Makefile", ".ci/run"])
def test_files_that_are_named_are_there(page: str) -> None:
    named = set(PATH_IN_TEXT.findall((ROOT / page).read_text()))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_benchmarks_that_the_makefile_leaves_out_exist() -> None:
    (names,) = re.findall(r"^NOT_BENCH := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [name for name in names.split() if not (ROOT / "benchmarks" / f"{name}.py").exists()] == []


REFERENCE = re.compile(r":(?:mod|func|class|data|meth|attr):`~?((?:tasks|flows|perennial)[\w.]+)`")


def test_references_in_docstrings_lead_somewhere() -> None:
    lost = []
    for path in (file for top in ("tasks", "flows", "perennial") for file in (ROOT / top).rglob("*.py")):
        for name in REFERENCE.findall(path.read_text()):
            parts = name.split(".")
            files = [
                (ROOT.joinpath(*parts[:end]).with_suffix(".py"), ROOT.joinpath(*parts[:end], "__init__.py"), parts[end:])
                for end in range(len(parts), 0, -1)
            ]
            module, face, rest = next(found for found in files if found[0].is_file() or found[1].is_file())
            source = (module if module.is_file() else face).read_text()
            if rest and not re.search(rf"\b{rest[0]}\b", source):
                lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert lost == []


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(("option", "expected"), [("--version", "perennial 0."), ("-h", "Usage: "), ("--help", "Usage: ")])
def test_the_command_says_its_version_and_explains_itself(option: str, expected: str) -> None:
    module = project()["project"]["scripts"]["perennial"].partition(":")[0]
    result = CliRunner().invoke(importlib.import_module(module).app, [option])
    assert result.exit_code == 0
    assert result.output.lstrip().startswith(expected)


COMMAND = re.compile(r"(?:^|`)(?:\.venv/bin/)?perennial +([^`\n#]+)", re.MULTILINE)


def reached(line: str) -> list[Any]:
    """The commands that a line such as ``budget show|approve --config FILE`` names."""
    found: list[Any] = [typer.main.get_command(app)]
    for word in line.split():
        if not all(hasattr(command, "commands") for command in found):
            break
        found = [command.commands[name] for command in found for name in word.split("|")]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_shown_exist_with_their_options(page: str) -> None:
    lines = [line for line in COMMAND.findall((ROOT / page).read_text()) if not line.startswith("-")]
    for line in lines:
        for command in reached(line):
            options = {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}
            assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", line)) <= options, line
