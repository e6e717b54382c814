"""The journal's file: what is written is read back, and nothing else is, whatever happens to the file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pd.store import files, journal
from p2pd.store.errors import StoreFailed, StoreFull
from p2pd.store.journal import Changes, Contents, Identity, Journal, NotOurs

IDENTITY = Identity("sha256:" + "ab" * 32, 1000, 64)


def made(path: Path, *steps: Changes) -> Journal:
    one = Journal(path, IDENTITY)
    one.rewrite(Contents())
    for step in steps:
        one.append(step)
    return one


records = st.binary(max_size=40)
changes = st.builds(
    Changes,
    drops=st.sets(st.integers(0, 15), max_size=4),
    marks=st.dictionaries(st.integers(0, 15), records, max_size=4),
    extras=st.dictionaries(st.text(max_size=5), records, max_size=2),
)


@given(steps=st.lists(changes, max_size=6), rewritten=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_round_trip(tmp_path: Path, steps: list[Changes], rewritten: bool) -> None:
    expected = Contents()
    for step in steps:
        for index in step.drops:
            expected.present.pop(index, None)
        expected.present |= step.marks
        expected.extras |= step.extras
    one = made(tmp_path / "j", *steps)
    if rewritten:
        one.rewrite(expected)
    loaded, contents, torn = Journal.load(tmp_path / "j")
    assert contents == expected
    assert loaded.identity == IDENTITY
    assert (loaded.length, torn) == (one.length, 0) == ((tmp_path / "j").stat().st_size, 0)
    loaded.append(Changes(marks={3: b"after"}))
    assert Journal.load(tmp_path / "j")[1].present == expected.present | {3: b"after"}


STEPS = [
    Changes(marks={0: b"zero", 3: b"three"}, extras={"key": b"value"}),
    Changes(drops={3}, marks={7: b"seven"}),
    Changes(marks={3: b"again"}),
]
# What holds after each entry, in the order in which they are written.
PREFIXES = [
    Contents(),
    Contents({0: b"zero"}),
    Contents({0: b"zero", 3: b"three"}),
    Contents({0: b"zero", 3: b"three"}, {"key": b"value"}),
    Contents({0: b"zero"}, {"key": b"value"}),
    Contents({0: b"zero", 7: b"seven"}, {"key": b"value"}),
    Contents({0: b"zero", 7: b"seven", 3: b"again"}, {"key": b"value"}),
]


def outcome(path: Path, body: bytes) -> Contents | None:
    path.write_bytes(body)
    try:
        _, contents, torn = Journal.load(path)
    except NotOurs:
        return None
    assert path.stat().st_size == len(body) - torn
    return contents


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_each_byte_corrupted(tmp_path: Path, change: int) -> None:
    made(tmp_path / "j", *STEPS)
    body = (tmp_path / "j").read_bytes()
    results = []
    for at in range(len(body)):
        damaged = bytearray(body)
        damaged[at] ^= change
        results.append(outcome(tmp_path / "damaged", bytes(damaged)))
    header = results.index(PREFIXES[0])
    assert results[:header] == [None] * header
    # Exactly the entries before the damaged one hold.
    places = [PREFIXES.index(contents) for contents in results[header:]]  # type: ignore[arg-type]
    assert places == sorted(places)
    assert set(places) == set(range(len(PREFIXES) - 1))


def test_cut_at_each_byte_and_with_garbage_behind(tmp_path: Path) -> None:
    made(tmp_path / "j", *STEPS)
    body = (tmp_path / "j").read_bytes()
    for garbage in (b"", bytes(100), b"\xff" * 100, body[-40:]):
        results = [outcome(tmp_path / "cut", body[:end] + garbage) for end in range(len(body))]
        held = [contents for contents in results if contents is not None]
        assert all(contents in PREFIXES for contents in held)
        assert len(held) > 100
    assert outcome(tmp_path / "whole", body + b"garbage") == PREFIXES[-1]


def test_entries_of_an_older_journal_do_not_hold(tmp_path: Path) -> None:
    # As when a crash leaves a file whose blocks still carry what another journal of the same blob held there.
    made(tmp_path / "old", *STEPS)
    made(tmp_path / "new")
    start = (tmp_path / "new").read_bytes()
    old = (tmp_path / "old").read_bytes()
    assert outcome(tmp_path / "mixed", start + old[len(start) :]) == Contents()


@given(body=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_garbage(tmp_path: Path, body: bytes) -> None:
    assert outcome(tmp_path / "j", body) is None


def test_other_versions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "VERSION", 7)
    made(tmp_path / "j")
    monkeypatch.undo()
    with pytest.raises(NotOurs, match="version 7"):
        Journal.load(tmp_path / "j")


@pytest.mark.parametrize(("size", "piece_size"), [(1, 0), (1 << 63, 1 << 40), (1 << 40, 1)])
def test_impossible_sizes(tmp_path: Path, size: int, piece_size: int) -> None:
    Journal(tmp_path / "j", Identity(IDENTITY.digest, size, piece_size)).rewrite(Contents())
    with pytest.raises(NotOurs, match="sizes"):
        Journal.load(tmp_path / "j")


@pytest.mark.parametrize(
    "body",
    [
        b"\x09",
        b"\x01\x00",
        b"\x01" + struct.pack(">Q", 16),
        b"\x02" + struct.pack(">Q", 1) + b"record",
        b"\x03",
        b"\x03\x05abc",
        b"\x01" + struct.pack(">Q", 1) + bytes(journal.RECORD_MAX + 1),
        b"\x03\x01k" + bytes(journal.RECORD_MAX + 1),
    ],
)
def test_impossible_entries_end_the_replay(tmp_path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_entries_of", lambda changes: iter([b"\x01" + struct.pack(">Q", 5), body]))
    one = made(tmp_path / "j", Changes(marks={1: b""}))
    del one
    _, contents, torn = Journal.load(tmp_path / "j")
    assert contents.present in ({}, {5: b""})
    assert torn > 0


def test_too_many_extras_end_the_replay(tmp_path: Path) -> None:
    made(tmp_path / "j", Changes(extras={str(number): b"" for number in range(journal.EXTRAS_MAX + 5)}))
    _, contents, torn = Journal.load(tmp_path / "j")
    assert len(contents.extras) == journal.EXTRAS_MAX
    assert torn > 0


def test_a_failed_append_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(tmp_path / "j", STEPS[0])
    real = files.write_all

    def torn_write(fd: int, data: memoryview, offset: int, path: Path) -> None:
        real(fd, data[: len(data) // 2], offset, path)
        raise StoreFull("no space")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", torn_write)
        with pytest.raises(StoreFull):
            one.append(Changes(marks={9: b"nine " * 100, 10: b"ten"}))
    one.append(STEPS[1])
    assert Journal.load(tmp_path / "j")[1] == PREFIXES[5]


def test_after_a_failed_sync_the_journal_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(tmp_path / "j", STEPS[0])
    assert not one.must_rewrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _io_error)
        with pytest.raises(StoreFailed, match="sync"):
            one.append(STEPS[1])
    assert one.must_rewrite
    one.rewrite(PREFIXES[5])
    assert not one.must_rewrite
    assert Journal.load(tmp_path / "j")[1] == PREFIXES[5]


def test_a_failed_rewrite_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(tmp_path / "j", *STEPS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _io_error)
        with pytest.raises(StoreFailed):
            one.rewrite(Contents())
    assert os.listdir(tmp_path) == ["j"]
    assert Journal.load(tmp_path / "j")[1] == PREFIXES[-1]


def _io_error(fd: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_large_flush_goes_out_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = files.write_all

    def noted(fd: int, data: memoryview, offset: int, path: Path) -> None:
        sizes.append(len(data))
        real(fd, data, offset, path)

    monkeypatch.setattr(files, "write_all", noted)
    record = bytes(journal.RECORD_MAX)
    identity = Identity(IDENTITY.digest, 64 * 40, 64)
    one = Journal(tmp_path / "j", identity)
    one.rewrite(Contents({index: record for index in range(40)}))
    assert len(Journal.load(tmp_path / "j")[1].present) == 40
    assert max(sizes) < journal._BATCH_SIZE + journal.RECORD_MAX + 100
