"""How many commits would have made a stage run again: whole files, as before, against what decides its result, as now.

    python benchmarks/cache_key_replay.py                                    # train_sft over the last 60 commits
    python benchmarks/cache_key_replay.py --stage tasks/pii/task.py --commits 100

Each commit's tree is read from git and both rules are applied to it: every byte of every file that the stage imports, or the
syntax trees without docstrings, without the modules that carry no result, and of the contracts only those that it imports.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tasks.core.source_hash import SourceCode, carries_no_result, read_source  # noqa: E402

CONTRACTS = "tasks.contracts"
MOVED = {
    "tasks.addresses", "tasks.artifact_paths", "tasks.database", "tasks.ensuring", "tasks.errors", "tasks.libraries",
    "tasks.outbox", "tasks.paging", "tasks.progress", "tasks.scratch", "tasks.sources", "tasks.stage", "tasks.storage",
    "tasks.texts",
}  # fmt: skip
"""Where modules that carry no result were in older commits."""


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@cache
def source(blob: str) -> bytes:
    return git("cat-file", "blob", blob).encode()


@cache
def read(blob: str) -> SourceCode:
    """What counts of a file."""
    return read_source(source(blob))


def is_left_out(module: str) -> bool:
    return carries_no_result(module) or any(module == name or module.startswith(name + ".") for name in MOVED)


def closure(tree: dict[str, str], stage: str, *, whole: bool) -> dict[str, str]:
    """The stage's modules with their blobs."""
    found, waiting = {}, [stage]
    while waiting:
        path = waiting.pop()
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if path in found or path not in tree or (not whole and is_left_out(module)):
            continue
        found[path] = tree[path]
        for name in read(tree[path]).names:
            place = name.replace(".", "/")
            waiting += [f"{place}.py", f"{place}/__init__.py"]
    return found


def contracts_used(blob: str, names: set[str]) -> str:
    """Of the one module that held all contracts: the syntax of those that are used, and of those that these use."""
    classes = {node.name: node for node in ast.parse(source(blob)).body if isinstance(node, ast.ClassDef)}
    used, waiting = set(), [name for name in names if name in classes]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += [node.id for node in ast.walk(classes[name]) if isinstance(node, ast.Name) and node.id in classes]
    return "".join(syntax_of(classes[name]) for name in sorted(used))


def syntax_of(node: ast.ClassDef) -> str:
    return ast.dump(ast.Module([one for one in node.body if not isinstance(one, ast.Expr)], []))


def fingerprint(commit: str, stage: str, *, whole: bool) -> str:
    """What of a commit counts for a stage."""
    listing = (line.split(None, 3) for line in git("ls-tree", "-r", commit, "tasks").splitlines())
    tree = {path: blob for _, _, blob, path in listing if path.endswith(".py")}
    files = closure(tree, stage, whole=whole)
    if whole:
        return repr(sorted(files.items()))
    old = files.pop("tasks/contracts.py", None)
    parts = [path + read(blob).sha256 for path, blob in sorted(files.items())]
    if old:
        imported = {
            name.rpartition(".")[2] for blob in files.values() for name in read(blob).names if name.startswith(CONTRACTS)
        }
        parts.append(contracts_used(old, imported))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", default="tasks/training/task.py")
    parser.add_argument("--commits", type=int, default=60)
    parser.add_argument("--until", default="HEAD")
    options = parser.parse_args()
    commits = git("rev-list", "--first-parent", f"-{options.commits + 1}", options.until).split()[::-1]
    print(f"{options.stage}: of {len(commits) - 1} commits up to {commits[-1][:8]} these change its key")
    for name, whole in (("whole files", True), ("what decides the result", False)):
        prints = [fingerprint(commit, options.stage, whole=whole) for commit in commits]
        changed = sum(before != after for before, after in pairwise(prints))
        print(f"  {name:26}{changed:4}  {changed / (len(commits) - 1):.0%}")


if __name__ == "__main__":
    main()
