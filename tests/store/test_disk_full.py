"""A disk that is really full: a small tmpfs. Nothing recorded is lost, and what is refused can be tried again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pd.store import Store, StoreFull
from tests.store.blobs import assert_right, blob, names

DISK = 1 << 20  # bytes
LIMIT = 100 << 20  # far above: only the disk says no
PIECE = 16 << 10
LARGE = blob(1, 600_000, PIECE)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "p2pd-test", str(where)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command: a full disk can't be made")
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def fill(disk: Path) -> Path:
    """Another program takes all that is free."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def test_the_disk_fills_up_while_a_blob_arrives(disk: Path) -> None:
    store = Store.open(disk / "blobs", LIMIT)
    partial = store.partial(LARGE.digest, LARGE.size, PIECE, pin=True)
    LARGE.fill(partial, *range(5))
    partial.flush()
    LARGE.fill(partial, 5)
    filler = fill(disk)
    with pytest.raises(StoreFull, match=r"No space left.*free space on that file system"):
        for index in range(6, LARGE.count):
            LARGE.fill(partial, index)
    written = set(partial.present)
    for index in written:  # long records: the journal's own page does not hold them
        partial.mark(index, LARGE.record(index))
    partial.mark_extra("long", bytes(60_000))
    with pytest.raises(StoreFull):
        partial.flush()
    store.close()
    store = Store.open(disk / "blobs", LIMIT)  # a restart on a full disk
    [partial] = store.partials()
    assert set(range(5)) <= set(partial.present) <= written
    assert_right(partial, LARGE)
    with pytest.raises(StoreFull):
        store.put(blob(2, 50_000).digest, blob(2, 50_000).body)
    assert names(disk / "blobs" / "sha256") == set()
    filler.unlink()
    LARGE.fill(partial, *set(range(LARGE.count)) - set(partial.present))
    partial.commit()
    assert (disk / "blobs" / "sha256" / LARGE.name).read_bytes() == LARGE.body
    store.close()


def test_a_refused_flush_succeeds_later(disk: Path) -> None:
    store = Store.open(disk / "blobs", LIMIT)
    partial = store.partial(LARGE.digest, LARGE.size, PIECE)
    LARGE.fill(partial, 0)
    partial.flush()
    LARGE.fill(partial, 1)
    partial.mark_extra("long", bytes(60_000))
    filler = fill(disk)
    for _ in range(3):
        with pytest.raises(StoreFull):
            partial.flush()
    assert partial.unflushed_bytes == PIECE
    filler.unlink()
    partial.flush()
    store.close()
    store = Store.open(disk / "blobs", LIMIT)
    [partial] = store.partials()
    assert (set(partial.present), partial.extras) == ({0, 1}, {"long": bytes(60_000)})
    assert_right(partial, LARGE)
    store.close()


def test_room_is_promised_once(disk: Path) -> None:
    # Files are sparse: the second blob would seem to fit until both are written.
    now = 1e9
    store = Store.open(disk / "blobs", LIMIT, lambda: now)
    first = store.partial(LARGE.digest, LARGE.size, PIECE, pin=True)
    first.unpin()
    for moment in (1e9, 1e9 + 3599):  # a pull that stopped less than an hour ago may go on
        now = moment
        with pytest.raises(StoreFull, match="free space on that file system"):
            store.partial(blob(2).digest, LARGE.size, PIECE)
    now = 1e9 + 3601
    store.partial(blob(2).digest, LARGE.size, PIECE)
    assert [partial.digest for partial in store.partials()] == [blob(2).digest]
    store.close()


def test_a_manifest_takes_nothing_from_a_partial(disk: Path) -> None:
    # After a restart on a full disk, nothing is pinned yet; the client asks for the manifest first.
    store = Store.open(disk / "blobs", LIMIT)
    LARGE.fill(store.partial(LARGE.digest, LARGE.size, PIECE), 0, 1)
    store.partials()[0].flush()
    fill(disk)
    store.close()
    store = Store.open(disk / "blobs", LIMIT)
    with pytest.raises(StoreFull):
        store.put(blob(2).digest, blob(2).body)
    assert set(store.partials()[0].present) == {0, 1}
    store.close()


def test_a_short_disk_evicts_below_the_limit(disk: Path) -> None:
    store = Store.open(disk / "blobs", LIMIT)
    old = blob(3, 500_000)
    store.put(old.digest, old.body)
    partial = store.partial(LARGE.digest, LARGE.size, PIECE)
    assert store.proven(old.digest) is None
    LARGE.fill(partial, *range(LARGE.count))
    partial.commit()
    assert os.listdir(disk / "blobs" / "sha256") == [LARGE.name]
    store.close()
