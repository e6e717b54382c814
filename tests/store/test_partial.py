"""One partial: what is written, marked, dropped and flushed, and what a restart finds of it."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pd.store import Partial, Removed, Store, StoreFailed, StoreFull, files, journal
from tests.store.blobs import assert_right, blob, names, read

BLOB = blob(1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_lock = Store.open(tmp_path / "blobs", 100_000)
    yield with_lock
    with_lock.close()


def new(store: Store) -> Partial:
    return store.partial(BLOB.digest, BLOB.size, BLOB.piece_size)


def after_crash(store: Store) -> Partial | None:
    """What a restart finds: nothing but the files counts."""
    store.close()
    again = Store.open(store.root, store.size_limit)
    store._unlock = again._unlock  # the fixture closes it
    found = again.partials()
    assert len(found) <= 1
    if found:
        assert_right(found[0], BLOB)
    return found[0] if found else None


def refuse(number: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_flushed_pieces_come_back_and_no_others(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, 0, 5, 15)
    partial.mark_extra("context", b"repository")
    assert partial.unflushed_bytes == 64 + 64 + 1000 % 64
    partial.flush()
    assert partial.unflushed_bytes == 0
    BLOB.fill(partial, 1)
    partial.write(2 * 64, BLOB.piece(2))
    found = after_crash(store)
    assert found is not None
    assert found.present == {index: BLOB.record(index) for index in (0, 5, 15)}
    assert found.extras == {"context": b"repository"}
    assert (found.digest, found.size, found.piece_size) == (BLOB.digest, BLOB.size, BLOB.piece_size)


def test_never_flushed_is_not_there(store: Store) -> None:
    BLOB.fill(new(store), 0, 1, 2)
    assert after_crash(store) is None
    assert names(store.root / "partial") == set()


def test_writes_may_cross_pieces(store: Store) -> None:
    partial = new(store)
    for start in range(0, BLOB.size, 300):
        partial.write(start, memoryview(bytearray(BLOB.body[start : start + 300])))
    assert read(partial) == BLOB.body


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (999, 2), (1001, 0), (0, 1001)])
def test_writes_outside_the_blob(store: Store, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="do not lie in"):
        new(store).write(offset, bytes(length))


@pytest.mark.parametrize("index", [-1, 16])
def test_pieces_that_do_not_exist(store: Store, index: int) -> None:
    with pytest.raises(ValueError, match="no piece"):
        new(store).mark(index, b"")
    with pytest.raises(ValueError, match="no piece"):
        new(store).drop([index])


def test_records_are_bounded(store: Store) -> None:
    partial = new(store)
    partial.mark(0, bytes(journal.RECORD_MAX))
    with pytest.raises(ValueError, match="65536"):
        partial.mark(0, bytes(journal.RECORD_MAX + 1))
    with pytest.raises(ValueError, match="65536"):
        partial.mark_extra("k", bytes(journal.RECORD_MAX + 1))
    with pytest.raises(ValueError, match="255"):
        partial.mark_extra("k" * 256, b"")
    for number in range(journal.EXTRAS_MAX):
        partial.mark_extra(str(number), b"")
    with pytest.raises(ValueError, match="64 extras"):
        partial.mark_extra("one more", b"")


def test_a_present_piece_is_not_overwritten(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, 3)
    partial.write(2 * 64, b"x" * 192)
    assert read(partial)[128:320] == b"x" * 64 + BLOB.piece(3) + b"x" * 64


def test_drop_is_durable_after_flush(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, *range(8))
    partial.flush()
    partial.drop([2, 3])
    assert set(partial.present) == {0, 1, 4, 5, 6, 7}
    partial.flush()
    found = after_crash(store)
    assert found is not None
    assert set(found.present) == {0, 1, 4, 5, 6, 7}


def test_new_bytes_over_a_dropped_piece_without_flush(store: Store) -> None:
    # The mark is on the disk and the drop is not: the write itself must bring the drop there first.
    partial = new(store)
    BLOB.fill(partial, 0, 1)
    partial.flush()
    partial.drop([1])
    partial.write(64, b"refuted bytes")
    found = after_crash(store)
    assert found is not None
    assert set(found.present) == {0}


def test_new_bytes_over_a_dropped_piece_while_its_mark_is_being_flushed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = new(store)
    BLOB.fill(partial, 0, 1)
    in_sync, go_on = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(fd: int) -> None:
        in_sync.set()
        assert go_on.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    flusher = threading.Thread(target=partial.flush)
    flusher.start()
    assert in_sync.wait(10)
    partial.drop([1])
    writer = threading.Thread(target=partial.write, args=(64, b"y" * 64))
    writer.start()
    writer.join(0.05)
    assert read(partial)[64:128] == BLOB.piece(1)  # waits: a crash now may leave the mark
    go_on.set()
    flusher.join()
    writer.join()
    assert read(partial)[64:128] == b"y" * 64
    found = after_crash(store)
    assert found is not None
    assert set(found.present) == {0}


def test_dropped_and_marked_again(store: Store) -> None:
    partial = new(store)
    partial.write(0, b"z" * 64)
    partial.mark(0, b"by a liar")
    partial.flush()
    partial.drop([0])
    BLOB.fill(partial, 0)
    partial.flush()
    found = after_crash(store)
    assert found is not None
    assert found.present == {0: BLOB.record(0)}


def test_marks_come_after_the_datas_sync(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = new(store)
    BLOB.fill(partial, 0)
    order: list[str] = []

    def noted(name: str) -> None:
        real = getattr(files, name)

        def call(*arguments: object) -> object:
            path = arguments[-1]
            assert isinstance(path, Path)
            order.append(f"{name} {path.name.removeprefix(BLOB.name) or 'data'}")
            return real(*arguments)

        monkeypatch.setattr(files, name, call)

    for name in ("write_all", "sync_data", "rename", "sync_directory"):
        noted(name)
    partial.flush()
    assert order == [
        "sync_data data",
        "write_all .meta.tmp",
        "write_all .meta.tmp",
        "sync_data .meta.tmp",
        "rename .meta",
        "sync_directory partial",
    ]
    order.clear()
    BLOB.fill(partial, 1)
    partial.flush()
    assert order == ["write_all data", "sync_data data", "write_all .meta", "sync_data .meta"]
    order.clear()
    partial.flush()
    assert order == []


def test_a_failed_sync_of_the_data_is_never_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel reports lost pages once, and the next fdatasync succeeds: a mark then would be a lie.
    partial = new(store)
    BLOB.fill(partial, 0)
    partial.flush()
    BLOB.fill(partial, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse(5))
        with pytest.raises(StoreFailed, match="sync"):
            partial.flush()
    with pytest.raises(StoreFailed, match="earlier sync"):
        partial.flush()
    BLOB.fill(partial, *range(2, 16))
    with pytest.raises(StoreFailed, match="earlier sync"):
        partial.commit()
    found = after_crash(store)
    assert found is not None
    assert set(found.present) == {0}


def test_a_full_disk_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = new(store)
    BLOB.fill(partial, 0)
    partial.flush()
    BLOB.fill(partial, 1)
    partial.mark_extra("k", b"v")
    partial.drop([0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse(28))
        with pytest.raises(StoreFull, match="size_limit"):
            partial.flush()
        with pytest.raises(StoreFull):
            partial.write(64 * 3, b"x")
        with pytest.raises(StoreFull):
            partial.write(0, b"x")  # needs the drop on the disk first
    assert read(partial)[:64] == BLOB.piece(0)
    assert partial.unflushed_bytes == 64
    partial.flush()
    found = after_crash(store)
    assert found is not None
    assert (set(found.present), found.extras) == ({1}, {"k": b"v"})


def test_a_mark_dropped_during_a_failed_flush_stays_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = new(store)
    BLOB.fill(partial, 0)
    partial.flush()
    BLOB.fill(partial, 1, 2)
    real = os.pwrite

    def drop_then_fail(*arguments: object) -> None:
        partial.drop([1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", drop_then_fail)
    with pytest.raises(StoreFull):
        partial.flush()
    monkeypatch.setattr(os, "pwrite", real)
    partial.flush()
    found = after_crash(store)
    assert found is not None
    assert set(found.present) == {0, 2}


def test_the_journal_does_not_grow_for_ever(store: Store) -> None:
    store.size_limit = 10_000_000  # the journal counts too
    partial = new(store)
    BLOB.fill(partial, 0)
    record = bytes(journal.RECORD_MAX)
    longest = 0
    for number in range(60):
        partial.mark_extra("state", record[:-1] + bytes([number]))
        partial.flush()
        longest = max(longest, partial.journal.length)
    assert longest < 20 * journal.RECORD_MAX
    found = after_crash(store)
    assert found is not None
    assert found.extras == {"state": record[:-1] + bytes([59])}
    assert set(found.present) == {0}


def test_commit(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, *range(16))
    partial.commit()
    assert names(store.root / "partial") == set()
    assert (store.root / "sha256" / BLOB.name).read_bytes() == BLOB.body == read(partial)
    assert store.proven(BLOB.digest) == store.used == BLOB.size
    partial.write(0, b"x" * 64)
    partial.flush()
    partial.commit()
    assert (store.root / "sha256" / BLOB.name).read_bytes() == BLOB.body
    assert names(store.root / "partial") == set()
    with pytest.raises(ValueError, match="proven"):
        partial.drop([0])


def test_commit_with_a_piece_missing(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, *range(15))
    with pytest.raises(ValueError, match="1 of 16 pieces are missing"):
        partial.commit()
    assert store.proven(BLOB.digest) is None


def test_commit_of_a_file_that_someone_shortened(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, *range(16))
    os.truncate(partial.path, 999)
    with pytest.raises(ValueError, match="999 bytes, not 1000"):
        partial.commit()
    assert names(store.root / "sha256") == set()


def test_the_empty_blob(store: Store) -> None:
    empty = blob(0, 0)
    partial = store.partial(empty.digest, 0, 64)
    assert (partial.piece_count, partial.unflushed_bytes) == (0, 0)
    partial.write(0, b"")
    partial.commit()
    assert store.proven(empty.digest) == 0


def test_removed_meanwhile(store: Store) -> None:
    partial = new(store)
    BLOB.fill(partial, *range(16))
    partial.flush()
    store.remove(BLOB.digest)
    assert names(store.root / "partial") == set()
    assert read(partial) == BLOB.body  # what is open goes on
    BLOB.fill(partial, 3)
    partial.flush()
    assert names(store.root / "partial") == set()
    with pytest.raises(Removed):
        partial.commit()
    with pytest.raises(Removed):
        partial.pin()
    partial.close()
    with pytest.raises(Removed):
        partial.fileno()


def test_pins_are_counted(store: Store) -> None:
    partial = store.partial(BLOB.digest, BLOB.size, BLOB.piece_size, pin=True)
    partial.pin()
    partial.unpin()
    assert partial.pinned
    partial.unpin()
    assert not partial.pinned
    with pytest.raises(ValueError, match="not pinned"):
        partial.unpin()


def test_descriptors_are_given_back(store: Store) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        one = blob(number, 100)
        partial = store.partial(one.digest, 100, 64)
        one.fill(partial, 0, 1)
        partial.commit()
    del partial
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_on_different_pieces(store: Store) -> None:
    large = blob(9, 64 * 400)
    partial = store.partial(large.digest, large.size, 64)

    def work(start: int) -> None:
        for index in range(start, 400, 4):
            large.fill(partial, index)
            if index % 20 == start:
                partial.flush()

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    partial.flush()
    store.close()
    again = Store.open(store.root, store.size_limit)
    store._unlock = again._unlock
    [found] = again.partials()
    assert len(found.present) == 400
    assert_right(found, large)
    found.commit()
    assert (store.root / "sha256" / large.name).read_bytes() == large.body
