"""The wire: every message comes back as it went; no bytes lead to anything but a message or ProtocolError."""

from __future__ import annotations

import string
from dataclasses import fields, replace
from typing import get_type_hints

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pd.swarm import messages as m
from p2pd.swarm.messages import FRAME_HEADER, FRAME_SIZE_MAX, Contact, Message, ProtocolError, decode, encode
from p2pd.swarm.pieces import BLOB_SIZE_MAX, PIECE_SIZE_MAX, PIECES_MAX

KINDS: tuple[type, ...] = Message.__args__  # type: ignore[attr-defined]
TEXT = st.text(string.ascii_letters + string.digits + " /:._-é漢", max_size=m.TEXT_SIZE_MAX)
COUNT = st.integers(0, 1 << 62)

# field -> (low, high) of a number, or of the length of octets and lists
NUMBERS = {
    "version": (0, 1 << 16),
    "port": (0, 65535),
    "size": (-1, BLOB_SIZE_MAX),
    "index": (0, PIECES_MAX - 1),
    "first": (0, PIECES_MAX - 1),
    "count": (1, m.LINKS_MAX),
    "Have.count": (0, PIECES_MAX),
    "offset": (0, PIECE_SIZE_MAX - 1),
    "length": (1, m.RUN_SIZE_MAX),
    "term": (0, 1 << 40),
    "heard": (0, 1 << 40),
    "rid": (0, 1 << 40),
    "need": (0, m.PEERS_MAX),
    "sources": (1, m.PEERS_MAX),
    "hold_s": (0, 86400),
    "retry_s": (0, 86400),
    "load": (0, 1 << 62),
    "rate": (0, 1 << 62),
    "progress": (0, 1 << 62),
    "time": (0, 1 << 62),
}
OCTETS = {"key": (32, 32), "signature": (64, 64), "digest": (32, 32), "node_id": (20, 20)}
LISTS = {"states": m.LINKS_MAX + 1, "digests": m.HOLDINGS_MAX, "peers": m.PEERS_MAX, "haves": m.BLOBS_OF_NEWS_MAX}


def bounds(kind: type, name: str) -> tuple[int, int]:
    return NUMBERS.get(f"{kind.__name__}.{name}") or NUMBERS[name]


def octets(low: int, high: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=low, max_size=high)


def field_strategy(kind: type, name: str, hint: object) -> st.SearchStrategy:
    if name == "pieces":
        if hint is bytes:
            return octets(1, 40)
        return st.lists(st.integers(0, PIECES_MAX - 1), max_size=12).map(tuple)
    if name == "haves":
        return st.lists(message(m.Have), max_size=3).map(tuple)
    if name == "peers":
        return st.lists(message(Contact), max_size=3).map(tuple)
    if name in ("states", "digests"):
        return st.lists(octets(32, 32), max_size=4).map(tuple)
    if name == "holder":
        return st.just(b"") | octets(20, 20)
    if name in OCTETS:
        return octets(*OCTETS[name])
    if hint is bool:
        return st.booleans()
    return TEXT if hint is str else st.integers(*bounds(kind, name))


def message(kind: type) -> st.SearchStrategy:
    hints = get_type_hints(kind)
    return st.builds(kind, **{f.name: field_strategy(kind, f.name, hints[f.name]) for f in fields(kind)})


def raw(kind: type) -> Message:
    """The smallest message of a kind."""
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        name, hint = field.name, hints[field.name]
        if name == "pieces":
            values[name] = b"\0" if hint is bytes else ()
        elif name in OCTETS:
            values[name] = bytes(OCTETS[name][0])
        elif name in NUMBERS:
            values[name] = bounds(kind, name)[0]
        else:
            values[name] = {bool: False, str: "", bytes: b""}.get(hint, ())
    return kind(**values)


def body(values: object) -> bytes:
    return msgpack.packb(values, use_bin_type=True)


def values_of(sent: Message) -> list:
    return msgpack.unpackb(encode(sent)[4:])


def with_field(kind: type, name: str, value: object) -> bytes:
    """The smallest message of a kind, with one field replaced on the wire."""
    values = values_of(raw(kind))
    values[1 + [f.name for f in fields(kind)].index(name)] = value
    return body(values)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_message_comes_back(kind: type, data: st.DataObject) -> None:
    sent = data.draw(message(kind))
    frame = encode(sent)
    (length,) = FRAME_HEADER.unpack(frame[:4])
    assert length == len(frame) - 4 <= FRAME_SIZE_MAX
    for container in (bytes, bytearray, memoryview):
        came = decode(container(frame[4:]))
        assert came == sent
        assert hash(came) == hash(sent)  # tuples all the way: a message can be kept in a set


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        came = decode(data)
    except ProtocolError:
        return
    assert type(came) in KINDS


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.binary(max_size=40) | TEXT,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.integers(-1, 21), st.lists(anything, max_size=16))
def test_any_values_are_a_message_or_a_protocol_error(number: int, values: list) -> None:
    try:
        came = decode(body([number, *values]))
    except ProtocolError:
        return
    assert encode(came)[4:] == body([number, *values])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS).flatmap(message), st.data())
def test_a_flipped_byte_is_a_message_or_a_protocol_error(sent: Message, data: st.DataObject) -> None:
    frame = bytearray(encode(sent)[4:])
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert type(decode(frame)) in KINDS
    except ProtocolError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS).flatmap(message), anything)
@example(m.News(()), [[]])
def test_one_wrong_field_is_named(sent: Message, value: object) -> None:
    values = values_of(sent)
    for place, field in enumerate(fields(type(sent)), 1):
        changed = list(values)
        changed[place] = value
        try:
            decode(body(changed))
        except ProtocolError as error:
            assert type(sent).__name__ in str(error) or "msgpack" in str(error)
            assert field.name in str(error) or "msgpack" in str(error)


def numbered() -> list[tuple[type, str]]:
    return [(k, f.name) for k in (*KINDS, Contact) for f in fields(k) if f.name in NUMBERS]


@pytest.mark.parametrize(("kind", "name"), numbered(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_the_bounds_of_every_number(kind: type, name: str) -> None:
    low, high = bounds(kind, name)
    contact = [b"n" * 20, "", "", "", 0]

    def carried(value: object) -> bytes:
        if kind is not Contact:
            return with_field(kind, name, value)
        entry = list(contact)
        entry[4] = value
        return with_field(m.Answer, "peers", [entry])

    for value in (low, high):
        decode(carried(value))
    for value in (low - 1, high + 1, True, float(low), str(low), None, [low]):
        with pytest.raises(ProtocolError, match=name):
            decode(carried(value))


def sized() -> list[tuple[type, str]]:
    return [(k, f.name) for k in KINDS for f in fields(k) if f.name in OCTETS]


@pytest.mark.parametrize(("kind", "name"), sized(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_the_length_of_every_octet_string(kind: type, name: str) -> None:
    length = OCTETS[name][0]
    for value in (b"", bytes(length - 1), bytes(length + 1), "x" * length, bytearray(length).decode()):
        with pytest.raises(ProtocolError, match=name):
            decode(with_field(kind, name, value))


@pytest.mark.parametrize("holder", [bytes(1), bytes(19), bytes(21), "", None])
def test_a_holder_is_a_node_or_nobody(holder: object) -> None:
    with pytest.raises(ProtocolError, match="holder"):
        decode(with_field(m.Answer, "holder", holder))


def texts() -> list[tuple[type, str]]:
    return [(k, f.name) for k in KINDS for f in fields(k) if get_type_hints(k)[f.name] is str]


@pytest.mark.parametrize(("kind", "name"), texts(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_the_bounds_of_every_text(kind: type, name: str) -> None:
    decode(with_field(kind, name, "é" * m.TEXT_SIZE_MAX))
    for value in ("x" * (m.TEXT_SIZE_MAX + 1), "two\nlines", "\x1b[31m", "nul\0", b"bytes", 7, None):
        with pytest.raises(ProtocolError, match=name):
            decode(with_field(kind, name, value))


def booleans() -> list[tuple[type, str]]:
    return [(k, f.name) for k in KINDS for f in fields(k) if get_type_hints(k)[f.name] is bool]


@pytest.mark.parametrize(("kind", "name"), booleans(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_boolean_is_no_number(kind: type, name: str) -> None:
    for value in (0, 1, None, "true"):
        with pytest.raises(ProtocolError, match=name):
            decode(with_field(kind, name, value))


@pytest.mark.parametrize(
    ("kind", "name", "entry", "most"),
    [
        (m.Vouch, "states", bytes(32), m.LINKS_MAX + 1),
        (m.Holdings, "digests", bytes(32), m.HOLDINGS_MAX),
        (m.Have, "pieces", 7, m.NEWS_MAX),
        (m.Answer, "peers", [bytes(20), "n", "z", "h", 1], m.PEERS_MAX),
    ],
)
def test_the_bounds_of_every_list(kind: type, name: str, entry: object, most: int) -> None:
    assert len(getattr(decode(with_field(kind, name, [entry] * most)), name)) == most
    assert 4 + len(with_field(kind, name, [entry] * most)) <= FRAME_SIZE_MAX
    for value in ([entry] * (most + 1), [None], [entry, []], {}, b"", None):
        with pytest.raises(ProtocolError):
            decode(with_field(kind, name, value))


@pytest.mark.parametrize("pieces", [b"", bytes(PIECES_MAX // 8 + 1), [1], "x"])
def test_the_bounds_of_a_set(pieces: object) -> None:
    with pytest.raises(ProtocolError, match="pieces"):
        decode(with_field(m.Join, "pieces", pieces))


@pytest.mark.parametrize("index", [-1, PIECES_MAX, True, 1.0])
def test_the_bounds_of_news(index: object) -> None:
    with pytest.raises(ProtocolError, match="pieces"):
        decode(with_field(m.Have, "pieces", [0, index]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # never used by msgpack
        body([]),
        body(7),
        body({}),
        body({0: 1}),
        body([99]),
        body([-1]),
        body([True]),
        body(["Ping"]),
        body([1.0]),
        body([1, 0]),  # a Ping with a field
        body([3]),  # a Leave without one
        body([1]) + b"\0",  # something behind
        body([4, bytes(32), list(range(2000)), 0, 0, 0]),
        b"\x91" * 5000,  # nested deeper than anything needs
        b"\xdd\xff\xff\xff\xff",  # an array that says it has 4 billion members
        b"\xc6\xff\xff\xff\xff",  # octets that say they have 4 GB
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        msgpack.packb([1, msgpack.ExtType(5, b"x")]),
        msgpack.packb([1, msgpack.Timestamp(5)]),
        b"\x92\x03\xa2\xff\xfe",  # text that is not UTF-8
        b"\x92\x03\xa3\xed\xa0\x80",  # a lone surrogate
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_the_numbers_on_the_wire() -> None:
    """Fixed by the protocol's version."""
    names = """Hello Ping Join Leave Have Request Cancel Refuse Vouch Run GetLinks Retract
        Announce Answer Release Withdraw Holdings GetTag TagIs Accuse News"""
    assert {kind.__name__: number for kind, number in m.NUMBERS.items()} == {n: i for i, n in enumerate(names.split())}


def test_a_frame_as_bytes() -> None:
    assert encode(m.Cancel(5)) == b"\0\0\0\x03\x92\x06\x05"
    assert decode(b"\x92\x06\x05") == m.Cancel(5)


def test_messages_are_frozen() -> None:
    with pytest.raises(AttributeError):
        m.Cancel(5).rid = 6  # type: ignore[misc]
    assert replace(m.Cancel(5), rid=6) == m.Cancel(6)
