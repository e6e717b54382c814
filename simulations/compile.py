"""Compile the core and the simulator with mypyc: the same Python, the same run, at two to three times the speed.

`python -m simulations.compile DIRECTORY` puts a compiled copy of the packages there; run the simulator from inside it.
Needs mypy, a C compiler and Python's headers. The daemon is not compiled: its time goes
to the kernel and to libcrypto.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("p2pd", "tracker", "simulations")
# What runs for every event of a simulated node; the rest is called too seldom to matter.
CORE = "p2pd/swarm"
WORLD = ("clock", "hosts", "network", "pulls", "readers", "records", "wires", "world")
OPTIONS = ("--ignore-missing-imports", "--follow-imports=silent")


def compile_into(directory: Path) -> None:
    """CalledProcessError if the compiler is missing or says no; its words are on stderr."""
    source = Path(__file__).resolve().parent.parent
    shutil.rmtree(directory, ignore_errors=True)
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(source / package, directory / package, ignore=ignore)
    core = sorted(path for path in (directory / CORE).glob("*.py") if path.name != "__init__.py")
    files = [str(path.relative_to(directory)) for path in core] + [f"simulations/{name}.py" for name in WORLD]
    for name in files:
        path = directory / name
        path.write_text(with_plain_inits(path.read_text()))
    setup = (
        "from setuptools import setup\nfrom mypyc.build import mypycify\n"
        f"setup(name='compiled', packages=[], ext_modules=mypycify({[*OPTIONS, *files]!r}, opt_level='3'))\n"
    )
    command = [sys.executable, "-c", setup, "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=directory, check=True, stdout=sys.stderr)
    shutil.rmtree(directory / "build")


def with_plain_inits(source: str) -> str:
    """The same module, whose dataclasses have an `__init__` that can be compiled.

    What `dataclass` makes at run time stays interpreted, and that of a frozen one is slower still: for the events,
    commands and messages of a run that was an eighth of its time.
    """
    lines = source.splitlines()
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    for node in sorted(classes, key=lambda node: node.lineno, reverse=True):
        decorator = next((d for d in node.decorator_list if ast.unparse(d).split("(")[0] == "dataclass"), None)
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        has_own = any(isinstance(part, ast.FunctionDef) and "init__" in part.name for part in node.body)
        if decorator is None or not fields or has_own or node.bases:
            continue
        lines[node.end_lineno : node.end_lineno] = [f"    {line}" for line in _init(fields)]
        lines[decorator.lineno - 1 : decorator.end_lineno] = ["@" + _without_init(decorator)]
    return "\n".join(lines) + "\n"


def _init(fields: list[ast.AnnAssign]) -> list[str]:
    """Its lines."""
    parameters, body = ["self"], []
    for field in fields:
        name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        made = _factory(field.value)
        if made:
            parameters.append(f"{name}: {kind} | None = None")
            body.append(f"    self.{name} = {made} if {name} is None else {name}")
        else:
            parameters.append(f"{name}: {kind}" + (f" = {ast.unparse(field.value)}" if field.value else ""))
            body.append(f"    self.{name} = {name}")
    return ["", f"def __init__({', '.join(parameters)}) -> None:", *body]


def _without_init(decorator: ast.expr) -> str:
    """A dataclass that does not make its own `__init__`; nor is it frozen, for else nothing could set its fields."""
    options = [k for k in decorator.keywords if k.arg != "frozen"] if isinstance(decorator, ast.Call) else []
    hashed = "frozen=True" in ast.unparse(decorator)
    return f"dataclass({', '.join([*map(ast.unparse, options), 'init=False', f'unsafe_hash={hashed}'])})"


def _factory(value: ast.expr | None) -> str:
    """What makes a default, as source; empty for a default that is a value, and without one."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        return next((f"({ast.unparse(k.value)})()" for k in value.keywords if k.arg == "default_factory"), "")
    return ""


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        compile_into(Path(sys.argv[1]))
    except subprocess.CalledProcessError:
        sys.exit("the simulator could not be compiled (see above); it runs without that, more slowly")
