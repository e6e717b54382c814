"""The journal beside a partial: which of its pieces a restarted node may trust, and what is remembered with them.

It is appended to only after the data it speaks of is on the disk. Each entry carries a check over itself *and the check
before it*, from a random number in the header on; so a torn tail, a flipped bit, blocks of an older journal or another
program's file end the replay right there, and what was read up to there holds. Not a log of the blob's bytes, and not
thread-safe. Knows the store's files and errors.

    header   magic 8 | version u16 | digest 32 | size u64 | piece size u64 | random 16 | check 8
    entry    length u32 | kind u8 | payload (length - 1 bytes) | check 8          all integers big-endian
             MARK  index u64, record      DROP  index u64      EXTRA  key length u8, key, record
    check    the first 8 bytes of SHA-256(check before + entry up to its check); the header's starts from nothing
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from p2pd.store import files

VERSION = 1
RECORD_MAX = 64 * 1024  # bytes of one record; a voucher of a few links has some hundred
KEY_MAX = 255  # bytes of an extra's key: its length is one byte
EXTRAS_MAX = 64  # blob-wide records of one partial; they are "a few"
PIECES_MAX = 1 << 24  # of one blob; 4 TiB in pieces of 256 KiB. Bounds what a forged journal makes us hold

_MAGIC = b"p2pdpart"
_HEADER = struct.Struct(">8sH32sQQ16s")
_LENGTH = struct.Struct(">I")
_INDEX = struct.Struct(">Q")
_CHECK_SIZE = 8
_MARK, _DROP, _EXTRA = 1, 2, 3
_ENTRY_MAX = 1 + 1 + KEY_MAX + RECORD_MAX  # bytes of kind and payload
_BATCH_SIZE = 1 << 20  # bytes written at once: entries of one flush are not all held twice


class NotOurs(Exception):
    """The file is no journal of this version: foreign, garbage, or torn within its header."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which blob, and how it is cut. Sizes in bytes."""

    digest: str
    size: int
    piece_size: int

    @property
    def piece_count(self) -> int:
        return -(-self.size // self.piece_size)

    def piece_length(self, index: int) -> int:
        return min(self.piece_size, self.size - index * self.piece_size)


@dataclass(slots=True)
class Contents:
    """What holds: the record of each piece that is present, and the blob-wide records."""

    present: dict[int, bytes] = field(default_factory=dict)
    extras: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Changes:
    """What is to be appended. Drops come first: a piece in both was dropped, and then marked anew."""

    drops: set[int] = field(default_factory=set)
    marks: dict[int, bytes] = field(default_factory=dict)
    extras: dict[str, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.drops or self.marks or self.extras)


class Journal:
    """One journal file. `length` is the number of bytes that hold; 0 while there is no file."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self.length = 0
        self._check = b""
        self._whole_again = False

    @property
    def must_rewrite(self) -> bool:
        """There is no file yet, or its last sync failed and nobody knows what of it is on the disk."""
        return self.length == 0 or self._whole_again

    @classmethod
    def load(cls, path: Path) -> tuple[Journal, Contents, int]:
        """Replay a file, and cut off its torn tail: the journal, what holds, and how many bytes were cut off.

        NotOurs if it is not a journal; StoreFailed if it can't be read.
        """
        with files.translated("read", path), open(path, "rb") as source:
            identity, check = _read_header(source)
            journal = cls(path, identity)
            contents = Contents()
            journal.length, journal._check = source.tell(), check
            for kind, payload, own_check in _read_entries(source, check):
                if not _apply(contents, identity, kind, payload):
                    break
                journal.length, journal._check = source.tell(), own_check
            torn = os.fstat(source.fileno()).st_size - journal.length
        if torn:
            with files.translated("cut the torn end of", path):
                os.truncate(path, journal.length)
        return journal, contents, torn

    def append(self, changes: Changes) -> None:
        """Returns when `changes` are on the disk. On an error the journal holds what it held before, or a part more."""
        with files.translated("open", self.path):
            fd = os.open(self.path, os.O_WRONLY)
        try:
            length, check = _write(fd, self.path, self.length, self._check, _entries_of(changes))
            self._whole_again = True
            files.sync_data(fd, self.path)
        finally:
            os.close(fd)
        self.length, self._check, self._whole_again = length, check, False

    def rewrite(self, contents: Contents) -> None:
        """Put a fresh journal with `contents` in the place of the file; returns when it is on the disk."""
        fresh = self.path.with_name(self.path.name + ".tmp")
        start = _HEADER.pack(
            _MAGIC,
            VERSION,
            bytes.fromhex(self.identity.digest.removeprefix("sha256:")),
            self.identity.size,
            self.identity.piece_size,
            os.urandom(16),
        )
        check = _check_of(b"", start)
        with files.translated("create", fresh):
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, files.FILE_MODE)
        try:
            files.write_all(fd, memoryview(start + check), 0, fresh)
            changes = Changes(marks=contents.present, extras=contents.extras)
            length, check = _write(fd, fresh, len(start) + len(check), check, _entries_of(changes))
            files.sync_data(fd, fresh)
        except BaseException:
            files.unlink(fresh)
            raise
        finally:
            os.close(fd)
        self._whole_again = True
        files.rename(fresh, self.path)
        files.sync_directory(self.path.parent)
        self.length, self._check, self._whole_again = length, check, False


def _check_of(before: bytes, entry: bytes) -> bytes:
    return hashlib.sha256(before + entry).digest()[:_CHECK_SIZE]


def _entries_of(changes: Changes) -> Iterator[bytes]:
    for index in sorted(changes.drops):
        yield bytes([_DROP]) + _INDEX.pack(index)
    for index, record in changes.marks.items():
        yield bytes([_MARK]) + _INDEX.pack(index) + record
    for key, record in changes.extras.items():
        name = key.encode()
        yield bytes([_EXTRA, len(name)]) + name + record


def _write(fd: int, path: Path, offset: int, check: bytes, entries: Iterator[bytes]) -> tuple[int, bytes]:
    """Where the journal ends then, and its last check. What stood behind it is overwritten, or ends the replay."""
    batch = bytearray()
    for body in entries:
        entry = _LENGTH.pack(len(body)) + body
        check = _check_of(check, entry)
        batch += entry + check
        if len(batch) >= _BATCH_SIZE:
            files.write_all(fd, memoryview(batch), offset, path)
            offset += len(batch)
            batch = bytearray()
    files.write_all(fd, memoryview(batch), offset, path)
    return offset + len(batch), check


def _read_header(source: BinaryIO) -> tuple[Identity, bytes]:
    start, check = source.read(_HEADER.size), source.read(_CHECK_SIZE)
    if len(start) < _HEADER.size or not start.startswith(_MAGIC):
        raise NotOurs("it is not a p2pd journal")
    _, version, digest, size, piece_size, _ = _HEADER.unpack(start)
    if version != VERSION:
        raise NotOurs(f"it has version {version}, and this p2pd writes {VERSION}")
    if check != _check_of(b"", start):
        raise NotOurs("its header is damaged")
    identity = Identity(f"sha256:{digest.hex()}", size, piece_size)
    if piece_size == 0 or size >= 1 << 63 or identity.piece_count > PIECES_MAX:
        raise NotOurs("its sizes are not possible")
    return identity, check


def _read_entries(source: BinaryIO, check: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(kind, payload, check) of each entry up to the first that does not hold."""
    while True:
        prefix = source.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack(prefix)
        if not 1 <= length <= _ENTRY_MAX:
            return
        body, stated = source.read(length), source.read(_CHECK_SIZE)
        check = _check_of(check, prefix + body)
        if len(body) < length or stated != check:
            return
        yield body[0], body[1:], check


def _apply(contents: Contents, identity: Identity, kind: int, payload: bytes) -> bool:
    """False if the entry can't be one of ours, though its check holds."""
    if kind == _EXTRA and payload and len(payload) > payload[0]:
        name, record = payload[1 : 1 + payload[0]].decode(errors="replace"), payload[1 + payload[0] :]
        if len(record) > RECORD_MAX or (name not in contents.extras and len(contents.extras) >= EXTRAS_MAX):
            return False
        contents.extras[name] = record
        return True
    if kind not in (_MARK, _DROP) or len(payload) < _INDEX.size:
        return False
    (index,) = _INDEX.unpack_from(payload)
    record = payload[_INDEX.size :]
    if index >= identity.piece_count or len(record) > RECORD_MAX or (kind == _DROP and record):
        return False
    if kind == _MARK:
        contents.present[index] = record
    else:
        contents.present.pop(index, None)
    return True
