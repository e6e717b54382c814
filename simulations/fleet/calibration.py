"""What the simulator is told of real daemons on one machine's limited links. Each number with what it stands for.

Found by measuring fleets with `p2pd-sim fleet` and asking which cost each difference was; see docs/simulator.md. They
hold for links that leave the machine idle time. Rates in bytes/s, sizes in bytes, times in seconds.
"""

from __future__ import annotations

# Of a link's rate: a full Ethernet frame of 1514 bytes carries 1448 of TCP's payload, and the acknowledgements of what
# comes the other way (66 bytes for two frames) share the link with them.
GOODPUT = 0.936

# One way, between two daemons: two event loops that take turns with all others on the same cores, and half of what is
# waiting in the link's queue on average.
LATENCY_S = 0.005

# What leaves a sender's hands before it is on the wire: the socket's buffer as the kernel lets it grow, and the queue
# in front of the link.
SEND_BUFFER = 256 * 1024

# A daemon's time for a piece beside hashing it: frames, the scheduler, a thread's hop, the write.
PIECE_COST_S = 0.004
CHECK_RATE = 500e6

# From a request to upstream to its first byte: the registry, and the front that counts before it.
UPSTREAM_DELAY_S = 0.02

SEEDS = range(1, 6)  # the prediction is the median of these runs
