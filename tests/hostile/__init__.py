"""Hostile nodes: p2pd's real daemon (or tracker) with one part replaced each, and what a fleet does about them.

python -m tests.hostile LIE[,LIE...] p2pd run --config FILE      one hostile daemon
python -m tests.hostile LIE p2pd-tracker run --listen ADDRESS    a hostile tracker
python -m tests.hostile.matrix                                   every case, as a table (`make hostile`)
"""
