"""Other ways to bring an image to many nodes, as models to compare with. None of them is anybody's product.

All start at once, with equal links; there is no latency, no cost of a piece, no loss: each model is kinder to its
subject than the world would be. They know `case` and nothing of p2pd or of the simulator.
"""

from simulations.models.case import Case, Outcome
from simulations.models.direct import direct
from simulations.models.hypercube import hypercube, hypercube_rounds
from simulations.models.layerwise import layerwise
from simulations.models.rarest import rarest_first

__all__ = ["Case", "Outcome", "direct", "hypercube", "hypercube_rounds", "layerwise", "rarest_first"]
