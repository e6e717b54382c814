"""All connections of the node: listening, dialling, trackers, and the commands that concern them.

Turns what connections tell into the core's events, and the core's commands into frames and bytes. Errors of the other
side end one connection; everything else is our own bug and passes through.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from typing import Protocol

import trio

from p2pd.peers.avoided import AVOIDED_S, Avoided
from p2pd.peers.callers import Callers
from p2pd.peers.connection import Connection, Outgoing, Source
from p2pd.peers.frames import FrameReader
from p2pd.peers.handshake import Doorstep, shake_hands
from p2pd.peers.incoming import Incoming, Intake, Sink
from p2pd.peers.refusal import Refusals, Refused
from p2pd.peers.tls import Contexts, answer, call
from p2pd.peers.transport import ConnectionLost, Transport
from p2pd.ratelimit import RateLimit
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import Cancel, Contact, GetTag, Hello, Message, ProtocolError, Refuse, TagIs
from p2pd.swarm.pieces import PIECE_SIZE_MAX

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 5.0
DIALS_MAX = 64  # at a time: who is not there holds one for as long as `DIAL_TIMEOUT_S`
GREETINGS_MAX = 12  # handshakes at a time, of those that answered: each costs this side a signature
DIALS_WAITING_MAX = 256  # behind them; more contacts are passed over, since directories name them again
HANDSHAKES_MAX = 64  # strangers that have not said hello yet
TRACKER_RETRY_S = (0.25, 5.0)  # the first pause after a tracker is lost, and the longest
TRACKER_STEADY_S = 10.0  # a connection that lasted so long was a good one: the pauses begin anew
ACCEPT_PAUSE_S = 0.1  # when the process has no descriptor left


class Post(Protocol):
    def __call__(self, event: ev.Event) -> None: ...


class Files(Protocol):
    """Where pieces are read from and written to."""

    def sink(self, digest: bytes) -> tuple[Sink, int, int] | None:
        """The file that a blob arrives in, its size and its piece size in bytes; None if it can't arrive now."""
        ...

    def source(self, digest: bytes) -> tuple[Source, int, int] | None:
        """The blob's file, open for sending, its size and its piece size."""
        ...

    def sink_failed(self, digest: bytes, error: Exception) -> None:
        """A piece could not be stored."""
        ...

    sink_errors: tuple[type[Exception], ...]


class Meter(Protocol):
    """Who counts bytes."""

    def from_peer(self, digest: bytes, count: int, zone: str) -> None: ...
    def to_peer(self, count: int, zone: str) -> None: ...


class Peer:
    """A connection's handler: it knows its number and whom it speaks for."""

    def __init__(self, network: Network, number: int, contact: Contact) -> None:
        self.network = network
        self.number = number
        self.contact = contact
        self.digests: dict[int, bytes] = {}  # rid -> what was asked for
        self.connection: Connection | None = None

    def on_message(self, message: Message) -> None:
        if isinstance(message, (GetTag, TagIs)):
            self.network.on_tag_message(self.number, message)
        else:
            self.network.post(ev.Received(self.number, message))

    def on_piece_started(self, rid: int) -> None:
        self.network.post(ev.PieceStarted(self.number, rid))

    def on_piece(self, rid: int, held: bool) -> None:
        self.digests.pop(rid, None)
        self.network.post(ev.PieceChecked(self.number, rid, held))

    def on_overtaken(self, rid: int) -> None:
        """To the core it is as if the peer had refused, for the moment."""
        self.digests.pop(rid, None)
        self.network.send(self.number, Cancel(rid))
        self.network.post(ev.Received(self.number, Refuse(rid, "busy", 0)))

    def on_sink_failed(self, rid: int, error: Exception) -> None:
        digest = self.digests.pop(rid, b"")
        self.network.files.sink_failed(digest, error)

    def on_received(self, rid: int, count: int) -> None:
        self.network.meter.from_peer(self.digests.get(rid, b""), count, self.contact.zone)

    def on_sent(self, outgoing: Outgoing, whole: bool) -> None:
        self.network.meter.to_peer(outgoing.sent, self.contact.zone)
        self.network.post(ev.UploadDone(self.number, outgoing.rid, outgoing.sent, whole))

    def link_of(self, rid: int) -> tuple[bytes, bytes] | None:
        return self.network.link(self.number, rid)


class Network:
    """`hello`: what this node says first. `contexts`: its identity of now; None where it has none, and all is plain.
    `on_refused`: counts by reason. `on_tag_message`: takes the two messages that are not the core's.
    """

    def __init__(
        self,
        post: Post,
        link: Callable[[int, int], tuple[bytes, bytes] | None],
        files: Files,
        meter: Meter,
        hello: Hello,
        nursery: trio.Nursery,
        *,
        contexts: Callable[[], Contexts | None] = lambda: None,
        on_refused: Callable[[str], None] = lambda reason: None,
        upload_limit: float | None = None,
        download_limit: float | None = None,
    ) -> None:
        self.post = post
        self.link = link
        self.files = files
        self.meter = meter
        self.hello = hello
        self.on_tag_message: Callable[[int, Message], None] = lambda peer, message: None
        self._nursery = nursery
        self._contexts = contexts
        self._refusals = Refusals(log, on_refused)
        self._up, self._down = RateLimit(upload_limit), RateLimit(download_limit)
        self._intake = Intake()
        self._dials = trio.CapacityLimiter(DIALS_MAX)
        self._greetings = trio.CapacityLimiter(GREETINGS_MAX)
        self._peers: dict[int, Peer] = {}
        self._next_number = 1
        self._dialling: set[bytes] = set()
        self._avoided: Avoided[bytes] = Avoided()  # nodes, by what they did
        self._avoided_places: Avoided[tuple[str, int]] = Avoided()  # by what answers there, whoever it may be
        self._doorstep = Doorstep(HANDSHAKES_MAX)
        self._callers = Callers()
        self.trackers: dict[str, str] = {}  # address -> state, for the status

    # -- commands ---------------------------------------------------------------------------------------------------

    def commands(self) -> dict[type, Callable]:
        return {
            cmd.Send: lambda c: self.send(c.peer, c.message),
            cmd.Connect: self._connect,
            cmd.Close: self._close,
            cmd.Fetch: self._fetch,
            cmd.Abandon: self._abandon,
            cmd.Upload: self._upload,
            cmd.StopUpload: self._stop_upload,
        }

    def send(self, number: int, message: Message) -> None:
        peer = self._peers.get(number)
        if peer and peer.connection:
            peer.connection.send(message)

    def send_to_all(self, message: Message) -> None:
        """To every node that is connected; trackers pass over what is not for them."""
        for number in list(self._peers):
            self.send(number, message)

    def close_all(self, why: str) -> None:
        for peer in list(self._peers.values()):
            if peer.connection:
                peer.connection.close(why)

    def rates(self, number: int) -> tuple[int, int]:
        """Bytes in and out of a connection so far."""
        peer = self._peers.get(number)
        return (peer.connection.bytes_in, peer.connection.bytes_out) if peer and peer.connection else (0, 0)

    def _connect(self, c: cmd.Connect) -> None:
        if c.contact.node_id in self._avoided or (c.contact.host, c.contact.port) in self._avoided_places:
            self.post(ev.ConnectFailed(c.contact.node_id))
        elif c.contact.node_id not in self._dialling and len(self._dialling) < DIALS_MAX + DIALS_WAITING_MAX:
            self._dialling.add(c.contact.node_id)
            self._nursery.start_soon(self._dial, c.contact)

    def _close(self, c: cmd.Close) -> None:
        peer = self._peers.get(c.peer)
        if peer and peer.connection:
            peer.connection.close(c.why)

    def _fetch(self, c: cmd.Fetch) -> None:
        peer = self._peers.get(c.peer)
        if peer is None or peer.connection is None:
            return
        file = self.files.sink(c.digest)
        if file is None:  # the blob's failure is on its way to the core, the request on its way to the peer
            peer.connection.abandon(c.rid, PIECE_SIZE_MAX)
            return
        sink, size, piece_size = file
        offset = c.index * piece_size
        length = min(piece_size, size - offset)
        if length == 0:  # no run will come of an empty blob, and none is needed
            self.post(ev.PieceChecked(c.peer, c.rid, c.digest == hashlib.sha256().digest()))
            return
        peer.digests[c.rid] = c.digest
        last = offset + length == size
        peer.connection.expect(Incoming(c.rid, (c.digest, c.index), sink, offset, length, last, self._intake))

    def _abandon(self, c: cmd.Abandon) -> None:
        peer = self._peers.get(c.peer)
        if peer and peer.connection:
            peer.digests.pop(c.rid, None)
            peer.connection.abandon(c.rid)

    def _upload(self, c: cmd.Upload) -> None:
        peer = self._peers.get(c.peer)
        if peer is None or peer.connection is None:
            return
        file = self._source(c.digest)
        if file is None:
            self.post(ev.UploadDone(c.peer, c.rid, 0, False))
            return
        source, size, piece_size = file
        offset = c.index * piece_size
        for voucher in c.vouchers:
            peer.connection.send(voucher)
        peer.connection.upload(Outgoing(c.rid, source, offset, min(piece_size, size - offset)))

    def _source(self, digest: bytes) -> tuple[Source, int, int] | None:
        """The blob's file, really open: what fails later than here could only be told by a lost connection."""
        file = self.files.source(digest)
        if file is None:
            return None
        try:
            file[0].fileno()
        except self.files.sink_errors as error:
            log.error("sha256:%s can't be sent: %s", digest.hex(), error)
            file[0].close()
            return None
        return file

    def _stop_upload(self, c: cmd.StopUpload) -> None:
        peer = self._peers.get(c.peer)
        if peer and peer.connection:
            peer.connection.stop_upload(c.rid)

    # -- connections ------------------------------------------------------------------------------------------------

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Accept peers, for ever."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener)

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                log.warning("can't accept a peer: %s", error.strerror)
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            self._nursery.start_soon(self._inbound, stream.socket)

    async def _inbound(self, sock: trio.socket.SocketType) -> None:
        host = "a stranger"
        try:
            transport = answer(sock, self._contexts())
            host = transport.remote_host
            if not self._callers.may_call(host, trio.current_time()):
                transport.close()
                raise Refused("too-often", "calls too often")
            frames = FrameReader(transport)
            mine = self.hello
            key, contact = await self._doorstep.meet(transport, frames, mine, self._avoided)
            self._check_still(mine, transport)
        except (ConnectionLost, ProtocolError) as error:
            self._refusals.add(host, error)
            return
        await self._converse(transport, frames, contact, key, outbound=False)

    async def _dial(self, contact: Contact) -> None:
        try:
            async with self._dials:
                transport = await call(contact.host, contact.port, DIAL_TIMEOUT_S, self._contexts(), by_name=False)
                frames, found, key = await self._greet_in_turn(transport)
            if found.node_id != contact.node_id:
                transport.close()
                raise ConnectionLost("another node answers at that address")
        except (ConnectionLost, ProtocolError) as error:
            if isinstance(error, (Refused, ProtocolError)):
                self._refusals.add(f"{contact.name} at {contact.host}:{contact.port}", error)
                self._avoided_places.add((contact.host, contact.port))
            log.debug("peer %s at %s:%d: %s", contact.name, contact.host, contact.port, error)
            self._dialling.discard(contact.node_id)
            self.post(ev.ConnectFailed(contact.node_id))
            return
        self._dialling.discard(contact.node_id)
        await self._converse(transport, frames, found, key, outbound=True)

    async def _greet_in_turn(self, transport: Transport) -> tuple[FrameReader, Contact, bytes]:
        """As `_greet`, when few others do."""
        try:
            await self._greetings.acquire()
        except trio.Cancelled:
            transport.close()
            raise
        try:
            return await self._greet(transport)
        finally:
            self._greetings.release()

    async def _greet(self, transport: Transport) -> tuple[FrameReader, Contact, bytes]:
        """Shake hands with whom this node has called. ConnectionLost, ProtocolError."""
        frames = FrameReader(transport)
        mine = self.hello
        key, contact = await shake_hands(transport, frames, mine, self._avoided)
        self._check_still(mine, transport)
        return frames, contact, key

    def _check_still(self, mine: Hello, transport: Transport) -> None:
        """The other side knows this node by the key that it has now. ConnectionLost."""
        if mine.key != self.hello.key:
            transport.close()
            raise ConnectionLost("this node has got another key meanwhile")

    async def keep_tracker(self, place: int, host: str, port: int) -> None:
        """Stay connected with one tracker, for ever."""
        address = f"{host}:{port}"
        pause = TRACKER_RETRY_S[0]
        while True:
            try:
                transport = await call(host, port, DIAL_TIMEOUT_S, self._contexts(), by_name=True)
                frames, contact, key = await self._greet(transport)
            except (ConnectionLost, ProtocolError) as error:
                if isinstance(error, (Refused, ProtocolError)):
                    self._refusals.count(error)
                if self.trackers.get(address) != str(error):
                    log.warning("tracker %s: %s", address, error)
                self.trackers[address] = str(error)
            else:
                log.info("tracker %s: connected", address)
                self.trackers[address] = "connected"
                connected_at = trio.current_time()
                why = await self._converse(transport, frames, contact, key, outbound=True, tracker=place)
                self.trackers[address] = why
                log.warning("tracker %s: %s", address, why)
                if trio.current_time() - connected_at >= TRACKER_STEADY_S:
                    pause = TRACKER_RETRY_S[0]
            await trio.sleep(pause * random.uniform(0.5, 1.5))  # else a fleet comes back in the same moment, again
            pause = min(2 * pause, TRACKER_RETRY_S[1])

    async def _converse(
        self,
        transport: Transport,
        frames: FrameReader,
        contact: Contact,
        key: bytes,
        *,
        outbound: bool,
        tracker: int = -1,
    ) -> str:
        number, self._next_number = self._next_number, self._next_number + 1
        peer = Peer(self, number, contact)
        connection = Connection(
            transport,
            frames,
            peer,
            intake=self._intake,
            up=self._up,
            down=self._down,
            sink_errors=self.files.sink_errors,
        )
        peer.connection = connection
        self._peers[number] = peer
        self.post(ev.PeerUp(number, contact, key, outbound, tracker))
        why = "cancelled"
        try:
            why = await connection.run()
        finally:
            del self._peers[number]
            if connection.has_broken_protocol:
                self._shun(contact, why)
            elif tracker < 0:
                log.debug("peer %s (%s): %s", contact.name, contact.host, why)
            self.post(ev.PeerDown(number, why))
        return why

    def _shun(self, contact: Contact, why: str) -> None:
        """It broke the protocol, so it is broken, or means harm: no word with it for a while."""
        who = f"{contact.name} ({contact.node_id.hex()[:16]}, {contact.host}:{contact.port})"
        log.warning("peer %s broke the protocol, and is avoided for %g s: %s", who, AVOIDED_S, why)
        self._avoided.add(contact.node_id)
