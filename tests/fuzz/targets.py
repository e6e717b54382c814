"""The targets by name, their corpora, and what bounds each run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TARGETS = sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir())
INPUT_SIZE_MAX = 8192  # bytes: what is wrong shows in few, and what takes more than linear time shows in so many
CPU_SECONDS_MAX = 2.0  # of one input: a thousand times what any needs, so that a slow machine is not the cause

Check = Callable[[bytes], None]


def check_of(target: str) -> Check:
    """The target's `check`, with a bound on the time that it takes."""
    check: Check = importlib.import_module(f"tests.fuzz.{target}").check

    def bounded(data: bytes) -> None:
        begin = time.thread_time()
        check(data)
        took = time.thread_time() - begin
        assert took <= CPU_SECONDS_MAX, f"{took:.1f} s of CPU for {len(data)} bytes"

    return bounded


def corpus(target: str) -> dict[str, bytes]:
    """The target's inputs by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}
