"""The process that test_crash.py kills: works on a store without end, and says on stdout what was promised to last.

Each line goes out in one write: "flushed <pieces>", "dropping <pieces>", "proven", "removing".
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from p2pd.store import Partial, Store
from tests.store.blobs import Blob, blob

BLOB = blob(77, 64 * 256 + 10, 256)
LIMIT = 1 << 20


def say(word: str, pieces: set[int]) -> None:
    os.write(1, f"{word} {' '.join(map(str, sorted(pieces)))}\n".encode())


def work(partial: Partial, one: Blob, dice: random.Random) -> bool:
    """One step; True when the blob may be committed."""
    missing = sorted(set(range(one.count)) - set(partial.present))
    step = dice.random()
    if not missing:
        return True
    if step < 0.6:
        one.fill(partial, *dice.sample(missing, min(4, len(missing))))
    elif step < 0.7:
        index = dice.choice(missing)
        partial.write(index * one.piece_size, b"\xee" * len(one.piece(index)))  # wrong bytes, never marked
    elif step < 0.75 and partial.present:
        refuted = set(dice.sample(sorted(partial.present), min(3, len(partial.present))))
        say("dropping", refuted)
        partial.drop(refuted)
        for index in refuted:
            partial.write(index * one.piece_size, b"\xdd" * len(one.piece(index)))
    else:
        held = set(partial.present)
        partial.flush()
        say("flushed", held)
    return False


def main() -> None:
    store = Store.open(Path(sys.argv[1]), LIMIT)
    dice = random.Random(int(sys.argv[2]))
    say("opened", set())
    while True:
        if store.proven(BLOB.digest) is not None:
            say("removing", set())
            store.remove(BLOB.digest)
        partial = store.partial(BLOB.digest, BLOB.size, BLOB.piece_size, pin=True)
        while not work(partial, BLOB, dice):
            pass
        partial.commit()
        say("proven", set())


if __name__ == "__main__":
    main()
