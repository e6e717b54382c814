"""p2pd: one upstream pull for the whole fleet.

A daemon on each node that is the registry mirror of that node's containerd. Arrows between the parts run one way:
cli -> daemon -> (mirror, peers, discovery, upstream, store, admin) -> swarm. `tracker` and `simulations` use
`p2pd.swarm` and the wire; nothing here imports them.
"""

__version__ = "0.1.0"
