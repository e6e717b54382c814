"""A client on every node that reads each layer in order, as the daemon's mirror lets it.

What came from peers is shown when the layer is proven, or after `hold_back` as far as the prefix is there; what the
node pulled itself is shown at once. A client that stands still while nothing arrives is helped (`Reading`); one that
sees no byte for long gives up and goes to upstream, as containerd does. The times are the daemon's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pd.swarm import events as ev
from p2pd.swarm.pieces import prefix_end
from simulations.hosts import Arriving, Host

if TYPE_CHECKING:
    from simulations.world import World

LOOK_S = 1.0  # how often a waiting reader looks whether something is to be decided
STANDING_STILL_S = 2.0
HEADER_WAIT_S = 20.0  # before the first byte
STALL_S = 20.0  # after it


class Readers:
    """All clients of the world."""

    def __init__(self, world: World) -> None:
        self._w = world
        self._hold_back = world.scenario.hold_back

    def start(self, host: Host) -> None:
        if self._w.scenario.reader:
            self._w.clock.at(self._w.clock.now + LOOK_S, self._look, host, host.life)

    def moved(self, host: Host, arriving: Arriving) -> None:
        """The piece that the reader needs next is there."""
        now = self._w.clock.now
        own = arriving.position < arriving.own_end
        if own or arriving.started or now >= arriving.began + self._hold_back:
            arriving.position = prefix_end(arriving.present, arriving.position)
            arriving.since = now
            arriving.started = True

    def _look(self, host: Host, life: int) -> None:
        if host.life != life or not host.alive or host.done_at < self._w.clock.now:
            return
        for arriving in list(host.layers.values()):
            if arriving.clients and not arriving.is_done and arriving.wanted:
                self._look_at(host, arriving)
        self._w.clock.at(self._w.clock.now + LOOK_S, self._look, host, life)

    def _look_at(self, host: Host, arriving: Arriving) -> None:
        now = self._w.clock.now
        if arriving.present >> arriving.position & 1:
            self.moved(host, arriving)
        moved_at = max(arriving.since, arriving.progress_at)
        give_up_after = STALL_S if arriving.started else HEADER_WAIT_S
        give_up_at = (moved_at if arriving.started else arriving.began) + give_up_after
        if now >= give_up_at:
            arriving.wanted = False
            self._w.records.stalled += 1
            position = arriving.position * arriving.layer.geometry.piece_size if arriving.started else 0
            self._w.pulls.bypass(host, arriving, position)
        elif now - moved_at > STANDING_STILL_S or now - arriving.since > give_up_after / 2:
            self._w.tell(host, ev.Reading(arriving.layer.digest, arriving.position))
