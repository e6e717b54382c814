"""The body of one blob on its way in: from the first byte asked for to the last, or an error.

May know this package's errors, limit and transport.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.ratelimit import RateLimit
from p2pd.upstream.errors import BadAnswer
from p2pd.upstream.transport import Answer


@dataclass(frozen=True, slots=True)
class Opened:
    """What the headers said: the blob's whole size and the offset of the first byte to come, both in bytes."""

    size: int
    start: int
    media_type: str | None


class BlobStream:
    """Bytes `opened.start` to the end that was asked for of a blob, unchecked: whoever receives them hashes them."""

    def __init__(self, answer: Answer, opened: Opened, skip: int, end: int, limit: RateLimit, what: str) -> None:
        """`skip`: bytes of the body before `opened.start`, sent by a registry that does not know ranges; `end`: where
        the body ends in the blob."""
        self.opened = opened
        self.received = 0  # bytes that upstream sent, those that were skipped too
        self._answer = answer
        self._skip = skip
        self._left = end - opened.start
        self._end = end
        self._limit = limit
        self._what = what

    async def receive_into(self, buffer: memoryview) -> int:
        """The next bytes, as they come, into `buffer`: their number, 0 at the true end.

        Unreachable if the connection breaks or is silent, BadAnswer if there are fewer or more bytes than the headers
        said. Cancelling it breaks the stream; what came before is not lost: open another one behind it.
        """
        while True:
            await self._limit.ready()
            count = await self._answer.receive_into(buffer)
            if not count:
                if self._left or self._skip:
                    raise BadAnswer(f"{self._what}: the body ended {self._left} bytes short of {self._end}")
                return 0
            self._limit.spend(count)
            self.received += count
            if self._skip:
                skipped = min(self._skip, count)
                self._skip -= skipped
                count -= skipped
                buffer[:count] = buffer[skipped : skipped + count]
            if count > self._left:
                raise BadAnswer(f"{self._what}: the body goes on after {self._end} bytes")
            self._left -= count
            if count:
                return count
