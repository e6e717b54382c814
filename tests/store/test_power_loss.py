"""Power lost at any moment, on a disk that keeps only what was synced and any part of the rest.

kill -9 leaves the page cache; a power cut does not. So every change of the disk is noted while a store works, and from
the notes up to some moment a disk is made as a crash might leave it: unsynced writes are kept, lost or torn; unsynced
names of each directory only up to some point. A store that opens there must have all that was promised, and no more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2pd.store import Store, files
from tests.store import crash_child
from tests.store.blobs import assert_right, blob
from tests.store.crash_child import BLOB, LIMIT
from tests.store.test_crash import promised

SEEDS = 8
MOMENTS = 40  # crashes tried in each run
STEPS = 80


@dataclass
class Inode:
    changes: list[tuple[int, bytes | int]] = field(default_factory=list)  # (offset, bytes) or (0, new size)
    synced: int = 0

    def after_crash(self, dice: random.Random) -> bytes:
        kept = list(self.changes[: self.synced])
        chance = dice.choice((0.0, 0.5, 1.0))
        for offset, change in self.changes[self.synced :]:
            if dice.random() < chance:
                if isinstance(change, bytes) and dice.random() < 0.2:
                    change = change[: dice.randrange(len(change) + 1)]
                kept.append((offset, change))
        body = bytearray()
        for offset, change in kept:
            if isinstance(change, int):
                body = body[:change].ljust(change, b"\0")
            else:
                body = body.ljust(offset + len(change), b"\0")
                body[offset : offset + len(change)] = change
        return bytes(body)


class Recorder:
    """Stands between the store and the disk; `events` are (what, argument...) in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple] = []
        self._patch = patch
        self._names: dict[Path, Inode] = {}
        self._wrap("write_all", lambda fd, data, offset, path: self._note("write", path, offset, bytes(data)))
        self._wrap("set_size", lambda fd, size, path: self._note("write", path, 0, size))
        self._wrap("sync_data", lambda fd, path: self._note("sync", path))
        self._wrap("sync_directory", lambda path: self.events.append(("syncdir", path)))
        self._wrap("rename", self._rename)
        self._wrap("unlink", self._unlink)

    def say(self, word: str, pieces: set[int]) -> None:
        self.events.append(("say", f"{word} {' '.join(map(str, sorted(pieces)))}\n"))

    def _wrap(self, name: str, note: Callable[..., None]) -> None:
        real = getattr(files, name)

        def call(*arguments: object) -> object:
            if name != "sync_data" and name != "sync_directory":
                note(*arguments)
                return real(*arguments)
            result = real(*arguments)
            note(*arguments)  # a sync has happened when it returns
            return result

        self._patch.setattr(files, name, call)

    def _note(self, what: str, path: Path, *arguments: object) -> None:
        if path not in self._names:
            self._names[path] = Inode()
            self.events.append(("link", path, self._names[path]))
        self.events.append((what, self._names[path], *arguments))

    def _rename(self, old: Path, new: Path) -> None:
        self._names[new] = self._names.pop(old)
        self.events.append(("rename", old, new, self._names[new]))

    def _unlink(self, path: Path) -> None:
        if self._names.pop(path, None) is not None:
            self.events.append(("unlink", path))


def crash(events: list[tuple], old_root: Path, new_root: Path, dice: random.Random) -> list[str]:
    """Make the disk as it might be after `events`; the promises that had been made."""
    said = []
    names_synced: dict[Path, int] = {}
    inodes: dict[int, Inode] = {}

    def inode_of(original: Inode) -> Inode:
        return inodes.setdefault(id(original), Inode())

    for at, (what, *arguments) in enumerate(events):
        if what == "write":
            inode_of(arguments[0]).changes.append(tuple(arguments[1:]))
        elif what == "sync":
            inode_of(arguments[0]).synced = len(inode_of(arguments[0]).changes)
        elif what == "syncdir":
            names_synced[arguments[0]] = at
        elif what == "say":
            said.append(arguments[0])
    reach = {}
    for directory in (old_root / "sha256", old_root / "partial"):
        reach[directory] = dice.randint(names_synced.get(directory, 0), len(events))
    names: dict[Path, Inode] = {}
    for at, (what, *arguments) in enumerate(events):
        if what == "link" and at < reach[arguments[0].parent]:
            names[arguments[0]] = inode_of(arguments[1])
        elif what == "unlink" and at < reach[arguments[0].parent]:
            names.pop(arguments[0], None)
        elif what == "rename" and at < max(reach[path.parent] for path in arguments[:2]):
            names.pop(arguments[0], None)
            names[arguments[1]] = inode_of(arguments[2])
    for path, inode in names.items():
        target = new_root / path.relative_to(old_root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(inode.after_crash(dice))
    return said


def record(root: Path, seed: int) -> list[tuple]:
    """Work on a store for a while, with everything that the daemon does to it."""
    dice = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch)
        patch.setattr(crash_child, "say", recorder.say)
        store = Store.open(root, LIMIT)
        partial = None
        for step in range(STEPS):
            if dice.random() < 0.05:
                manifest = blob(1000 + step, 300)
                store.put(manifest.digest, manifest.body)
                recorder.events.append(("say", f"put {1000 + step}\n"))
            if dice.random() < 0.03:
                recorder.say("removing", set())
                store.remove(BLOB.digest)
                partial = None
            if partial is None:
                if store.proven(BLOB.digest) is not None:
                    continue
                partial = store.partial(BLOB.digest, BLOB.size, BLOB.piece_size, pin=True)
            if crash_child.work(partial, BLOB, dice):
                partial.commit()
                recorder.say("proven", set())
                partial = None
        store.close()
    return recorder.events


def check(root: Path, said: list[str]) -> tuple[bool, bool]:
    """(some piece was there, the blob was proven) of the store after the crash."""
    puts = [int(line.split()[1]) for line in said if line.startswith("put ")]
    held, proven, removing = promised([line for line in said if not line.startswith("put ")], set(), False)
    store = Store.open(root, LIMIT)
    try:
        for number in puts:
            assert store.proven(blob(number, 300).digest) == 300
        for digest, size in store.digests():
            body = (root / "sha256" / digest.removeprefix("sha256:")).read_bytes()
            known = [BLOB, *(blob(1000 + step, 300) for step in range(STEPS))]
            assert body == next(one.body for one in known if one.digest == digest)
            assert len(body) == size
        is_proven = store.proven(BLOB.digest) is not None
        assert is_proven or not proven
        found = {partial.digest: partial for partial in store.partials()}.get(BLOB.digest)
        if found is not None:
            assert_right(found, BLOB)
            assert held <= set(found.present)
        else:
            assert is_proven or not held or removing
        return found is not None and bool(found.present), is_proven
    finally:
        store.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_power_lost_at_any_moment(tmp_path: Path, seed: int) -> None:
    events = record(tmp_path / "blobs", seed)
    dice = random.Random(seed)
    outcomes = []
    for number in range(MOMENTS):
        moment = dice.randint(1, len(events))
        root = tmp_path / f"after{number}"
        said = crash(events[:moment], tmp_path / "blobs", root, dice)
        try:
            outcomes.append(check(root, said))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, crash {number} after event {moment}: {error}") from error
    assert any(some for some, _ in outcomes)
