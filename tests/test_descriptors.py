"""The limit of a process's descriptors, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from p2pd.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_limit(1000) or "all is well", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "says"),
    [
        (256, 2000, "all is well 1000"),
        (1500, 2000, "all is well 1500"),
        (256, 512, "only 512 open files are allowed, and 1000 may be needed: start it with `ulimit -n 1000` 512"),
    ],
)
def test_raise_limit(soft: int, hard: int, says: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == says
