"""What the simulator is told of real daemons on one machine's limited links. Each number with what it stands for.

Found by measuring fleets with `p2pd-sim fleet` and asking which cost each difference was; see docs/simulator.md. They
hold for links that leave the machine idle time. Rates in bytes/s, sizes in bytes, times in seconds.
"""

from __future__ import annotations

# Of a link's rate: a full Ethernet frame of 1514 bytes carries 1448 of TCP's payload, and the acknowledgements of what
# comes the other way (66 bytes for two frames) share the link with them.
GOODPUT = 0.936

# One way, between two daemons: the queue in front of the sender's link and the one in front of the receiver's, each of
# up to 50 ms (`simulations.lab.netns.QUEUE_S`) and somewhat filled, and two event loops.
LATENCY_S = 0.02

# What leaves a daemon's hands before it is on the wire, for each connection: what it lets the kernel hold unsent
# (`p2pd.peers.transport.UNSENT_LEAST`).
SEND_BUFFER = 64 * 1024

# How unequally flows share a line: with equal shares the prediction was 3 % too good at p50 (15 Mbit/s, 32 and 128
# MiB), and knew nothing of an estimate that unequal ones had made twice too high.
UNFAIR = 0.5

# A daemon's time for a piece beside hashing it: frames, the scheduler, a thread's hop, the write, and its turn on cores
# that all daemons share.
PIECE_COST_S = 0.01
CHECK_RATE = 500e6

# The first pull of a daemon, until it has the manifest: an HTTP client, a token, a connection to each neighbour.
# Seconds of CPU of each node, on all cores; the simulated hops of the manifest itself come on top.
FIRST_PULL_CPU_S = 0.03

# From a request to upstream to its first byte: the registry, and the front that counts before it.
UPSTREAM_DELAY_S = 0.02

SEEDS = range(1, 6)  # the prediction is the median of these runs
