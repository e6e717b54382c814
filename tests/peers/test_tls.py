"""TLS on a socket: what goes in comes out, whoever waits for whom; who is not one of us is refused with a reason."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from p2pd.fleet import Identity
from p2pd.peers import tls
from p2pd.peers.avoided import Avoided
from p2pd.peers.frames import FrameReader
from p2pd.peers.handshake import shake_hands
from p2pd.peers.refusal import Refused
from p2pd.peers.tls import TlsTransport, answer
from p2pd.peers.transport import ConnectionLost, PlainTransport, Transport
from p2pd.swarm.messages import ProtocolError, encode
from tests.fleet.certificates import Authority, Member
from tests.peers.fakes import blob_bytes, hello, sockets, tls_ends

CA = Authority.make("the fleet's")
OTHER = Authority.make("another fleet's")
ONE, TWO = CA.member("one"), CA.member("two")


@pytest.fixture(scope="module")
def identities() -> dict[str, Identity]:
    with tempfile.TemporaryDirectory() as directory:
        return {member: m.identity(Path(directory) / member) for member, m in (("one", ONE), ("two", TWO))}


async def receive(transport: Transport, count: int, step: int = 1 << 20, pause: float = 0.0) -> bytes:
    data = bytearray()
    buffer = memoryview(bytearray(step))
    while len(data) < count:
        got = await transport.receive_into(buffer[: min(step, count - len(data))])
        data += buffer[:got]
        if pause:
            await trio.sleep(pause)
    return bytes(data)


async def test_both_know_the_others_key(identities: dict[str, Identity]) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    assert (accepted.peer_key, called.peer_key) == (identities["two"].key.public, identities["one"].key.public)
    assert accepted._tls.version() == "TLSv1.3"
    accepted.close()
    called.close()


@pytest.mark.parametrize("step", [1, 1000, 16_384, 1 << 20])
async def test_what_goes_in_comes_out_both_ways_at_once(identities: dict[str, Identity], step: int) -> None:
    """More than the sockets hold, so that both directions wait, each for its own event."""
    transports = await tls_ends(identities["one"], identities["two"])
    count = 20_000 if step == 1 else 6_000_000
    sent = [blob_bytes(count, 1), blob_bytes(count, 2)]
    came = {}

    async def take(place: int) -> None:
        came[place] = await receive(transports[place], count, step)

    async with trio.open_nursery() as nursery:
        for place in (0, 1):
            nursery.start_soon(transports[place].send_all, sent[place])
            nursery.start_soon(take, place)
    assert (came[0], came[1]) == (sent[1], sent[0])
    assert all(t.receiving_since is None and t.sending_since is None for t in transports)
    for transport in transports:
        transport.close()


async def test_a_file_goes_out_behind_its_header(identities: dict[str, Identity]) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    data = blob_bytes(3_000_001)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()

        async def send() -> None:
            await accepted.send_all(b"header", more=True)
            await accepted.send_file(file.fileno(), 1000, 2_999_000)
            await accepted.send_all(b"behind")
            with pytest.raises(ConnectionLost, match="the file to be sent ends at byte 3000001"):
                await accepted.send_file(file.fileno(), 2_999_999, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await receive(called, 6 + 2_999_000 + 6) == b"header" + data[1000:3_000_000] + b"behind"
    accepted.close()
    called.close()


async def test_a_small_read_takes_no_more_than_one_record(identities: dict[str, Identity]) -> None:
    """A reader of frames must not swallow the piece behind the frame: it would be copied once more."""
    accepted, called = await tls_ends(identities["one"], identities["two"])
    await accepted.send_all(b"frame")
    await accepted.send_all(b"piece")
    assert await receive(called, 5, 4096) == b"frame"
    assert await called.receive_into(memoryview(bytearray(100))) == 5
    accepted.close()
    called.close()


async def test_a_cancelled_receive_loses_nothing(identities: dict[str, Identity]) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    data = blob_bytes(400_000)
    came = bytearray()
    buffer = memoryview(bytearray(100_000))
    dice = random.Random(3)

    async def send() -> None:
        for start in range(0, len(data), 1000):
            await accepted.send_all(data[start : start + 1000])
            if dice.random() < 0.3:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while len(came) < len(data):
            with trio.move_on_after(dice.random() * 0.0005):
                count = await called.receive_into(buffer)
                came += buffer[:count]
    assert bytes(came) == data
    accepted.close()
    called.close()


async def test_a_long_transfer_lets_the_others_have_their_turn(identities: dict[str, Identity]) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    count = 8_000_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        async with trio.open_nursery() as both:
            both.start_soon(accepted.send_all, bytes(count))
            await receive(called, count)
        nursery.cancel_scope.cancel()
    assert turns >= count / tls.TURN_BYTES
    accepted.close()
    called.close()


async def test_tiny_records_do_not_keep_the_others_waiting(identities: dict[str, Identity]) -> None:
    """A byte a record, as no honest node sends them: a call takes a few of them at most."""
    accepted, called = await tls_ends(identities["one"], identities["two"])
    for _ in range(1000):
        accepted.send_now(b"x")
    count = await called.receive_into(memoryview(bytearray(1 << 20)))
    assert 1 <= count <= tls.RECORDS_MAX
    assert await receive(called, 1000 - count) == b"x" * (1000 - count)
    accepted.close()
    called.close()


async def test_a_goodbye_is_told_from_a_cut(identities: dict[str, Identity]) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    await accepted.send_all(b"last")
    accepted.close()
    assert await receive(called, 4) == b"last"
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="closed by the other side"):
            await called.receive_into(memoryview(bytearray(10)))
    called.close()

    accepted, called = await tls_ends(identities["one"], identities["two"])
    await accepted.send_all(b"last")
    accepted._sock.shutdown(socket.SHUT_RDWR)  # as a proxy in between would, to make the end look like one
    assert await receive(called, 4) == b"last"
    with pytest.raises(ConnectionLost, match="cut off"):
        await called.receive_into(memoryview(bytearray(10)))
    accepted.close()
    called.close()


async def test_garbage_in_mid_stream_is_an_end(identities: dict[str, Identity]) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    socket.socket.send(accepted._sock, b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ConnectionLost):
        await called.receive_into(memoryview(bytearray(10)))
    accepted.close()
    called.close()


async def test_who_reads_nothing_is_seen_to_take_nothing(identities: dict[str, Identity]) -> None:
    """The connection's watch rests on these: since when it waits, and what the other side's kernel has."""
    accepted, called = await tls_ends(identities["one"], identities["two"])
    with trio.move_on_after(0.2):
        await accepted.send_all(bytes(30_000_000))
    assert accepted.acknowledged() < 30_000_000
    accepted.close()
    called.close()


# -- who is refused ---------------------------------------------------------------------------------------------------


def outside(member: Member | None, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A caller's context that takes any server: it is the server's refusal that is looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    if member:
        with tempfile.TemporaryDirectory() as directory:
            files = member.write(Path(directory))
            context.load_cert_chain(files.certificate, files.key)
    return context


def speak(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def go(sock: socket.socket) -> None:
        with context.wrap_socket(sock) as secured:
            secured.recv(1)

    return go


def say(data: bytes) -> Callable[[socket.socket], None]:
    def go(sock: socket.socket) -> None:
        with sock:
            sock.sendall(data)
            sock.recv(1)

    return go


STRANGERS = {
    "plain frames": (say(encode(hello())), "plain-text", "does not speak TLS"),
    "http": (say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "plain-text", "does not speak TLS"),
    "noise": (say(b"\xff" * 300), "plain-text", "does not speak TLS"),
    "tls 1.2": (speak(outside(ONE, version=ssl.TLSVersion.TLSv1_2)), "tls-version", "no TLS 1.3"),
    "no certificate": (speak(outside(None)), "no-certificate", "shows no certificate"),
    "foreign": (speak(outside(OTHER.member())), "foreign-certificate", "no CA of this fleet"),
    "foreign by the same name": (
        speak(outside(Authority.make("the fleet's").member("one"))),
        "foreign-certificate",
        "no CA of this fleet",
    ),
    "signed by a member": (
        speak(outside(Authority(ONE.certificate, ONE.key).member("mine"))),
        "foreign-certificate",
        "no CA of this fleet",
    ),
    "expired": (speak(outside(CA.member(days=-0.01))), "expired-certificate", "has expired"),
    "early": (speak(outside(CA.member(starts_in=1))), "early-certificate", "not valid yet"),
    "ecdsa": (speak(outside(CA.member(kind="ecdsa"))), "bad-certificate", "not Ed25519"),
    "a web server's": (
        speak(outside(CA.member(usages=(tls.x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,)))),
        "bad-certificate",
        "purpose",
    ),
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_stranger_that_calls_is_refused_with_a_reason(identities: dict[str, Identity], stranger: str) -> None:
    call, reason, words = STRANGERS[stranger]
    ours, theirs = await sockets()
    other = socket.socket(fileno=theirs.detach())
    other.settimeout(10)

    def run() -> None:
        with other:
            try:
                call(other)
            except OSError:
                return

    transport = answer(ours, identities["one"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, run)
        with pytest.raises(Refused, match=words) as caught:
            mine = hello(ONE.key.public_key().public_bytes_raw())
            await shake_hands(transport, FrameReader(transport), mine, Avoided())
    assert caught.value.reason == reason


async def both(accepting: Transport, calling: Transport, keys: tuple[bytes, bytes]) -> list[Exception | None]:
    """How the handshake ends on each side."""
    found: list[Exception | None] = [None, None]

    async def shake(place: int, transport: Transport) -> None:
        try:
            await shake_hands(transport, FrameReader(transport), hello(keys[place]), Avoided())
        except (ConnectionLost, ProtocolError) as error:
            found[place] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, 0, accepting)
        nursery.start_soon(shake, 1, calling)
    accepting.close()
    calling.close()
    return found


async def test_who_is_refused_hears_why(identities: dict[str, Identity], tmp_path: Path) -> None:
    stranger = OTHER.member().identity(tmp_path, CA, OTHER)  # trusts us, and is not trusted
    ours, theirs = await sockets()
    one, two = (
        TlsTransport(ours, identities["one"].accepting, accepted=True),
        TlsTransport(theirs, stranger.calling, accepted=False),
    )
    here, there = await both(one, two, (identities["one"].key.public, stranger.key.public))
    assert isinstance(here, Refused)
    assert here.reason == "foreign-certificate"
    assert isinstance(there, Refused)
    assert (there.reason, str(there)) == ("refused-there", "refuses this side: unknown ca")


async def test_a_server_of_another_fleet_is_refused_by_its_caller(
    identities: dict[str, Identity], tmp_path: Path
) -> None:
    stranger = OTHER.member().identity(tmp_path, CA, OTHER)
    ours, theirs = await sockets()
    one, two = (
        TlsTransport(ours, stranger.accepting, accepted=True),
        TlsTransport(theirs, identities["one"].calling, accepted=False),
    )
    here, there = await both(one, two, (stranger.key.public, identities["one"].key.public))
    assert isinstance(there, Refused)
    assert there.reason == "foreign-certificate"
    assert isinstance(here, Refused)
    assert here.reason == "refused-there"


async def test_a_member_that_calls_one_without_tls_says_so_and_the_other_too(identities: dict[str, Identity]) -> None:
    ours, theirs = await sockets()
    plain, secure = PlainTransport(ours), TlsTransport(theirs, identities["one"].calling, accepted=False)
    here, there = await both(plain, secure, (b"k" * 32, identities["one"].key.public))
    assert isinstance(here, ProtocolError)
    assert "speaks TLS, and this side is insecure" in str(here)
    assert isinstance(there, Refused)
    assert there.reason == "plain-text"


@pytest.mark.parametrize(
    ("name", "reason"), [("127.0.0.1", None), ("tracker.example", "wrong-name"), ("::1", "wrong-name")]
)
async def test_a_tracker_must_have_the_name_that_it_is_called_by(
    identities: dict[str, Identity], name: str, reason: str | None
) -> None:
    ours, theirs = await sockets()
    one, two = (
        TlsTransport(ours, identities["one"].accepting, accepted=True),
        TlsTransport(theirs, identities["two"].calling_by_name, accepted=False, name=name),
    )
    _, there = await both(one, two, (identities["one"].key.public, identities["two"].key.public))
    assert (there.reason if isinstance(there, Refused) else there) == reason


async def test_the_first_message_must_name_the_certificates_key(identities: dict[str, Identity]) -> None:
    ours, theirs = await sockets()
    one, two = (
        TlsTransport(ours, identities["one"].accepting, accepted=True),
        TlsTransport(theirs, identities["two"].calling, accepted=False),
    )
    here, there = await both(one, two, (identities["one"].key.public, b"z" * 32))
    assert isinstance(here, ProtocolError)
    assert "names another key than its certificate's" in str(here)
    assert there is None or isinstance(there, ConnectionLost)


async def test_a_certificate_that_ends_meanwhile_ends_the_connection(
    identities: dict[str, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted, called = await tls_ends(identities["one"], identities["two"])
    accepted.check()
    monkeypatch.setattr(tls.time, "time", lambda: TWO.certificate.not_valid_after_utc.timestamp())
    with pytest.raises(ConnectionLost, match="its certificate has ended"):
        accepted.check()
    accepted.close()
    called.close()


# -- another implementation's moods -----------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
async def test_changes_of_keys_in_mid_stream(identities: dict[str, Identity], tmp_path: Path) -> None:
    """openssl s_client asks for new keys both ways ("K") while a lot is on its way to it."""
    files = TWO.write(tmp_path)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"]
    command += ["-CAfile", files.ca, "-cert", files.certificate, "-key", files.key]
    data = os.urandom(50_000).hex().encode()
    told, said = tmp_path / "told", tmp_path / "said"
    with told.open("wb") as out, said.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=errors)  # noqa: ASYNC220
    assert process.stdin
    try:
        transport = TlsTransport((await listener.accept()).socket, identities["one"].accepting, accepted=True)
        await transport.start()
        with trio.fail_after(30):
            for times in range(1, 7):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transport.send_all, data + b"\n")
                    process.stdin.write(b"K\n")
                    process.stdin.flush()
                    while said.read_bytes().count(b"KEYUPDATE") < times:  # noqa: ASYNC110  (another process's file)
                        await trio.sleep(0.005)
                    process.stdin.write(b"said %d\n" % times)
                    process.stdin.flush()
                    assert await receive(transport, 7, 7) == b"said %d\n" % times
            transport.close()
            await trio.to_thread.run_sync(process.wait)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        await listener.aclose()
    assert told.read_bytes().count(data) == 6


async def test_a_socket_that_is_gone_before_the_handshake(identities: dict[str, Identity]) -> None:
    ours, theirs = await sockets()
    theirs.close()
    transport = answer(ours, identities["one"])
    with pytest.raises(ConnectionLost):
        await transport.start()
    transport.close()


@pytest.mark.parametrize(
    ("burst", "pause", "ends"),
    [(10**9, 0.0, True), (2000, 0.05, True), (1, 0.01, False)],
    ids=["without end", "bursts", "one in a while"],
)
async def test_who_changes_keys_all_the_time_is_cut_off(
    identities: dict[str, Identity], tmp_path: Path, burst: int, pause: float, ends: bool
) -> None:
    """OpenSSL reads on from one change to the next: the event loop would stand still for as long as they come."""
    files = TWO.write(tmp_path)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    command = [sys.executable, "-m", "tests.peers.keyupdates"]
    command += map(str, (port, files.ca, files.certificate, files.key, burst, pause, 20 if ends else 1))
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
    try:
        with process, trio.fail_after(60):
            transport = TlsTransport((await listener.accept()).socket, identities["one"].accepting, accepted=True)
            try:
                await transport.start()
                if burst == 10**9:
                    time.sleep(1)  # noqa: ASYNC251  (the loop is busy elsewhere, and a second's worth of them waits)
                with pytest.raises((ProtocolError, ConnectionLost)) as ended:
                    while True:
                        assert await receive(transport, 1) == b"x"
            finally:
                transport.close()
            sent = int((await trio.to_thread.run_sync(process.communicate))[0])
    finally:
        process.kill()
        await listener.aclose()
    if ends:
        assert isinstance(ended.value, ProtocolError)
        assert "busy with TLS records that bring no data" in str(ended.value)
        assert sent > 2000
    else:
        assert isinstance(ended.value, ConnectionLost)
        assert sent > 50
