"""One blob that is still arriving: its data file, the set of its checked pieces, and the journal that a restart reads.

The invariant: a piece that a crash would leave trusted (`_durable`) holds, on the disk, the bytes that were checked.
So marks are journaled after the data's fdatasync, and a piece whose mark may be journaled is not overwritten before its
drop is. Not a judge: which bytes are right is the caller's to say. Knows the store's journal, files and errors.

`write`, `flush`, `commit` touch the disk and belong in worker threads; `mark`, `drop`, `pin` and the rest only touch
memory. All may be called from several threads, as long as no two write the same piece with different bytes.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from p2pd.store import files
from p2pd.store.errors import Removed, StoreError, StoreFailed
from p2pd.store.journal import EXTRAS_MAX, KEY_MAX, RECORD_MAX, Changes, Contents, Journal

_COMPACTION_MIN = 1 << 20  # bytes of journal below which rewriting it gains nothing
_ENTRY_OVERHEAD = 32  # bytes around a record, rounded up


class Partial:
    """Made by `Store.partial` and `Store.partials` only.

    `digest`; `size` and `piece_size` in bytes; `present`: index -> record of each checked piece; `extras`: key ->
    record. Both are live: change them by `mark`, `drop` and `mark_extra` only, and copy before iterating beside other
    threads.
    """

    def __init__(
        self,
        path: Path,
        journal: Journal,
        contents: Contents,
        last_use: float,
        place: Callable[[Partial], None],
        clock: Callable[[], float],
    ) -> None:
        self.identity = journal.identity
        self.digest = self.identity.digest
        self.size = self.identity.size
        self.piece_size = self.identity.piece_size
        self.present = contents.present
        self.extras = contents.extras
        self.path = path
        self.journal = journal
        self.last_use = last_use
        self.flushing = threading.Lock()  # held around what changes the journal or the names; taken after the store's
        self._memory = threading.Lock()  # held for moments only, never around the disk
        self._place = place
        self._clock = clock
        self._pending = Changes()
        self._durable = set(contents.present)
        self._pins = 0
        self._removed = False
        self._committed = False
        self._data_lost = False
        self._fd: int | None = None
        self._close: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        return f"<Partial {self.digest} {len(self.present)}/{self.piece_count} pieces>"

    @property
    def piece_count(self) -> int:
        return self.identity.piece_count

    @property
    def reserved(self) -> int:
        """Bytes that count in the store's size limit: the whole blob, which will be there, and the journal."""
        return self.size + self.journal.length

    @property
    def pinned(self) -> bool:
        return self._pins > 0

    @property
    def unflushed_bytes(self) -> int:
        """Bytes of the pieces that a crash now would lose: marked, and not yet flushed."""
        with self._memory:
            marks = self._pending.marks
            last = self.piece_count - 1
            short = self.piece_size - self.identity.piece_length(last) if last in marks else 0
            return len(marks) * self.piece_size - short

    def fileno(self) -> int:
        """The data file, open for reading and writing; offsets are the blob's. Valid after `commit` and removal too."""
        with self._memory:
            if self._fd is None:
                if self._removed:
                    raise Removed(f"{self.digest} was removed from the store")
                access = os.O_RDONLY if self._committed else os.O_RDWR
                with files.translated("open", self.path):
                    fd = os.open(self.path, access | os.O_CLOEXEC | os.O_NOFOLLOW)
                self._fd = fd
                self._close = weakref.finalize(self, os.close, fd)
            return self._fd

    def close(self) -> None:
        """Let go of the data file at once; otherwise it is closed with the last reference to this object."""
        with self._memory:
            self._fd = None
            self._close()

    def pin(self) -> None:
        """Keep it from being evicted until as many calls of `unpin`. Removed if it is gone already."""
        with self._memory:
            if self._removed:
                raise Removed(f"{self.digest} was removed from the store")
            self._pins += 1

    def unpin(self) -> None:
        with self._memory:
            if self._pins == 0:
                raise ValueError(f"{self.digest} is not pinned")
            self._pins -= 1
            self.last_use = self._clock()

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """All of `data` at `offset` of the blob, but for pieces that are present: their bytes are there, and stay.

        StoreFull or StoreFailed: a part may have been written; the piece must not be marked, and may be written again.
        Removed if the partial is gone and its file was never open.
        """
        view = memoryview(data).cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise ValueError(f"{len(view)} bytes at {offset} do not lie in {self.digest} of {self.size} bytes")
        fd = self.fileno()
        runs, refuted = self._absent_runs(offset, offset + len(view))
        if refuted:
            # A crash would still trust the old bytes' mark: let the drop reach the disk before new bytes do.
            self.flush()
        for start, end in runs:
            files.write_all(fd, view[start - offset : end - offset], start, self.path)
        self.last_use = self._clock()

    def _absent_runs(self, start: int, end: int) -> tuple[list[tuple[int, int]], bool]:
        """The parts of start..end in pieces that are not present; and whether one of those has a mark on the disk."""
        runs: list[tuple[int, int]] = []
        refuted = False
        with self._memory:
            while start < end and not self._committed:
                index = start // self.piece_size
                stop = min(end, (index + 1) * self.piece_size)
                if index not in self.present:
                    refuted = refuted or index in self._durable
                    if runs and runs[-1][1] == start:
                        runs[-1] = (runs[-1][0], stop)
                    else:
                        runs.append((start, stop))
                start = stop
        return runs, refuted

    def mark(self, index: int, record: bytes) -> None:
        """The piece's bytes are written, and were checked. `record` (<= 64 KiB) comes back with it after a restart."""
        self._check_index(index)
        _check_record(record)
        with self._memory:
            self.present[index] = record
            self._pending.marks[index] = record

    def mark_extra(self, key: str, record: bytes) -> None:
        """Remember one of a few records of the whole blob; the last one under a key counts."""
        _check_record(record)
        if len(key.encode()) > KEY_MAX:
            raise ValueError(f"an extra's key has at most {KEY_MAX} bytes: {key[:40]!r}...")
        with self._memory:
            if key not in self.extras and len(self.extras) >= EXTRAS_MAX:
                raise ValueError(f"a partial has at most {EXTRAS_MAX} extras")
            self.extras[key] = record
            self._pending.extras[key] = record

    def drop(self, indices: Iterable[int]) -> None:
        """Those pieces are not present any more. In memory now, on the disk with the next `flush`: call it soon."""
        with self._memory:
            if self._committed:
                raise ValueError(f"{self.digest} is proven; its pieces do not change any more")
            for index in indices:
                self._check_index(index)
                self.present.pop(index, None)
                self._pending.marks.pop(index, None)
                if index in self._durable:
                    self._pending.drops.add(index)

    def flush(self) -> None:
        """Returns when all that was marked and dropped before the call would survive a crash.

        StoreFull: nothing is lost, and a later call tries again. StoreFailed: if the data could not be synced, nobody
        knows what of it is on the disk; every later call fails too, and the partial is best removed. Nothing happens
        after `commit` or removal.
        """
        with self.flushing:
            self._flush()

    def _flush(self) -> None:
        if self._removed or self._committed:
            return
        with self._memory:
            changes = self._pending
            if not changes:
                return
            self._pending = Changes()
            self._durable |= changes.marks.keys()
            whole = Contents(dict(self.present), dict(self.extras)) if self._wants_rewrite() else None
        try:
            if changes.marks:
                self._sync_data()
            if whole is not None:
                self.journal.rewrite(whole)
            else:
                self.journal.append(changes)
        except StoreError:
            self._take_back(changes)
            raise
        with self._memory:
            self._durable -= changes.drops - changes.marks.keys()
            self.last_use = self._clock()
        files.set_last_use(self.fileno(), self.last_use)

    def _wants_rewrite(self) -> bool:
        if self.journal.must_rewrite:
            return True
        if self.journal.length < _COMPACTION_MIN:
            return False
        records = [*self.present.values(), *self.extras.values()]
        return self.journal.length > 2 * sum(len(record) + _ENTRY_OVERHEAD for record in records) + _COMPACTION_MIN

    def _take_back(self, changes: Changes) -> None:
        """A failed flush's changes are pending again. `_durable` keeps its marks: some may have reached the disk."""
        with self._memory:
            for index, record in changes.marks.items():
                if index in self.present:
                    self._pending.marks.setdefault(index, record)
            self._pending.drops |= changes.drops
            for key, record in changes.extras.items():
                self._pending.extras.setdefault(key, record)

    def _sync_data(self) -> None:
        # After a failed fdatasync the kernel takes the lost pages for clean: a second call would succeed, and lie.
        if self._data_lost:
            raise StoreFailed(f"an earlier sync of {self.path} failed: its bytes can't be trusted; remove the partial")
        try:
            files.sync_data(self.fileno(), self.path)
        except StoreError:
            self._data_lost = True
            raise

    def commit(self) -> None:
        """The blob is proven: give it its final name. ValueError if a piece is missing; Removed if the partial is gone.

        Returns when name and bytes are on the disk. The descriptor stays valid; `write` changes nothing any more.
        """
        with self.flushing:
            if self._committed:
                return
            self.check_complete()
            self._sync_data()
        self._place(self)

    def check_complete(self) -> None:
        """ValueError if a piece is missing, Removed if the partial is gone. For the store, which holds `flushing`."""
        if self._removed:
            raise Removed(f"{self.digest} was removed from the store")
        missing = self.piece_count - len(self.present)
        if missing:
            raise ValueError(f"{self.digest} can't be committed: {missing} of {self.piece_count} pieces are missing")

    def committed(self, path: Path) -> None:
        """For the store: the blob has its final name now, from this data file or by another way."""
        with self._memory:
            self._committed = True
            self.path = path

    def retire(self, *, pinned_too: bool) -> bool:
        """For the store, which then unlinks it: no journal is written any more. False if it is pinned."""
        with self._memory:
            if self._pins and not pinned_too:
                return False
            self._removed = True
            return True

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.piece_count:
            raise ValueError(f"{self.digest} has {self.piece_count} pieces; there is no piece {index}")


def _check_record(record: bytes) -> None:
    if len(record) > RECORD_MAX:
        raise ValueError(f"a record has at most {RECORD_MAX} bytes, not {len(record)}")
