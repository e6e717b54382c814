"""The store as a whole: proven blobs, the limit, eviction, the lock, and what a restart finds or leaves alone."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pd.oci import BadName
from p2pd.store import Store, StoreFailed, StoreFull, StoreLocked, WrongDigest
from p2pd.store import store as store_module
from p2pd.store.eviction import Victim, for_disk, for_limit
from tests.store.blobs import Blob, blob, names

BLOB = blob(1)


class Clock:
    """Seconds that pass by one with each look."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


class Opener:
    """Opens stores on one root; each open is a restart of the one before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self._open: Store | None = None

    def __call__(self, size_limit: int = 10_000) -> Store:
        self.close()
        self._open = Store.open(self.root, size_limit, self.clock)
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(tmp_path / "state" / "blobs")
    yield opener
    opener.close()


def partial_of(store: Store, one: Blob, *indices: int) -> None:
    partial = store.partial(one.digest, one.size, one.piece_size)
    one.fill(partial, *indices)
    partial.flush()


def test_put_and_open(opened: Opener) -> None:
    store = opened()
    assert store.proven(BLOB.digest) is None
    assert store.open_blob(BLOB.digest) is None
    store.put(BLOB.digest, BLOB.body)
    for again in (store, opened()):
        assert again.proven(BLOB.digest) == again.used == 1000
        assert again.digests() == [(BLOB.digest, 1000)]
        with again.open_blob(BLOB.digest) as held:  # type: ignore[union-attr]
            assert held.size == 1000
            assert os.pread(held.fileno(), 2000, 0) == BLOB.body
    assert names(opened.root / "sha256") == {BLOB.name}


def test_put_twice_counts_once(opened: Opener) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    store.put(BLOB.digest, BLOB.body)
    assert store.used == 1000


def test_put_of_other_bytes(opened: Opener) -> None:
    with pytest.raises(WrongDigest, match=BLOB.digest):
        opened().put(BLOB.digest, BLOB.body + b"x")
    assert names(opened.root / "sha256") == set()


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "sha512:" + "a" * 64, ""])
def test_names_that_are_no_digest_never_reach_the_disk(opened: Opener, digest: str) -> None:
    store = opened()
    with pytest.raises(BadName):
        store.put(digest, b"")
    with pytest.raises(BadName):
        store.partial(digest, 1, 1)
    assert store.open_blob(digest) is None
    store.remove(digest)


def test_put_ends_an_idle_partial_of_the_same_blob(opened: Opener) -> None:
    store = opened()
    partial_of(store, BLOB, 0, 1)
    store.put(BLOB.digest, BLOB.body)
    assert store.partials() == []
    assert names(opened.root / "partial") == set()


@pytest.mark.parametrize("reopened", [False, True])
def test_put_beside_a_pinned_partial(opened: Opener, reopened: bool) -> None:
    store = opened()
    partial = store.partial(BLOB.digest, BLOB.size, BLOB.piece_size, pin=True)
    BLOB.fill(partial, 0)
    partial.flush()
    BLOB.fill(partial, 1)
    store.put(BLOB.digest, BLOB.body)
    if reopened:
        partial.close()
    partial.write(5 * 64, b"x" * 64)  # a thread that does not know yet must not reach the proven blob
    partial.flush()
    partial.commit()
    partial.unpin()
    assert (store.used, store.partials()) == (1000, [])
    assert names(opened.root / "partial") == set()
    assert (opened.root / "sha256" / BLOB.name).read_bytes() == BLOB.body
    store.size_limit = 0
    assert store.evict() == [BLOB.digest]


def test_partial_is_one_object(opened: Opener) -> None:
    store = opened()
    first = store.partial(BLOB.digest, 1000, 64)
    assert store.partial(BLOB.digest, 1000, 64) is first
    assert store.partials() == [first]


def test_partial_with_other_sizes(opened: Opener) -> None:
    store = opened()
    partial_of(store, BLOB, 0)
    other = store.partial(BLOB.digest, 1000, 128, pin=True)
    assert other.present == {}
    with pytest.raises(ValueError, match="other sizes"):
        store.partial(BLOB.digest, 1001, 128)
    [found] = store.partials()
    assert found is other


@pytest.mark.parametrize(("size", "piece_size"), [(-1, 64), (1, 0), (1, -1), (1 << 40, 1)])
def test_partial_of_impossible_sizes(opened: Opener, size: int, piece_size: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        opened(1 << 50).partial(BLOB.digest, size, piece_size)


def test_partial_of_a_proven_blob(opened: Opener) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    with pytest.raises(ValueError, match="proven already"):
        store.partial(BLOB.digest, 1000, 64)


def test_a_partial_counts_with_its_whole_blob(opened: Opener) -> None:
    store = opened()
    partial_of(store, BLOB)
    assert store.used == 1000
    partial_of(store, BLOB, 0)
    assert 1000 < store.used == 1000 + (opened.root / "partial" / f"{BLOB.name}.meta").stat().st_size
    assert opened().used == 1000 + (opened.root / "partial" / f"{BLOB.name}.meta").stat().st_size


def test_least_recently_used_goes_first_also_after_a_restart(opened: Opener) -> None:
    store = opened()
    blobs = [blob(number) for number in range(5)]
    for one in blobs:
        store.put(one.digest, one.body)
    for number in (1, 0):
        with store.open_blob(blobs[number].digest):  # type: ignore[union-attr]
            pass
    store = opened(3500)
    assert {digest for digest, _ in store.digests()} == {blobs[4].digest, blobs[1].digest, blobs[0].digest}
    store.put(blobs[2].digest, blobs[2].body)
    assert {digest for digest, _ in store.digests()} == {blobs[2].digest, blobs[1].digest, blobs[0].digest}


def test_partials_go_before_blobs_oldest_first(opened: Opener) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    second, third, fourth = blob(2), blob(3), blob(4)
    partial_of(store, third, 0)
    partial_of(store, second, 0)
    store.size_limit = store.used + 500
    partial_of(store, fourth)
    assert {partial.digest for partial in store.partials()} == {second.digest, fourth.digest}
    assert store.proven(BLOB.digest) == 1000
    store.size_limit = 1000
    assert store.evict() == [second.digest, fourth.digest]
    assert names(opened.root / "partial") == set()


def test_what_is_open_or_pinned_stays(opened: Opener) -> None:
    store = opened()
    second = blob(2)
    store.put(BLOB.digest, BLOB.body)
    partial = store.partial(second.digest, second.size, second.piece_size, pin=True)
    held = store.open_blob(BLOB.digest)
    assert held is not None
    store.size_limit = 10
    assert store.evict() == []
    with pytest.raises(StoreFull):
        store.put(blob(3).digest, blob(3).body)
    held.close()
    held.close()  # a second time changes nothing
    assert store.evict() == [BLOB.digest]
    partial.unpin()
    assert store.evict() == [second.digest]
    assert store.used == 0


def test_a_forgotten_open_blob_does_not_pin_for_ever(opened: Opener) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    held = store.open_blob(BLOB.digest)
    del held
    store.size_limit = 0
    assert store.evict() == [BLOB.digest]


def test_nothing_is_evicted_for_what_can_never_fit(opened: Opener) -> None:
    store = opened(2500)
    store.put(BLOB.digest, BLOB.body)
    partial_of(store, blob(2), 0)
    with pytest.raises(StoreFull, match=r"9\.0 kB.*size_limit = 2\.5 kB.*raise size_limit"):
        store.partial(blob(3).digest, 9000, 64)
    assert store.proven(BLOB.digest) == 1000
    assert len(store.partials()) == 1


def test_partials_are_bounded_in_number(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PARTIALS_MAX", 3)
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    for number in range(2, 7):
        partial_of(store, blob(number), 0)
    assert [partial.digest for partial in store.partials()] == [blob(number).digest for number in (4, 5, 6)]
    assert store.proven(BLOB.digest) == 1000
    for partial in store.partials():
        partial.pin()
    with pytest.raises(StoreFull):
        store.partial(blob(7).digest, 1000, 64)
    assert store.proven(BLOB.digest) == 1000


def test_remove(opened: Opener) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    partial_of(store, blob(2), 0)
    held = store.open_blob(BLOB.digest)
    assert held is not None
    store.remove(BLOB.digest)
    store.remove(blob(2).digest)
    store.remove(blob(3).digest)
    assert os.pread(held.fileno(), 2000, 0) == BLOB.body
    assert (store.used, store.digests(), store.partials()) == (0, [], [])
    store.put(BLOB.digest, BLOB.body)
    held.close()
    store.size_limit = 0
    assert store.evict() == [BLOB.digest]


def test_a_second_daemon_is_refused(opened: Opener) -> None:
    store = opened()
    with pytest.raises(StoreLocked, match=rf"process {os.getpid()}\).*state_dir"):
        Store.open(opened.root, 1)
    code = f"from pathlib import Path; from p2pd.store import Store; Store.open(Path({str(opened.root)!r}), 1)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "StoreLocked" in other.stderr
    store.close()
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failed_open_gives_the_lock_back(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "scan_proven", lambda directory: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            opened()
    opened()


def test_rests_are_removed_and_strangers_left_alone(opened: Opener, tmp_path: Path) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    proven, partial = opened.root / "sha256", opened.root / "partial"
    two, three = "2" * 64, "3" * 64
    rests = [
        proven / f".{two}.0123abcd.tmp",
        partial / two,
        partial / f"{three}.meta",
        partial / f"{three}.meta.tmp",
        partial / BLOB.name,
        partial / f"{BLOB.name}.meta",
    ]
    for path in rests:
        path.write_bytes(b"rest")
    strangers = [proven / "README", proven / ("a" * 63), proven / ("A" * 64), partial / "notes.meta", opened.root / "x"]
    for path in strangers:
        path.write_bytes(b"stranger")
    (proven / ("d" * 64)).mkdir()
    (partial / ("d" * 64)).mkdir()
    (tmp_path / "outside").write_bytes(b"outside")
    (proven / ("e" * 64)).symlink_to(tmp_path / "outside")
    (partial / ("e" * 64)).symlink_to(tmp_path / "outside")
    store = opened()
    assert store.digests() == [(BLOB.digest, 1000)]
    assert not any(path.exists() for path in rests)
    assert all(path.read_bytes() == b"stranger" for path in strangers)
    assert (proven / ("d" * 64)).is_dir()
    assert (tmp_path / "outside").read_bytes() == b"outside"
    with pytest.raises(StoreFailed):
        store.partial("sha256:" + "e" * 64, 10, 10)
    with pytest.raises(StoreFailed):
        store.partial("sha256:" + "d" * 64, 10, 10)
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert store.used == 1000


def damage(opened: Opener, suffix: str, body: bytes | None) -> None:
    path = opened.root / "partial" / (BLOB.name + suffix)
    if body is None:
        path.unlink()
    else:
        path.write_bytes(body)


@pytest.mark.parametrize(
    ("suffix", "body", "text"),
    [
        (".meta", b"", "not a p2pd journal"),
        (".meta", b"\0" * 500, "not a p2pd journal"),
        (".meta", b"SQLite format 3\0" * 100, "not a p2pd journal"),
        (".meta", b"p2pdpart\x00\x63" + bytes(100), "version 99"),
        (".meta", b"p2pdpart\x00\x01" + bytes(100), "damaged"),
        (".meta", None, None),
        ("", None, None),
    ],
)
def test_a_journal_that_is_not_ours_is_discarded_with_a_line(
    opened: Opener, caplog: pytest.LogCaptureFixture, suffix: str, body: bytes | None, text: str | None
) -> None:
    partial_of(opened(), BLOB, 0, 1)
    damage(opened, suffix, body)
    with caplog.at_level(logging.WARNING):
        store = opened()
    assert store.partials() == []
    assert names(opened.root / "partial") == set()
    assert text is None or (text in caplog.text and BLOB.digest in caplog.text)


def test_a_journal_of_another_blob_is_discarded(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    store = opened()
    partial_of(store, BLOB, 0)
    partial_of(store, blob(2), 0)
    damage(opened, ".meta", (opened.root / "partial" / f"{blob(2).name}.meta").read_bytes())
    store = opened()
    assert [partial.digest for partial in store.partials()] == [blob(2).digest]
    assert "its journal is that of" in caplog.text


def test_each_byte_of_a_journal_damaged(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    partial_of(opened(), BLOB, 0, 3)
    data = (opened.root / "partial" / BLOB.name).read_bytes()
    journal = (opened.root / "partial" / f"{BLOB.name}.meta").read_bytes()
    seen = set()
    for at, change in itertools.product(range(len(journal)), (0x01, 0xFF)):
        damaged = bytearray(journal)
        damaged[at] ^= change
        damage(opened, "", data)
        damage(opened, ".meta", bytes(damaged))
        found = opened().partials()
        seen.add(tuple(found[0].present) if found else None)
        caplog.clear()
    assert seen == {None, (), (0,)}


def test_a_torn_journal_goes_on(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    store = opened()
    partial_of(store, BLOB, 0, 1)
    partial_of(store, BLOB, 2)
    path = opened.root / "partial" / f"{BLOB.name}.meta"
    os.truncate(path, path.stat().st_size - 3)
    store = opened()
    assert "did not hold" in caplog.text
    assert set(store.partials()[0].present) == {0, 1}
    partial_of(store, BLOB, 5)
    assert set(opened().partials()[0].present) == {0, 1, 5}


@pytest.mark.parametrize(
    ("length", "left"), [(999, {0, 7}), (512, {0, 7}), (511, {0}), (64, {0}), (63, set()), (0, set())]
)
def test_a_shortened_data_file(opened: Opener, length: int, left: set[int]) -> None:
    partial_of(opened(), BLOB, 0, 7, 15)
    os.truncate(opened.root / "partial" / BLOB.name, length)
    for _ in range(2):  # at the second start the file has its length again: the pieces must not come back
        [found] = opened().partials()
        assert set(found.present) == left
        assert os.fstat(found.fileno()).st_size == 1000


def test_a_data_file_that_grew_is_cut(opened: Opener) -> None:
    partial_of(opened(), BLOB, 0, 15)
    with open(opened.root / "partial" / BLOB.name, "ab") as file:
        file.write(b"more")
    [found] = opened().partials()
    assert set(found.present) == {0, 15}
    assert os.fstat(found.fileno()).st_size == 1000


def test_a_blob_that_someone_removed_or_cut(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    store = opened()
    store.put(BLOB.digest, BLOB.body)
    store.put(blob(2).digest, blob(2).body)
    (opened.root / "sha256" / BLOB.name).unlink()
    os.truncate(opened.root / "sha256" / blob(2).name, 10)
    assert store.open_blob(BLOB.digest) is None
    assert store.open_blob(blob(2).digest) is None
    assert (store.used, store.digests()) == (0, [])
    assert names(opened.root / "sha256") == set()


def test_partials_come_back_oldest_first_to_go(opened: Opener) -> None:
    store = opened()
    for number in (3, 2, 1):
        partial_of(store, blob(number), 0)
    store = opened()
    store.size_limit = store.used - 1
    assert store.evict() == [blob(3).digest]


def test_the_directory_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match=r"can't create .*file"):
        Store.open(tmp_path / "file" / "blobs", 1)


def test_for_the_limit_partials_go_first() -> None:
    old, new = Victim("old", 10, 10, 1.0, False), Victim("new", 10, 10, 2.0, False)
    partial = Victim("partial", 10, 4, 3.0, True)
    assert for_limit([new, old, partial], 1, 0) == [partial]
    assert for_limit([new, old, partial], 20, 0) == [partial, old]
    assert for_limit([new, old, partial], 31, 0) is None
    assert for_limit([new, old], 0, 1) is None  # a proven blob's end makes no room among the partials
    assert for_limit([new, old, partial], 0, 1) == [partial]
    assert for_limit([new, old, partial], -5, 0) == []


def test_for_the_disk_recent_partials_stay() -> None:
    old, new = Victim("old", 10, 10, 1.0, False), Victim("new", 10, 10, 2.0, False)
    partial = Victim("partial", 10, 4, 3.0, True)
    assert for_disk([partial, new, old], 1, 3602.0) == [old]
    assert for_disk([partial, new, old], 20, 3602.0) == [old, new]
    assert for_disk([partial, new, old], 21, 3602.0) is None
    assert for_disk([partial, new, old], 24, 3604.0) == [old, new, partial]
    assert for_disk([partial, new, old], 25, 3604.0) is None
    assert for_disk([], 0, 0.0) == []
