"""The wire's messages, between nodes and between a node and a directory, and their bytes.

A frame is a 4-byte big-endian length and that many bytes of msgpack: an array of the message's number and its fields.
After a `Run` frame come `length` raw bytes of the piece, which are no frame; nothing else stands outside frames.
This module knows the form of each message and nothing of what it leads to. `decode` raises ProtocolError for anything
that is not exactly such a message; the connection's owner then drops the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, get_type_hints

import msgpack

from p2pd.swarm.pieces import BLOB_SIZE_MAX, PIECE_SIZE_MAX, PIECES_MAX

PROTOCOL_VERSION: Final = 1
FRAME_HEADER = struct.Struct(">I")
FRAME_SIZE_MAX: Final = 256 * 1024  # bytes; the largest message is an Answer or a Holdings list, far below it
RUN_SIZE_MAX: Final = 256 * 1024  # bytes of piece behind one Run frame: other frames pass between runs
TEXT_SIZE_MAX: Final = 256  # characters of a name, a zone, a host, a reason
LINKS_MAX: Final = 64  # links in one voucher: 2 KiB of states
PEERS_MAX: Final = 64  # nodes in one answer
NEWS_MAX: Final = 1024  # pieces in one batch of news
BLOBS_OF_NEWS_MAX: Final = 16  # blobs in one message of news
HOLDINGS_MAX: Final = 1024  # digests in one list of holdings


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow. The message names the field."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A node as others are told of it. `node_id` is the first 20 bytes of SHA-256 of its public key."""

    node_id: bytes
    name: str
    zone: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message each way. `host` may be empty: the address that the connection comes from."""

    version: int
    key: bytes
    name: str
    zone: str
    host: str
    port: int
    fleet: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Something to say when there is nothing to say: a connection that is silent for long is taken for dead."""


@dataclass(frozen=True, slots=True)
class Join:
    """I take part in this blob, and have these pieces. `wanting`: I still want pieces. `term`: of my lease, or 0."""

    digest: bytes
    size: int
    pieces: bytes
    wanting: bool
    term: int
    load: int
    rate: int


@dataclass(frozen=True, slots=True)
class Leave:
    """I do not take part in this blob any more."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Have:
    """News: pieces that arrived here and hold, as far as you may lack them, and how many I have.

    `load`: hundredths of my line that are taken; `rate`: bytes/s of my line.
    """

    digest: bytes
    pieces: tuple[int, ...]
    count: int
    load: int
    rate: int
    term: int


@dataclass(frozen=True, slots=True)
class Request:
    """Send me this piece. `linked`: I know its link already, so no voucher is needed. `rid` is the asker's own.

    `sources`: how many nodes I am asking for pieces now, you included: what each is to have of my line.
    """

    rid: int
    digest: bytes
    index: int
    linked: bool
    sources: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """I do not need what I asked for any more; the rest of it may still arrive."""

    rid: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """What you asked for does not come. `reason`: busy, gone (claimed by another), absent, stopped."""

    rid: int
    reason: str
    load: int


@dataclass(frozen=True, slots=True)
class Vouch:
    """A voucher, as its signer made it: see `p2pd.swarm.voucher`. Comes before the first run that rests on it."""

    key: bytes
    upstream: str
    digest: bytes
    size: int
    term: int
    first: int
    states: tuple[bytes, ...]
    signature: bytes

    @property
    def links(self) -> range:
        """The links that it covers."""
        return range(self.first, self.first + len(self.states) - 1)


@dataclass(frozen=True, slots=True)
class Run:
    """`length` bytes of the piece that `rid` asked for follow, from `offset` within the piece."""

    rid: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class GetLinks:
    """Send me vouchers that cover these links, as far as you have them."""

    digest: bytes
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Retract:
    """The signer's own word that all its vouchers for this blob up to `term` are void: the chain missed the digest."""

    key: bytes
    digest: bytes
    term: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Announce:
    """To a directory: what I have and want of this blob.

    `size` is -1 while unknown. `primary`: I look to you for the lease; else you are my stand-by. `can_pull`: my own
    upstream is configured and not held back. `waiting`: a client waits for it here. `stuck`: it is wanted, and no piece
    has come for a while. `progress` counts links and pieces that left; only the holder's counts. `heard`: the highest
    term of this blob's lease that a directory told me of, 0 for none.
    `need`: how many more neighbours I could use.
    """

    digest: bytes
    size: int
    kind: str
    upstream: str
    repository: str
    primary: bool
    wanting: bool
    waiting: bool
    stuck: bool
    can_pull: bool
    complete: bool
    term: int
    progress: int
    heard: int
    need: int


@dataclass(frozen=True, slots=True)
class Answer:
    """From a directory: neighbours, and who holds the lease. It comes unasked when the lease changes hands.

    `size` is what others said, or -1: a hint, never proof. `holder` is empty while nobody holds it. `fresh`: nobody
    held it before. `failure`: every node that wants the blob has failed to pull it; the last reason. `hold_s`: how long
    the registry asked everybody to wait.
    """

    digest: bytes
    size: int
    holder: bytes
    term: int
    fresh: bool
    failure: str
    hold_s: int
    peers: tuple[Contact, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """To a directory: I hand the lease back, or can't pull. `reason` as in `p2pd.swarm.directory.REASONS`."""

    digest: bytes
    term: int
    reason: str
    retry_s: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """To a directory: I neither have nor want this blob any more."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Holdings:
    """To a directory: blobs that I have whole and proven, most recently used first."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetTag:
    """What did this upstream last tell you of this tag? Answered by TagIs, or not at all."""

    upstream: str
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class TagIs:
    """A member's signed statement: at `time` (Unix seconds) the upstream itself said that the tag is this digest."""

    key: bytes
    upstream: str
    repository: str
    tag: str
    digest: bytes
    size: int
    media_type: str
    time: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Accuse:
    """A voucher that shows its signer's false link to everybody who knows the proven chain; nobody else's word in it.

    The fields are the voucher's own. Who has not proved the blob keeps it until then, or passes it over.
    """

    key: bytes
    upstream: str
    digest: bytes
    size: int
    term: int
    first: int
    states: tuple[bytes, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class News:
    """News of several blobs at once: one message costs both sides less than one for each."""

    haves: tuple[Have, ...]


Message = (
    Hello | Ping | Join | Leave | Have | Request | Cancel | Refuse | Vouch | Run | GetLinks | Retract
    | Announce | Answer | Release | Withdraw | Holdings | GetTag | TagIs | Accuse | News
)  # fmt: skip
_TYPES: tuple[Any, ...] = Message.__args__  # type: ignore[attr-defined]
# A message's number on the wire is its place in that list: a new kind goes to its end.
NUMBERS: dict[type, int] = {kind: number for number, kind in enumerate(_TYPES)}


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _octets(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is bytes and low <= len(value) <= high


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= TEXT_SIZE_MAX and value.isprintable()


def _list_of(check: Callable[[Any], bool], most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and len(value) <= most and all(map(check, value))


def _boolean(value: Any) -> bool:
    return value is True or value is False


_COUNT = _integer(0, 1 << 62)
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "version": _integer(0, 1 << 16),
    "key": _octets(32, 32),
    "signature": _octets(64, 64),
    "digest": _octets(32, 32),
    "node_id": _octets(20, 20),
    "holder": lambda value: type(value) is bytes and len(value) in (0, 20),
    "port": _integer(0, 65535),
    "size": _integer(-1, BLOB_SIZE_MAX),
    "index": _integer(0, PIECES_MAX - 1),
    "first": _integer(0, PIECES_MAX - 1),
    "count": _integer(1, LINKS_MAX),
    "Have.count": _integer(0, PIECES_MAX),
    "offset": _integer(0, PIECE_SIZE_MAX - 1),
    "length": _integer(1, RUN_SIZE_MAX),
    "term": _integer(0, 1 << 40),
    "heard": _integer(0, 1 << 40),
    "rid": _integer(0, 1 << 40),
    "need": _integer(0, PEERS_MAX),
    "sources": _integer(1, PEERS_MAX),
    "hold_s": _integer(0, 86400),
    "retry_s": _integer(0, 86400),
    "states": _list_of(_octets(32, 32), LINKS_MAX + 1),
    "digests": _list_of(_octets(32, 32), HOLDINGS_MAX),
}
_PIECES_AS_LIST = _list_of(_integer(0, PIECES_MAX - 1), NEWS_MAX)
_PIECES_AS_SET = _octets(1, (PIECES_MAX + 7) // 8)


def _field_checks(kind: type) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    hints = get_type_hints(kind)
    checks = []
    for field in fields(kind):
        hint = hints[field.name]
        if field.name == "pieces":
            check = _PIECES_AS_SET if hint is bytes else _PIECES_AS_LIST
        elif field.name == "peers":
            check = _list_of(lambda value: type(value) is list, PEERS_MAX)
        elif field.name == "haves":
            check = _list_of(lambda value: type(value) is list, BLOBS_OF_NEWS_MAX)
        elif hint is bool:
            check = _boolean
        elif hint is str:
            check = _text
        else:
            check = _CHECKS.get(f"{kind.__name__}.{field.name}") or _CHECKS.get(field.name, _COUNT)
        checks.append((field.name, check))
    return tuple(checks)


_FORMS = {NUMBERS[kind]: (kind, _field_checks(kind)) for kind in _TYPES}
_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in (*_TYPES, Contact, Have)}
_CONTACT_PARTS, _HAVE_PARTS = attrgetter(*_NAMES[Contact]), attrgetter(*_NAMES[Have])
_CONTACT_CHECKS = _field_checks(Contact)
_HAVE_CHECKS = _field_checks(Have)


def encode(message: Message) -> bytes:
    """One frame, length included."""
    kind = type(message)
    values: list[Any] = [NUMBERS[kind]]
    for name in _NAMES[kind]:
        value = getattr(message, name)
        if kind is Answer and name == "peers":
            value = [*map(_CONTACT_PARTS, value)]
        elif kind is News:
            value = [*map(_HAVE_PARTS, value)]
        values.append(value)
    body = msgpack.packb(values, use_bin_type=True)
    return FRAME_HEADER.pack(len(body)) + body


def decode(body: bytes | bytearray | memoryview) -> Message:
    """The message in one frame's bytes (without the length). ProtocolError if it is none."""
    try:
        values = msgpack.unpackb(
            body, raw=False, strict_map_key=True, max_array_len=NEWS_MAX + 1, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"a frame that is not msgpack: {type(error).__name__}") from None
    if type(values) is not list or not values or type(values[0]) is not int or values[0] not in _FORMS:
        raise ProtocolError("a frame of no known kind")
    kind, checks = _FORMS[values[0]]
    return kind(*_checked(kind, checks, values[1:]))


def _checked(kind: type, checks: tuple[tuple[str, Callable[[Any], bool]], ...], values: list[Any]) -> list[Any]:
    if len(values) != len(checks):
        raise ProtocolError(f"{kind.__name__} with {len(values)} fields instead of {len(checks)}")
    for place, (name, check) in enumerate(checks):
        if not check(values[place]):
            raise ProtocolError(f"{kind.__name__} with a bad {name}")
        if type(values[place]) is list:
            try:
                if name == "peers":
                    values[place] = [Contact(*_checked(Contact, _CONTACT_CHECKS, entry)) for entry in values[place]]
                elif name == "haves":
                    values[place] = [Have(*_checked(Have, _HAVE_CHECKS, entry)) for entry in values[place]]
            except ProtocolError as error:
                raise ProtocolError(f"{kind.__name__} with a bad {name}: {error}") from None
            values[place] = tuple(values[place])
    return values
