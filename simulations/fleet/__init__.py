"""The real daemons on limited links, on one machine: what the swarm does, beside what the simulator says it would do.

Not a model: real p2pd processes, a real registry, real TCP. May know `simulations.lab` and, for the prediction, the
simulator; nothing of p2pd but its commands, its metrics, its units and how a blob is cut.
"""

from simulations.fleet.command import fleet
from simulations.fleet.measure import Fleet, FleetRun, measure
from simulations.fleet.plan import FleetPlan, PlanError, bound

__all__ = ["Fleet", "FleetPlan", "FleetRun", "PlanError", "bound", "fleet", "measure"]
