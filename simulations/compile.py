"""Compile the core and the simulator with mypyc: the same Python, the same run, at two to three times the speed.

`python -m simulations.compile DIRECTORY` puts a compiled copy of the packages there; run the simulator from inside it.
Needs mypy (requirements-compile.lock), a C compiler and Python's headers. The daemon is not compiled: its time goes
to the kernel and to libcrypto.
"""

from __future__ import annotations

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
    setup = (
        "from setuptools import setup\nfrom mypyc.build import mypycify\n"
        f"setup(name='compiled', packages=[], ext_modules=mypycify({[*OPTIONS, *files]!r}, opt_level='3'))\n"
    )
    command = [sys.executable, "-c", setup, "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=directory, check=True, stdout=sys.stderr)
    shutil.rmtree(directory / "build")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        compile_into(Path(sys.argv[1]))
    except subprocess.CalledProcessError:
        sys.exit("the simulator could not be compiled (see above); it runs without that, more slowly")
