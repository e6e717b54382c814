"""The engine: one event at a time, commands at once, the deadline kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from p2pd import engine as engine_module
from p2pd.engine import Engine
from p2pd.swarm.events import Tick


@dataclass
class FakeNode:
    """A core whose events are numbers: 10 brings the command "ten"."""

    deadline: float = float("inf")
    handled: list[object] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    brings: dict = field(default_factory=dict)
    pause_s: float = 0.0

    def handle(self, event: object, now: float) -> list:
        self.handled.append(event)
        self.at.append(now)
        if isinstance(event, Tick):
            self.deadline = now + self.pause_s if self.pause_s else float("inf")
        return self.brings.get(event, [])


async def test_an_event_posted_by_a_command_waits_for_the_one_in_hand() -> None:
    node = FakeNode(brings={1: ["a", "b"], 2: ["c"]})
    engine, done = Engine(node), []  # type: ignore[arg-type]

    def carry_out(command: str) -> None:
        done.append(command)
        if command == "a":
            engine.post(2)  # type: ignore[arg-type]
            assert node.handled == [1]

    engine.carry_out({str: carry_out})
    engine.post(1)  # type: ignore[arg-type]
    assert node.handled == [1, 2]
    assert done == ["a", "b", "c"]


async def test_a_core_that_does_not_come_to_rest_is_a_bug_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "EVENTS_MAX", 100)
    node = FakeNode(brings={1: ["again"]})
    engine = Engine(node)  # type: ignore[arg-type]
    engine.carry_out({str: lambda command: engine.post(1)})  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="does not come to rest"):
        engine.post(1)  # type: ignore[arg-type]


async def test_an_error_of_ours_passes_through() -> None:
    engine = Engine(FakeNode(brings={1: ["x"]}))  # type: ignore[arg-type]
    engine.carry_out({str: lambda command: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        engine.post(1)  # type: ignore[arg-type]


async def test_the_deadline_is_kept_also_when_an_event_moves_it(autojump_clock: MockClock) -> None:
    node = FakeNode(deadline=trio.current_time() + 10)
    engine, began = Engine(node), trio.current_time()  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        await trio.sleep(1)
        node.deadline = began + 3  # as an event does
        engine.post(1)  # type: ignore[arg-type]
        await trio.sleep(20)
        assert node.handled == [1, Tick()]
        assert node.at[1] - began == pytest.approx(3)
        node.deadline = trio.current_time() + 100
        engine.post(2)  # type: ignore[arg-type]
        node.deadline = trio.current_time() + 200  # later again, without a word
        await trio.sleep(150)
        assert node.handled == [1, Tick(), 2]
        await trio.sleep(100)
        assert node.handled[3:] == [Tick()]
        nursery.cancel_scope.cancel()


async def test_a_deadline_in_the_past_does_not_stop_the_others(autojump_clock: MockClock) -> None:
    node = FakeNode(deadline=0.0)
    engine = Engine(node)  # type: ignore[arg-type]
    node.handle = lambda event, now: []  # type: ignore[method-assign]  # a core that never moves it
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            turns += 1
        nursery.cancel_scope.cancel()
    assert turns == 50
