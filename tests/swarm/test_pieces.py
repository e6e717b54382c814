"""How a blob is cut, and sets of pieces as integers."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.swarm.pieces import (
    BLOB_SIZE_MAX,
    PIECE_SIZE_MAX,
    PIECE_SIZE_MIN,
    PIECES_MAX,
    PIECES_WANTED,
    Geometry,
    any_of,
    indices,
    lowest,
    pack,
    prefix_end,
    unpack,
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
sizes = st.integers(0, BLOB_SIZE_MAX) | st.integers(0, 4 * MIB) | st.sampled_from([0, 1, BLOB_SIZE_MAX])
sets = st.integers(0, (1 << 300) - 1)


@pytest.mark.parametrize(
    ("size", "piece_size", "count"),
    [
        (0, 128 * KIB, 1),  # an empty blob is one empty piece
        (1, 128 * KIB, 1),
        (128 * KIB, 128 * KIB, 1),
        (128 * KIB + 1, 128 * KIB, 2),
        (64 * MIB, 128 * KIB, 512),
        (64 * MIB + 1, 256 * KIB, 257),
        (128 * MIB, 256 * KIB, 512),
        (128 * MIB + 1, 512 * KIB, 257),
        (256 * MIB, 512 * KIB, 512),
        (256 * MIB + 1, 1 * MIB, 257),
        (1 * GIB, 1 * MIB, 1024),
        (1 * GIB + 1, 2 * MIB, 513),
        (8 * GIB, 8 * MIB, 1024),
        (8 * GIB + 1, 16 * MIB, 513),
        (BLOB_SIZE_MAX, 16 * MIB, 65536),
    ],
)
def test_the_cut_that_the_protocol_fixes(size: int, piece_size: int, count: int) -> None:
    assert Geometry.of(size) == Geometry(size, piece_size, count)


@given(sizes)
def test_pieces_cover_the_blob_and_nothing_else(size: int) -> None:
    g = Geometry.of(size)
    assert PIECE_SIZE_MIN <= g.piece_size <= PIECE_SIZE_MAX
    assert g.piece_size % 64 == 0  # a state exists only after whole blocks of SHA-256
    assert 1 <= g.count <= PIECES_MAX
    assert g.count <= PIECES_WANTED or g.piece_size == PIECE_SIZE_MAX
    last = g.count - 1
    assert g.offset(last) + g.length(last) == size
    assert all(g.length(i) == g.piece_size for i in (0, last // 2, last - 1) if 0 <= i < last)
    assert g.all.bit_count() == g.count == g.all.bit_length()


@pytest.mark.parametrize("size", [-1, BLOB_SIZE_MAX + 1])
def test_a_size_out_of_bounds(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        Geometry.of(size)


@given(sets)
def test_indices_are_the_members_in_order(pieces: int) -> None:
    members = list(indices(pieces))
    assert members == sorted(members) == [i for i in range(300) if pieces >> i & 1]
    if pieces:
        assert lowest(pieces) == members[0]


@given(sets.filter(bool), st.randoms(use_true_random=False))
def test_any_of_is_a_member(pieces: int, random: Random) -> None:
    assert pieces >> any_of(pieces, random) & 1


def test_any_of_reaches_every_member() -> None:
    random = Random(1)
    assert {any_of(0b1011_0001, random) for _ in range(500)} == {0, 4, 5, 7}


@given(sets, st.integers(0, 310))
def test_prefix_end_is_the_first_gap(pieces: int, start: int) -> None:
    end = prefix_end(pieces, start)
    assert not pieces >> end & 1
    assert all(pieces >> i & 1 for i in range(start, end))


@given(st.integers(1, 300), st.data())
def test_a_set_travels(count: int, data: st.DataObject) -> None:
    pieces = data.draw(st.integers(0, (1 << count) - 1))
    packed = pack(pieces, count)
    assert len(packed) == (count + 7) // 8
    assert unpack(packed, count) == pieces


@given(st.binary(max_size=8), st.integers(1, 40))
def test_a_set_that_does_not_fit_is_an_error(data: bytes, count: int) -> None:
    fits = len(data) == (count + 7) // 8 and int.from_bytes(data, "little") < 1 << count
    if fits:
        assert pack(unpack(data, count), count) == data
    else:
        with pytest.raises(ValueError, match=f"{count} pieces"):
            unpack(data, count)
