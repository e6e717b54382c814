"""Whole layers only: a node serves a layer to others once it has all of it, and to one at a time.

Kind to such systems: upstream sends each layer once, everybody knows at once who has what, and an idle uplink finds
its receiver without a word. What real ones lose besides (those who find no holder and go upstream) is not in it.
"""

from __future__ import annotations

import heapq
from random import Random

from simulations.models.case import Case, Outcome

UPSTREAM = -1


class _Bag:
    """A set that hands out random members in constant time."""

    def __init__(self) -> None:
        self._items: list[int] = []
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: int) -> bool:
        return item in self._place

    def add(self, item: int) -> None:
        if item not in self._place:
            self._place[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: int) -> None:
        place = self._place.pop(item, None)
        if place is not None:
            last = self._items.pop()
            if last != item:
                self._items[place] = last
                self._place[last] = place

    def choose(self, random: Random) -> int:
        return self._items[int(random.random() * len(self._items))]


class _Rollout:
    """One run. `free[layer]`: nodes that lack it and receive nothing; `idle[layer]`: holders that send nothing."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._random = Random(case.seed)
        count = len(case.layers)
        self._lacking = [set(range(count)) for _ in range(case.nodes)]
        self._holders = [0] * count
        self._free = [_Bag() for _ in range(count)]
        self._idle = [_Bag() for _ in range(count)]
        self._sends = [False] * case.nodes
        self._upstream_sends = False
        self._unsent = list(range(count))
        self._events: list[tuple[float, int, int, int, int]] = []
        self._number = 0
        self._now = 0.0
        for bag in self._free:
            for node in range(case.nodes):
                bag.add(node)

    def run(self) -> list[float]:
        """Seconds of each node."""
        ends = [0.0] * self._case.nodes
        self._serve_from_upstream()
        while self._events:
            self._now, _, sender, node, layer = heapq.heappop(self._events)
            self._lacking[node].discard(layer)
            self._holders[layer] += 1
            if not self._lacking[node]:
                ends[node] = self._now
            for other in self._lacking[node]:
                self._free[other].add(node)
            if sender == UPSTREAM:
                self._upstream_sends = False
            else:
                self._sends[sender] = False
                self._serve(sender)
            self._serve_from_upstream()
            self._serve(node)
            self._find_for(node)
        return ends

    def _serve_from_upstream(self) -> None:
        """Each layer once, one after another, each to a node that receives nothing."""
        if self._unsent and not self._upstream_sends and len(self._free[self._unsent[0]]):
            layer = self._unsent.pop(0)
            self._upstream_sends = True
            node = self._free[layer].choose(self._random)
            self._send(UPSTREAM, node, layer, min(self._case.upstream, self._case.link))

    def _serve(self, sender: int) -> None:
        """Something for an uplink: the rarest layer that it has and a node that receives nothing lacks."""
        if self._sends[sender]:
            return
        mine = [layer for layer in range(len(self._holders)) if layer not in self._lacking[sender]]
        useful = [layer for layer in mine if len(self._free[layer])]
        if useful:
            layer = min(useful, key=lambda layer: (self._holders[layer], self._random.random()))
            self._send(sender, self._free[layer].choose(self._random), layer, self._case.link)
        else:
            for layer in mine:
                self._idle[layer].add(sender)

    def _find_for(self, node: int) -> None:
        """Something for a downlink: the rarest layer that it lacks and a holder that sends nothing has."""
        useful = [layer for layer in self._lacking[node] if len(self._idle[layer]) and node in self._free[layer]]
        if useful:
            layer = min(useful, key=lambda layer: (self._holders[layer], layer))
            self._send(self._idle[layer].choose(self._random), node, layer, self._case.link)

    def _send(self, sender: int, node: int, layer: int, rate: float) -> None:
        if sender != UPSTREAM:
            self._sends[sender] = True
            for bag in self._idle:
                bag.discard(sender)
        for bag in self._free:
            bag.discard(node)
        self._number += 1
        end = self._now + self._case.layers[layer] / rate
        heapq.heappush(self._events, (end, self._number, sender, node, layer))


def layerwise(case: Case) -> Outcome:
    """Greedy: an idle uplink takes the rarest layer that it has and somebody lacks."""
    return Outcome("whole layers", sorted(_Rollout(case).run()), 1.0)
