"""What is counted while a world runs. `results` makes figures of it."""

from __future__ import annotations

from collections.abc import Callable

TIME_BINS = 160  # of the heat map and the curves
PIECE_BINS = 120


class Records:
    """Counts; with `span_s` also how pieces and rates went over time, in bins that widen if the run takes longer."""

    def __init__(
        self, span_s: float = 0.0, pieces: int = 1, on_progress: Callable[[float, int], None] | None = None
    ) -> None:
        self.transfers = 0  # pieces that came from peers and held
        self.rejected = 0
        self.protocol_errors = 0
        self.blamed = 0
        self.convicted = 0  # signers of false links, by evidence
        self.given_up = 0  # layers that the core called impossible
        self.stalled = 0  # clients that waited too long
        self.duplicate = 0.0  # bytes that came for nothing
        self.cross_zone = 0.0  # bytes
        self.deaths = 0
        self.restarts = 0
        self.counts: dict[str, int] = {}
        self.on_progress = on_progress
        self.interval_s = span_s / TIME_BINS
        self.heat = [[0] * PIECE_BINS for _ in range(TIME_BINS)] if span_s else []
        # seconds, bytes/s of all nodes, shares of uplinks and of downlinks that are busy, use of upstream's line,
        # and of the busiest zone's
        self.rates: list[tuple[float, float, float, float, float, float]] = []
        self._pieces = pieces

    def piece(self, seconds: float, number: int) -> None:
        """A node keeps piece `number` of the image."""
        if self.interval_s:
            place = int(seconds / self.interval_s)
            while place >= TIME_BINS:
                self._widen()
                place //= 2
            self.heat[place][number * PIECE_BINS // self._pieces] += 1

    def _widen(self) -> None:
        """Twice the time in the same number of bins."""
        pairs = zip(self.heat[::2], self.heat[1::2], strict=True)
        self.heat = [[a + b for a, b in zip(one, two, strict=True)] for one, two in pairs]
        self.heat += [[0] * PIECE_BINS for _ in range(TIME_BINS - len(self.heat))]
        self.interval_s *= 2
