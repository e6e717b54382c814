"""The few system calls by which the store changes the disk, all in one place, so that a test can stand between.

Knows the store's errors only. Each function raises StoreFull or StoreFailed with the path in its text, never OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from p2pd.store.errors import StoreFailed, StoreFull

FILE_MODE = 0o600  # blobs may be private: nobody but the daemon reads the store's files
DIRECTORY_MODE = 0o700

# No space, over quota, larger than the file system or RLIMIT_FSIZE allows.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def translated(doing: str, path: Path) -> Iterator[None]:
    """OSError inside becomes StoreFull or StoreFailed: "can't <doing> <path>: ..."."""
    try:
        yield
    except OSError as error:
        text = f"can't {doing} {path}: {error.strerror or error}"
        if error.errno in _FULL:
            raise StoreFull(f"{text}; free space on that file system, or lower [store] size_limit") from error
        raise StoreFailed(f"{text}; check the disk, and that p2pd may write there") from error


def write_all(fd: int, data: memoryview, offset: int, path: Path) -> None:
    """All of `data` (a view of bytes) at `offset`. The file's own position stays: threads may write side by side."""
    with translated("write", path):
        while data:
            written = os.pwrite(fd, data, offset)
            data = data[written:]
            offset += written


def sync_data(fd: int, path: Path) -> None:
    """Returns when the file's bytes and size are on the disk (fdatasync)."""
    with translated("sync", path):
        os.fdatasync(fd)


def sync_directory(path: Path) -> None:
    """Returns when the names in the directory are on the disk."""
    with translated("sync", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def set_size(fd: int, size: int, path: Path) -> None:
    """Cut, or lengthen by a hole that takes no space yet."""
    with translated(f"set the size to {size} of", path):
        os.ftruncate(fd, size)


def rename(old: Path, new: Path) -> None:
    with translated(f"rename {old} to", new):
        os.rename(old, new)


def unlink(path: Path) -> bool:
    """True if there was such a file."""
    with translated("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    return True


def set_last_use(target: int | Path, moment: float) -> None:
    """Remember the last use (seconds since the epoch) as the file's mtime, which reading it does not change.

    An error passes in silence: all that is lost is the order of eviction after a restart.
    """
    with contextlib.suppress(OSError):
        os.utime(target, (moment, moment))
