"""`simulations.lab.cpu`, under the name that tests use."""

from simulations.lab.cpu import Busy, anonymous_bytes, cpu_seconds, resident_bytes

__all__ = ["Busy", "anonymous_bytes", "cpu_seconds", "resident_bytes"]
