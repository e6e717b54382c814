"""Who a node is: its signing key, and what its signature covers."""

from p2pd.fleet.keys import NodeKey, verify

__all__ = ["NodeKey", "verify"]
