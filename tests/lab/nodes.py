"""`simulations.lab.nodes`, under the name that tests use."""

from simulations.lab.nodes import Answer, Metrics, Node, Tracker, http_get

__all__ = ["Answer", "Metrics", "Node", "Tracker", "http_get"]
