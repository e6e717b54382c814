"""A client on a raw socket, which sees what an HTTP library hides: when bytes come, whether FIN or RST ends them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import trio

ANSWER_WITHIN_S = 5.0  # far more than any answer takes here; a hang fails the test instead of the suite


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds, which the mirror's tasks bring about by and by."""
    for _ in range(int(ANSWER_WITHIN_S / 0.01)):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it never came about")


@dataclass(frozen=True)
class Head:
    status: int
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error_code(self) -> str:
        return json.loads(self.body)["errors"][0]["code"]

    @property
    def error_message(self) -> str:
        return json.loads(self.body)["errors"][0]["message"]


class Wire:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(self, target: str, *, method: str = "GET", headers: str = "", host: str = "127.0.0.1:9580") -> None:
        await self.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())

    async def head(self) -> Head:
        with trio.fail_after(ANSWER_WITHIN_S):
            while b"\r\n\r\n" not in self.buffer:
                data = await self.stream.receive_some(65536)
                assert data, f"the connection ended in the head: {self.buffer!r}"
                self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0].startswith("HTTP/1.1 ")
        headers = [line.split(": ", 1) for line in lines[1:]]
        assert len({name.lower() for name, _ in headers}) == len(headers), f"a header is repeated: {lines}"
        return Head(int(lines[0].split()[1]), {name.lower(): value for name, value in headers})

    async def exactly(self, count: int) -> bytes:
        with trio.fail_after(ANSWER_WITHIN_S):
            while len(self.buffer) < count:
                data = await self.stream.receive_some(1 << 20)
                assert data, f"the connection ended {count - len(self.buffer)} bytes early"
                self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def answer(self, *, to_head: bool = False) -> Answer:
        head = await self.head()
        body = b"" if to_head else await self.exactly(int(head.headers["content-length"]))
        return Answer(head.status, head.headers, body)

    async def rest(self) -> bytes:
        """All that comes until FIN. trio.BrokenResourceError if it is RST that comes."""
        with trio.fail_after(ANSWER_WITHIN_S):
            while data := await self.stream.receive_some(1 << 20):
                self.buffer += data
        data, self.buffer = self.buffer, b""
        return data
