"""kill -9 at random moments, again and again on one store: what was flushed is there, and what is there is right."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from p2pd.store import Store
from tests.store.blobs import assert_right, names
from tests.store.crash_child import BLOB, LIMIT

ROUNDS = 30
LIFE_S_MAX = 0.08  # a round's life after its first word; a whole blob takes about as long


def run_and_kill(root: Path, seed: int, life_s: float) -> list[str]:
    """What the child said, whole lines only."""
    command = [sys.executable, "-m", "tests.store.crash_child", str(root), str(seed)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert child.stdout is not None
    with child.stdout:
        first = child.stdout.readline().decode()
        time.sleep(life_s)
        child.kill()
        rest = child.stdout.read().decode()
    assert child.wait() == -9, f"the child of seed {seed} failed by itself"
    return [line for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]


def promised(lines: list[str], held: set[int], proven: bool) -> tuple[set[int], bool, bool]:
    """(pieces that must be there, whether it must be proven, whether a removal may have taken it)."""
    removing = False
    for line in lines:
        word, *numbers = line.split()
        pieces = set(map(int, numbers))
        if word == "flushed":
            held, proven, removing = pieces, False, False
        elif word == "dropping":
            held = held - pieces
        elif word == "proven":
            held, proven, removing = set(), True, False
        elif word == "removing":
            held, proven, removing = set(), False, True
    return held, proven, removing


def test_killed_at_random_moments(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    dice = random.Random(4)
    held: set[int] = set()
    proven = False
    flushed_rounds = proven_rounds = 0
    for seed in range(ROUNDS):
        lines = run_and_kill(root, seed, dice.uniform(0, LIFE_S_MAX))
        held, proven, removing = promised(lines, held, proven)
        store = Store.open(root, LIMIT)
        try:
            is_proven = store.proven(BLOB.digest) is not None
            found = {partial.digest: partial for partial in store.partials()}.get(BLOB.digest)
            assert not (is_proven and found)
            if is_proven:
                assert (root / "sha256" / BLOB.name).read_bytes() == BLOB.body
                held = set()
            elif found is not None:
                assert held <= set(found.present), f"seed {seed}: lost {held - set(found.present)}"
                assert_right(found, BLOB)
                held = set(found.present)
            else:
                assert not held, f"seed {seed}: lost {held}"
            assert is_proven or not proven or removing
            proven = is_proven
            flushed_rounds += bool(held)
            proven_rounds += is_proven
            assert all(not name.endswith(".tmp") for name in names(root / "partial") | names(root / "sha256"))
        finally:
            store.close()
    # The moments must be spread, or the test shows nothing.
    assert flushed_rounds >= ROUNDS // 4
    print(f"{flushed_rounds} rounds with a partial, {proven_rounds} with a proven blob")
