"""What a model is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Case:
    """`nodes` on links of `link` bytes/s each way pull `layers` (bytes) from an `upstream` of so many bytes/s.

    `pieces`: into how many pieces of one size the whole image is cut, for the models that know pieces.
    """

    nodes: int
    link: float
    upstream: float
    layers: tuple[int, ...]
    pieces: int
    seed: int = 1

    @property
    def size(self) -> int:
        """The image's bytes."""
        return sum(self.layers)

    @property
    def round_s(self) -> float:
        """Seconds of a round: one piece over one link."""
        return self.size / self.pieces / self.link

    def arrives(self, piece: int) -> int:
        """The round in which upstream's stream of all pieces in order has sent this one; rounds count from 1."""
        pace = max(1.0, self.link / self.upstream)
        return ceil((piece + 1) * pace - 1e-9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of each node, in ascending order; `rounds` where the model counts them, -1 where it does not."""

    name: str
    seconds: Sequence[float]
    upstream_copies: float
    rounds: int = -1
