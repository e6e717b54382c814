"""Flows on links: the exact cases, fairness, and that no link ever carries more than it can."""

from __future__ import annotations

from math import log2
from random import Random

import pytest

from simulations.clock import Clock
from simulations.network import SEGMENT, Link, Network, Pipe, Transfer

RATE = 1000.0  # bytes/s
PIECE = 1000.0  # bytes, so that a round is a second


class Wires:
    """Links for some nodes, and what the network told."""

    def __init__(
        self, nodes: int, *, buffer: float = 0.0, slow_start: bool = False, unfair: float = 0.0, rate: float = RATE
    ) -> None:
        self.clock = Clock(0.0, 1e6, 1_000_000)
        self.network = Network(
            self.clock, self._began, self._entered, self._arrived, slow_start=slow_start, unfair=unfair, seed=nodes
        )
        self.up = [Link(rate) for _ in range(nodes)]
        self.down = [Link(rate) for _ in range(nodes)]
        self.buffer = buffer
        self.pipes: dict[tuple[int, int], Pipe] = {}
        self.began: dict[object, float] = {}
        self.entered: dict[object, float] = {}
        self.arrived: dict[object, float] = {}
        self.on_arrived = lambda what: None

    def _began(self, pipe: Pipe, transfer: Transfer) -> None:
        self.began[transfer.what] = self.clock.now

    def _entered(self, pipe: Pipe, transfer: Transfer) -> None:
        self.entered[transfer.what] = self.clock.now

    def _arrived(self, pipe: Pipe, transfer: Transfer) -> None:
        self.arrived[transfer.what] = self.clock.now
        self.on_arrived(transfer.what)
        for link in (*self.up, *self.down):
            assert link.used <= link.capacity * 1.0001

    def pipe(self, sender: int, receiver: int, *more: Link) -> Pipe:
        if (sender, receiver) not in self.pipes:
            links = (self.up[sender], *more, self.down[receiver])
            self.pipes[sender, receiver] = Pipe(links, self.buffer, 0.0)
        return self.pipes[sender, receiver]

    def send(self, sender: int, receiver: int, what: object, size: float = PIECE) -> Transfer:
        transfer = Transfer(size, what)
        self.network.send(self.pipe(sender, receiver), transfer)
        return transfer

    def run(self, seconds: float = 1e5) -> None:
        self.clock.at(self.clock.now + seconds, lambda a, b: self.clock.stop())
        self.clock.run()


@pytest.mark.parametrize(("nodes", "pieces"), [(1, 1), (2, 5), (5, 1), (5, 8), (9, 20)])
def test_a_chain_takes_m_plus_n_minus_1_rounds(nodes: int, pieces: int) -> None:
    wires = Wires(nodes + 1)

    def pass_on(what: tuple[int, int]) -> None:
        node, piece = what
        if node < nodes:
            wires.send(node, node + 1, (node + 1, piece))

    wires.on_arrived = pass_on
    for piece in range(pieces):
        wires.send(0, 1, (1, piece))
    wires.run()
    assert max(wires.arrived.values()) == pytest.approx(pieces + nodes - 1)


@pytest.mark.parametrize(("nodes", "pieces"), [(1, 3), (4, 5), (7, 2)])
def test_a_star_takes_n_times_m_rounds(nodes: int, pieces: int) -> None:
    wires = Wires(nodes + 1)
    for piece in range(pieces):
        for node in range(1, nodes + 1):
            wires.send(0, node, (node, piece))
    wires.run()
    assert max(wires.arrived.values()) == pytest.approx(nodes * pieces)


def test_two_senders_to_one_receiver_share_its_line() -> None:
    wires = Wires(3)
    wires.send(0, 2, "a")
    wires.send(1, 2, "b", 3 * PIECE)
    wires.run()
    assert wires.arrived["a"] == pytest.approx(2.0)
    assert wires.arrived["b"] == pytest.approx(4.0)  # alone on the line for the last two


def test_what_one_flow_cannot_use_the_others_get() -> None:
    """A sender to a slow and a quick receiver: the quick one gets all that the slow one leaves."""
    wires = Wires(3)
    wires.down[1].capacity = RATE / 10
    wires.send(0, 1, "slow", PIECE / 10)
    wires.send(0, 2, "quick", PIECE * 0.9)
    wires.run()
    assert wires.arrived["slow"] == pytest.approx(1.0)
    assert wires.arrived["quick"] == pytest.approx(1.0)


def test_the_kernels_buffer_ends_an_upload_early() -> None:
    wires = Wires(2, buffer=300.0)
    wires.send(0, 1, "piece")
    wires.run()
    assert wires.entered["piece"] == pytest.approx(0.7)
    assert wires.arrived["piece"] == pytest.approx(1.0)


def test_a_piece_that_fits_the_buffer_is_gone_at_once() -> None:
    wires = Wires(2, buffer=5000.0)
    wires.send(0, 1, "piece")
    wires.run()
    assert wires.entered["piece"] == 0.0
    assert wires.arrived["piece"] == pytest.approx(1.0)


def test_a_pipe_keeps_the_order_of_its_transfers() -> None:
    wires = Wires(2)
    for name in "abc":
        wires.send(0, 1, name)
    wires.run()
    assert [wires.arrived[name] for name in "abc"] == pytest.approx([1, 2, 3])
    assert [wires.began[name] for name in "abc"] == pytest.approx([0, 1, 2])


def test_a_cut_transfer_brings_what_had_entered_the_kernel() -> None:
    wires = Wires(2, buffer=100.0)
    transfer = wires.send(0, 1, "piece")
    wires.clock.at(0.5, lambda a, b: wires.began.update(cut=wires.network.cut(wires.pipe(0, 1), transfer)))
    wires.run()
    assert wires.began["cut"] == pytest.approx(600.0)
    assert wires.arrived["piece"] == pytest.approx(0.6)


def test_a_cut_transfer_that_waits_brings_nothing() -> None:
    wires = Wires(2)
    wires.send(0, 1, "first")
    waiting = wires.send(0, 1, "second")
    assert wires.network.cut(wires.pipe(0, 1), waiting) == 0.0
    wires.run()
    assert "second" not in wires.arrived


def test_a_broken_connection_frees_its_links() -> None:
    wires = Wires(3)
    wires.send(0, 2, "broken", 10 * PIECE)
    wires.send(1, 2, "other")
    wires.clock.at(1.0, lambda a, b: wires.began.update(lost=len(wires.network.clear(wires.pipe(0, 2)))))
    wires.run()
    assert wires.began["lost"] == 1
    assert wires.arrived["other"] == pytest.approx(1.5)
    assert wires.down[2].used == 0.0


def test_a_message_waits_behind_what_the_kernel_holds() -> None:
    wires = Wires(2, buffer=300.0)
    assert wires.network.ahead_s(wires.pipe(0, 1)) == 0.0
    wires.send(0, 1, "piece")
    assert wires.network.ahead_s(wires.pipe(0, 1)) == pytest.approx(0.3)


def test_slow_start_costs_rounds_of_the_round_trip() -> None:
    rate, rtt = 1e6, 0.1
    calm, slow = Wires(2, rate=rate), Wires(2, rate=rate, slow_start=True)
    for wires in (calm, slow):
        wires.pipe(0, 1).rtt = rtt
        wires.send(0, 1, "first", 1e6)
        wires.send(0, 1, "second", 1e6)
        wires.run()
    rounds = log2(rate * rtt / (10 * SEGMENT))
    assert slow.arrived["first"] - calm.arrived["first"] == pytest.approx((rounds - 1) * rtt)
    assert slow.arrived["second"] - slow.arrived["first"] == pytest.approx(1.0)


def test_flows_that_share_unequally_take_what_they_weigh() -> None:
    wires = Wires(4, unfair=1.0)
    for receiver in (1, 2, 3):
        wires.send(0, receiver, receiver)
    pipes = [wires.pipe(0, receiver) for receiver in (1, 2, 3)]
    weights = [pipe.weight for pipe in pipes]
    assert max(weights) > 1.5 * min(weights)
    assert [pipe.rate for pipe in pipes] == pytest.approx([RATE * weight / sum(weights) for weight in weights])
    wires.run()
    assert max(wires.arrived.values()) == pytest.approx(3.0)  # who ends leaves its share to the others


@pytest.mark.parametrize("nodes", range(4, 12))
def test_a_flow_between_two_shared_links_gets_what_it_weighs_at_the_narrower(nodes: int) -> None:
    wires = Wires(nodes, unfair=1.0)
    ways = ((0, 1), (0, 2), (3, 1))
    for sender, receiver in ways:
        wires.send(sender, receiver, receiver)
    between, beside, facing = (wires.pipe(*way) for way in ways)
    heavier = max(beside, facing, key=lambda pipe: pipe.weight)
    assert between.rate == pytest.approx(RATE * between.weight / (between.weight + heavier.weight))
    assert heavier.rate == pytest.approx(RATE - between.rate)


@pytest.mark.parametrize("nodes", range(5, 13))
def test_who_gives_way_to_a_flow_that_rises_keeps_what_he_weighs(nodes: int) -> None:
    """What held the flow down at its receiver ends; the others at its sender had taken what it left."""
    wires = Wires(nodes, unfair=1.0)
    wires.send(0, 1, "rises")
    wires.send(4, 1, "ends", size=1.0)
    wires.send(0, 2, "beside", size=2 * PIECE)
    wires.send(0, 3, "beside it", size=2 * PIECE)
    sharing = [wires.pipe(0, receiver) for receiver in (1, 2, 3)]
    rates: list[float] = []
    wires.on_arrived = lambda what: rates.extend(pipe.rate for pipe in sharing) if what == "ends" else None
    wires.run()
    weights = sum(pipe.weight for pipe in sharing)
    assert rates == pytest.approx([RATE * pipe.weight / weights for pipe in sharing])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("core", [None, 3.0])
@pytest.mark.parametrize("unfair", [0.0, 1.0])
def test_links_are_never_overbooked_and_work_is_conserved(seed: int, core: float | None, unfair: float) -> None:
    """Random traffic, with and without a wide link that all of it crosses: all arrives, and nothing is overbooked."""
    random, wires = Random(seed), Wires(12, buffer=random_buffer(seed), unfair=unfair)
    wide = Link(RATE * core) if core else None
    more = (wide,) if wide else ()
    sent = 0.0

    def send(_: None, __: None) -> None:
        nonlocal sent
        sender, receiver = random.sample(range(12), 2)
        size = PIECE * random.choice((0.01, 0.5, 1.0, 4.0))
        sent += size
        wires.network.send(wires.pipe(sender, receiver, *more), Transfer(size, object()))
        check()

    def check(*_: object) -> None:
        for link in (*wires.up, *wires.down, *more):
            total = sum(pipe.rate for pipe in link.flows)
            assert total <= link.capacity * 1.0001
            assert link.used == pytest.approx(total, abs=1e-6)
        for pipe in wires.pipes.values():
            if pipe.head is not None:
                assert pipe.rate > 0

    for _ in range(300):
        wires.clock.at(random.random() * 60, send)
        wires.clock.at(random.random() * 60, check)
    wires.run()
    assert sum(link.carried for link in wires.up) == pytest.approx(sent)
    assert sum(link.carried for link in wires.down) == pytest.approx(sent)
    assert all(not link.flows for link in (*wires.up, *wires.down, *more))


def random_buffer(seed: int) -> float:
    return (0.0, 100.0, 1000.0, 5000.0)[seed % 4]


def test_many_flows_fill_a_wide_link() -> None:
    """Forty flows through one line of three nodes' rate: the line is nearly full, and the flows are nearly equal."""
    wires = Wires(80)
    core = Link(3 * RATE)
    for number in range(40):
        wires.network.send(wires.pipe(number, 40 + number, core), Transfer(PIECE, number))
    wires.run()
    ideal = 40 / 3
    assert max(wires.arrived.values()) <= 1.08 * ideal
    assert max(wires.arrived.values()) >= ideal * 0.999
