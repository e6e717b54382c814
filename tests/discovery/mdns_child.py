"""A process that test_mdns.py runs in a network namespace: prints its view as one JSON line whenever it changes.

Arguments: number of the node, host to announce, interface ("" for all), fleet, ttl in seconds. SIGTERM: an orderly end.
"""

from __future__ import annotations

import json
import signal
import sys

import trio

from p2pd.discovery.mdns import Found, run_mdns


def show(view: tuple[Found, ...]) -> None:
    lines = [[found.node_id.hex(), found.host, found.port, found.name, found.zone] for found in view]
    print(json.dumps(lines), flush=True)


async def main() -> None:
    number, host, interface, fleet, ttl = sys.argv[1:]
    me = Found(bytes([int(number)]) * 20, host, 9000 + int(number), f"node {number}", "rack 7")
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_mdns(me, [interface] if interface else None, fleet, show, ttl_s=int(ttl)))
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
