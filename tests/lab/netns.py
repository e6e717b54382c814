"""`simulations.lab.netns`, under the name that tests use."""

from simulations.lab.netns import CONGESTION_CONTROL, NAMESPACES, Fabric, Link, Member, remove_leftovers, socket_in

__all__ = ["CONGESTION_CONTROL", "NAMESPACES", "Fabric", "Link", "Member", "remove_leftovers", "socket_in"]
