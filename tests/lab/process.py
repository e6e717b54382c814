"""`simulations.lab.process`, under the name that tests use."""

from simulations.lab.process import LabError, Process, environment, free_port, run, wait_until

__all__ = ["LabError", "Process", "environment", "free_port", "run", "wait_until"]
