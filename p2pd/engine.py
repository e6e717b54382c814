"""Runs the node's core: one event at a time, its commands at once, its deadline kept.

Not the carrying out: each kind of command has a function, handed in by the daemon. An event that comes while another is
being handled waits its turn, so the functions may post events themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import trio

from p2pd.swarm.commands import Command
from p2pd.swarm.events import Event, Tick
from p2pd.swarm.node import Node

EVENTS_MAX = 100_000  # waiting in one turn: more is a livelock, and a bug


class Engine:
    """One node's core under trio. All calls from trio's own thread."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._carry_out: dict[type, Callable[[Any], None]] = {}
        self._events: deque[Event] = deque()
        self._running = False
        self._moved = trio.Event()
        self._sleeps_until = float("inf")
        self.ticked_at = trio.current_time()

    def carry_out(self, functions: Mapping[type, Callable[[Any], None]]) -> None:
        """Which function carries out which kind of command."""
        self._carry_out.update(functions)

    def post(self, event: Event) -> None:
        """Handle an event now, or right after the one in hand."""
        self._events.append(event)
        if self._running:
            return
        self._running = True
        handled = 0
        try:
            while self._events:
                handled += 1
                assert handled < EVENTS_MAX, "the core does not come to rest"
                self.execute(self.node.handle(self._events.popleft(), trio.current_time()))
        finally:
            self._running = False
        if self.node.deadline < self._sleeps_until:
            self._moved.set()

    def execute(self, commands: list[Command]) -> None:
        for command in commands:
            self._carry_out[type(command)](command)

    async def run(self) -> None:
        """Keep the core's deadline, for ever."""
        while True:
            self._sleeps_until = self.node.deadline
            self._moved = trio.Event()
            with trio.move_on_at(self._sleeps_until):
                await self._moved.wait()
            self.ticked_at = trio.current_time()
            if self.node.deadline <= self.ticked_at:
                self.post(Tick())
                await trio.lowlevel.checkpoint()
