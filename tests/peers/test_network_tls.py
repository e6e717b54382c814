"""Nodes with certificates: members meet and exchange pieces, who is none is refused, counted, and left alone."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2pd.fleet import Identity
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import Request
from p2pd.swarm.voucher import node_id
from tests.fleet.certificates import Authority
from tests.peers.fakes import DIGEST, Sink
from tests.peers.test_network import DATA, SIZE, Side, links_of, meet, sides

CA, OTHER = Authority.make("fleet"), Authority.make("other")


def member(directory: Path, name: str, authority: Authority = CA, *trusted: Authority) -> Identity:
    return authority.member(name).identity(directory / name, *trusted)


async def test_a_piece_crosses_between_members(tmp_path: Path) -> None:
    identities = [member(tmp_path, name) for name in ("a", "b")]
    async with sides("a", "b", identities=identities) as (a, b):
        at_a, at_b = await meet(a, b)
        assert a.events == [ev.PeerUp(1, b.contact, b.key, True, -1)]
        a.files.sink_, b.files.data = Sink(SIZE), DATA
        for rid, index in ((11, 0), (12, 2), (13, 1)):
            a.links[at_a, rid] = links_of(DATA)[index]
            a.do(cmd.Fetch(at_a, rid, DIGEST, index))
            a.do(cmd.Send(at_a, Request(rid, DIGEST, index, True, 1)))
        for event in await b.until(ev.Received, 3):
            b.do(cmd.Upload(at_b, event.message.rid, DIGEST, event.message.index, ()))
        checked = await a.until(ev.PieceChecked, 3)
        assert set(checked) == {ev.PieceChecked(at_a, rid, True) for rid in (11, 12, 13)}
        assert bytes(a.files.sink_.data) == DATA
        assert a.refused == b.refused == []


async def refusal(a: Side, b: Side) -> None:
    """`a` calls `b`, and nothing comes of it."""
    a.do(cmd.Connect(b.contact))
    await a.until(ev.ConnectFailed)
    with trio.fail_after(5):
        while not b.refused:  # noqa: ASYNC110  (the other side hears of it a moment later)
            await trio.sleep(0.005)
    assert [e for e in (*a.events, *b.events) if isinstance(e, ev.PeerUp)] == []


async def test_a_member_of_another_fleet_is_refused_once_and_not_called_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    identities = [member(tmp_path, "a"), member(tmp_path, "b", OTHER)]
    async with sides("a", "b", identities=identities) as (a, b):
        await refusal(a, b)
        assert (a.refused, b.refused) == (["foreign-certificate"], ["refused-there"])
        for _ in range(5):  # mDNS goes on showing it
            a.do(cmd.Connect(b.contact))
        await a.until(ev.ConnectFailed, 6)
        assert len(a.refused) == 1
        said = [r.getMessage() for r in caplog.records if "no CA of this fleet" in r.getMessage()]
        assert len(said) == 1
        assert "refused b at 127.0.0.1:" in said[0]


async def test_a_member_that_calls_one_without_tls(tmp_path: Path) -> None:
    async with sides("a", "b", identities=[member(tmp_path, "a"), None]) as (a, b):
        await refusal(a, b)
        assert (a.refused, b.refused) == (["plain-text"], ["hello"])


async def test_one_without_tls_that_calls_a_member(tmp_path: Path) -> None:
    """It only sees that it is hung up on."""
    async with sides("a", "b", identities=[None, member(tmp_path, "b")]) as (a, b):
        await refusal(a, b)
        assert (a.refused, b.refused) == ([], ["plain-text"])


async def test_who_breaks_the_protocol_before_its_first_message_is_not_heard_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By then its certificate has told who it is. A flood of key changes would otherwise cost half a second a call."""
    caplog.set_level(logging.WARNING)
    flooder = CA.member("flooder")
    files = flooder.write(tmp_path / "flooder")
    identities = [member(tmp_path, name) for name in ("a", "b")]
    async with sides("a", "b", identities=identities) as (a, b):
        command = [sys.executable, "-m", "tests.peers.keyupdates", b.port, files.ca, files.certificate]
        command += [files.key, 10**9, 0, 20]
        for call in (1, 2):
            with trio.fail_after(30):
                await trio.run_process([str(word) for word in command], capture_stdout=True)
                while len(b.refused) < call:  # noqa: ASYNC110  (it tells nobody)
                    await trio.sleep(0.005)
        assert b.refused == ["hello", "avoided"]
        said = [r.getMessage() for r in caplog.records if "busy with TLS records" in r.getMessage()]
        assert len(said) == 1
        assert node_id(flooder.key.public_key().public_bytes_raw()).hex()[:16] in said[0]
        await meet(a, b)


async def test_a_wrong_address_does_not_get_the_node_that_it_was_given_for_avoided(tmp_path: Path) -> None:
    """Whoever names contacts, a directory or mDNS, could let any answer come from there."""
    identities = [member(tmp_path, "a"), member(tmp_path, "b"), member(tmp_path, "liar", OTHER)]
    async with sides("a", "b", "liar", identities=identities) as (a, b, liar):
        a.do(cmd.Connect(replace(b.contact, port=liar.port)))
        assert await a.until(ev.ConnectFailed) == [ev.ConnectFailed(b.contact.node_id)]
        assert a.refused == ["foreign-certificate"]
        b.do(cmd.Connect(a.contact))
        await a.until(ev.PeerUp)
        a.do(cmd.Connect(b.contact))
        await a.until(ev.PeerUp, 2)


async def test_another_node_at_the_address_is_not_the_one_that_was_meant(tmp_path: Path) -> None:
    identities = [member(tmp_path, name) for name in ("a", "b")]
    async with sides("a", "b", identities=identities) as (a, b):
        wrong = cmd.Connect(b.contact.__class__(bytes(20), "c", "", "127.0.0.1", b.port))
        a.do(wrong)
        assert await a.until(ev.ConnectFailed) == [ev.ConnectFailed(bytes(20))]


async def test_new_calls_take_the_identity_of_now(tmp_path: Path) -> None:
    both = member(tmp_path, "a", CA, CA, OTHER)
    identities = [both, member(tmp_path, "b", OTHER, CA, OTHER)]
    async with sides("a", "b", identities=identities) as (a, b):
        await meet(a, b)
        a.network.close_all("a CA is trusted no more")
        await a.until(ev.PeerDown)
        await b.until(ev.PeerDown)
        a.identity = member(tmp_path, "again", CA)
        b.do(cmd.Connect(a.contact))
        await b.until(ev.ConnectFailed)
        assert a.refused == ["foreign-certificate"]


async def test_a_tracker_whose_certificate_is_for_another_address(tmp_path: Path) -> None:
    elsewhere = CA.member("b", addresses=("10.9.9.9",)).identity(tmp_path / "b")
    async with sides("a", "b", identities=[member(tmp_path, "a"), elsewhere]) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(a.network.keep_tracker, 0, "127.0.0.1", b.port)
        with trio.fail_after(5):
            while not a.network.trackers:  # noqa: ASYNC110
                await trio.sleep(0.005)
        (state,) = a.network.trackers.values()
        assert "IP address mismatch" in state
        assert "--address 127.0.0.1" in state
        assert set(a.refused) == {"wrong-name"}
        nursery.cancel_scope.cancel()
