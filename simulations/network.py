"""Links and the flows on them: a model of shares, not of packets.

A `Link` is one direction of a node's line, of a zone's uplink, or of upstream. A `Pipe` is one direction of a
connection: the transfers on it go out one after another, and pipes that are busy share their links max-min fairly.
The shares are worked out anew only where a flow came or went: at its own links, and from there as far as a link would
be overbooked. So no link ever carries more than its capacity; a share that became free two links away may stay unused
until the next change there, which costs at most a few per cent for a moment.

A transfer tells twice: when its last byte entered the sender's kernel (`buffer` bytes before the wire), and when it
arrived. A flow that slows down keeps its planned event and is asked again then; only one that speeds up plans anew.

Not here: TCP's own dynamics (slow start is a penalty in bytes, and flows that share unequally are a draw at each flow's
begin, both as options), packet loss, queues in switches. Knows `clock` only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import log2
from random import Random
from typing import Any, Final

from simulations.clock import NEVER, Clock

WIDE: Final = 12  # flows on a link from which on its shares are worked out for all of them together, now and then
WIDE_CHANGES: Final = 0.1  # of its flows may come and go before they are
WIDE_FILL: Final = 0.99  # of a wide link is given out then; the rest is for those that come meanwhile
WORTH: Final = 1.01  # a flow's rise is worth telling from here on: each one costs an event
OVER: Final = 1.000001  # of its capacity: more is overbooked, less is rounding
BYTE: Final = 0.5  # less than this is nothing left
SEGMENT: Final = 1460  # bytes; RFC 6928 lets a connection begin with 10 of them
IDLE_S: Final = 1.0  # after so long without bytes a connection begins anew (RFC 5681, 4.1, with a usual RTO)


class Link:
    """Capacity in bytes/s; `used` is the sum of the rates of its flows."""

    __slots__ = ("capacity", "carried", "changes", "flows", "level", "used", "weight")

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.flows: list[Pipe] = []
        self.used = 0.0
        self.weight = 0.0  # of its flows together
        self.level = NEVER  # of a wide link: what one flow may have at the most
        self.changes = 0
        self.carried = 0.0  # bytes


class Transfer:
    """Bytes on their way. `what` is the owner's. `left`: what has not arrived; `size`: what is to arrive in all."""

    __slots__ = ("entered", "left", "size", "what")

    def __init__(self, size: float, what: Any) -> None:
        self.size = size
        self.left = size
        self.entered = False
        self.what = what


class Pipe:
    """One direction of a connection. `buffer`: bytes that the sender's kernel holds."""

    __slots__ = ("at", "buffer", "due", "head", "idle_since", "links", "queue", "rate", "rtt", "weight")

    def __init__(self, links: tuple[Link, ...], buffer: float, rtt: float) -> None:
        self.links = links
        self.buffer = buffer
        self.rtt = rtt
        self.head: Transfer | None = None
        self.queue: deque[Transfer] = deque()
        self.rate = 0.0
        self.weight = 1.0  # of a link's equal share, it takes so many
        self.at = 0.0  # when `head.left` was true
        self.due = NEVER  # the planned event that counts
        self.idle_since = -NEVER


class Network:
    """All pipes. `entered`, `arrived` and `began` are told of each transfer's `what`."""

    def __init__(
        self,
        clock: Clock,
        began: Callable[[Pipe, Transfer], None],
        entered: Callable[[Pipe, Transfer], None],
        arrived: Callable[[Pipe, Transfer], None],
        *,
        slow_start: bool = False,
        unfair: float = 0.0,
        seed: int = 0,
    ) -> None:
        """`unfair`: how unequally flows share a link, as the standard deviation of the logarithm of what each takes."""
        self._clock = clock
        self._began = began
        self._entered = entered
        self._arrived = arrived
        self._slow_start = slow_start
        self._unfair = unfair
        self._random = Random(f"{seed} shares")

    # -- transfers --------------------------------------------------------------------------------------------------

    def send(self, pipe: Pipe, transfer: Transfer) -> None:
        """Put a transfer behind those that are on the pipe."""
        if pipe.head is not None:
            pipe.queue.append(transfer)
            return
        pipe.head = transfer
        pipe.at = self._clock.now
        if self._slow_start and pipe.at - pipe.idle_since > IDLE_S:
            self._penalize(pipe, transfer)
        if self._unfair:
            pipe.weight = self._random.lognormvariate(0.0, self._unfair)
        self._join(pipe)
        self._began(pipe, transfer)
        self._plan(pipe)

    def cut(self, pipe: Pipe, transfer: Transfer) -> float:
        """The sender stops: what has entered its kernel still goes. Returns the bytes that do."""
        if transfer is not pipe.head:
            pipe.queue.remove(transfer)
            return 0.0
        self._settle(pipe)
        kept = min(transfer.left, pipe.buffer)
        transfer.size -= transfer.left - kept
        transfer.left = kept
        transfer.entered = True
        self._plan(pipe)
        return transfer.size

    def clear(self, pipe: Pipe) -> list[Transfer]:
        """The connection broke: nothing of it arrives any more. Returns what was under way."""
        if pipe.head is None:
            return []
        self._settle(pipe)
        lost = [pipe.head, *pipe.queue]
        pipe.queue.clear()
        self._end(pipe)
        return lost

    def ahead_s(self, pipe: Pipe) -> float:
        """How long a message waits behind the bytes that the sender's kernel holds for this pipe."""
        head = pipe.head
        if head is None or pipe.rate <= 0:
            return 0.0
        left = head.left - pipe.rate * (self._clock.now - pipe.at)
        return max(0.0, min(left, pipe.buffer)) / pipe.rate

    # -- time -------------------------------------------------------------------------------------------------------

    def _plan(self, pipe: Pipe) -> None:
        """Plan the head's next event, unless an earlier one is planned already."""
        head = pipe.head
        target = 0.0 if head.entered else pipe.buffer  # type: ignore[union-attr]
        left = head.left - target  # type: ignore[union-attr]
        when = pipe.at + left / pipe.rate if left > 0 else pipe.at
        now = self._clock.now
        if when < now:
            when = now
        if when < pipe.due:
            pipe.due = when
            self._clock.at(when, self._due, pipe, when)

    def _due(self, pipe: Pipe, when: float) -> None:
        if pipe.due != when:
            return
        pipe.due = NEVER
        head = pipe.head
        now = self._clock.now
        left = head.left = head.left - pipe.rate * (now - pipe.at)  # type: ignore[union-attr]
        pipe.at = now
        if left > BYTE:
            if not head.entered and left <= pipe.buffer + BYTE:  # type: ignore[union-attr]
                head.entered = True  # type: ignore[union-attr]
                self._plan(pipe)
                self._entered(pipe, head)  # type: ignore[arg-type]
            else:
                self._plan(pipe)
            return
        self._next(pipe)

    def _next(self, pipe: Pipe) -> None:
        """The head has arrived."""
        done = pipe.head
        assert done is not None
        for link in pipe.links:
            link.carried += done.size
        if pipe.queue:
            pipe.head = pipe.queue.popleft()
            self._began(pipe, pipe.head)
            self._plan(pipe)
        else:
            self._end(pipe)
        if not done.entered:
            done.entered = True
            self._entered(pipe, done)
        self._arrived(pipe, done)

    def _settle(self, pipe: Pipe) -> None:
        now = self._clock.now
        if pipe.head is not None and now > pipe.at:
            pipe.head.left = max(0.0, pipe.head.left - pipe.rate * (now - pipe.at))
        pipe.at = now

    def _penalize(self, pipe: Pipe, transfer: Transfer) -> None:
        """What slow start loses: the rounds until the window fills the line, in each of which half of it is unused."""
        rate = min(link.capacity / (len(link.flows) + 1) for link in pipe.links)
        rounds = log2(max(1.0, rate * pipe.rtt / (10 * SEGMENT)))
        transfer.left += rate * pipe.rtt * max(0.0, rounds - 1)

    # -- shares -----------------------------------------------------------------------------------------------------

    def _join(self, pipe: Pipe) -> None:
        rate = NEVER
        crowded = False
        for link in pipe.links:
            link.flows.append(pipe)
            link.weight += pipe.weight
            offer = link.capacity
            if len(link.flows) > 1:
                crowded = True
                offer = self._offer(link, 0.0, pipe.weight)
            if offer < rate:
                rate = offer
        pipe.rate = rate
        for link in pipe.links:
            link.used += rate
        if crowded:
            for link in pipe.links:
                if link.used > link.capacity * OVER and len(link.flows) > 1:
                    self._share(link)

    def _end(self, pipe: Pipe) -> None:
        pipe.head = None
        pipe.due = NEVER
        pipe.idle_since = self._clock.now
        rate = pipe.rate
        pipe.rate = 0.0
        for link in pipe.links:
            link.flows.remove(pipe)
            link.used = link.used - rate if link.flows else 0.0  # no drift of rounding
            link.weight = link.weight - pipe.weight if link.flows else 0.0
        for link in pipe.links:
            if link.flows:
                self._share(link)

    def _offer(self, link: Link, rate: float, weight: float) -> float:
        """What a link has for a flow that gets `rate` of it now: what is free, at least its share by weight."""
        count = len(link.flows)
        if count == 1:
            return link.capacity
        free = link.capacity - link.used + rate
        if count >= WIDE:  # who comes late gets little until the next sharing out, which is near
            return min(link.level, max(free, rate, 0.25 * link.capacity / count))
        fair = link.capacity * weight / link.weight
        return free if free > fair else fair

    def _share(self, link: Link) -> None:
        """Work out the shares at a link: who can't use a fair one at its other end leaves the rest to the others."""
        flows = link.flows
        count = len(flows)
        if count >= WIDE and not self._is_due(link):
            return
        wishes = []
        for pipe in flows:
            wish = NEVER
            rate = pipe.rate
            for other in pipe.links:
                if other is not link:
                    offer = other.capacity if len(other.flows) == 1 else self._offer(other, rate, pipe.weight)
                    if offer < wish:
                        wish = offer
            wishes.append(wish)
        if count == 1:
            wish = wishes[0]
            self._change(flows[0], wish if wish < link.capacity else link.capacity, link)
            return
        left, rest = link.capacity * (1.0 if count < WIDE else WIDE_FILL), link.weight
        rising = []
        order = wishes if not self._unfair else [wish / pipe.weight for pipe, wish in zip(flows, wishes, strict=True)]
        for place in sorted(range(count), key=order.__getitem__):
            pipe, wish = flows[place], wishes[place]
            fair = left * pipe.weight / rest if rest > pipe.weight else left
            share = wish if wish < fair else fair
            left -= share
            rest -= pipe.weight
            if share < pipe.rate:  # what goes down first, so that what goes up finds it
                self._change(pipe, share, link)
            elif share > pipe.rate:
                rising.append((pipe, share))
        link.level = max(link.capacity / count, share)
        for pipe, share in rising:
            self._change(pipe, share, link)

    def _is_due(self, link: Link) -> bool:
        link.changes += 1
        if link.used <= link.capacity and link.changes < 2 + WIDE_CHANGES * len(link.flows):
            return False
        link.changes = 0
        return True

    def _change(self, pipe: Pipe, rate: float, cause: Link) -> None:
        """Set a busy flow's rate; where that overbooks another of its links, the others there give way."""
        old = pipe.rate
        is_rise = rate > old
        if is_rise and rate < old * WORTH:
            return
        now = self._clock.now
        head = pipe.head
        head.left -= old * (now - pipe.at)  # type: ignore[union-attr]
        pipe.at = now
        pipe.rate = rate
        change = rate - old
        for link in pipe.links:
            link.used += change
        if is_rise:
            self._plan(pipe)
            for link in pipe.links:
                if link is not cause and link.used > link.capacity * OVER:
                    self._clip(link)

    def _clip(self, link: Link) -> None:
        """A link is overbooked: those above a fair share give way, and nobody gets more."""
        over = link.used - link.capacity
        fair = link.capacity / link.weight
        above = [(pipe, pipe.rate - fair * pipe.weight) for pipe in link.flows if pipe.rate > fair * pipe.weight]
        total = sum(excess for _, excess in above)
        for pipe, excess in above:
            self._change(pipe, pipe.rate - over * excess / total, link)
