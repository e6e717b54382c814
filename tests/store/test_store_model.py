"""The store against a model of a few dictionaries: any order of calls, with restarts that lose what was not flushed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pd.store import OpenBlob, Partial, Removed, Store, StoreFull
from tests.store.blobs import Blob, assert_right, blob, names

BLOBS = [blob(number, size, 64) for number, size in enumerate((0, 1, 64, 65, 300, 500, 700))]
LIMIT = 1800  # bytes: two or three of the blobs, with their journals
INDEX = st.integers(0, 10)
any_blob = st.sampled_from(BLOBS)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="p2pd-store-"))
        self.now = 1000.0
        self.proven: dict[str, float] = {}  # digest -> last use
        self.partials: dict[str, Partial] = {}
        self.present: dict[str, set[int]] = {}
        self.recorded: dict[str, set[int] | None] = {}  # None: never flushed, so gone after a restart
        self.pins: dict[str, int] = {}
        self.held: list[tuple[Blob, OpenBlob, bool]] = []
        self.store = self._open()

    def _open(self) -> Store:
        return Store.open(self.root, LIMIT, self._clock)

    def _clock(self) -> float:
        self.now += 1
        return self.now

    def teardown(self) -> None:
        for _, held, _ in self.held:
            held.close()
        self.store.close()
        shutil.rmtree(self.root)

    def _open_now(self) -> set[str]:
        return {one.digest for one, _, current in self.held if current}

    def _expect_evicted(self, excess: int) -> list[str] | None:
        """What must go, in this order; None if that is not enough."""
        order = sorted((partial.last_use, digest) for digest, partial in self.partials.items() if not self.pins[digest])
        gone = [(digest, self.partials[digest].reserved) for _, digest in order]
        unread = sorted((use, digest) for digest, use in self.proven.items() if digest not in self._open_now())
        gone += [(digest, size_of(digest)) for _, digest in unread]
        needed = []
        for digest, size in gone:
            if excess <= 0:
                break
            needed.append(digest)
            excess -= size
        return needed if excess <= 0 else None

    def _forget(self, digests: list[str]) -> None:
        for digest in digests:
            self.proven.pop(digest, None)
            if self.partials.pop(digest, None):
                del self.present[digest], self.recorded[digest], self.pins[digest]

    def _room(self, size: int) -> bool:
        evicted = self._expect_evicted(self.store.used + size - LIMIT)
        if evicted is not None:
            self._forget(evicted)
        return evicted is not None

    @rule(one=any_blob)
    def put(self, one: Blob) -> None:
        if one.digest not in self.proven and not self._room(one.size):
            with pytest.raises(StoreFull):
                self.store.put(one.digest, one.body)
            return
        self.store.put(one.digest, one.body)
        self.proven[one.digest] = self.now
        if one.digest in self.partials:
            superseded = self.partials.pop(one.digest)
            del self.present[one.digest], self.recorded[one.digest], self.pins[one.digest]
            superseded.write(0, bytes(min(one.size, 64)))  # must not reach the proven blob
            superseded.commit()

    @rule(one=any_blob, pin=st.booleans())
    def partial(self, one: Blob, pin: bool) -> None:
        if one.digest in self.proven:
            with pytest.raises(ValueError, match="proven"):
                self.store.partial(one.digest, one.size, 64)
            return
        if one.digest not in self.partials and not self._room(one.size):
            with pytest.raises(StoreFull):
                self.store.partial(one.digest, one.size, 64)
            return
        partial = self.store.partial(one.digest, one.size, 64, pin=pin)
        known = self.partials.setdefault(one.digest, partial)
        assert known is partial
        self.present.setdefault(one.digest, set())
        self.recorded.setdefault(one.digest, None)
        self.pins[one.digest] = self.pins.get(one.digest, 0) + pin

    @rule(one=any_blob, index=INDEX)
    def piece(self, one: Blob, index: int) -> None:
        if one.digest in self.partials and index < one.count:
            one.fill(self.partials[one.digest], index)
            self.present[one.digest].add(index)

    @rule(one=any_blob, index=INDEX)
    def wrong_bytes(self, one: Blob, index: int) -> None:
        if one.digest in self.partials and index < one.count:
            recorded = self.recorded[one.digest]
            refuted = index not in self.present[one.digest] and recorded is not None and index in recorded
            self.partials[one.digest].write(index * 64, bytes(len(one.piece(index))))
            if refuted:  # the write has brought the drop to the disk, and with it all the rest
                self.recorded[one.digest] = set(self.present[one.digest])

    @rule(one=any_blob, indices=st.sets(INDEX, max_size=4))
    def drop(self, one: Blob, indices: set[int]) -> None:
        indices = {index for index in indices if index < one.count}
        if one.digest in self.partials:
            self.partials[one.digest].drop(indices)
            self.present[one.digest] -= indices

    @rule(one=any_blob)
    def flush(self, one: Blob) -> None:
        if one.digest in self.partials:
            self.partials[one.digest].flush()
            if self.present[one.digest] or self.recorded[one.digest] is not None:
                self.recorded[one.digest] = set(self.present[one.digest])

    @rule(one=any_blob)
    def commit(self, one: Blob) -> None:
        if one.digest not in self.partials:
            return
        if len(self.present[one.digest]) < one.count:
            with pytest.raises(ValueError, match="missing"):
                self.partials[one.digest].commit()
            return
        self.partials[one.digest].commit()
        self._forget([one.digest])
        self.held = [(held, file, current and held != one) for held, file, current in self.held]
        self.proven[one.digest] = self.now

    @rule(one=any_blob)
    def unpin(self, one: Blob) -> None:
        if self.pins.get(one.digest):
            self.partials[one.digest].unpin()
            self.pins[one.digest] -= 1

    @rule(one=any_blob)
    def open_blob(self, one: Blob) -> None:
        held = self.store.open_blob(one.digest)
        assert (held is not None) == (one.digest in self.proven)
        if held is not None:
            self.held.append((one, held, True))
            self.proven[one.digest] = self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def read_and_close(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        one, held, _ = self.held.pop(at)
        assert os.pread(held.fileno(), 2000, 0) == one.body
        held.close()

    @rule(one=any_blob)
    def remove(self, one: Blob) -> None:
        partial = self.partials.get(one.digest)
        self.store.remove(one.digest)
        self._forget([one.digest])
        self.held = [(held, file, current and held != one) for held, file, current in self.held]
        if partial is not None:
            partial.flush()  # writes nothing any more
            with pytest.raises(Removed):
                partial.pin()

    @rule()
    def evict(self) -> None:
        excess = self.store.used - LIMIT
        expected = self._expect_evicted(excess)
        gone = self.store.evict()
        assert expected is None or gone == expected
        self._forget(gone)

    @rule()
    def restart(self) -> None:
        for _, held, _ in self.held:
            held.close()
        self.held = []
        self.store.close()
        recorded = {digest: pieces for digest, pieces in self.recorded.items() if pieces is not None}
        before = {digest: size_of(digest) for digest in self.proven}
        self.store = self._open()
        self.partials = {partial.digest: partial for partial in self.store.partials()}
        assert set(self.partials) <= set(recorded)
        kept = {digest for digest, _ in self.store.digests()}
        if set(self.partials) != set(recorded) or kept != set(before):  # only for the sake of the limit
            everything = sum(before.values()) + sum(size_of(digest) for digest in recorded)
            assert everything + 200 * len(recorded) + 100 * sum(map(len, recorded.values())) > LIMIT
        assert kept <= set(before)
        assert kept == set(before) or not self.partials
        self.proven = {digest: use for digest, use in self.proven.items() if digest in kept}
        self.recorded = {digest: recorded[digest] for digest in self.partials}
        self.present = {digest: set(recorded[digest]) for digest in self.partials}
        self.pins = dict.fromkeys(self.partials, 0)

    @invariant()
    def as_the_model_says(self) -> None:
        assert dict(self.store.digests()) == {digest: size_of(digest) for digest in self.proven}
        assert {partial.digest: partial for partial in self.store.partials()} == self.partials
        assert self.store.used == sum(map(size_of, self.proven)) + sum(p.reserved for p in self.partials.values())
        assert names(self.root / "sha256") == {digest.removeprefix("sha256:") for digest in self.proven}
        for one in BLOBS:
            if one.digest in self.partials:
                assert set(self.partials[one.digest].present) == self.present[one.digest]
                assert_right(self.partials[one.digest], one)
            if one.digest in self.proven:
                assert (self.root / "sha256" / one.name).read_bytes() == one.body


def size_of(digest: str) -> int:
    return next(one.size for one in BLOBS if one.digest == digest)


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStore = StoreMachine.TestCase
