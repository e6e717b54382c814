"""Who may know whom: httpx stands behind one module, and the package knows nothing of the daemon's other parts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2pd

ROOT = Path(p2pd.__file__).parent
ALLOWED = {"p2pd", "p2pd.oci", "p2pd.ratelimit"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_httpx_is_known_to_one_module(path: Path) -> None:
    known = {name.partition(".")[0] for name in imports(path)} & {"httpx", "httpcore"}
    assert bool(known) == (path == ROOT / "upstream" / "transport.py")


@pytest.mark.parametrize("path", sorted((ROOT / "upstream").glob("*.py")), ids=lambda path: path.name)
def test_the_package_knows_no_other_part(path: Path) -> None:
    names = {name for name in imports(path) if name.partition(".")[0] == "p2pd"}
    assert {name for name in names if not name.startswith("p2pd.upstream")} <= ALLOWED
