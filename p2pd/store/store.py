"""All blobs of one node: the index of proven ones and partials, the size limit, eviction, and recovery after a crash.

    <root>/lock                       held while the daemon runs
    <root>/sha256/<hex>               proven: renamed here after its fdatasync, so trusted by its name
    <root>/partial/<hex>, <hex>.meta  arriving: data (sparse) and journal

Files with other names are left alone, and not counted. Lock order: the store's, then a partial's `flushing`, then the
moments-only ones. Knows `p2pd.oci` (digests), `p2pd.units` and this package.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from p2pd.oci import check_digest
from p2pd.store import files
from p2pd.store.errors import StoreError, StoreFull, StoreLocked, WrongDigest
from p2pd.store.eviction import Victim, for_disk, for_limit
from p2pd.store.journal import PIECES_MAX, Contents, Identity, Journal
from p2pd.store.partial import Partial
from p2pd.store.recovery import Blob, recover_partials, scan_proven
from p2pd.units import format_size

log = logging.getLogger("p2pd.store")

PARTIALS_MAX = 512  # blobs arriving at once; each holds a descriptor and its records in memory


class OpenBlob:
    """A proven blob, open for reading and safe from eviction until `close` or the end of its `with`. `size`: bytes."""

    def __init__(self, fd: int, size: int, release: Callable[[], None]) -> None:
        self.size = size
        self._fd = fd
        self._close = weakref.finalize(self, _close_and_release, fd, release)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        self._close()

    def __enter__(self) -> OpenBlob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close_and_release(fd: int, release: Callable[[], None]) -> None:
    os.close(fd)
    release()


def _allocated(partial: Partial) -> int:
    """Bytes that a partial's data takes on the disk now."""
    try:
        return os.stat(partial.path).st_blocks * 512  # stat(2): in units of 512 bytes, whatever the file system's block
    except OSError:
        return 0  # someone removed it: then it takes none


class Store:
    """Made by `Store.open`. A blob is proven or partial, never both.

    `size_limit` in bytes, of proven blobs and partials; `clock`: seconds since the epoch.
    `proven`, `digests`, `partials` and `used` answer from memory and take no lock; the rest may wait for the disk.
    """

    def __init__(self, root: Path, size_limit: int, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.size_limit = size_limit
        self._clock = clock
        self._proven_directory = root / "sha256"
        self._partial_directory = root / "partial"
        self._lock = threading.RLock()  # around the names on the disk and the index
        self._pins = threading.Lock()  # around a blob's count of pins, for moments only
        self._blobs: dict[str, Blob] = {}
        self._partials: dict[str, Partial] = {}
        self._proven_bytes = 0
        self._unlock: Callable[[], object] = lambda: None
        self.on_evict: Callable[[str], object] = lambda digest: None  # in the thread that made room

    @classmethod
    def open(cls, root: Path, size_limit: int, clock: Callable[[], float] = time.time) -> Store:
        """The store at `root`, recovered. StoreLocked if another process has it; StoreFailed if the disk refuses."""
        store = cls(root, size_limit, clock)
        store.recover()
        return store

    def recover(self) -> None:
        """Take the lock, remove what a crash left, load the index, get under the limit. Once, before all else."""
        with files.translated("create", self.root):
            for directory in (self.root, self._proven_directory, self._partial_directory):
                directory.mkdir(mode=files.DIRECTORY_MODE, parents=True, exist_ok=True)
        self._take_lock()
        try:
            files.sync_directory(self.root)
            self._blobs = scan_proven(self._proven_directory)
            self._proven_bytes = sum(blob.size for blob in self._blobs.values())
            for path, journal, contents, last_use in recover_partials(self._partial_directory, self._blobs.keys()):
                partial = Partial(path, journal, contents, last_use, self._place, self._clock)
                self._partials[partial.digest] = partial
            evicted = self.evict()
        except BaseException:
            self.close()
            raise
        log.info(
            "store %s: %d blobs, %d partial, %s of %s used%s",
            self.root,
            len(self._blobs),
            len(self._partials),
            format_size(self.used),
            format_size(self.size_limit),
            f", {len(evicted)} evicted" if evicted else "",
        )

    def close(self) -> None:
        """Give the lock back. What was not flushed is as after a crash."""
        for partial in self.partials():
            partial.close()
        self._unlock()

    @property
    def used(self) -> int:
        """Bytes that count in the limit; a partial counts with its whole blob and its journal."""
        return self._proven_bytes + sum(partial.reserved for partial in self.partials())

    def proven(self, digest: str) -> int | None:
        """The size of a proven blob in bytes; None if there is none."""
        blob = self._blobs.get(digest)
        return None if blob is None else blob.size

    def digests(self) -> list[tuple[str, int]]:
        """(digest, size in bytes) of each proven blob."""
        return [(digest, blob.size) for digest, blob in list(self._blobs.items())]

    def partials(self) -> list[Partial]:
        """All that are arriving, those that `recover` found among them."""
        return list(self._partials.values())

    def open_blob(self, digest: str) -> OpenBlob | None:
        """Open a proven blob for reading, and count that as its use; None if there is none."""
        with self._lock:
            blob = self._blobs.get(digest)
            if blob is None:
                return None
            path = self._final(digest)
            with files.translated("open", path):
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                except FileNotFoundError:
                    log.warning("blob %s was removed by someone else", path)
                    self._forget(digest)
                    return None
            if os.fstat(fd).st_size != blob.size:
                os.close(fd)
                log.error("blob %s no longer has its %d bytes: removed", path, blob.size)
                self.remove(digest)
                return None
            blob.last_use = self._clock()
            files.set_last_use(path, blob.last_use)
            with self._pins:
                blob.pins += 1

        def release() -> None:
            with self._pins:
                blob.pins -= 1

        return OpenBlob(fd, blob.size, release)

    def put(self, digest: str, body: bytes) -> None:
        """Store a small blob (a manifest) at once; returns when it is on the disk. That commits a partial of it, too.

        WrongDigest if it is another blob's body; StoreFull if there is no room.
        """
        check_digest(digest)
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise WrongDigest(f"{len(body)} bytes given for {digest} have another digest")
        if self.touch(digest):
            return
        self._make_room(digest, len(body), partial=False)
        final = self._final(digest)
        fresh = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
        with files.translated("create", fresh):
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, files.FILE_MODE)
        try:
            files.write_all(fd, memoryview(body), 0, fresh)
            files.sync_data(fd, fresh)
            with self._lock:
                files.rename(fresh, final)
                self._know(digest, len(body))
                files.set_last_use(final, self._blobs[digest].last_use)
                if digest in self._partials:
                    self._supersede(self._partials[digest], final)
        except BaseException:
            files.unlink(fresh)
            raise
        finally:
            os.close(fd)
        files.sync_directory(self._proven_directory)

    def touch(self, digest: str) -> bool:
        """Count one use of a proven blob; False if there is none."""
        blob = self.open_blob(digest)
        if blob is None:
            return False
        blob.close()
        return True

    def partial(self, digest: str, size: int, piece_size: int, *, pin: bool = False) -> Partial:
        """The partial of a blob that is to arrive: the one that is there, or a new one, for which room is made.

        `pin`: pinned at once, so that nobody can evict it before the caller does so. One that is there with other
        sizes is discarded (ValueError if it is pinned). ValueError also for a blob that is proven, or sizes that are
        not possible; StoreFull if there is no room.
        """
        identity = Identity(check_digest(digest), size, piece_size)
        if size < 0 or piece_size <= 0 or identity.piece_count > PIECES_MAX:
            raise ValueError(f"{digest}: a blob of {size} bytes in pieces of {piece_size} is not possible")
        with self._lock:
            if digest in self._blobs:
                raise ValueError(f"{digest} is proven already")
            partial = self._partials.get(digest)
            if partial is not None and partial.identity != identity:
                log.warning("partial %s: sizes differ from %d in pieces of %d: discarded", digest, size, piece_size)
                if not self._remove_partial(partial, pinned_too=False):
                    raise ValueError(f"{digest} is arriving with other sizes: {partial.size} in {partial.piece_size}")
                partial = None
            if partial is None:
                partial = self._create(identity)
            partial.last_use = self._clock()
            if pin:
                partial.pin()
            return partial

    def _create(self, identity: Identity) -> Partial:
        self._make_room(identity.digest, identity.size, partial=True)
        path = self._partial_path(identity.digest)
        journal = Journal(path.with_name(path.name + ".meta"), identity)
        if files.unlink(journal.path):  # left by a removal that failed; it must not speak for the new bytes
            files.sync_directory(self._partial_directory)
        with files.translated("create", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, files.FILE_MODE)
        try:
            files.set_size(fd, identity.size, path)
        except StoreError:
            files.unlink(path)
            raise
        finally:
            os.close(fd)
        partial = Partial(path, journal, Contents(), self._clock(), self._place, self._clock)
        partial.fileno()
        self._partials[identity.digest] = partial
        return partial

    def remove(self, digest: str) -> None:
        """Drop a blob and a partial of that digest, pinned or not. What is open can be read to its end."""
        with self._lock:
            if digest in self._blobs:
                files.unlink(self._final(digest))
                self._forget(digest)
            partial = self._partials.get(digest)
            if partial is not None:
                self._remove_partial(partial, pinned_too=True)

    def discard(self, partial: Partial) -> bool:
        """Drop a partial that nobody has pinned; False if somebody has."""
        with self._lock:
            known = self._partials.get(partial.digest) is partial
            return known and self._remove_partial(partial, pinned_too=False)

    def evict(self) -> list[str]:
        """Get under the size limit as far as what is pinned allows; the digests of what went."""
        with self._lock:
            candidates = self._candidates(promised=False)
            excess, surplus = self.used - self.size_limit, len(self._partials) - PARTIALS_MAX
            victims = for_limit(candidates, excess, surplus)
            if victims is None:
                victims = for_limit(candidates, min(excess, sum(one.size for one in candidates)), 0) or []
            return self._remove_victims(victims)

    def _make_room(self, digest: str, size: int, *, partial: bool) -> None:
        """Evict until `size` more bytes fit the limit and the disk. StoreFull, and nothing evicted, if that can't be.

        For a new partial, what the others have been promised and have not written yet is not free.
        """
        with self._lock:
            with files.translated("look at", self.root):
                disk = os.statvfs(self.root)
            free = disk.f_bavail * disk.f_frsize - (self._promised() if partial else 0)
            candidates = self._candidates(promised=partial)
            surplus = len(self._partials) + 1 - PARTIALS_MAX if partial else 0
            victims = for_limit(candidates, self.used + size - self.size_limit, surplus)
            remedy = "raise size_limit"
            if victims is not None:
                remedy = "free space on that file system"
                more = for_disk(
                    set(candidates) - set(victims), size - free - sum(victim.disk for victim in victims), self._clock()
                )
                if more is not None:
                    self._remove_victims(victims + more)
                    return
            raise StoreFull(
                f"no room for {digest} ({format_size(size)}) in {self.root}: {format_size(self.used)} of "
                f"[store] size_limit = {format_size(self.size_limit)} used, {format_size(max(free, 0))} of the disk "
                f"free, and too little that is not in use; {remedy}"
            )

    def _promised(self) -> int:
        """Bytes of the disk that partials will still take."""
        return sum(partial.size - min(partial.size, _allocated(partial)) for partial in self.partials())

    def _candidates(self, *, promised: bool) -> list[Victim]:
        """What is not pinned. `promised`: a partial's end frees what it has not written yet too."""
        idle = [
            Victim(one.digest, one.reserved, one.size if promised else _allocated(one), one.last_use, True)
            for one in self.partials()
            if not one.pinned
        ]
        return idle + [
            Victim(digest, blob.size, blob.size, blob.last_use, False)
            for digest, blob in self._blobs.items()
            if not blob.pins
        ]

    def _remove_victims(self, victims: list[Victim]) -> list[str]:
        gone = []
        for victim in victims:
            if victim.partial:
                if not self._remove_partial(self._partials[victim.digest], pinned_too=False):
                    continue  # pinned a moment ago
            else:
                files.unlink(self._final(victim.digest))
                self._forget(victim.digest)
            what = "partial" if victim.partial else "blob"
            log.info("evicted %s %s (%s)", what, victim.digest, format_size(victim.size))
            gone.append(victim.digest)
            self.on_evict(victim.digest)
        return gone

    def _remove_partial(self, partial: Partial, *, pinned_too: bool) -> bool:
        with partial.flushing:
            if not partial.retire(pinned_too=pinned_too):
                return False
            self._unlink_partial(partial)
            return True

    def _supersede(self, partial: Partial, final: Path) -> None:
        """The blob came by another way: whoever still works on the partial finds it committed."""
        with partial.flushing:
            partial.committed(final)
            self._unlink_partial(partial)

    def _unlink_partial(self, partial: Partial) -> None:
        # First the journal, for good: data without a journal is an orphan, a journal must never meet other data.
        if files.unlink(partial.journal.path):
            files.sync_directory(self._partial_directory)
        files.unlink(self._partial_path(partial.digest))
        self._partials.pop(partial.digest, None)

    def _place(self, partial: Partial) -> None:
        """The end of `Partial.commit`: rename, then forget the journal; its data is synced already."""
        with self._lock, partial.flushing:
            partial.check_complete()
            held = os.fstat(partial.fileno()).st_size
            if held != partial.size:
                raise ValueError(f"{partial.path} has {held} bytes, not {partial.size}: someone else changed it")
            final = self._final(partial.digest)
            files.rename(partial.path, final)
            partial.committed(final)
            self._partials.pop(partial.digest, None)
            self._know(partial.digest, partial.size)
            files.set_last_use(final, self._blobs[partial.digest].last_use)
            files.sync_directory(self._proven_directory)
            files.unlink(partial.journal.path)
            files.sync_directory(self._partial_directory)

    def _final(self, digest: str) -> Path:
        return self._proven_directory / digest.removeprefix("sha256:")

    def _partial_path(self, digest: str) -> Path:
        return self._partial_directory / digest.removeprefix("sha256:")

    def _know(self, digest: str, size: int) -> None:
        self._forget(digest)
        self._blobs[digest] = Blob(size, self._clock())
        self._proven_bytes += size

    def _forget(self, digest: str) -> None:
        blob = self._blobs.pop(digest, None)
        if blob is not None:
            self._proven_bytes -= blob.size

    def _take_lock(self) -> None:
        path = self.root / "lock"
        with files.translated("open", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreLocked(
                f"{self.root} is in use by another p2pd (process {holder}): stop it, or give this one its own "
                "[node] state_dir"
            ) from None
        self._unlock = weakref.finalize(self, os.close, fd)
        with contextlib.suppress(OSError):  # a full disk: the number is only for the message above
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
