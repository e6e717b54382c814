"""The rules of who may import whom, over the syntax trees. The core above all: no I/O, no clock, no dice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2pd

ROOT = Path(p2pd.__file__).parent
REPOSITORY = ROOT.parent
CORE = sorted((ROOT / "swarm").glob("*.py"))

CORE_MAY_IMPORT = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "functools",
    "operator", "hashlib", "heapq", "itertools",
    "math", "msgpack", "struct", "typing",
}  # fmt: skip
# `hash` and `id` differ from process to process: a choice that rests on one could not be replayed.
CORE_MAY_NOT_CALL = {"open", "print", "input", "exec", "eval", "compile", "__import__", "hash", "id", "Random"}

# Small modules that know nobody but each other; any part may use them.
TOOLS = {"oci", "patterns", "toml", "descriptors", "units", "ratelimit", "filesend", "notify", "background"}
# What a part may know of p2pd beside itself and the tools. Parts that are not named wire others together.
MAY_KNOW: dict[str, set[str]] = {
    **{tool: set() for tool in TOOLS},
    "hashing": set(),
    "store": set(),
    "upstream": set(),
    "mirror": set(),
    "admin": set(),
    "fleet": set(),
    "config": {"upstream"},
    "hosts": {"config"},
    "engine": {"swarm"},
    "discovery": {"swarm"},
    "peers": {"swarm", "hashing", "fleet"},
    "content": {"admin", "engine", "hashing", "mirror", "store", "swarm", "upstream"},
}
TRACKER_MAY_KNOW = {"swarm", "peers", "fleet", "config", "admin"} | TOOLS


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, as "package.module"; for `from a import b` also "a.b", which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide who knows whom"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text(), str(path))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def known_parts(path: Path, names: set[str]) -> set[str]:
    """The parts of p2pd that a file imports."""
    found = {name.split(".")[1] for name in imports(parse(path)) if name.startswith("p2pd.")}
    return found & names


ALL = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)
PARTS = {part_of(path) for path in ALL} - {"__init__"}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_imports_nothing_that_touches_the_world(path: Path) -> None:
    for name in imports(parse(path)):
        if name.startswith("p2pd"):
            assert name == "p2pd.swarm" or name.startswith("p2pd.swarm."), f"{path.name} imports {name}"
        elif name.split(".")[0] == "random":
            assert name in ("random", "random.Random"), f"{path.name} imports {name}"
        else:
            assert name.split(".")[0] in CORE_MAY_IMPORT, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_takes_random_as_a_type_only(path: Path) -> None:
    tree = parse(path)
    assert not any(isinstance(node, ast.Import) and node.names[0].name == "random" for node in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CORE_MAY_NOT_CALL, f"{path.name}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_has_no_async_and_no_globals(path: Path) -> None:
    forbidden = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await, ast.Global)
    assert not any(isinstance(node, forbidden) for node in ast.walk(parse(path)))


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_in_the_node_knows_the_tracker_or_the_simulations(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(parse(path))}
    assert not roots & {"tracker", "simulations", "tests"}


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_arrows_run_one_way(path: Path) -> None:
    part = part_of(path)
    known = known_parts(path, PARTS) - {part}
    if part not in ("cli", "__main__"):
        assert "cli" not in known
    if part not in ("cli", "__main__", "daemon"):
        assert "daemon" not in known
    if part in MAY_KNOW:
        assert known <= MAY_KNOW[part] | (TOOLS if part != "swarm" else set())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tracker").rglob("*.py")), ids=lambda path: path.name)
def test_the_tracker_knows_the_core_and_the_wire_only(path: Path) -> None:
    assert known_parts(path, PARTS) <= TRACKER_MAY_KNOW


def test_every_part_with_a_rule_exists() -> None:
    assert set(MAY_KNOW) <= PARTS
