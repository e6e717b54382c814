"""Connections between nodes, and from a node to trackers: handshake, frames, piece bytes.

Not the decisions: those are `p2pd.swarm`'s. May know p2pd.swarm, p2pd.hashing, p2pd.filesend; never the mirror, the
upstreams or the store (files are handed in).
"""
