"""What a restart finds on the disk: proven blobs by their names, partials by their journals, and rests to remove.

Damage never stops the daemon: a partial whose journal does not hold is discarded with a line in the log, and a piece
that lies beyond the end of a shortened data file is not trusted. Knows the store's journal, files and errors.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pd.store import files
from p2pd.store.errors import StoreError
from p2pd.store.journal import Contents, Journal, NotOurs

log = logging.getLogger("p2pd.store")

_PROVEN = re.compile(r"[0-9a-f]{64}")
_FRESH = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}\.tmp")
_PARTIAL = re.compile(r"([0-9a-f]{64})(\.meta|\.meta\.tmp)?")


@dataclass(slots=True)
class Blob:
    """A proven blob: `size` in bytes, `last_use` in seconds since the epoch, `pins` of open readers."""

    size: int
    last_use: float
    pins: int = 0


def scan_proven(directory: Path) -> dict[str, Blob]:
    """The proven blobs by digest. Rests of a `put` that never ended are removed; other names are left alone."""
    blobs = {}
    for name, status in _regular_files(directory):
        if _PROVEN.fullmatch(name):
            blobs[f"sha256:{name}"] = Blob(status.st_size, status.st_mtime)
        elif _FRESH.fullmatch(name):
            files.unlink(directory / name)
    return blobs


def recover_partials(directory: Path, proven: Container[str]) -> Iterator[tuple[Path, Journal, Contents, float]]:
    """(data, journal, what holds, last use) of each partial that can go on; everything else of ours is removed."""
    found: dict[str, dict[str, os.stat_result]] = {}
    for name, status in _regular_files(directory):
        match = _PARTIAL.fullmatch(name)
        if match:
            found.setdefault(match[1], {})[match[2] or ""] = status
    for name, parts in found.items():
        data = directory / name
        reason = None
        if f"sha256:{name}" not in proven and "" in parts and ".meta" in parts:
            try:
                recovered = _recover(data, parts[""])
            except (NotOurs, StoreError) as error:
                reason = str(error)
            else:
                files.unlink(directory / f"{name}.meta.tmp")
                yield recovered
                continue
        if reason:
            log.warning("partial sha256:%s is discarded: %s", name, reason)
        for suffix in (".meta", ".meta.tmp", ""):  # the journal first: it must never meet other data
            files.unlink(directory / (name + suffix))


def _recover(data: Path, status: os.stat_result) -> tuple[Path, Journal, Contents, float]:
    journal, contents, torn = Journal.load(data.with_name(data.name + ".meta"))
    identity = journal.identity
    if identity.digest != f"sha256:{data.name}":
        raise NotOurs(f"its journal is that of {identity.digest}")
    if torn:
        log.warning("partial %s: %d bytes at the end of its journal did not hold", identity.digest, torn)
    if status.st_size != identity.size:
        whole = {
            index: record
            for index, record in contents.present.items()
            if index * identity.piece_size + identity.piece_length(index) <= status.st_size
        }
        log.warning(
            "partial %s has %d bytes instead of %d: %d of %d pieces dropped",
            *(identity.digest, status.st_size, identity.size),
            *(len(contents.present) - len(whole), len(contents.present)),
        )
        contents.present = whole
        # On the disk before the file is lengthened: the next restart would take the hole for the pieces' bytes.
        journal.rewrite(contents)
        with files.translated("open", data):
            fd = os.open(data, os.O_RDWR | os.O_NOFOLLOW)
        try:
            files.set_size(fd, identity.size, data)
        finally:
            os.close(fd)
    return data, journal, contents, status.st_mtime


def _regular_files(directory: Path) -> list[tuple[str, os.stat_result]]:
    """Name and status of each plain file: what is a directory or a link is not ours, whatever its name."""
    found = []
    with files.translated("list", directory), os.scandir(directory) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append((entry.name, status))
    return found
