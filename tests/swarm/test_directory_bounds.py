"""What a directory may cost: bounds on blobs and members, memory a member, work an announcement."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from random import Random
from types import FrameType

import pytest

from p2pd.swarm import directory as module
from p2pd.swarm.directory import Directory
from p2pd.swarm.messages import Contact
from tests.swarm.fakes import digest_of
from tests.swarm.office import BLOB, Office

MEMBER_BYTES_MAX = 500  # of one (node, blob), all in all; 10,000 nodes with 10 blobs each are 50 MB


def node(number: int) -> Contact:
    return Contact(number.to_bytes(20, "big"), f"n{number}", "", f"10.0.{number >> 8}.{number & 255}", 9581)


def test_a_full_directory_takes_no_more_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOBS_MAX", 3)
    o = Office("a")
    for i in range(5):
        o.announce("a", blob=digest_of(str(i)))
    assert o.directory.summary()["blobs"] == 3
    assert o.announce("a", blob=digest_of("4")) is None
    assert o.announce("a", blob=digest_of("0")) is not None


def test_a_full_blob_takes_no_more_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMBERS_MAX", 2)
    o = Office("a", "b", "c")
    for name in "abc":
        o.announce(name)
    assert o.announce("c") is None
    o.disconnect("b")
    assert o.announce("c") is not None


def test_one_node_cannot_fill_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOBS_PER_NODE", 4)
    o = Office("a", "b")
    for i in range(9):
        o.announce("a", blob=digest_of(str(i)))
    o.holdings("a", *(digest_of(f"more {i}") for i in range(9)))
    assert o.directory.summary() == {"nodes": 2, "blobs": 4, "members": 4, "leases": 1}
    assert o.announce("b", blob=digest_of("8")) is not None  # its own allowance


def test_registries_that_ask_to_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLDS_MAX", 5)
    o = Office("a")
    for i in range(9):
        blob = digest_of(str(i))
        o.announce("a", blob=blob, upstream=f"reg{i}")
        o.release("a", "limited", 60, blob=blob)
    assert len(o.directory._holds) == 5
    o.wait(61)
    o.announce("a", upstream="late")
    o.release("a", "limited", 60)
    assert len(o.directory._holds) == 1


def test_memory_a_member() -> None:
    gc.collect()
    tracemalloc.start()
    try:
        o = Office()
        nodes = [node(i) for i in range(1000)]
        for contact in nodes:
            o.directory.connected(contact)
        blobs = [digest_of(str(i)) for i in range(20)]
        before = tracemalloc.get_traced_memory()[0]
        for contact in nodes:
            o.directory.handle(contact.node_id, module.Holdings(tuple(blobs)), o.now)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    members = o.directory.summary()["members"]
    assert members == 20_000
    assert grown / members < MEMBER_BYTES_MAX


def steps_for_everybody_to_come_and_go(count: int) -> int:
    """Bytecode instructions that the directory runs, which no other load on the machine changes."""
    directory = Directory(Random(1), 0.0)
    nodes = [node(i) for i in range(count)]
    message = announcement(Office())
    steps = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable:
        nonlocal steps
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for contact in nodes:
            directory.connected(contact)
            directory.handle(contact.node_id, message, 1.0)  # while it is new: nobody gets a lease yet
        for contact in nodes:
            directory.disconnected(contact.node_id, 1.0)
    finally:
        sys.settrace(before)
    return steps


def announcement(office: Office) -> module.Announce:
    sent: list[module.Announce] = []
    office.tell = lambda _name, message: sent.append(message) or []  # type: ignore[method-assign]
    office.announce("x", blob=BLOB, need=20)
    return sent[0]


def test_a_fleet_that_comes_at_once_costs_each_node_the_same() -> None:
    """Work for an announcement or a goodbye must not grow with the blob's members: 8 times the nodes, about 8 times
    the work. (A search among the members at each would make it 64 times.)"""
    few, many = steps_for_everybody_to_come_and_go(100), steps_for_everybody_to_come_and_go(800)
    assert few > 100 * 100
    assert many < 8 * few * 2
