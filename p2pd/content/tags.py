"""What a tag is now: upstream's own word, asked for by HEAD, remembered for a moment.

Each node asks for itself: a registry's HEAD is not counted as a pull. May know p2pd.upstream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import trio

from p2pd.oci import Descriptor
from p2pd.upstream import UpstreamError, Upstreams

LIFETIME_S = 5.0  # a rollout's pods start within seconds of one another; an operator who retags waits no longer
TAGS_MAX = 4096


class Tags:
    """Answers for (upstream, repository, tag)."""

    def __init__(self, upstreams: Upstreams, clock: Callable[[], float] = trio.current_time) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], tuple[float, Descriptor]] = OrderedDict()

    async def resolve(self, upstream: str, repository: str, tag: str) -> Descriptor:
        """The descriptor; UpstreamError if upstream does not say. Requests for one tag share one HEAD."""
        key = (upstream, repository, tag)
        known = self._known.get(key)
        if known and known[0] > self._clock():
            return known[1]
        try:
            descriptor = await self._upstreams.get(upstream).resolve(repository, tag)
        except UpstreamError:
            self._known.pop(key, None)
            raise
        self._known[key] = (self._clock() + LIFETIME_S, descriptor)
        while len(self._known) > TAGS_MAX:
            self._known.popitem(last=False)
        return descriptor
