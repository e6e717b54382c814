"""Who a node is: its key, its certificate, the fleet's CAs; and how those are made."""

from p2pd.fleet.identity import FleetError, FleetFiles, Identity
from p2pd.fleet.keys import NodeKey, public_bytes, verify
from p2pd.fleet.membership import Membership

__all__ = ["FleetError", "FleetFiles", "Identity", "Membership", "NodeKey", "public_bytes", "verify"]
