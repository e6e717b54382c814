"""How often one address may call: TLS's handshake costs a stranger a packet, and this side a signature.

Pure; `now` is an argument. Only for a node: to a tracker a whole fleet may come back at once, from behind one address.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

CALLS_PER_S = 20.0  # of one address; a fleet's node calls another one a few times an hour
CALLS_BURST = 64  # at once: all of the nodes behind one address, as many as are let in
CALLERS_MAX = 4096  # addresses remembered, the one that called last the longest ago goes first
IPV6_PREFIX = 64  # of an IPv6 address: what one owner has at the least


class Callers:
    """Who called when."""

    def __init__(self) -> None:
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def may_call(self, host: str, now: float) -> bool:
        """Count a call; False for one too many, which is not counted."""
        owner = _owner(host)
        rested = now - CALLS_BURST / CALLS_PER_S
        paid = max(self._paid_until.get(owner, rested), rested) + 1 / CALLS_PER_S
        if paid > now:
            return False
        self._paid_until[owner] = paid
        self._paid_until.move_to_end(owner)
        if len(self._paid_until) > CALLERS_MAX:
            self._paid_until.popitem(last=False)
        return True


def _owner(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
    return host
