"""The journal beside a partial, as a damaged disk may leave it: what holds comes back, also after being written anew.

The first byte says what is done to the check values: 0 leaves them as they are, else each entry's is made right, so
that what is behind a check is reached too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from p2pd.store.journal import (
    _CHECK_SIZE,
    _HEADER,
    _LENGTH,
    EXTRAS_MAX,
    RECORD_MAX,
    Journal,
    NotOurs,
    _check_of,
)

_DIRECTORY = tempfile.TemporaryDirectory(prefix="p2pd-fuzz-")


def check(data: bytes) -> None:
    body = data[1:]
    if data[:1] > b"\0":
        body = _with_checks(body)
    path = Path(_DIRECTORY.name) / "journal"
    path.write_bytes(body)
    try:
        journal, contents, torn = Journal.load(path)
    except NotOurs:
        return
    assert journal.length + torn == len(body)
    assert path.stat().st_size == journal.length
    assert all(index < journal.identity.piece_count for index in contents.present)
    assert all(len(record) <= RECORD_MAX for record in (*contents.present.values(), *contents.extras.values()))
    assert len(contents.extras) <= EXTRAS_MAX
    again, same, torn = Journal.load(path)
    assert (again.identity, same, torn) == (journal.identity, contents, 0)
    if all(len(name.encode()) < 256 for name in contents.extras):
        journal.rewrite(contents)
        assert Journal.load(path)[1:] == (contents, 0)


def _with_checks(body: bytes) -> bytes:
    """`body` without checks, as header and entries with them."""
    start, rest = body[: _HEADER.size].ljust(_HEADER.size, b"\0"), body[_HEADER.size :]
    before = _check_of(b"", start)
    made = start + before
    while len(rest) > _LENGTH.size:
        (length,) = _LENGTH.unpack_from(rest)
        entry, rest = rest[: _LENGTH.size + length], rest[_LENGTH.size + length :]
        before = _check_of(before, entry)
        made += entry + before
    assert len(before) == _CHECK_SIZE
    return made
