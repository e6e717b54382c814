"""The swarm's logic: pieces, choosing, leases, vouchers' rules, wire messages, the node-wide scheduler.

No I/O, no clock, no global randomness: time is an argument, randomness a `random.Random`, cryptography a function that
is handed in. The daemon drives it with trio; the simulator drives it with a virtual clock. Imports of p2pd: none
outside this package. A test over the syntax tree keeps it so.
"""
