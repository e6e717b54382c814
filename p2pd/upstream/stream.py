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
        self._rest = b""

    async def receive_some(self, limit: int = 1 << 20) -> bytes:
        """The next bytes, at most `limit`, as they come; b"" at the true end.

        Unreachable if the connection breaks or is silent, BadAnswer if there are fewer or more bytes than the headers
        said. Cancelling it breaks the stream; what came before is not lost: open another one behind it.
        """
        while not self._rest:
            await self._limit.ready()
            chunk = await self._answer.receive_some()
            if not chunk:
                if self._left or self._skip:
                    raise BadAnswer(f"{self._what}: the body ended {self._left} bytes short of {self._end}")
                return b""
            self._limit.spend(len(chunk))
            self.received += len(chunk)
            if self._skip:
                skipped = min(self._skip, len(chunk))
                self._skip -= skipped
                chunk = chunk[skipped:]
            if len(chunk) > self._left:
                raise BadAnswer(f"{self._what}: the body goes on after {self._end} bytes")
            self._left -= len(chunk)
            self._rest = chunk
        chunk, self._rest = self._rest[:limit], self._rest[limit:]
        return chunk
