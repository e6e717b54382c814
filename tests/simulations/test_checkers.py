"""The checkers can fail: each rule, broken on purpose in the core, is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from p2pd.swarm import commands as cmd
from p2pd.swarm.blob import Blob
from p2pd.swarm.directory import Directory
from p2pd.swarm.node import Node
from simulations.checkers import Violation
from simulations.results import simulate
from simulations.scenario import Scenario, Share

SCENARIO = Scenario(nodes=6, image=(4_000_000,), link=10e6, check=True)


def with_commands(monkeypatch: pytest.MonkeyPatch, change: Callable[[Node, list[Any]], list[Any]]) -> None:
    real = Node.handle
    monkeypatch.setattr(Node, "handle", lambda self, event, now: change(self, real(self, event, now)))


def test_the_rules_hold_as_it_is() -> None:
    world = simulate(SCENARIO)
    assert world.unfinished == 0


def test_a_piece_that_no_check_let_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Node._piece_checked

    def believe(self: Node, event: Any) -> None:
        real(self, type(event)(event.peer, event.rid, True))

    monkeypatch.setattr(Node, "_piece_checked", believe)
    with pytest.raises((Violation, AssertionError), match="no check let pass"):
        rebuild(monkeypatch, SCENARIO.but(lying=Share(0.5, 1.0)))


def rebuild(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    """Run; nodes look their methods up when they are made, so a change of the class is enough."""
    simulate(scenario)


def test_a_piece_kept_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with_commands(monkeypatch, lambda node, out: [c for c in out for _ in range(2 if type(c) is cmd.Keep else 1)])
    with pytest.raises(Violation, match="kept twice"):
        simulate(SCENARIO)


def test_wrong_states_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forge(node: Node, out: list[Any]) -> list[Any]:
        return [cmd.Keep(c.digest, c.index, c.before, b"\0" * 32, c.voucher) if type(c) is cmd.Keep else c for c in out]

    with_commands(monkeypatch, forge)
    with pytest.raises(Violation, match="not the blob's"):
        simulate(SCENARIO)


def test_a_piece_sent_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forge(node: Node, out: list[Any]) -> list[Any]:
        return [
            cmd.Upload(c.peer, c.rid, c.digest, 15 - c.index, c.vouchers) if type(c) is cmd.Upload else c for c in out
        ]

    with_commands(monkeypatch, forge)
    with pytest.raises(Violation, match="sent that is not kept"):
        simulate(SCENARIO)


def test_a_blob_proven_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hurry(node: Node, out: list[Any]) -> list[Any]:
        keeps = [c for c in out if type(c) is cmd.Keep]
        return [*out, cmd.Prove(keeps[0].digest)] if keeps else out

    with_commands(monkeypatch, hurry)
    with pytest.raises(Violation, match="proven without all"):
        simulate(SCENARIO)


def test_a_piece_in_two_states_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Blob.arrive

    def forget(self: Blob, index: int) -> None:
        real(self, index)
        if index == 3:
            self.missing |= 1 << index

    monkeypatch.setattr(Blob, "arrive", forget)
    with pytest.raises((Violation, AssertionError)):
        simulate(SCENARIO)


def test_a_lease_that_goes_to_a_losing_term_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Directory.handle

    def usurp(self: Directory, node: bytes, message: Any, now: float) -> Any:
        out = real(self, node, message, now)
        for blob in self._blobs.values():
            if blob.lease and blob.lease.holder < node and getattr(message, "wanting", False):
                blob.lease.holder = node
        return out

    monkeypatch.setattr(Directory, "handle", usurp)
    with pytest.raises(Violation, match="a term that loses"):
        simulate(SCENARIO.but(arrival=0.3))


@pytest.mark.parametrize(
    ("where", "says"),
    [("requests", "requests out"), ("uploads", "uploads under way"), ("peers", "connections")],
)
def test_queues_beyond_their_bounds_are_found(monkeypatch: pytest.MonkeyPatch, where: str, says: str) -> None:
    match where:
        case "requests":
            monkeypatch.setattr("p2pd.swarm.downloads.Downloads.out", property(lambda self: 10_000))
        case "uploads":
            monkeypatch.setattr("p2pd.swarm.uploads.Uploads.held", property(lambda self: 10_000))
        case "peers":
            settings = (("connections_max", 0),)
            monkeypatch.setattr("simulations.checkers.Checker._fail", _raise)
            from simulations.world import World

            world = World(SCENARIO)
            world.clock.at(world.clock.now + 0.2, lambda a, b: world.clock.stop())
            world.run()
            object.__setattr__(world.hosts[0].node.state.settings, "connections_max", 0)
            with pytest.raises(Violation, match=says):
                world.run()
            assert settings
            return
    with pytest.raises(Violation, match=says):
        simulate(SCENARIO)


def _raise(self: Any, host: Any, rule: str) -> None:
    raise Violation(rule)
