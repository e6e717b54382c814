"""`simulations.lab.nodes`, under the name that tests use."""

from simulations.lab.nodes import BIN, Answer, Metrics, Node, Tracker, http_get

__all__ = ["BIN", "Answer", "Metrics", "Node", "Tracker", "http_get"]
